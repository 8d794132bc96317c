"""The trained networks of a run, put together: as functions of arrays, and as the graphs of a bundle.

    encoder    x            -> coordinates -> f -> latent, choice
    mappers    u, w         -> cluster selection -> g_choice(w) -> latent, choice
    decoder    latent, z    -> stack -> inverse coordinates -> x
    generator  u, w, z      -> mappers, then decoder -> x
    sampler    seed, index  -> counter-based noise, then generator -> x

Every module writes its own graph; here they are composed. Without decoder noise nothing has a z.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scgan_infer.bundle import GRID
from scgan_infer.columns import Column
from scgan_infer.judging.figures import held_out
from scgan_train.clusters import Assign
from scgan_train.coordinates import Coordinates
from scgan_train.decoder import Decoder
from scgan_train.encoder import Encoder
from scgan_train.exporting.sampler import noise
from scgan_train.graph import Var, argument
from scgan_train.head import LatentModel
from scgan_train.training.run import Run

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

    def inputs(self, n: int, generator: torch.Generator) -> Arrays:
        """Return n rows of the generator's inputs."""
        sizes = self.sizes
        u = torch.randint(GRID, (n,), generator=generator).float() / GRID
        w, z = (torch.randn(n, sizes[key], generator=generator).numpy() for key in ("m", "q"))
        return {"u": u.numpy(), "w": w, **({"z": z} if sizes["q"] else {})}

    def figures(self, rows: Array, generator: torch.Generator) -> dict[str, float]:
        """Return the figures that travel with a bundle, on held-out rows [n, d]."""
        generated = self.compute("generator.onnx", self.inputs(len(rows), generator))["x"]
        latent = self.compute("encoder.onnx", {"x": rows})["latent"]
        reconstructed = self.compute("decoder.onnx", {"latent": latent})["x"]
        return held_out(rows, generated, reconstructed, self.columns)
