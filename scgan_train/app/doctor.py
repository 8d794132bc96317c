"""Installed and missing packages, and conflicts between them, from package metadata."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib import metadata

from scgan_infer.errors import install

RUNTIMES = ("cpu", "gpu")  # extras that are listed separately
DEVELOPERS = ("bench", "dev", "tables")  # extras for development of scgan
CUDA = ("cudart", "cublas", "cudnn")


def installed(package: str) -> str | None:
    """Return a package's version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras() -> dict[str, list[str]]:
    """Return the packages of each extra, as the installed scgan lists them."""
    packages: dict[str, list[str]] = {}
    for line in metadata.requires("scgan") or []:
        wanted, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
        if extra and extra[1] not in RUNTIMES + DEVELOPERS:
            packages.setdefault(extra[1], []).extend(
                re.findall(r"[\w.-]+", re.split("[<>=!~]", wanted)[0])
            )
    return packages


def report() -> Iterator[str]:
    """Yield lines: versions, clashes, the runtime's providers, and what each extra lacks."""
    yield f"python {platform.python_version()} on {platform.machine()} {sys.platform}"
    yield f"scgan {installed('scgan')}, numpy {installed('numpy')}"
    cpu, gpu = installed("onnxruntime"), installed("onnxruntime-gpu")
    if cpu and gpu:
        yield (
            f"clash: onnxruntime {cpu} and onnxruntime-gpu {gpu} install the same folder; "
            "pip uninstall onnxruntime onnxruntime-gpu, "
            f"then {install('cpu')}, or the same with [gpu]"
        )
    if not (cpu or gpu):
        yield f"onnxruntime: missing, nothing samples; {install('cpu')}, or the same with [gpu]"
    else:
        yield from _runtime()
    for extra, packages in extras().items():
        versions = {package: installed(package) for package in packages}
        missing = ", ".join(package for package, version in versions.items() if version is None)
        parts = [
            ", ".join(f"{package} {version}" for package, version in versions.items() if version)
        ]
        if missing:
            parts.append(f"missing {missing}; {install(extra)}")
        yield f"extra {extra}: {'; '.join(filter(None, parts))}"


def _runtime() -> Iterator[str]:
    from scgan_infer.sampling.sessions import cores, onnxruntime

    runtime = onnxruntime()
    providers = runtime.get_available_providers()
    yield f"onnxruntime {runtime.__version__}: {', '.join(providers)}; {cores()} cores"
    libraries = {name: find_library(name) for name in CUDA}
    yield f"CUDA libraries: {', '.join(filter(None, libraries.values())) or 'none found'}"
    if "CUDAExecutionProvider" not in providers:
        yield f"--device cuda: not with this onnxruntime; uninstall it and {install('gpu')}"
    elif None in libraries.values():
        lacking = ", ".join(name for name, file in libraries.items() if file is None)
        yield f"--device cuda: {lacking} not found; pip install 'onnxruntime-gpu[cuda,cudnn]'"
