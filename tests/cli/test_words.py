"""What the program says is so: nothing is replaced unasked, printed commands run, help and manual agree."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from commands import ENVIRONMENT, ROOT, Done

from scgan_infer.columns import Column
from scgan_infer.errors import install
from scgan_train.app import actions
from scgan_train.app.plots import app

Scgan = Callable[..., Done]
TINY = [
    *("--set", "encoder.steps=2", "--set", "mapper.steps=2", "--set", "decoder.warm_steps=2"),
    *("--set", "decoder.widths=16", "--set", "max_rows=400", "--clusters", "1", "--mapper", "aae"),
]


def leaves(group: Any, above: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield each command's name and options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{name} ")
        else:
            yield above + name, {option for p in command.params for option in p.opts}


def test_every_command_that_writes_takes_force() -> None:
    options = dict(leaves(typer.main.get_command(app)))
    writing = {name for name, own in options.items() if own & {"--out", "--report"}}
    assert len(writing) > 8
    assert {name for name, own in options.items() if "--force" in own} == writing


def test_nothing_is_replaced_unasked(
    scgan: Scgan, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.random.default_rng(0).normal(size=(50, 2)))
    for out, *words in (
        ("a.csv", "sample", "--model", model, "-n", 3),
        ("b.csv", "datasets", "abs", "-n", 3),
        ("c.csv", "reconstruct", "rows.npy", "--model", model),
        ("d.csv", "encode", "rows.npy", "--model", model),
        ("e.toml", "inspect", "rows.npy"),
        ("f.png", "plot", "samples", "rows.npy", "--samples", "rows.npy"),
    ):
        Path(out).write_text("mine")
        scgan(*words, "--out", out).failed(2, out, "--force")
        assert Path(out).read_text() == "mine"
        assert scgan(*words, "--out", out, "--force").code == 0
        assert Path(out).read_bytes() != b"mine"
    parts = ("sample", "--model", model, "-n", 3, "--rows-per-file", 2, "--out", "parts/")
    assert scgan(*parts).code == 0
    scgan(*parts).failed(2, "parts", "--force")
    assert scgan(*parts, "--force").code == 0
    Path("mine").mkdir()
    Path("mine/notes").write_text("mine")
    Path("mine/manifest.json").write_text("{}")
    scgan(*parts[:-1], "mine/", "--force").failed(2, "mine", "which scgan did not write")
    assert Path("mine/notes").exists()


def test_printed_commands_run_and_lead_from_rows_to_samples(
    scgan: Scgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def following(done: Done) -> list[str]:
        assert done.code == 0, done.err
        return shlex.split(done.err.rpartition("next: scgan ")[2].strip())

    assert "next: scgan train" in scgan().err
    assert scgan("datasets", "abs", "-n", 400, "--out", "my rows.csv").code == 0
    train = following(scgan("inspect", "my rows.csv", "--out", "the columns.toml"))
    run = folder / "a run"
    export = following(scgan(*train, "--out", run, *TINY))
    scgan(*train, "--out", run, *TINY).failed(2, "a run", "--force")
    before = (run / "run.json").read_bytes()
    scgan("train", "none.csv", "--out", run, *TINY, "--force").failed(7, "none.csv")
    assert (run / "run.json").read_bytes() == before
    assert scgan(*train, "--out", run, "--seed", 3, *TINY, "--force").code == 0
    assert (run / "run.json").read_bytes() != before
    sample = following(scgan(*export))
    assert following(scgan()) == sample
    scgan(*export).failed(2, "exported/a run", "--force")
    assert scgan(*sample).code == 0
    assert len(np.load("samples.npy")) == 10_000
    assert "--out samples-2.npy" in scgan().err


def test_lists_of_commands_are_whole_sentences(scgan: Scgan) -> None:
    for words in ((), ("plot",)):
        text = scgan(*words, "--help").out.partition("Commands:")[2]
        assert len(text.splitlines()) > 5
        assert all(line.endswith(".") and "..." not in line for line in text.split("\n")[1:-1])
    for name in dict(leaves(typer.main.get_command(app))):
        assert " range>" not in scgan(*name.split(), "--help").out


@pytest.mark.parametrize("torch", [None, "torch"])
def test_without_torch_the_next_step_is_one_that_can_be_taken(
    scgan: Scgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(actions, "find_spec", lambda name: torch)
    said = scgan().err
    assert ("next: scgan train" in said) == (torch is not None)
    if torch is None:
        words = shlex.split(said.partition("next: scgan ")[2].partition(";")[0])
        assert scgan(*words).code == 0
        assert Path("samples.npy").exists()


@pytest.mark.parametrize("kind", ["wheel", "checkout", "editable", "gone", "index"])
def test_what_is_missing_is_installed_from_where_scgan_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """pip notes that, in the form of PEP 610."""
    source = tmp_path / "my wheels"
    if kind != "gone":
        source.mkdir()
    origin = {"url": source.as_uri(), "dir_info": {"editable": kind == "editable"}}
    if kind == "index":
        origin = {}
    info = tmp_path / "site" / "scgan-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: scgan\nVersion: 0.1.0\n")
    (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(sys, "path", [str(info.parent)])
    words = shlex.split(install("plot"))
    if kind in ("gone", "index"):
        assert words[:3] == ["pip", "install", ".[plot]"]
    else:
        assert words == ["pip", "install", *["-e"] * (kind == "editable"), f"{source}[plot]"]


def test_help_by_word_is_help_by_option(scgan: Scgan) -> None:
    assert scgan("help", "sample").out == scgan("sample", "--help").out
    assert scgan("help", "plot", "samples").out == scgan("plot", "samples", "--help").out
    assert scgan("help").out == scgan("--help").out


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=60
    )


def test_the_module_is_the_command() -> None:
    done = python("-m", "scgan_train", "datasets")
    assert "four_circles" in done.stdout
    assert python("-m", "scgan_train", "nonsense").returncode == 2


def test_shells_complete_commands_and_options() -> None:
    ask = {"_SCGAN_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    done = python("-m", "scgan_train", COMP_WORDS="scgan sample --en", **ask)
    assert done.stdout.split() == ["--engine"]


def test_the_manual_page_is_the_commands() -> None:
    page = python(str(ROOT / "docs" / "man.py")).stdout
    assert page == (ROOT / "docs" / "scgan.1").read_text("utf-8"), "run `make man`"
    for word in ("scgan plot curves", r"\-\-temperature", "SCGAN_SEED", "130"):
        assert word in page


def test_advice_on_an_angle_can_be_followed_and_keeps_its_decimals(
    scgan: Scgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    angles = np.round(np.random.default_rng(0).uniform(-180, 180, 900), 1)
    angles[:9], angles[9:18] = 180.0, -180.0
    Path("a.csv").write_text("phi\n" + "".join(f"{angle}\n" for angle in angles))
    advice = re.search(
        r"looks like an angle in degrees; (\S+) makes", scgan("inspect", "a.csv").out
    )
    assert advice is not None
    for option in (advice[1], "--periodic=phi=360"):
        shown = scgan("inspect", "a.csv", option).out
        assert re.search(r"phi +periodic +-180 to 179.\d, \d+ distinct, 1 decimals", shown), shown


def test_messages_of_the_library_name_settings_and_no_options():
    """They are read in Python, too; `actions.as_options` makes options of them."""
    option, command = re.compile(r"(^|[\s'\"(])--[a-z]"), re.compile(r"scgan \w+ ")
    for package in ("scgan_infer", "scgan_train"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent.name == "app" or path.name == "card.py":
                continue
            tree = ast.parse(path.read_text("utf-8"))
            plain = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(text, str) and id(node) not in plain and option.search(text):
                    assert command.search(text), f"{path}: {text}"


def test_a_condition_may_name_a_column_with_an_equals_sign():
    columns = tuple(map(Column, ("a", "a=b", "a=b=c")))
    manifest = SimpleNamespace(sizes={"h": 2}, whole=columns)
    asked = actions.conditions(
        SimpleNamespace(manifest=manifest), None, ["a=b=c=d", "a=1", "a=b=", "a=b=x=y"]
    )
    assert asked["where"] == {"a=b=c": ["d"], "a": ["1"], "a=b": ["", "x=y"]}
