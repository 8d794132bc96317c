"""What was not tested is counted, and fails a run that should have tested all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = {
    "test_whole.py": "import pytest\npytest.importorskip('nowhere_to_be_found')\n",
    "test_parts.py": (
        "import pytest\n@pytest.mark.parametrize('x', [1, 2])\n"
        "def test_x(x):\n    pytest.skip('no such machine')\ndef test_y():\n    pass\n"
    ),
}


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_skips_are_counted_and_none_may_be_of_what_could_be_installed(
    tmp_path: Path, workers: list[str]
) -> None:
    if workers:
        pytest.importorskip("xdist")
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    for complete, code in (("", 0), ("1", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *workers, str(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, "SCGAN_COMPLETE": complete},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout
        assert "skipped 1: could not import 'nowhere_to_be_found'" in done.stdout
        assert "skipped 2: no such machine" in done.stdout
        assert ("FAILED: not tested" in done.stdout) == bool(complete)
