"""From a run to a bundle: graphs, checked against the trained networks, then the folder.

    encoder    x            -> coordinates -> f -> latent, choice
    mappers    u, w         -> cluster selection -> g_choice(w) -> latent, choice
    decoder    latent, z    -> stack -> inverse coordinates -> x
    generator  u, w, z      -> mappers, then decoder -> x
    sampler    seed, index  -> counter-based noise, then generator -> x

Every module writes its own graph (`graph`); here they are composed. A graph leaves only if
onnxruntime computes the same numbers from it as the networks do. Without decoder noise no graph
has an input z.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scgan_infer import bundle
from scgan_infer.bundle import GRID, Manifest
from scgan_infer.columns import Column
from scgan_infer.errors import ParityError
from scgan_infer.judging.distances import Space, c2st
from scgan_infer.sampling.sessions import session
from scgan_infer.sampling.verify import FLIPS, TOLERANCE, differences
from scgan_train.clusters import Assign
from scgan_train.coordinates import Coordinates
from scgan_train.decoder import Decoder
from scgan_train.encoder import Encoder
from scgan_train.exporting.card import card, preview
from scgan_train.exporting.sampler import noise
from scgan_train.graph import Var, argument, model
from scgan_train.head import LatentModel
from scgan_train.training.guards import quality_warnings
from scgan_train.training.loop import generator_for
from scgan_train.training.run import Run

BATCHES = (1, 2, 7, 4096)
# a graph may differ by so many times the network's own rounding, where a steep map makes it large
ROUNDING = 4
STORED = 8  # rows that the manifest keeps, to be replayed

Array = NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Parts:
    """The trained networks of a run, as functions of arrays and as graphs."""

    columns: tuple[Column, ...]
    coordinates: Coordinates
    encoder: Encoder
    assign: Assign
    latents: LatentModel
    decode: Decoder

    @classmethod
    def of(cls, run: Run) -> Parts:
        """Read the parts of a finished run.

        Raises:
            ModelError: the run is not finished or is damaged.
        """
        coordinates, (clusters, _) = run.load_coordinates(), run.load_clusters()
        encoder, latents = run.load_encoder(coordinates.dims), run.load_mapper(clusters)
        assign, decoder = Assign(clusters), run.load_decoder()
        return cls(run.columns, coordinates, encoder, assign, latents, decoder)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of a bundle, as its manifest has them."""
        return {
            "d": len(self.columns),
            "e": self.encoder.latent_dim,
            "m": self.latents.noise,
            "q": self.decode.noise,
            "K": len(self.latents.thresholds),
            "h": 1,
            "g": 0,
        }

    def double(self) -> Parts:
        """Return the same networks in double precision."""
        return replace(
            self,
            encoder=copy.deepcopy(self.encoder).double(),
            assign=copy.deepcopy(self.assign).double(),
            latents=copy.deepcopy(self.latents).double(),
            decode=copy.deepcopy(self.decode).double(),
        )

    @torch.no_grad()
    def compute(self, name: str, inputs: Arrays) -> Arrays:
        """Return what the networks compute for a graph's inputs, in the inputs' precision."""
        wide = any(value.dtype == np.float64 for value in inputs.values())
        parts = self.double() if wide else self
        tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
        if name == "encoder.onnx":
            latent = parts.encoder(torch.from_numpy(self.coordinates.forward(inputs["x"])))
            return {"latent": latent.numpy(), "choice": parts.assign(latent).numpy()}
        if name == "decoder.onnx":
            latent = tensors["latent"]
        else:
            latent, choice = parts.latents(tensors["u"], tensors["w"])
        if name == "mappers.onnx":
            return {"latent": latent.numpy(), "choice": choice.numpy()}
        return {"x": self.coordinates.inverse(parts.decode(latent, tensors.get("z")).numpy())}

    def graphs(self) -> Iterator[tuple[str, dict[str, Var], dict[str, Var]]]:
        """Yield each graph's file name, inputs and outputs."""
        sizes = self.sizes
        z = {"z": argument(("n", sizes["q"]))} if sizes["q"] else {}

        x = argument(("n", sizes["d"]))
        latent = self.encoder.graph(self.coordinates.graph_forward(x))
        yield (
            "encoder.onnx",
            {"x": x},
            {"latent": latent, "choice": self.assign.graph(latent)},
        )
        u, w = argument(("n",)), argument(("n", sizes["m"]))
        latent, choice = self.latents.graph(u, w)
        yield "mappers.onnx", {"u": u, "w": w}, {"latent": latent, "choice": choice}
        generated = self._decoded(latent, z.get("z"))
        yield "generator.onnx", {"u": u, "w": w, **z}, {"x": generated}
        latent = argument(("n", sizes["e"]))
        yield "decoder.onnx", {"latent": latent, **z}, {"x": self._decoded(latent, z.get("z"))}
        seed, index = argument((1,), np.int64), argument(("n",), np.int64)
        u, w, own_z = noise(seed, index, sizes["m"], sizes["q"])
        sampled = self._decoded(self.latents.graph(u, w)[0], own_z)
        yield "sampler.onnx", {"seed": seed, "index": index}, {"x": sampled}

    def _decoded(self, latent: Var, z: Var | None) -> Var:
        y = self.decode.graph(latent, z, (self.coordinates.scale, self.coordinates.shift))
        return self.coordinates.graph_rows(y)


