"""From a run to a bundle: five ONNX graphs, checked against the trained networks, then the folder.

    encoder    x            -> transform -> f -> latent, choice
    mappers    u, w         -> cluster selection -> g_choice(w) -> latent, choice
    decoder    latent, z    -> stack -> inverse transform -> x
    generator  u, w, z      -> mappers, then decoder -> x
    sampler    seed, index  -> counter-based noise, then generator -> x

A graph leaves here only if onnxruntime computes the same numbers from it as torch does from the networks; it is made
from their folded form.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnx.inliner
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scgan_infer import bundle
from scgan_infer.bundle import GRID, Manifest
from scgan_infer.columns import Column
from scgan_infer.errors import ParityError
from scgan_infer.judging.distances import Space, c2st
from scgan_infer.sampling.sessions import session
from scgan_infer.sampling.verify import FLIPS, TOLERANCE, differences
from scgan_train.clusters import Assign
from scgan_train.decoder import Decoder
from scgan_train.exporting.card import card, preview
from scgan_train.exporting.folded import FoldedDecoder
from scgan_train.exporting.sampler import sampler
from scgan_train.graph import argument, model
from scgan_train.head import LatentModel
from scgan_train.training.guards import judged
from scgan_train.training.loop import generator_for
from scgan_train.training.run import Run
from scgan_train.transform import Transform

OPSET = 18
IR = 8
BATCHES = (1, 2, 7, 4096)
ROUNDING = 4  # times the network's own rounding that a graph may differ by, where a map is so steep that this is more
LEAST_ROWS = 200


class EncoderGraph(nn.Module):
    """x [n, d] to latent [n, e] and cluster [n]."""

    def __init__(self, transform: Transform, encoder: nn.Module, assign: nn.Module) -> None:
        super().__init__()
        self.transform, self.encoder, self.assign = transform, encoder, assign

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents and clusters."""
        latent = self.encoder(self.transform(x))
        return latent, self.assign(latent)


class DecoderGraph(nn.Module):
    """latent [n, e] and z [n, q] to x [n, d]."""

    def __init__(self, transform: Transform, decoder: Decoder) -> None:
        super().__init__()
        self.transform, self.decoder = transform, decoder

    def forward(self, latent: Tensor, z: Tensor) -> Tensor:
        """Return rows."""
        return self.transform.inverse(self.decoder(latent, z))


class GeneratorGraph(nn.Module):
    """u [n], w [n, m], z [n, q] to x [n, d]."""

    def __init__(self, latents: LatentModel, decode: nn.Module) -> None:
        super().__init__()
        self.latents, self.decode = latents, decode

    def forward(self, u: Tensor, w: Tensor, z: Tensor) -> Tensor:
        """Return rows."""
        x: Tensor = self.decode(self.latents(u, w)[0], z)
        return x


