from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cases import mixed_table, settings

from scgan_infer.columns import Column, Table
from scgan_train import graph
from scgan_train.coordinates.margins import Margins
from scgan_train.coordinates.transform import Coordinates
from scgan_train.exporting.parts import Parts
from scgan_train.graph import op
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


@pytest.fixture(scope="module")
def blurred() -> tuple[Margins, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Curves, coordinates and where a cell is missing, of training rows and of generated ones that blur the edge."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, 2)), rng.standard_normal((20_000, 2))
    gone = tuple(
        rng.random(len(y)) < np.where(y[:, 0] + blur * rng.standard_normal(len(y)) > 1, 0.9, 0.1)
        for y, blur in zip(rows, (0, 0.6), strict=True)
    )
    return Margins.fit(*rows, everywhere(*rows), {3: gone}), rows, gone


def test_rows_where_a_cell_is_missing_have_a_curve_of_their_own(
    blurred: tuple[Margins, tuple[np.ndarray, ...], tuple[np.ndarray, ...]],
) -> None:
    margins, (real, made), (gone, other) = blurred
    assert margins.steps is not None
    assert margins.steps.tolist() == [3, -1]
    bent = margins.forward(made, margins.sides({3: other}, len(other)))
    for own, drawn in ((gone, other), (~gone, ~other)):
        assert distance(real[own, 0], bent[drawn, 0]) < 0.04
    assert distance(real[gone, 0], made[other, 0]) > 0.1
    assert (
        Margins.fit(real, real[::-1], everywhere(real, real), {3: (gone, gone[::-1])}).steps is None
    )


def test_curves_of_missing_cells_can_be_undone_and_graphs_agree(
    blurred: tuple[Margins, tuple[np.ndarray, ...], tuple[np.ndarray, ...]],
) -> None:
    margins, (y, _), (gone, _) = blurred
    sides = margins.sides({3: gone}, len(gone))
    assert sides is not None
    moved = margins.forward(y, sides)
    assert np.allclose(margins.inverse(moved, sides), y, atol=1e-6)
    small = 1e-6
    slope = (margins.inverse(y + small, sides) - margins.inverse(y - small, sides)) / (2 * small)
    assert np.median(np.abs(np.log(slope) - margins.log_slope(y, sides))) < 1e-6
    scale, shift = np.array([3.0, 0.1]), np.array([1.0, -7.0])
    f, side = graph.argument(["n", 2]), graph.argument(["n", 2], np.int64)
    columns, own = op.transpose(f), op.transpose(side)
    outputs = {
        "rows": margins.graph(columns, scale, shift, own),
        "back": margins.inverse_graph(columns, own),
        "slope": margins.log_slope_graph(columns, own),
    }
    session = onnxruntime.InferenceSession(
        graph.model(
            {"f": f, "side": side}, {name: op.transpose(out) for name, out in outputs.items()}
        ),
        providers=["CPUExecutionProvider"],
    )
    inputs = {"f": (y * scale + shift).astype(np.float32), "side": sides.astype(np.int64)}
    (rows,) = session.run(["rows"], inputs)
    assert np.allclose((rows - shift) / scale, moved, atol=1e-4)
    back, slope = session.run(["back", "slope"], inputs | {"f": y.astype(np.float32)})
    assert np.allclose(back, margins.inverse(y, sides), atol=1e-5)
    assert np.mean(np.abs(slope - margins.log_slope(y, sides)) > 1e-5) < 1e-3


def test_few_rows_keep_how_often_a_cell_is_missing_by_a_number(tmp_path: Path) -> None:
    """With one curve for all rows .68 of the cells are missing below -1, with two .74, in the rows .81."""
    rng = np.random.default_rng(0)
    temperature = rng.standard_normal(2000)
    rating = rng.random(2000)
    rating[rng.random(2000) < np.where(temperature < -1, 0.8, 0.1)] = np.nan
    table = Table(
        (Column("temperature"), Column("rating", missing=True)),
        np.column_stack([temperature, rating]).astype(np.float32),
    )
    few = settings(mapper={"kind": "flow", "steps": 150}, clusters={"k": 1})
    parts = Parts.of(train(table, few, tmp_path / "run"))
    mapped = parts.coordinates
    y, choice = mapped.forward(table.values), mapped.choose(table.values)
    back = np.isclose(mapped.inverse(y, choice), table.values, atol=1e-4, equal_nan=True)
    assert back.mean() > 0.99  # rows that are held out may lie beyond the range of the others
    inputs = parts.inputs(20_000, torch.Generator().manual_seed(1))
    made = parts.compute("generator.onnx", inputs)["x"]
    gone, cold = np.isnan(made[:, 1]), made[:, 0] < -1
    assert gone[cold].mean() == pytest.approx(0.8, abs=0.085)
    assert gone[~cold].mean() == pytest.approx(0.1, abs=0.04)


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
