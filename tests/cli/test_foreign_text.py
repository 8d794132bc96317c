"""Nothing that a stranger wrote moves the cursor, breaks a line or turns the direction of writing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from commands import Done, apart
from onnx_bytes import model, node

from scgan_infer.columns import Column

Scgan = Callable[..., Done]

HOSTILE = "x\x1b[2J\r\nverified: signature good\u202e\u2066\x9b8m\u2028\ud800\x00\x7f"
SHOWN = r"x\x1b[2J\r\nverified: signature good\u202e\u2066\x9b8m\u2028\ud800\x00\x7f"
FORMULAS = ("=1+1", "-2", "'=1+1", "@a", "+3")
TURNED = "speed\u202e\u2066"  # what a manifest takes for a name


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "b"
    columns = (Column(TURNED, unit=TURNED), Column("y"))
    manifest = replace(tiny.MANIFEST, columns=columns, name=TURNED, mapper=TURNED)
    tiny.save(folder, manifest, tiny.GRAPHS)
    content = json.loads((folder / "bundle.json").read_text("utf-8"))
    content |= {"provenance": {HOSTILE: HOSTILE}, "metrics": {HOSTILE: [HOSTILE]}}
    (folder / "bundle.json").write_text(json.dumps(content))
    return folder


def test_of_a_bundle(scgan: Scgan, hostile: Path) -> None:
    done = scgan("info", hostile)
    assert done.code == 0
    lines = done.out.splitlines()
    plain = replace(tiny.MANIFEST, provenance={"a": "b"}, metrics={"a": ["b"]})
    harmless = tiny.save(hostile.parent / "harmless", plain, tiny.GRAPHS)
    assert len(lines) == len(scgan("info", harmless).out.splitlines())
    assert all(map(str.isprintable, lines))
    assert lines.count(f"  {SHOWN:<16} {SHOWN}") == 2


def test_of_a_bundle_as_json(scgan: Scgan, hostile: Path) -> None:
    done = scgan("info", hostile, "--json")
    assert done.out.isascii()
    assert json.loads(done.out)["provenance"] == {HOSTILE: HOSTILE}


@pytest.mark.parametrize("option", [[], ["--debug"]])
def test_of_an_error(scgan: Scgan, hostile: Path, option: list[str]) -> None:
    rows = hostile.parent / "rows.csv"
    rows.write_bytes(f"{TURNED}\x1b[2J,y\n1,2\n".encode())
    done = scgan(*option, "encode", rows, "--model", hostile)
    assert done.code == 7
    assert all(map(str.isprintable, done.err.splitlines()))
    assert r"speed\u202e" in done.err


def test_of_a_file_name(scgan: Scgan, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"x\x1b[2J\nscgan: good\xff")
    scgan("info", path).failed(3, r"x\x1b[2J\nscgan: good\udcff")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals")
def test_of_columns_in_csv(hostile: Path) -> None:
    """Visible on a terminal; as it is in a file or pipe."""
    ours, theirs = os.openpty()
    command = ("sample", "-m", hostile, "-n", 1, "-o", "-")
    assert apart(*command, stdout=theirs).code == 0
    os.close(theirs)
    assert os.read(ours, 1000).decode().splitlines()[0] == r"speed\u202e\u2066,y"
    os.close(ours)
    assert apart(*command).out.splitlines()[0] == f"{TURNED},y"


def test_formulas_of_a_spreadsheet(scgan: Scgan, tmp_path: Path) -> None:
    """They are written as they are, unless asked otherwise."""
    kinds = Column("@kind", "category", categories=(*FORMULAS, *"abcdefghijkl"))
    manifest = replace(tiny.MANIFEST, columns=(kinds, Column("-y")))
    nodes = [*tiny.MAP, *tiny.DECODE[:-1], node("Add", "latent h6", "y"), node("Abs", "y", "x")]
    graph = model(tiny.body("generator.onnx", nodes=nodes))
    folder = tiny.save(tmp_path / "b", manifest, {**tiny.GRAPHS, "generator.onnx": graph})
    written = []
    for more in ([], ["--spreadsheet"]):
        out = tmp_path / f"{len(more)}.csv"
        done = scgan("sample", "-m", folder, "-n", 500, "-o", out, *more)
        assert done.code == 0, done.err
        written.append(out.read_text("utf-8").splitlines())
    plain, inert = written
    assert plain[0] == "@kind,-y"
    assert inert[0] == "'@kind,'-y"
    names = {
        tuple(line.split(",")[0] for line in pair)
        for pair in zip(plain[1:], inert[1:], strict=True)
    }
    assert all(inert == ("'" if plain in FORMULAS else "") + plain for plain, inert in names)
    assert names & {(formula, f"'{formula}") for formula in FORMULAS}
    assert len(names) > 1
    assert [line.split(",")[1] for line in plain[1:]] == [line.split(",")[1] for line in inert[1:]]
