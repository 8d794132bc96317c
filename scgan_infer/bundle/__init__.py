"""THE format: what a bundle's folder holds, who may read it, which graphs are run; see `folder`."""

from scgan_infer.bundle.folder import MAX_MANIFEST, SIGNATURE, Bundle, load, read, save
from scgan_infer.bundle.manifest import EXTRAS, FILE, FORMAT, GRID, Manifest

__all__ = [
    "EXTRAS", "FILE", "FORMAT", "GRID", "MAX_MANIFEST", "SIGNATURE",
    "Bundle", "Manifest", "load", "read", "save",
]  # fmt: skip
