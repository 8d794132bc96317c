"""The suffixes of all formats, as parameters of tests: one whose package is not here is skipped by its name."""

from importlib.util import find_spec

import pytest

from scgan_infer.rows.opening import FORMATS

PACKAGES = {"": "numpy", "parquet": "pyarrow", "hdf5": "h5py", "root": "uproot", "fits": "astropy"}
READY = [suffix for suffix, form in FORMATS.items() if find_spec(PACKAGES[form.extra])]
SUFFIXES = [
    pytest.param(
        suffix,
        marks=pytest.mark.skipif(suffix not in READY, reason=f"without {PACKAGES[form.extra]}"),
    )
    for suffix, form in FORMATS.items()
]
