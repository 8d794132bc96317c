"""The trained networks of a run, put together: as functions of arrays, and as a bundle's graphs.

    encoder    x, c            -> coordinates -> f -> latent, choice
    mappers    u, w, c         -> cluster selection -> g_choice(w) -> latent, choice
    decoder    latent, z       -> stack -> inverse coordinates -> x
    generator  u, w, z, c      -> mappers, then decoder -> x
    sampler    seed, index, c  -> counter-based noise, then generator -> x
    density    x               -> log_density, where encoder and maps can be undone

Every module writes its graph; here they are composed. Without decoder noise nothing has a z,
without given columns nothing a c.

The density is that of f^-1(g_i(w)), the encoder's inverse of a generated latent, in users' units:

    log p(x) = log p(s) + log sum_i p(i | s) p_i(eps | s) + log |det deps/dy| + log |det dy/dx|

(each p given c) with y the coordinates of x, eps = f(y), p_i the density of cluster i's map, and s
the discrete values, which have probabilities. The decoder undoes f up to its error of
reconstruction; then values are rounded, what lies beyond the range that was seen is reflected into
it, and angles are taken modulo their periods: the density is that before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scgan_infer.bundle import GRID
from scgan_infer.columns import Column
from scgan_infer.judging.figures import held_out, paired_c2st
from scgan_train.coordinates.given import Conditions, ConditionVars, Given
from scgan_train.coordinates.transform import Coordinates
from scgan_train.decoder import Decoder
from scgan_train.encoder import Encoder
from scgan_train.exporting.sampler import noise
from scgan_train.fitting.guards import quality_warnings, share_warnings
from scgan_train.graph import Var, again, argument, const, minus_infinity, op
from scgan_train.latents.clusters import Assign
from scgan_train.latents.head import LatentModel, RealLatents
from scgan_train.maps.base import Invertible
from scgan_train.run_folder import Run

TRAINED = "rows trained on"

Array = NDArray[Any]
Arrays = dict[str, Array]

FARTHEST = 1e15  # largest coordinate of a latent whose square float32 holds in every frame


@dataclass(frozen=True)
class Parts:
    """The trained networks of a run, as functions of arrays and as graphs.

    Attributes:
        columns: the d columns that are generated.
        given: the transform of the g given columns to network inputs; None without any.
        indices: of the generated columns and of the given ones, in a row.
    """

    columns: tuple[Column, ...]
    coordinates: Coordinates
    encoder: Encoder
    assign: Assign
    latents: LatentModel
    decode: Decoder
    given: Given | None
    indices: tuple[list[int], list[int]]

    @classmethod
    def of(cls, run: Run) -> Parts:
        """Read the parts of a finished run.

        Raises:
            ModelError: the run is not finished or is damaged.
        """
        coordinates, (clusters, *_) = run.load_coordinates(), run.load_clusters()
        return cls(
            coordinates.outer,
            coordinates,
            run.load_encoder(),
            Assign(clusters),
            run.load_mapper(),
            run.load_decoder(),
            run.load_given(),
            (run.made, run.given),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of a bundle, as in its manifest."""
        return {
            "d": len(self.columns),
            "e": self.encoder.latent_dim,
            "m": self.latents.noise,
            "q": self.decode.noise,
            "K": len(self.latents.thresholds),
            "h": self.latents.steps,
            "g": len(self.indices[1]),
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
        given = None
        if self.given and "c" in inputs:
            c = inputs["c"]
            h, s = self.given.forward(c), self.given.choose(c)
            given = Conditions(torch.from_numpy(h), torch.from_numpy(s))
        if name == "encoder.onnx":
            latent = parts.encoder(torch.from_numpy(self.coordinates.forward(inputs["x"])))
            choice = parts.assign(torch.cat([given.h, latent], 1) if given else latent)
            if self.chained:
                outcomes = torch.from_numpy(self.coordinates.choose(inputs["x"]))
                choice = torch.cat([outcomes, choice[:, None]], 1)
            return {"latent": latent.numpy(), "choice": choice.numpy()}
        if name == "density.onnx":
            return {"log_density": parts.log_density(inputs["x"], given)}
        if name == "head.onnx":
            return {"choice": parts.latents.select(tensors["u"], given).numpy()}
        if name == "decoder.onnx":
            latent, choice = tensors["latent"], tensors.get("choice", tensors["latent"])
        else:
            latent, choice = parts.latents(tensors["u"], tensors["w"], given)
        if name == "mappers.onnx":
            return {"latent": latent.numpy(), "choice": choice.numpy()}
        y = parts.decode(latent, tensors.get("z")).numpy()
        drawn = choice[:, :-1].numpy() if self.chained else None
        return {"x": self.coordinates.inverse(y, drawn)}

    def log_density(self, x: Array, given: Conditions | None) -> Array:
        """Return the log-density [n] of generated columns [n, d].

        See `Coordinates.log_slope` for infinity and NaN.
        """
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            y, slope = self.coordinates.forward(x), self.coordinates.log_slope(x)
        last = [step.size - 1 for step in self.coordinates.steps]
        outcomes = torch.from_numpy(np.minimum(self.coordinates.choose(x), last).astype(np.int64))
        if not self.coordinates.continuous:
            total = self.latents.log_share(outcomes, given)
        else:
            coordinates = torch.from_numpy(y)
            latent = self.encoder(coordinates).clamp(-FARTHEST, FARTHEST)
            total = self.encoder.log_slope(coordinates)
            total = total + self.latents.log_density(latent, outcomes, given)
        return np.where(slope == -np.inf, slope, slope + total.numpy()).astype(x.dtype)

    def _log_density_graph(self, x: Var, given: ConditionVars | None) -> Var:
        coordinates, chain = self.coordinates, self.latents.chain
        slope, choice = coordinates.graph_log_slope(x), coordinates.graph_choose(x)
        outcomes = [
            op.min([value, const(step.size - 1, np.int64)])
            for value, step in zip(choice, coordinates.steps, strict=True)
        ]
        if not coordinates.continuous:
            assert chain
            total = chain.log_shares_graph(outcomes, given or ConditionVars(None, ()))[0]
            assert total
        else:
            y = coordinates.graph_forward(x)
            latent = op.clip(self.encoder.graph(y), const(-FARTHEST), const(FARTHEST))
            total = self.latents.log_density_graph(latent, outcomes, given)
            total = op.add(total, self.encoder.log_slope_graph(y))
        outside = op.equal(slope, minus_infinity())
        return op.where(outside, slope, op.add(slope, total))

    @property
    def flaw(self) -> str:
        """Why rows have no density; empty where they have one."""
        coordinates, scored = self.coordinates, np.flatnonzero(self.coordinates.scored)
        if isinstance(self.latents, RealLatents):
            return "the latents of training rows are points"
        if not coordinates.continuous:
            return ""
        if len(scored):
            name = self.columns[coordinates.index[scored[0]]].name
            return f"the numbers of column {name!r} are looked up in a table"
        if not self.encoder.invertible:
            return "its encoder can't be undone (it is no curve per column)"
        if not isinstance(self.latents.ensemble, Invertible):
            return "its map has no inverse; that of mapper.kind=flow has one"
        return ""

    @property
    def chained(self) -> bool:
        """Whether there are discrete values."""
        return bool(self.coordinates.steps)

    @property
    def looked_up(self) -> bool:
        """Whether tables or a network give some values: in a graph, 1 in 1000 may differ."""
        return self.chained or self.given is not None or bool(self.coordinates.scored.any())

    def graphs(self) -> Iterator[tuple[str, dict[str, Var], dict[str, Var]]]:
        """Yield each graph's file name, inputs and outputs."""
        sizes = self.sizes
        z = {"z": argument(("n", sizes["q"]))} if sizes["q"] else {}
        wide = ("n", sizes["h"]) if self.chained else ("n",)

        c = {"c": argument(("n", sizes["g"]))} if sizes["g"] else {}
        given = self.given.graph(c["c"]) if self.given else None

        x = argument(("n", sizes["d"]))
        latent = self.encoder.graph(self.coordinates.graph_forward(x))
        cluster = self.assign.graph(_beside(given, latent))
        choice = [*self.coordinates.graph_choose(x), cluster]
        yield "encoder.onnx", {"x": x, **c}, {"latent": latent, "choice": _together(choice)}
        u, w = argument(wide), argument(("n", sizes["m"]))
        if self.chained or given:
            chosen = _together(self.latents.select_graph(u, given))
            yield "head.onnx", {"u": u, **c}, {"choice": chosen}
        latent, choice = self.latents.graph(u, w, given)
        drawn = {"latent": latent, "choice": _together(choice)}
        yield "mappers.onnx", {"u": u, "w": w, **c}, drawn
        generated = self._decoded(latent, choice, z.get("z"))
        takes, gives = {"u": u, "w": w, **z, **c}, {"x": generated}
        yield "generator.onnx", takes, gives
        yield "decoder.onnx", *self._decoder_graph(z)
        seed, index = argument((1,), np.int64), argument(("n",), np.int64)
        u, w, drawn_z = noise(seed, index, sizes["m"], sizes["q"], sizes["h"])
        made = {"u": u, "w": w, **c} | ({} if drawn_z is None else {"z": drawn_z})
        yield "sampler.onnx", {"seed": seed, "index": index, **c}, again(takes, gives, made)
        if not self.flaw:
            yield "density.onnx", {"x": x, **c}, {"log_density": self._log_density_graph(x, given)}

    def _decoder_graph(self, z: dict[str, Var]) -> tuple[dict[str, Var], dict[str, Var]]:
        latent = argument(("n", self.sizes["e"]))
        if not self.chained:
            return {"latent": latent, **z}, {"x": self._decoded(latent, [], z.get("z"))}
        choice = argument(("n", self.sizes["h"]), np.int64)
        columns = op.split(choice, num_outputs=self.sizes["h"], axis=1)
        steps = [op.squeeze(column, const([1], np.int64)) for column in columns]
        x = self._decoded(latent, steps, z.get("z"))
        return {"latent": latent, "choice": choice, **z}, {"x": x}

    def _decoded(self, latent: Var, choice: Sequence[Var], z: Var | None) -> Var:
        y = self.decode.graph(latent, z, (self.coordinates.unit, self.coordinates.shift))
        return self.coordinates.graph_rows(y, choice[:-1])

    def inputs(self, n: int, generator: torch.Generator) -> Arrays:
        """Return n rows of the generator's inputs."""
        sizes = self.sizes
        shape = (n, sizes["h"]) if self.chained else (n,)
        u = torch.randint(GRID, shape, generator=generator).float() / GRID
        w, z = (torch.randn(n, sizes[key], generator=generator).numpy() for key in ("m", "q"))
        return {"u": u.numpy(), "w": w, **({"z": z} if sizes["q"] else {})}

    def divided(self, rows: Array) -> Arrays:
        """Return generated columns x [n, d] of whole rows, and c [n, g] if there are given ones."""
        made, given = self.indices
        if not given:
            return {"x": rows}
        return {"x": np.ascontiguousarray(rows[:, made]), "c": np.ascontiguousarray(rows[:, given])}

    def together(self, x: Array, c: Array | None) -> Array:
        """Inverse of `divided`."""
        if c is None:
            return x
        rows = np.empty((len(x), len(self.indices[0]) + len(self.indices[1])), x.dtype)
        for columns, part in zip(self.indices, (x, c), strict=True):
            rows[:, columns] = part
        return rows

    def figures(
        self, rows: Array, columns: tuple[Column, ...], generator: torch.Generator
    ) -> dict[str, float]:
        """Return a bundle's stored figures, on held-out rows [n, d + g], at their conditions."""
        real = self.divided(rows)
        made = self.made(real, generator)
        encoded = self.compute("encoder.onnx", real)
        again = self.compute("decoder.onnx", encoded)["x"]
        return self._judged(rows, made, again, columns)

    def _judged(
        self, rows: Array, made: Array, again: Array, columns: tuple[Column, ...]
    ) -> dict[str, float]:
        """Return figures of generated rows and reconstructions [n, d] beside real [n, d + g]."""
        real = self.divided(rows)
        figures = held_out(real["x"], made, again, self.columns)
        if "c" in real and "c2st" in figures:
            whole = self.together(made, real["c"])
            figures["c2st"] = float(f"{paired_c2st(rows, whole, columns):.4g}")
        return figures

    def made(self, real: Arrays, generator: torch.Generator) -> Array:
        """Return a generated row for each real one x, [n, d], at its conditions c [n, g] if any."""
        known = {name: value for name, value in real.items() if name == "c"}
        made: Array = self.compute(
            "generator.onnx", self.inputs(len(real["x"]), generator) | known
        )["x"]
        return made

    def trained_warnings(
        self, rows: Array, columns: tuple[Column, ...], generator: torch.Generator
    ) -> list[str]:
        """Return warnings from comparing generated rows with rows [n, d + g] that were trained on.

        A small table has too few held-out rows for that. Generated rows may be too near to training
        rows: differences found all the same hold for other rows, too.
        """
        real = self.divided(rows)
        made = self.made(real, generator)
        whole = self.together(made, real.get("c"))
        figures = self._judged(rows, made, real["x"], columns)
        warnings = quality_warnings(figures, TRAINED) if "c2st" in figures else []
        return [*warnings, *share_warnings(self.outcomes(rows, whole), TRAINED)]

    def outcomes(self, rows: Array, generated: Array) -> Iterator[tuple[list[str], Tensor, Tensor]]:
        """Yield each step's outcome names, and outcomes of real and generated rows [n, d + g]."""
        both = [
            torch.from_numpy(self.compute("encoder.onnx", self.divided(x))["choice"]).reshape(
                len(x), -1
            )
            for x in (rows, generated)
        ]
        clusters = [f"cluster {i}" for i in range(self.sizes["K"])]
        steps = [
            step.names(self.coordinates.columns[step.column]) for step in self.coordinates.steps
        ]
        for j, names in enumerate([*steps, clusters]):
            yield names, both[0][:, j], both[1][:, j]


def _beside(given: ConditionVars | None, latent: Var) -> Var:
    """Return given numbers and latents [n, p + e]."""
    if given is None or given.h is None:
        return latent
    return op.concat([given.h, latent], axis=1)


def _together(choice: Sequence[Var]) -> Var:
    """Return the steps [n] of a choice as [n, h], or [n] if it is one."""
    if len(choice) == 1:
        return choice[0]
    axis = const([1], np.int64)
    return op.concat([op.unsqueeze(step, axis) for step in choice], axis=1)
