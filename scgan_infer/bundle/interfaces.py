"""Which graphs a bundle has, and the tensors that go into each and come out of it, in order.

A tensor with a size of 0 is absent: no z without decoder noise, no c without given columns, and
never one for the decoder. With one step of choice (h = 1) u and choice are [n], and the decoder
needs no choice. In format 1 choice is called cluster, z is always there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from scgan_infer.bundle.onnx_schema import FLOAT, INT64

# the number of a type in ONNX, and dimensions; n, the batch, is open and stands as 0
Tensors: TypeAlias = dict[str, tuple[int, tuple[int, ...]]]
Interface: TypeAlias = tuple[Tensors, Tensors]

BLOCK = 4096  # rows that a model computes at a time
OPTIONAL = ("head.onnx", "density.onnx")
GRAPHS = {
    "encoder.onnx": ("x c", "latent choice"),
    "head.onnx": ("u c", "choice"),
    "mappers.onnx": ("u w c", "latent choice"),
    "decoder.onnx": ("latent choice z", "x"),
    "generator.onnx": ("u w z c", "x"),
    "sampler.onnx": ("seed index c", "x"),
    "density.onnx": ("x c", "log_density"),
}
TENSORS = {
    "x": (FLOAT, "nd"),
    "c": (FLOAT, "ng"),
    "latent": (FLOAT, "ne"),
    "u": (FLOAT, "nh"),
    "choice": (INT64, "nh"),
    "w": (FLOAT, "nm"),
    "z": (FLOAT, "nq"),
    "seed": (INT64, "1"),
    "index": (INT64, "n"),
    "log_density": (FLOAT, "n"),
}


def interfaces(version: int, sizes: Mapping[str, int]) -> dict[str, Interface]:
    """Return inputs and outputs of each graph that a bundle of this format and sizes may hold."""
    one = sizes["h"] == 1

    def tensors(names: str, decoder: bool = False) -> Tensors:
        result = {}
        for name in names.split():
            dtype, letters = TENSORS[name]
            if one:
                letters = letters.removesuffix("h")
            shape = tuple({"n": 0, "1": 1, **sizes}[letter] for letter in letters)
            if 0 in shape[1:] or (decoder and one and name == "choice"):
                continue
            result["cluster" if version == 1 and name == "choice" else name] = (dtype, shape)
        return result

    return {
        name: (tensors(inputs, name == "decoder.onnx"), tensors(outputs))
        for name, (inputs, outputs) in GRAPHS.items()
        if version > 1 or name not in OPTIONAL
    }
