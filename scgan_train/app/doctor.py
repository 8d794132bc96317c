"""What is installed here, what clashes, and what to install: read from package metadata, nothing heavy imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib import metadata

EXTRAS = {
    "train": (
        "torch",
        "onnx",
        "onnxscript",
        "scikit-learn",
        "scipy",
        "safetensors",
        "tomli-w",
        "rich",
        "matplotlib",
    ),
    "plot": ("matplotlib", "scikit-learn", "scipy"),
    "parquet": ("pyarrow",),
    "hdf5": ("h5py",),
    "root": ("uproot",),
    "fits": ("astropy",),
    "dask": ("dask", "distributed"),
    "sign": ("cryptography",),
}
CUDA = ("cudart", "cublas", "cudnn")


def installed(package: str) -> str | None:
    """Return a package's version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def report() -> Iterator[str]:
    """Yield lines: versions, the runtime's providers, clashes, and for each extra what is missing."""
    yield f"python {platform.python_version()} on {platform.machine()} {sys.platform}"
    yield f"scgan {installed('scgan')}, numpy {installed('numpy')}"
    cpu, gpu = installed("onnxruntime"), installed("onnxruntime-gpu")
    if cpu and gpu:
        yield (
            f"clash: onnxruntime {cpu} and onnxruntime-gpu {gpu} install the same folder; "
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install one of 'scgan[cpu]' and 'scgan[gpu]'"
        )
    if not (cpu or gpu):
        yield "onnxruntime: missing, nothing can be sampled; pip install 'scgan[cpu]' or 'scgan[gpu]'"
    else:
        yield from _runtime()
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if installed(package) is None]
        have = ", ".join(
            f"{package} {installed(package)}" for package in packages if package not in missing
        )
        wanted = f"missing {', '.join(missing)}; pip install 'scgan[{extra}]'" if missing else ""
        yield f"extra {extra}: {'; '.join(part for part in (have, wanted) if part)}"


def _runtime() -> Iterator[str]:
    from scgan_infer.sampling.sessions import cores, onnxruntime

    runtime = onnxruntime()
    providers = runtime.get_available_providers()
    yield f"onnxruntime {runtime.__version__}: {', '.join(providers)}; {cores()} cores"
    libraries = {name: find_library(name) for name in CUDA}
    found = [file for file in libraries.values() if file]
    yield f"CUDA libraries: {', '.join(found) if found else 'none found'}"
    if "CUDAExecutionProvider" not in providers:
        yield "--device cuda: not with this onnxruntime; pip uninstall onnxruntime and pip install 'scgan[gpu]'"
    elif None in libraries.values():
        lacking = ", ".join(name for name, file in libraries.items() if file is None)
        yield f"--device cuda: {lacking} not found; pip install 'onnxruntime-gpu[cuda,cudnn]'"
