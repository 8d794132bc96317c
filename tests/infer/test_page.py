"""What `scgan page` writes; tests/cli/test_page.py opens it in a browser."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import scgan_infer.page
from scgan_infer import bundle
from scgan_infer.columns import Table
from scgan_infer.errors import ChecksumError, UsageError
from scgan_infer.page import ASSETS, RUNTIME, write

HERE = Path(scgan_infer.page.__file__).parent


@pytest.fixture
def runtime(tmp_path):
    """What npm leaves of onnxruntime-web, as far as the page needs it."""
    dist = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    for name in RUNTIME.values():
        (dist / name).write_bytes(name.encode())
    return dist.parent


def test_the_folder_holds_the_page_and_what_it_runs(tiny_bundle, runtime, tmp_path):
    loaded = bundle.load(tiny_bundle)
    rows = Table(loaded.manifest.columns, np.array([[1, 2], [0.1, -3]], np.float32))
    page = write(tmp_path / "page", [loaded], {loaded.path: rows}, runtime)
    assert json.loads((page / "page.json").read_bytes()) == [
        {"name": "tiny", "data": "tiny", "latents": "mapper", "rows": True}
    ]
    ours = page / "bundles" / "tiny"
    assert (ours / "rows.csv").read_text() == "x,y\n1,2\n0.1,-3\n"
    for name in ("bundle.json", "encoder.onnx", "mappers.onnx", "decoder.onnx"):
        assert (ours / name).read_bytes() == (tiny_bundle / name).read_bytes()
    assert (page / "runtime" / "ort.wasm").read_bytes() == RUNTIME["ort.wasm"].encode()


def test_every_file_of_the_package_is_written_and_no_other_is_asked_for():
    assert {path.name for path in HERE.iterdir() if path.suffix not in (".py", "")} == set(ASSETS)
    known = {*ASSETS, *(f"runtime/{name}" for name in RUNTIME)}
    for name in ASSETS:
        text = (HERE / name).read_text("utf-8")
        asked = re.findall(r"""(?:from |src=|href=|URL\()['"]([^'"]+)""", text)
        assert {one.removeprefix("./") for one in asked} - known <= {"data:,"}, name
        assert "innerHTML" not in text
        assert max(map(len, text.splitlines())) <= 130, name


def test_an_older_page_gives_way_and_nothing_else_does(tiny_bundle, runtime, tmp_path):
    loaded = bundle.load(tiny_bundle)
    page = write(tmp_path / "page", [loaded], {}, runtime)
    assert json.loads((page / "page.json").read_bytes())[0]["rows"] is False
    (page / "old").touch()
    write(page, [loaded], {}, runtime)
    assert not (page / "old").exists()
    (page / "runtime" / "ort.wasm").unlink()  # a folder that has its own page.json
    with pytest.raises(UsageError, match="exists and is not a page"):
        write(page, [loaded], {}, runtime)


def test_what_it_needs_is_named(tiny_bundle, runtime, tmp_path, monkeypatch):
    loaded = bundle.load(tiny_bundle)
    with pytest.raises(UsageError, match="two bundles are called tiny"):
        write(tmp_path / "page", [loaded, loaded], {}, runtime)
    with pytest.raises(UsageError, match=r"is not the npm package .* npm install onnxruntime-web@"):
        write(tmp_path / "page", [loaded], {}, tmp_path)
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    write(tmp_path / "page", [loaded], {})
    runtime.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="npm install onnxruntime-web@"):
        write(tmp_path / "page", [loaded], {})
    (tiny_bundle / "bundle.json").write_bytes(b"{}")
    with pytest.raises(ChecksumError, match="changed"):
        write(tmp_path / "page", [loaded], {}, tmp_path / "elsewhere")
