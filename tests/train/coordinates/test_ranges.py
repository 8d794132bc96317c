from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cases import settings

from scgan_infer.columns import Column, Table
from scgan_train import graph
from scgan_train.coordinates.ranges import Ranges
from scgan_train.coordinates.transform import Coordinates
from scgan_train.exporting.parts import Parts
from scgan_train.training.stages import train


def sensors(n: int, seed: int = 0) -> Table:
    """A reading is missing above a temperature of 1, which also says the season; and a category of no use."""
    rng = np.random.default_rng(seed)
    temperature = rng.standard_normal(n)
    reading = np.where(temperature > 1, np.nan, 0.6 * temperature + rng.standard_normal(n))
    season = np.digitize(temperature, [-0.7, 0.7])
    table = np.column_stack([temperature, reading, season, rng.integers(3, size=n)])
    columns = (
        Column("temperature"),
        Column("reading", missing=True),
        Column("season", "category", categories=("winter", "spring", "summer")),
        Column("lot", "category", categories=("a", "b", "c")),
    )
    return Table(columns, table.astype(np.float32))


def wrong(x: np.ndarray) -> int:
    """Count rows that no law of `sensors` allows, but for what lies within .05 of an end."""
    temperature, season = x[:, 0].astype(np.float64), x[:, 2]
    gone = np.isnan(x[:, 1])
    found = (gone & (temperature < 0.95)) | (~gone & (temperature > 1.05))
    for k, end in enumerate((-0.7, 0.7)):
        found |= (season > k) & (temperature < end - 0.05)
        found |= (season <= k) & (temperature > end + 0.05)
    return int(found.sum())


def test_a_range_ends_halfway_to_the_next_row() -> None:
    f = np.arange(100.0)[:, None]
    choice = np.digitize(f, [30, 60])
    found = Ranges.find(f, np.ones(f.shape, np.bool_), choice, [3])
    assert found
    assert found.low[1:].tolist() == [[29.5], [59.5]]
    assert found.high[:2].tolist() == [[29.5], [59.5]]
    assert found.hold(np.array([[-50.0], [31.0], [70.0]]), np.zeros((3, 1), np.int64)).tolist() == [
        [-50.0],
        [28.0],  # reflected
        [-11.0],
    ]
    held = found.hold(np.array([[-500.0], [20.0], [90.0], [45.0]]), np.ones((4, 1), np.int64))
    assert ((held >= 29.5) & (held <= 59.5)).all()
    assert held[3] == 45


@pytest.mark.parametrize("case", ["chance", "few rows", "a tie", "one row among others", "absent"])
def test_no_range_is_found(case: str) -> None:
    rng = np.random.default_rng(0)
    f = np.arange(300.0)[:, None]
    choice = (f > 150).astype(np.int64)
    there = np.ones(f.shape, np.bool_)
    if case == "chance":
        choice = rng.integers(3, size=f.shape)
    elif case == "few rows":
        choice = (f > 290).astype(np.int64) + 2 * (f < 9)
        choice[50] = 1
        choice[60] = 2
        choice[290] = 0
    elif case == "a tie":
        f[151] = f[150]
    elif case == "one row among others":
        choice[10], choice[290] = 1, 0
    else:
        there = f < 150
    assert Ranges.find(f, there, choice, [3]) is None


def test_no_range_is_found_where_numbers_differ_by_name() -> None:
    rng = np.random.default_rng(0)
    choice = rng.integers(3, size=(2000, 1))
    f = 2.5 * choice + rng.standard_normal(choice.shape)
    assert Ranges.find(f, np.ones(f.shape, np.bool_), choice, [3]) is None


def test_real_rows_are_left_alone_and_graphs_compute_what_numpy_does() -> None:
    table = sensors(600)
    mapped = Coordinates.fit(table)
    assert mapped.ranges
    choice = mapped.choose(table.values)
    made = mapped.inverse(mapped.forward(table.values), choice)
    assert np.allclose(made, table.values, atol=1e-5, equal_nan=True)
    wild = np.random.default_rng(1).normal(0, 2, (4000, mapped.dims)).astype(np.float32)
    own = mapped.choose(sensors(4000, 1).values)
    rows = mapped.inverse(wild, own)
    assert wrong(rows) == 0
    again = Coordinates(table.columns, mapped.state())
    f = graph.argument(("n", mapped.dims))
    chosen = [graph.argument(("n",), np.int64) for _ in own.T]
    names = {f"c{k}": each for k, each in enumerate(chosen)}
    session = onnxruntime.InferenceSession(
        graph.model({"f": f, **names}, {"x": again.graph_rows(f, chosen)}),
        providers=["CPUExecutionProvider"],
    )
    inputs = dict(zip(names, own.T.copy(), strict=True))
    (found,) = session.run(None, {"f": wild * mapped.unit + mapped.shift, **inputs})
    assert np.allclose(found, rows, atol=1e-5, equal_nan=True)


def test_few_rows_train_a_generator_without_impossible_rows(tmp_path: Path) -> None:
    table = sensors(800)
    few = settings(mapper={"kind": "flow", "steps": 40}, clusters={"k": 2})
    parts = Parts.of(train(table, few, tmp_path / "run"))
    inputs = parts.inputs(20_000, torch.Generator().manual_seed(1))
    made = parts.compute("generator.onnx", inputs)["x"]
    assert wrong(made) < 20
    real = sensors(20_000, 1).values
    assert wrong(real) == 0
    gone, other = (np.isnan(x[:, 1]) for x in (made, real))
    assert gone.mean() == pytest.approx(other.mean(), abs=0.03)
    thirds = [np.quantile(x[own, 0], [0.33, 0.67]) for x, own in ((made, gone), (real, other))]
    assert thirds[0] == pytest.approx(thirds[1], abs=0.12)
