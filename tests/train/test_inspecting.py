from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest

import scgan_train
from scgan_train import config as configs
from scgan_train import datasets


def rows(n: int = 2000) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    gain = np.where(rng.random(n) < 0.7, 0.0, rng.exponential(5, n))
    gain[:50] = np.nan
    mark = rng.normal(10, 1, n)
    mark[rng.random(n) < 0.05] = -999
    return {
        "Sepal.Length of": rng.integers(1, 50, n),
        "k, name": np.where(rng.random(n) < 0.9, "a", "b"),
        "gain": gain,
        "phi": rng.uniform(-np.pi, np.pi, n),
        "degrees": rng.uniform(0, 360, n),
        "mark": mark,
        "number": np.arange(n),
        "same": np.ones(n),
    }


def test_columns_are_shown_with_what_is_drawn_and_what_is_missing() -> None:
    found = scgan_train.inspect(rows())
    columns = {finding.column.name: finding for finding in found.findings}
    assert found.rows == 2000
    assert columns["gain"].missing == 50
    assert dict(columns["gain"].drawn)["0"] == pytest.approx(0.69, abs=0.03)
    assert dict(columns["gain"].drawn)[""] == 0.025
    assert columns["gain"].rest
    assert [name for name, _ in columns["k, name"].drawn] == ["a", "b"]
    lines = list(found.lines())
    shown = next(line for line in lines if line.startswith("gain"))
    assert "0 6" in shown and "missing 2.5%" in shown and shown.endswith("50")  # noqa: PT018


def test_no_value_of_a_column_that_is_put_together_from_others_is_said_to_be_drawn() -> None:
    rng = np.random.default_rng(0)
    ordered = np.datetime64("2022-03-01") + rng.integers(0, 400, 2000)
    shipped = ordered + rng.geometric(0.4, 2000)
    shipped[::10] = np.datetime64("NaT")
    table = {"ordered": ordered, "shipped": shipped}
    found = scgan_train.inspect(table)
    columns = {finding.column.name: finding for finding in found.findings}
    assert found.constraints
    assert columns["shipped"].missing == 200
    assert not columns["shipped"].drawn
    assert columns["shipped"].rest


def test_steps_of_dates_are_shown_with_their_unit() -> None:
    rng = np.random.default_rng(0)
    quarters = np.datetime64("2022-03-01T00:00", "m") + 15 * rng.integers(40_000, size=2000)
    (line,) = (line for line in scgan_train.inspect({"at": quarters}).lines() if "steps of" in line)
    assert line.rstrip().endswith("steps of 15 minutes")


def test_angles_marks_row_numbers_and_constants_get_a_hint() -> None:
    notes = "\n".join(scgan_train.inspect(rows()).lines())
    assert "phi looks like an angle in radians; columns.phi.period=6.28318531" in notes
    assert "degrees looks like an angle in degrees; columns.degrees.period=360" in notes
    assert "mark -999 looks like a mark for missing cells" in notes
    assert "number names rows: it is numbered anew" in notes
    assert "same is the same in every row" in notes
    assert "gain looks" not in notes


def test_the_advice_on_kinds_is_a_setting_that_can_be_written() -> None:
    from scgan_train.app.actions import as_options
    from scgan_train.app.settings import assignment

    note = list(scgan_train.inspect(rows()).lines())[-1]
    [advice] = [word for word in shlex.split(as_options(note)) if word.startswith("--set=")]
    settings = configs.from_dict(assignment(advice.removeprefix("--set=")))
    assert settings.columns == {"Sepal.Length of": {"kind": "real"}}


def test_the_columns_as_settings_give_the_same_columns_again() -> None:
    found = scgan_train.inspect(rows())
    config = configs.from_dict(tomllib.loads(found.settings()))
    again = datasets.load(rows(), config)[1]
    assert again.columns == tuple(finding.column for finding in found.findings)


def test_the_settings_read_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("".join(f"{k},{k}.5,{k % 7}.25\n" for k in range(40)))
    asked = {"header": False, "select": ["x1", "x2"], "given": ["x2"], "clusters": {"k": 3}}
    found = scgan_train.inspect(str(tmp_path / "rows.csv"), asked)
    config = configs.from_dict(tomllib.loads(found.settings()))
    again = datasets.load(tmp_path / "rows.csv", config)[1]
    assert again.names == ("x1", "x2")
    assert len(again) == 40
    assert (config.given, config.clusters.k) == (("x2",), 3)


def test_a_column_that_was_left_out_stays_out() -> None:
    table = {"name": np.array([f"name {k % 50}" for k in range(60)], object), "a": np.arange(60)}
    found = scgan_train.inspect(table, {"columns": {"name": {"kind": "drop"}}})
    config = configs.from_dict(tomllib.loads(found.settings()))
    assert datasets.load(table, config)[1].names == ("a",)


def test_what_was_noticed_while_reading_is_shown() -> None:
    labelled = {"Unnamed: 0": np.arange(40), "a": np.arange(40) / 3}
    first = next(scgan_train.inspect(labelled).lines())
    assert first.startswith("note: the first column has no name")