def build(parts: Parts) -> dict[str, bytes]:
    """Return the graphs of a bundle by file name."""
    return {name: model(inputs, outputs) for name, inputs, outputs in parts.graphs()}


def export(run: Run, path: Path) -> Path:
    """Write a finished run as a bundle; an older bundle there is replaced.

    Raises:
        ModelError: the run is not finished or is damaged.
        ParityError: a graph differs from its network; nothing is written.
        DataError: the folder can't be written.
    """
    parts, rows = Parts.of(run), run.load_held_out()
    graphs = build(parts)
    errors = parities(parts, graphs, rows, generator_for(run.config.seed, "parity"))
    sampler = session(graphs["sampler.onnx"], "cpu")
    index = np.arange(len(rows), dtype=np.int64)
    generated = sampler.run(None, {"seed": np.zeros(1, np.int64), "index": index})[0]
    latent = session(graphs["encoder.onnx"], "cpu").run(None, {"x": rows})[0]
    z = {"z": np.zeros((len(rows), parts.decode.noise), np.float32)} if parts.decode.noise else {}
    restored = session(graphs["decoder.onnx"], "cpu").run(None, {"latent": latent, **z})[0]
    figures = held_out(rows, generated, restored, run.columns)
    notes = [*run.facts.get("notes", []), *quality_warnings(figures)]
    manifest = Manifest(
        name=run.path.name,
        columns=run.columns,
        sizes=parts.sizes,
        latents=run.config.latents,
        mapper=run.facts.get("map", ""),
        thresholds=tuple(parts.latents.thresholds.tolist()),
        files={},
        provenance=_provenance(run),
        metrics={**figures, "notes": notes} if notes else figures,
        parity={
            "errors": errors,
            "seed": 0,
            "index": index[:STORED].tolist(),
            "x": generated[:STORED].tolist(),
        },
    )
    extras = {
        "preview.png": preview(rows, generated, run.columns, run.path.name),
        "card.md": card(manifest).encode(),
    }
    return bundle.save(path, manifest, graphs, extras)


def held_out(
    rows: Array, generated: Array, restored: Array, columns: tuple[Column, ...]
) -> dict[str, float]:
    """Return the figures that travel with the bundle, on held-out rows [n, d]."""
    space = Space.fit(rows.astype(np.float64), columns)
    placed, again = (space.place(part.astype(np.float64)) for part in (rows, restored))
    figures = {"mse": float(np.mean((again - placed) ** 2)), "rows": float(len(rows))}
    if len(rows) >= 200:
        figures["c2st"] = c2st(placed, space.place(generated.astype(np.float64)))
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _provenance(run: Run) -> dict[str, Any]:
    return {
        "scgan": version("scgan"),
        "torch": str(torch.__version__),
        "source": Path(run.source).name,
        "rows": run.facts["rows"],
        "sha256": run.facts["sha256"],
        "clusters": run.facts["clusters"],
        "decoder_width": run.facts["width"],
        "config": plain(asdict(run.config)),
    }


