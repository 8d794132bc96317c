from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cases import mixed_table, settings

from scgan_infer.columns import Column, Table
from scgan_train import graph
from scgan_train.coordinates import Coordinates
from scgan_train.exporting.parts import Parts
from scgan_train.graph import op
from scgan_train.margins import Margins
from scgan_train.training.stages import train


def everywhere(*parts: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.ones(part.shape, np.bool_) for part in parts)


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray]:
    """Training rows, and generated ones that are skewed and too narrow."""
    rng = np.random.default_rng(0)
    real, made = rng.standard_normal((3000, 2)), rng.standard_normal((20_000, 2))
    return real, 0.97 * made + 0.02 * made**2


@pytest.fixture(scope="module")
def margins(samples: tuple[np.ndarray, np.ndarray]) -> Margins:
    return Margins.fit(*samples, everywhere(*samples))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return Kolmogorov's distance."""
    both = np.sort(np.concatenate([a, b]))
    shares = (np.searchsorted(np.sort(part), both, side="right") / len(part) for part in (a, b))
    return float(np.abs(np.subtract(*shares)).max())


def test_generated_columns_get_the_distribution_of_training_rows(
    samples: tuple[np.ndarray, np.ndarray], margins: Margins
) -> None:
    real, made = samples
    for own, before, after in zip(real.T, made.T, margins.forward(made).T, strict=True):
        assert distance(own, after) < 0.01 < distance(own, before)


def test_curves_can_be_undone(samples: tuple[np.ndarray, np.ndarray], margins: Margins) -> None:
    y = 3 * samples[0]
    assert np.allclose(margins.inverse(margins.forward(y)), y, atol=1e-6)
    small = 1e-6
    slope = (margins.inverse(y + small) - margins.inverse(y - small)) / (2 * small)
    assert np.median(np.abs(np.log(slope) - margins.log_slope(y))) < 1e-6


def test_graphs_compute_what_numpy_does(
    samples: tuple[np.ndarray, np.ndarray], margins: Margins
) -> None:
    y = (2 * samples[0]).astype(np.float32)
    scale, shift = np.array([3.0, 0.1]), np.array([1.0, -7.0])
    f = graph.argument(["n", 2])
    columns = op.transpose(f)
    outputs = {
        "rows": margins.graph(columns, scale, shift),
        "back": margins.inverse_graph(columns),
        "slope": margins.log_slope_graph(columns),
    }
    session = onnxruntime.InferenceSession(
        graph.model({"f": f}, {name: op.transpose(out) for name, out in outputs.items()}),
        providers=["CPUExecutionProvider"],
    )
    (rows,) = session.run(["rows"], {"f": (y * scale + shift).astype(np.float32)})
    assert np.allclose((rows - shift) / scale, margins.forward(y), atol=1e-4)
    back, slope = session.run(["back", "slope"], {"f": y})
    assert np.allclose(back, margins.inverse(y), atol=1e-5)
    assert np.mean(np.abs(slope - margins.log_slope(y)) > 1e-5) < 1e-3


def test_an_empty_band_stays_empty() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.random((4000, 1)), rng.random((20_000, 1)) ** 1.3
    for rows, left in ((real, 1960), (made, 9950)):
        rows += 0.3
        rows[:left] *= -1
        rng.shuffle(rows)
    bent = Margins.fit(real, made, everywhere(real, made)).forward(made)
    assert (np.abs(bent) < 0.28).sum() == 0
    assert distance(real[:, 0], bent[:, 0]) < 0.5 * distance(real[:, 0], made[:, 0])


def test_a_spike_that_a_curve_would_smear_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.standard_normal((3000, 1)), rng.standard_normal((20_000, 1))
    for rows, share in ((real, 0.41), (made, 0.40)):
        rows[: int(share * len(rows))] = 0.5 + 1e-3 * rows[: int(share * len(rows))]
        rng.shuffle(rows)
    margins = Margins.fit(real, made, everywhere(real, made))
    assert np.allclose(margins.forward(made), made, atol=1e-6)


def test_rows_come_back_through_the_curves_of_their_columns() -> None:
    table = mixed_table()
    plain = Coordinates.fit(table)
    values = np.sort(np.random.default_rng(0).normal(size=(31, plain.dims)), 0).astype(np.float32)
    bent = Coordinates(table.columns, plain.state() | {"margins": values})
    y, choice = bent.forward(table.values), bent.choose(table.values)
    rows = bent.inverse(y, choice)
    there = plain.inverse(plain.forward(table.values), choice)
    assert np.allclose(rows, there, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert not np.allclose(y, plain.forward(table.values))


@pytest.mark.parametrize("missing", [False, True])
def test_numbers_that_repeat_come_as_often_as_they_did(missing: bool, tmp_path: Path) -> None:
    """A ring in two clusters is far from what their maps make of it after a few steps."""
    rng = np.random.default_rng(0)
    turn = 2 * np.pi * rng.random((2000, 1)) + np.array([0, 0.5, 1, 1.5]) * np.pi
    values = np.rint(30 * np.cos(turn * [1, 1, 2, 2]) + rng.standard_normal((2000, 4)))
    values[missing & (values[:, 0] > 20), 3] = np.nan
    columns = (*(Column(f"x{j}", "integer") for j in range(3)), Column("x3", missing=missing))
    few = settings(clusters={"k": 2}, encoder={"steps": 0}, mapper={"steps": 10})
    run = train(Table(columns, values.astype(np.float32)), few, tmp_path / "run")
    parts = Parts.of(run)
    assert parts.coordinates.scored.all()
    inputs = parts.inputs(20_000, torch.Generator().manual_seed(1))
    made = parts.compute("generator.onnx", inputs)["x"]
    held = {row.tobytes() for row in run.load_held_out()}
    rows = np.array([row for row in values.astype(np.float32) if row.tobytes() not in held])
    for sides in zip(rows.T, made.T, strict=True):
        own, drawn = (side[~np.isnan(side)] for side in sides)
        numbers = np.unique(own)
        shares = ((part[:, None] <= numbers).mean(0) for part in (own, drawn))
        assert np.abs(np.subtract(*shares)).max() < 0.015
