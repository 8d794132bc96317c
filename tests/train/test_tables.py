"""Tables with nothing continuous, and tables whose columns hang together, from rows to samples and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import settings

import scgan_infer
from scgan_infer.errors import UsageError
from scgan_infer.judging.figures import evaluate
from scgan_infer.rows.formats import read_table
from scgan_train.exporting.exporter import export
from scgan_train.training.stages import train

RNG = np.random.default_rng(0)
N = 300
DICE = RNG.integers(1, 7, (2, N))
NOTHING_CONTINUOUS: dict[str, dict[str, Any]] = {
    "discrete": {
        "name": RNG.choice(list("xyz"), N),
        "few": RNG.integers(0, 3, N),
        "same": np.full(N, 7.0),
        "may miss": np.where(RNG.random(N) < 0.3, "", "k"),
    },
    "first the same": {"same": np.full(N, 7.0), "name": RNG.choice(list("xyz"), N)},
    "one number or none": {"x": np.where(RNG.random(N) < 0.3, np.nan, 5.0)},
    "constant": {"x": np.full(200, 3.0), "name": np.full(200, "x")},
    "a sum": {"first": DICE[0], "second": DICE[1], "pips": DICE.sum(0)},
}


@pytest.mark.parametrize("name", NOTHING_CONTINUOUS)
def test_nothing_continuous(name: str, tmp_path: Path) -> None:
    rows = read_table(NOTHING_CONTINUOUS[name])
    model = scgan_infer.load(export(train(rows, settings(), tmp_path / "run"), tmp_path / "bundle"))
    x = model.sample(2000)
    for ours, seen in zip(x.T, rows.values.T, strict=True):
        values, counts = np.unique(ours, return_counts=True)
        known, wanted = np.unique(seen, return_counts=True)
        assert np.array_equal(values, known, equal_nan=True)
        assert np.abs(counts / len(ours) - wanted / len(seen)).max() < 0.06
    assert np.array_equal(model.reconstruct(rows.values), rows.values, equal_nan=True)
    assert evaluate(rows.values, x[: len(rows)], columns=rows.columns).overall
    if name == "a sum":
        assert (x[:, 0] + x[:, 1] == x[:, 2]).all()
        with pytest.raises(UsageError, match=r"not drawn outright, .* those of first, sec"):
            model.sample(1, where={"pips": 7})
        assert (model.sample(100, where={"first": 6})[:, 0] == 6).all()


def test_constraints_hold_in_a_bundle(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    price, tax = (rng.gamma(2.0, 20.0, 500).round(2) for _ in range(2))
    asked = np.datetime64("2024-01-01") + rng.integers(0, 300, 500)
    rows = read_table(
        {
            "price": price,
            "total": (price + tax).round(2),
            "tax": tax,
            "asked": asked,
            "sent": asked + rng.integers(0, 4, 500),
            "young": (young := rng.integers(0, 8, 500)),
            "old": young + rng.integers(0, 6, 500),
        }
    )
    bundle = export(train(rows, settings(), tmp_path / "run"), tmp_path / "bundle")
    model = scgan_infer.load(bundle)
    x = model.sample_table(3000)
    assert np.abs(np.subtract(x["total"], np.add(x["price"], x["tax"]))).max() < 1e-6
    assert (x["sent"] >= x["asked"]).all()
    assert (x["old"] >= x["young"]).all()
    assert {step.remainder for step in model.manifest.steps} == {True, False}
    assert np.median(np.abs(model.reconstruct(rows.values) - rows.values)[:, 1]) < 0.5
