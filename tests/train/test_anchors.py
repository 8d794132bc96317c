"""Dates, and numbers that float32 can't carry, from a file to a bundle and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import TINY

import scgan_infer
import scgan_train
from scgan_infer.rows.formats import read_table

START = np.datetime64("2021-03-01", "D")
N = 1200


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anchors")
    rng = np.random.default_rng(0)
    days = START + rng.integers(0, 400, N)
    julian = np.round(2459000 + 30 * rng.random(N), 5)
    lines = [f"{day},{date:.5f}" for day, date in zip(days.astype(str), julian, strict=True)]
    (folder / "rows.csv").write_text("\n".join(["day,jd", *lines, ",2459001.00000"]) + "\n")
    run = scgan_train.train(folder / "rows.csv", TINY, folder / "run")
    return scgan_train.export(run, folder / "bundle")


def test_rows_count_from_the_anchor_and_tables_have_the_values(bundle: Path) -> None:
    model = scgan_infer.load(bundle, "cpu", 1)
    rows, table = model.sample(2000, seed=1), model.sample_table(2000, seed=1)
    assert table["day"].dtype.kind == "M"
    assert table["jd"].dtype == np.float64
    assert np.nanmax(np.abs(rows)) < 500
    day, julian = model.columns
    assert day.anchor is not None
    assert julian.anchor is not None
    np.testing.assert_allclose(table["jd"], rows[:, 1].astype(float) + julian.anchor, atol=1e-5)
    known = table["day"][~np.isnat(table["day"])]
    assert known.min() >= START
    assert known.max() < START + 400
    assert np.isnat(table["day"]).sum() == np.isnan(rows[:, 0]).sum()
    assert len(np.unique(table["jd"])) > 1900
    assert (table["jd"] >= 2459000).all()
    assert (table["jd"] <= 2459030).all()


def test_rows_that_were_given_come_back(bundle: Path) -> None:
    model = scgan_infer.load(bundle, "cpu", 1)
    table = read_table(bundle.parent / "rows.csv", columns=model.columns)
    again = model.reconstruct(table.values)
    assert np.array_equal(np.isnan(again), np.isnan(table.values))
    named = dict(zip(table.names, (c.copy() for c in table.values.T), strict=True))
    named["jd"] = named["jd"].astype(np.float64) + (model.columns[1].anchor or 0)
    named["day"] = named["day"].astype(np.float64) + (model.columns[0].anchor or 0)
    np.testing.assert_array_equal(model.reconstruct(named), again)