def export(run: Run, path: Path) -> Path:
    """Write a finished run as a bundle.

    Args:
        run: a finished run.
        path: the folder to make; an older bundle there is replaced.

    Returns:
        The bundle's folder.

    Raises:
        ModelError: the run is not finished or is damaged.
        ParityError: a graph differs from its network; nothing is written.
        DataError: the folder can't be written.
    """
    transform = run.load_transform()
    clusters, _ = run.load_clusters()
    latents = run.load_mapper(clusters)
    encoder = run.load_encoder(transform.dims)
    decoder = run.load_decoder(encoder.latent_dim, transform.dims)
    held_out = run.load_held_out()
    sizes = {
        "d": len(run.columns),
        "e": encoder.latent_dim,
        "m": latents.noise,
        "q": decoder.noise if _has_noise(decoder) else 0,
        "K": len(clusters),
        "h": 1,
        "g": 0,
    }
    decode = DecoderGraph(transform, decoder)
    modules: dict[str, tuple[nn.Module, tuple[str, ...], tuple[str, ...]]] = {
        "encoder.onnx": (
            EncoderGraph(transform, encoder, Assign(clusters)),
            ("x",),
            ("latent", "choice"),
        ),
        "mappers.onnx": (latents, ("u", "w"), ("latent", "choice")),
        "decoder.onnx": (decode, ("latent", "z"), ("x",)),
        "generator.onnx": (GeneratorGraph(latents, decode), ("u", "w", "z"), ("x",)),
    }
    lighter = {"decoder.onnx": FoldedDecoder(decoder, transform)}
    generator = generator_for(run.config.seed, "parity")
    inputs = _inputs(held_out, encoder, transform, sizes["m"], decoder.noise, generator)
    graphs: dict[str, bytes] = {}
    errors: dict[str, float] = {}
    for name, (module, takes, gives) in modules.items():
        module.eval()
        if name == "mappers.onnx":
            graphs[name] = _mappers(latents)
        elif name == "generator.onnx":
            graphs[name] = joined(graphs["mappers.onnx"], graphs["decoder.onnx"])
        else:
            graphs[name] = to_onnx(
                lighter.get(name, module), {key: inputs[key] for key in takes}, gives
            )
        errors[name] = parity(
            name, module, graphs[name], {key: inputs[key] for key in takes}, gives, run.columns
        )
    graphs["sampler.onnx"] = sampler(graphs["generator.onnx"], sizes["m"], sizes["q"])
    samples = session(graphs["sampler.onnx"], "cpu")
    made = samples.run(
        None, {"seed": np.zeros(1, np.int64), "index": np.arange(len(held_out), dtype=np.int64)}
    )[0]
    feeds = {"latent": session(graphs["encoder.onnx"], "cpu").run(["latent"], {"x": held_out})[0]}
    if sizes["q"]:
        feeds["z"] = np.zeros((len(held_out), sizes["q"]), np.float32)
    again = session(graphs["decoder.onnx"], "cpu").run(["x"], feeds)[0]
    figures = _figures(held_out, made, again, run.columns)
    notes = [*run.facts.get("notes", []), *judged(figures)]
    provenance = {
        "scgan": version("scgan"),
        "torch": str(torch.__version__),
        "source": Path(run.source).name,
        "rows": run.facts["rows"],
        "sha256": run.facts["sha256"],
        "clusters": run.facts["clusters"],
        "config": _plain(asdict(run.config)),
    }
    manifest = Manifest(
        name=run.path.name,
        columns=run.columns,
        sizes=sizes,
        latents=run.config.latents,
        mapper=run.facts.get("map", ""),
        thresholds=tuple(latents.thresholds.tolist()),
        files={},
        provenance=provenance,
        metrics={**figures, "notes": notes} if notes else figures,
        parity={"errors": errors, "seed": 0, "index": list(range(8)), "x": made[:8].tolist()},
    )
    extras = {
        "preview.png": preview(held_out, made, run.columns, run.path.name),
        "card.md": card(manifest).encode(),
    }
    return bundle.save(path, manifest, graphs, extras)


def _has_noise(decoder: Decoder) -> bool:
    """Return whether any noise moves the decoder, as none does where its importances were not trained."""
    return any(part.get_parameter("importance").any() for part in decoder.subspaces)


def _mappers(latents: LatentModel) -> bytes:
    u, w = argument(("n",)), argument(("n", latents.noise))
    latent, choice = latents.graph(u, w)
    return model({"u": u, "w": w}, {"latent": latent, "choice": choice})


def to_onnx(module: nn.Module, inputs: dict[str, Tensor], outputs: tuple[str, ...]) -> bytes:
    """Return a module as one ONNX model: opset 18, IR 8, batch dynamic, nothing of this machine inside.

    Args:
        module: takes the inputs in their order.
        inputs: an example of each, batch first, at least two rows.
        outputs: their names.

    Raises:
        ParityError: the ONNX checker refuses the model.
    """
    example = tuple(tensor[:4] for tensor in inputs.values())
    shapes = {key: {0: torch.export.Dim("n")} for key in inputs}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            example,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamic_shapes=tuple(shapes.values()),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return _plain_model(onnx.inliner.inline_local_functions(program.model_proto))


def joined(mappers: bytes, decoder: bytes) -> bytes:
    """Return generator.onnx: the decoder behind the mappers, whose cluster nobody asks for.

    Raises:
        ParityError: the ONNX checker refuses the model.
    """
    first, second = map(onnx.load_model_from_string, (mappers, decoder))
    second = onnx.compose.add_prefix(second, "decoder/", rename_inputs=False, rename_outputs=False)
    return _plain_model(
        onnx.compose.merge_models(first, second, io_map=[("latent", "latent")], outputs=["x"])
    )


