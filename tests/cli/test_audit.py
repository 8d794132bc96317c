"""What scgan depends on fits together, is free, and has no advisory that is unanswered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def audit(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "docs" / "audit.py"], capture_output=True, text=True, timeout=120
    )


def test_no_faults() -> None:
    done = audit(DOCS.parent)
    assert (done.stdout, done.returncode) == ("no faults\n", 0), done.stderr


WRONG = [
    (
        "constraints.txt",
        "torch==2.13.0",
        "torch==2.5.1",
        "constraints.txt has torch 2.5.1: CVE-2025-32434",
    ),
    (
        "pyproject.toml",
        "onnx>=1.23",
        "onnx>=1.16",
        "pyproject.toml allows onnx 1.16: CVE-2024-5187",
    ),
    (
        "pyproject.toml",
        "pyarrow>=23.0.1",
        "pyarrow>=0.1",
        "pyproject.toml allows pyarrow 0.14.0: CVE-2023-47248",
    ),
    (
        "pyproject.toml",
        "uproot>=5.7.7",
        "uproot>=5.7.6",
        "pyproject.toml allows uproot 5.7.6: GHSA-98vv-9pqj-g87v",
    ),
    ("docs/licences.md", "| numpy | ", "| numpy | 1.", "docs/licences.md has numpy 1."),
    ("docs/audit.py", "|MPL-2", "|GPL-2", "licence 'MPL-2.0' is not on the list"),
]


def test_every_kind_of_fault_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for path in (*DOCS.iterdir(), DOCS.parent / "constraints.txt", DOCS.parent / "pyproject.toml"):
        if path.is_file():
            (tmp_path / path.relative_to(DOCS.parent)).write_bytes(path.read_bytes())
    for file, old, new, _ in WRONG:
        text = (tmp_path / file).read_text("utf-8")
        assert old in text
        (tmp_path / file).write_text(text.replace(old, new), "utf-8")
    done = audit(tmp_path)
    assert done.returncode == 1
    for _, _, _, fault in WRONG:
        assert fault in done.stdout
