"""`scgan page` from the command line; what it writes opens in a browser in tests/train/exporting/test_page.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, Done

from scgan_infer.page import RUNTIME

Scgan = Callable[..., Done]


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """What npm leaves of onnxruntime-web, as far as the page needs it."""
    dist = tmp_path / "runtime" / "dist"
    dist.mkdir(parents=True)
    for name in RUNTIME.values():
        (dist / name).touch()
    return dist.parent


def shown(page: Path) -> dict[str, bool]:
    """Whether each bundle of a page has real rows."""
    return {one["name"]: one["rows"] for one in json.loads((page / "page.json").read_bytes())}


def test_rows_of_a_built_in_distribution_are_shown_and_others_when_asked(
    scgan: Scgan, model: Path, runtime: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    done = scgan("page", ROOT / "exported" / "abs", model, "-o", page, "--runtime", runtime)
    assert done.code == 0, done.err
    assert done.out == ""
    assert f"python3 -m http.server --directory {page}" in done.err
    assert shown(page) == {"abs": True, "tiny": False}
    assert len((page / "bundles/abs/rows.csv").read_text().splitlines()) == 5001

    rows = tmp_path / "rows.csv"
    rows.write_text("y,x\n1,2\n3,4\n")
    again = ("page", model, "-o", page, "--data", rows, "--runtime", runtime)
    scgan(*again).failed(2, "exists; choose another name, or replace it with --force")
    done = scgan(*again, "--force")
    assert done.code == 0, done.err
    assert shown(page) == {"tiny": True}
    assert (page / "bundles/tiny/rows.csv").read_text() == "x,y\n2,1\n4,3\n"


def test_what_is_wrong_is_one_line(
    scgan: Scgan, model: Path, runtime: Path, tmp_path: Path
) -> None:
    page = ("page", model, "-o", tmp_path / "page", "--runtime")
    scgan(*page, tmp_path).failed(2, "npm install onnxruntime-web@")
    scgan(*page, runtime, "--data", "unknown").failed(2, "'unknown' is neither a file nor")
    scgan(*page[:2], "-o", runtime, *page[4:], runtime, "--force").failed(
        2, "exists and is not a page"
    )
    scgan("page", tmp_path / "none", *page[2:], runtime).failed(3, "no bundle at")
    assert not (tmp_path / "page").exists()
