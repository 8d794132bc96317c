"""Long work shows itself: lines where nobody looks on, bars that fit the terminal, and silence when asked for."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from types import ModuleType

import pytest
from commands import Done
from rich.console import Console

from scgan_train import watch
from scgan_train.watch import LEVEL, Watch, bars


@pytest.fixture
def level() -> Iterator[Callable[[int | None], None]]:
    """Return a function that sets how much is said, for one test."""
    before = LEVEL.get()
    yield lambda level: LEVEL.set(level) and None
    LEVEL.set(before)


def work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(watch, "EVERY", {0: 0.05, 1: 0.05})
    with Watch() as shown:
        shown.begin("encoder", 200)
        shown.show(1)
        shown.show(50, "loss 1.5, held out 1.7")
        time.sleep(0.3)
    return capsys.readouterr().err


def test_off_a_terminal_a_line_says_how_far_it_is(
    level: Callable[[int | None], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    level(0)
    lines = work(monkeypatch, capsys).splitlines()
    assert len(lines) > 1
    assert lines[0].startswith("encoder: 50 of 200, about 0 s left, loss 1.5, held out 1.7")
    level(1)
    assert "encoder: 0.3 s, loss 1.5" in work(monkeypatch, capsys)
    for silent in (-1, None):
        level(silent)
        assert work(monkeypatch, capsys) == ""


def test_time_left_is_that_of_steps_and_not_of_what_comes_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    shown = Watch()
    shown.begin("head", 201)
    clock[0] = 100
    shown.show(1)
    assert shown.line() == "head: 1 of 201"
    clock[0] = 101
    shown.show(11)
    assert shown.line() == "head: 11 of 201, about 19 s left"


def test_work_that_does_not_say_how_far_it_is_has_a_bar_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.02)
    shown = Watch()
    shown.bars, shown.lines = True, False
    drawn = Event()
    monkeypatch.setattr(shown, "_draw", drawn.set)
    with shown:
        shown.begin("export")
        drawn.clear()
        assert drawn.wait(60)


def test_a_notebook_that_draws_no_bars_has_lines(
    level: Callable[[int | None], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    level(None)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(watch, "find_spec", lambda name: None)
    assert work(monkeypatch, capsys).startswith("encoder: 50 of 200, about 0 s left")


@pytest.mark.parametrize("width", [30, 60, 120])
def test_narrow_terminals_keep_count_and_time(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    with bars(console) as shown:
        task = shown.add_task("decoder", total=1500, text="loss 1.5, held out 1.7")
        shown.update(task, completed=1500)
    last = [line for line in file.getvalue().splitlines() if "decoder" in line][-1]
    assert "1500/1500" in last
    assert "0:00:00" in last
    assert ("━" in last) == (width > 30)
    assert ("held out 1.7" in last) == (width > 60)


def test_quiet_leaves_the_rows_and_errors_alone(
    scgan: Callable[..., Done], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    assert scgan("sample", "--model", model, "-n", 3, "--out", out).err != ""
    assert scgan("sample", "-q", "--model", model, "-n", 3, "--out", out, "--force").err == ""
    scgan("--quiet", "sample", "--model", model, "-n", 3, "--out", out).failed(2, "--force")


def test_the_device_is_said_where_it_surprises(
    scgan: Callable[..., Done], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scgan_train.app import actions

    monkeypatch.setattr(actions, "GPU", tmp_path / "none")
    assert "device" not in scgan("sample", "--model", model, "-n", 3).err
    monkeypatch.setattr(actions, "GPU", tmp_path)
    assert "device: cpu" in scgan("sample", "--model", model, "-n", 3).err


def test_looking_for_rows_of_a_value_says_how_far_it_is(
    scgan: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny

    bundle, lines = tiny.save(tmp_path / "bundle", *tiny.chained((0.9, 0.5))), []
    monkeypatch.setattr(Watch, "show", lambda self, *said: lines.append(said))
    done = scgan(
        "sample", "--model", bundle, "-n", 4200, "--where", "y=b", "-o", tmp_path / "a.csv"
    )
    assert done.err.endswith("a.csv\n")
    *searched, last = lines
    assert last == (4200,)
    assert {count for count, _ in searched} == {0}
    assert searched[-1][1].startswith("4,200 found in ")
