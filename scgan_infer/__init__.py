"""Use a trained scgan bundle with numpy and onnxruntime only: load, sample, reconstruct, encode.

>>> from scgan_infer import load
>>> rows = load("exported/eight_gaussians").sample(10_000, seed=1)  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scgan_infer.sampling.model import Model

__all__ = ["load"]


def load(path: str | Path, device: str = "auto", threads: int | None = None) -> Model:
    """Load a bundle; see `scgan_infer.sampling.model.load`, imported with numpy only here."""
    from scgan_infer.sampling import model as runtime

    return runtime.load(path, device, threads)


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("scgan")
