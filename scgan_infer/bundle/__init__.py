"""THE format: what a bundle's folder holds, who may read it, and which graphs are run; `folder` has the page on it."""

from scgan_infer.bundle.folder import MAX_MANIFEST, SIGNATURE, Bundle, load, read, save
from scgan_infer.bundle.manifest import EXTRAS, FILE, FORMAT, GRID, Manifest

__all__ = [
    "EXTRAS", "FILE", "FORMAT", "GRID", "MAX_MANIFEST", "SIGNATURE",
    "Bundle", "Manifest", "load", "read", "save",
]  # fmt: skip