def parities(
    parts: Parts, graphs: Mapping[str, bytes], rows: Array, generator: torch.Generator
) -> dict[str, float]:
    """Return each graph's largest difference from its network; raises as `parity`."""
    inputs = _inputs(parts, rows, generator)
    errors = {}
    for name, takes, gives in parts.graphs():
        if name != "sampler.onnx":
            own = {key: inputs[key] for key in takes}
            compute = partial(parts.compute, name)
            columns = parts.columns if "x" in gives else ()
            errors[name] = parity(name, compute, graphs[name], own, columns)
    return errors


def parity(
    name: str,
    compute: Callable[[Arrays], Arrays],
    graph: bytes,
    inputs: Arrays,
    columns: tuple[Column, ...] = (),
) -> float:
    """Return the largest difference of a graph from its network, in the outputs' spreads.

    Clusters may differ in one row of a thousand, where a tie falls either way.

    Args:
        name: the graph's file name.
        compute: the network, in the precision of its inputs.
        graph: the graph's bytes.
        inputs: 4096 rows of each input.
        columns: those of the output, if it is rows.

    Raises:
        ParityError: a difference exceeds `TOLERANCE` and, `ROUNDING` times, what the network
            itself differs by from its double precision.
    """
    wanted, run, worst = compute(inputs), session(graph, "cpu").run, 0.0
    for batch in BATCHES:
        found = run(None, {key: value[-batch:] for key, value in inputs.items()})
        for (output, ours), theirs in zip(wanted.items(), found, strict=True):
            error = difference(ours[-batch:], theirs, columns, ours.std(0))
            if not error <= TOLERANCE:
                wide = {key: value.astype(np.float64) for key, value in inputs.items()}
                exact = compute(wide)[output]
                if not error <= ROUNDING * difference(exact, ours, columns, ours.std(0)):
                    raise ParityError(
                        f"{name}, batch {batch}: {output} differs from torch by {error:.2g} of "
                        f"its spread (at most {TOLERANCE:g} is allowed); nothing was written; "
                        "train again with another seed and report it"
                    )
            worst = max(worst, error)
    return float(f"{worst:.3g}")


def difference(ours: Array, theirs: Array, columns: tuple[Column, ...], spread: Array) -> float:
    """Return the largest difference of two outputs, [n] or [n, d], in spreads [d].

    >>> difference(np.zeros((4, 1)), np.zeros((4, 1)), (), np.ones(1))
    0.0
    """
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return float("inf")
    if ours.dtype.kind == "i":
        return 0.0 if (ours != theirs).mean() <= FLIPS else 1.0
    columns = columns or (Column("latent"),) * ours.shape[1]
    return float(differences(ours, theirs, columns, spread).max())


def _inputs(parts: Parts, rows: Array, generator: torch.Generator) -> Arrays:
    """Return 4096 rows of every graph input: half real, half random."""
    n, sizes = max(BATCHES), parts.sizes
    real = rows[np.arange(n // 2) % len(rows)]
    shuffled = torch.randperm(len(real), generator=generator).numpy()
    y = parts.coordinates.forward(real)
    latents = parts.compute("encoder.onnx", {"x": real})["latent"]
    mixed = 0.5 * (latents + latents[shuffled])
    u = torch.randint(GRID, (n,), generator=generator).float() / GRID
    return {
        "x": np.concatenate([real, parts.coordinates.inverse(y[shuffled])]),
        "latent": np.concatenate([latents, mixed]),
        "u": u.numpy(),
        "w": torch.randn(n, sizes["m"], generator=generator).numpy(),
        "z": torch.randn(n, sizes["q"], generator=generator).numpy(),
    }


def plain(value: object) -> object:
    """Return nested settings with tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