def _plain_model(model: onnx.ModelProto) -> bytes:
    """Return a checked model without names of this machine, batch open."""
    model.ir_version = IR
    model.producer_name, model.producer_version, model.doc_string = "scgan", "", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "scgan", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    read = {name for node in graph.node for name in node.input}
    for value in [value for value in graph.input if value.name == "z" and "z" not in read]:
        graph.input.remove(value)
    used = {node.domain for node in graph.node}
    imports = {entry.domain: entry for entry in model.opset_import if entry.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(imports.values())
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"
    _rename_batch(graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(f"the exported graph is not valid ONNX: {error}") from error
    return bytes(model.SerializeToString(deterministic=True))


def parity(
    name: str,
    module: nn.Module,
    graph: bytes,
    inputs: dict[str, Tensor],
    outputs: tuple[str, ...],
    columns: tuple[Column, ...],
) -> float:
    """Return the largest difference of a graph from its network, in units of each output column's spread.

    Clusters may differ in one row of a thousand, where a tie falls either way, and rows as `differences` says.

    Raises:
        ParityError: naming graph, batch and output, if a difference exceeds `TOLERANCE` and what the network itself
            differs by from its double precision, `ROUNDING` times.
    """
    run = session(graph, "cpu")
    worst = 0.0
    takes = {value.name for value in run.get_inputs()}
    with torch.no_grad():
        made = module(*inputs.values())
    wanted = [part.numpy() for part in (made if isinstance(made, tuple) else (made,))]
    for batch in BATCHES:
        feeds = {key: tensor[-batch:].numpy() for key, tensor in inputs.items() if key in takes}
        found = run.run(list(outputs), feeds)
        for place, (output, ours, theirs) in enumerate(zip(outputs, wanted, found, strict=True)):
            kinds = columns if output == "x" else ()
            error = difference(ours[-batch:], theirs, kinds, ours.std(0))
            if not error <= TOLERANCE and not error <= ROUNDING * _rounding(
                module, inputs, place, kinds
            ):
                raise ParityError(
                    f"{name}, batch {batch}: {output} differs from torch by {error:.2g} of its spread (at most "
                    f"{TOLERANCE:g} is allowed); nothing was written; train again with another --seed and report it"
                )
            worst = max(worst, error)
    return float(f"{worst:.3g}")


@torch.no_grad()
def _rounding(
    module: nn.Module, inputs: dict[str, Tensor], place: int, columns: tuple[Column, ...]
) -> float:
    """Return the largest difference of a network's output, by its place, from its double precision."""
    ours = module(*inputs.values())
    exact = copy.deepcopy(module).double()(*(tensor.double() for tensor in inputs.values()))
    pair = (exact[place], ours[place]) if isinstance(ours, tuple) else (exact, ours)
    return difference(pair[0].numpy(), pair[1].numpy(), columns)


def difference(
    ours: NDArray[Any],
    theirs: NDArray[Any],
    columns: tuple[Column, ...],
    spread: NDArray[Any] | None = None,
) -> float:
    """Return the largest difference of two outputs, [n] or [n, d], in units of spread [d] (else their own).

    >>> difference(np.zeros((4, 1)), np.zeros((4, 1)), ())
    0.0
    """
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return float("inf")
    if ours.dtype.kind == "i":
        return 0.0 if (ours != theirs).mean() <= FLIPS else 1.0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    spread = a.std(0) if spread is None else spread
    columns = columns or (Column("latent"),) * a.shape[1]
    return float(differences(a, b, columns, spread).max())


def _figures(
    rows: NDArray[np.float32],
    made: NDArray[np.float32],
    again: NDArray[np.float32],
    columns: tuple[Column, ...],
) -> dict[str, float]:
    """Return the figures that travel with the bundle, on held-out rows."""
    space = Space.fit(rows.astype(np.float64), columns)
    placed, placed_again = (space.place(part.astype(np.float64)) for part in (rows, again))
    figures = {"mse": float(np.mean((placed_again - placed) ** 2)), "rows": float(len(rows))}
    if len(rows) >= LEAST_ROWS:
        figures["c2st"] = c2st(placed, space.place(made.astype(np.float64)))
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _inputs(
    rows: NDArray[np.float32],
    encoder: nn.Module,
    transform: Transform,
    m: int,
    q: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return 4096 rows of every graph input: half real, half random."""
    n = max(BATCHES)
    real = torch.from_numpy(rows[np.arange(n // 2) % len(rows)])
    with torch.no_grad():
        y = transform(real)
        latents = encoder(y)
        other = latents[torch.randperm(len(latents), generator=generator)]
        mixed = 0.5 * (latents + other)
        x = torch.cat([real, transform.inverse(y[torch.randperm(len(y), generator=generator)])])
    return {
        "x": x,
        "latent": torch.cat([latents, mixed]),
        "u": torch.randint(GRID, (n,), generator=generator).float() / GRID,
        "w": torch.randn(n, m, generator=generator),
        "z": torch.randn(n, q, generator=generator),
    }


def _rename_batch(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_value")
        value.type.tensor_type.shape.dim[0].dim_param = "n"


def _plain(value: object) -> object:
    """Return nested settings with tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else copy.copy(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and warnings off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(level)
