"""The inference side with everything else out of reach, as on a machine that never saw torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch", "onnx", "spox", "sklearn", "scipy", "safetensors", "rich", "matplotlib",
    "pyarrow", "h5py", "uproot", "astropy", "dask", "distributed", "cryptography", "zuko", "ot",
    "tomli_w",
)  # fmt: skip
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}));"


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code], cwd=cwd, capture_output=True, text=True
    )


def scgan(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python(
        f"from scgan_train import app as cli; sys.argv[1:] = {list(arguments)!r}; cli.main()", cwd
    )


def test_sampling_needs_none_of_it(tmp_path: Path) -> None:
    late = "sys.modules.update(dict.fromkeys(['tomllib', 'urllib.request']));"  # they take 25 ms
    late += "sys.modules.update(dict.fromkeys(['gzip', 'tempfile', 'zipfile', 'fractions']));"
    code = late + "from scgan_train import app; sys.argv[1:] = ['sample', '--out', 'samples.npy'];"
    done = python(code + "app.main()", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ships with scgan" in done.stderr
    rows = np.load(tmp_path / "samples.npy", allow_pickle=False)
    assert rows.shape == (10_000, 2)
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("command", ["reconstruct", "encode"])
def test_neither_do_reconstruct_and_encode(command: str, tmp_path: Path) -> None:
    assert (
        scgan("datasets", "eight_gaussians", "-n", "100", "-o", "rows.csv", cwd=tmp_path).returncode
        == 0
    )
    done = scgan(command, "rows.csv", "-o", "out.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 101


def test_the_python_interface_needs_none_of_it(tmp_path: Path) -> None:
    bundle = ROOT / "exported" / "eight_gaussians"
    code = f"import scgan_infer; print(scgan_infer.load({str(bundle)!r}).sample(3).shape)"
    assert python(code, tmp_path).stdout == "(3, 2)\n"


def test_help_and_version_import_neither_numpy_nor_onnxruntime(tmp_path: Path) -> None:
    for arguments in (["--help"], ["--version"], ["sample", "--help"], ["train", "--help"]):
        code = f"import atexit; from scgan_train import app as cli; sys.argv[1:] = {arguments!r}; "
        code += "heavy = {'numpy', 'onnxruntime'}; "
        code += "atexit.register(lambda: print(sorted(heavy & set(sys.modules)))); cli.main()"
        done = python(code, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith("[]")


def test_training_without_torch_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x\n1\n")
    for command in (["train"], ["inspect", "rows.csv"]):
        done = scgan(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert re.search(r"^scgan: torch is .*pip install .*\[train\]", done.stderr), done.stderr
