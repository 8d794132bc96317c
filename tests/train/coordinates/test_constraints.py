"""What holds between number columns in all rows of a table holds in every row that coordinates are turned into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from scgan_infer.columns import Column, Table
from scgan_infer.rows.formats import read_table
from scgan_train import graph, train
from scgan_train.config import Config
from scgan_train.coordinates import constraints
from scgan_train.coordinates.constraints import MOST_SUMMED
from scgan_train.coordinates.describing import find_constraints
from scgan_train.coordinates.transform import Coordinates
from scgan_train.inspecting import inspect
from scgan_train.resolving import resolve

N = 600


def columns(seed: int = 0) -> dict[str, np.ndarray]:
    """Return columns between which something holds, and one that is free."""
    rng = np.random.default_rng(seed)
    price, tax = (rng.gamma(2.0, 20.0, N).round(2) for _ in range(2))
    exact = rng.normal(50, 10, (N, 2))
    celsius = rng.normal(15, 8, N).round(1)
    begin = np.datetime64("2024-01-01") + rng.integers(0, 300, N)
    shares = np.sort(rng.normal(0, 1, (N, 3)), 1).astype(np.float32)
    return {
        "price": price,
        "tax": tax,
        "total": (price + tax).round(2),
        "left": exact[:, 0].round(1),
        "right": exact[:, 1].round(1),
        "both": exact.sum(1).round(1),
        "celsius": celsius,
        "fahrenheit": (1.8 * celsius + 32).round(1),
        "least": shares[:, 0],
        "mean": shares[:, 1],
        "most": shares[:, 2],
        "begin": begin,
        "end": begin + rng.exponential(90, N).astype(int),
        "free": rng.standard_normal(N),
    }


def table(missing: bool = False, seed: int = 0) -> Table:
    parts = columns(seed)
    if missing:
        rng = np.random.default_rng(1)
        parts["price"] = np.where(rng.random(N) < 0.2, np.nan, parts["price"])
        parts["total"] = np.where(rng.random(N) < 0.1, np.nan, parts["total"])
        parts["mean"] = np.where(rng.random(N) < 0.3, np.nan, parts["mean"])
        parts["end"] = np.where(rng.random(N) < 0.2, np.datetime64("NaT"), parts["end"])
        parts["celsius"] = np.where(rng.random(N) < 0.2, np.nan, parts["celsius"])
        parts["fahrenheit"] = np.where(np.isnan(parts["celsius"]), np.nan, parts["fahrenheit"])
    return read_table(parts)


def check(rows: Table, x: np.ndarray) -> None:
    """Check that generated rows keep what held in the rows."""
    at = {
        name: x[:, j].astype(np.float64) + (column.anchor or 0.0)
        for j, (name, column) in enumerate(zip(rows.names, rows.columns, strict=True))
    }

    def worst(own: np.ndarray) -> float:
        return float(np.abs(own[~np.isnan(own)]).max())

    assert worst(at["price"] + at["tax"] - at["total"]) < 1e-4
    assert worst(at["left"] + at["right"] - at["both"]) < 0.1001
    assert worst(np.round(1.8 * at["celsius"] + 32, 1) - at["fahrenheit"]) < 1e-4
    assert worst(np.minimum(at["mean"] - at["least"], 0)) == 0
    assert worst(np.minimum(at["most"] - at["mean"], 0)) == 0
    assert worst(np.minimum(at["most"] - at["least"], 0)) == 0
    assert worst(np.minimum(at["end"] - at["begin"], 0)) == 0


@pytest.mark.parametrize("missing", [False, True])
def test_they_are_found_and_hold_in_wild_rows(missing: bool) -> None:
    rows = table(missing)
    mapped = Coordinates.fit(rows)
    shown = {constraint.shown(rows.columns) for constraint in mapped.constraints}
    assert {"total = price + tax", "both = left + right"} <= shown
    assert "fahrenheit = 1.8 celsius + 32" in shown
    owners = {c.owner.name: c.learned for c in mapped.constraints}
    assert owners["end"] or owners["begin"]
    assert not owners["mean"]
    check(rows, rows.values)
    rng = np.random.default_rng(0)
    y = (3 * rng.standard_normal((4000, mapped.dims))).astype(np.float32)
    choice = np.stack([rng.integers(step.size, size=len(y)) for step in mapped.steps], 1)
    x = mapped.inverse(y, choice)
    check(rows, x)
    may_miss = [column.missing for column in rows.columns]
    assert np.array_equal(np.isnan(x).any(0), may_miss)
    for j, column in enumerate(rows.columns):
        there = x[~np.isnan(x[:, j]), j]
        if not {"total", "both", "fahrenheit"} & {column.name}:
            seen = rows.values[:, j]
            assert np.nanmin(seen) <= there.min() <= there.max() <= np.nanmax(seen)
    choices = list(range(len(mapped.steps)))
    inputs = {"y": y * mapped.scale + mapped.shift} | {f"c{k}": choice[:, k] for k in choices}
    arguments = {"y": graph.argument(["n", mapped.dims])}
    arguments |= {f"c{k}": graph.argument(["n"], np.int64) for k in choices}
    made = mapped.graph_rows(arguments["y"], [arguments[f"c{k}"] for k in choices])
    session = onnxruntime.InferenceSession(graph.model(arguments, {"x": made}))
    (theirs,) = session.run(None, inputs)
    assert np.array_equal(np.isnan(theirs), np.isnan(x))
    check(rows, theirs)
    assert (np.abs(theirs - x) > 1e-4 * np.nanstd(x, 0)).mean() < 1e-3


def test_a_sum_of_three_holds_but_none_of_ranges_or_among_many_columns() -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.gamma(2.0, 20.0, N).round(2) for name in ("net", "shipping", "tax")}
    parts["shipping"][rng.random(N) < 0.4] = 0
    parts["total"] = sum(parts.values()).round(2)
    parts["other"] = rng.gamma(6.0, 20.0, N).round(2)
    rows = read_table(parts)
    mapped = Coordinates.fit(rows)
    shown = [constraint.shown(rows.columns) for constraint in mapped.constraints]
    assert "total = net + shipping + tax" in shown
    y = (2 * rng.standard_normal((4000, mapped.dims))).astype(np.float32)
    choice = np.stack([rng.integers(step.size, size=len(y)) for step in mapped.steps], 1)
    x = mapped.inverse(y, choice).astype(np.float64)
    assert np.abs(x[:, :3].sum(1) - x[:, 3]).max() < 1e-3
    many = {f"n{k}": rng.gamma(2.0, 20.0, N).round(2) for k in range(MOST_SUMMED)}
    found = find_constraints(read_table(many | parts))
    assert not any(len(terms) > 2 for each in found for _, terms in each.bases)


@pytest.mark.parametrize("missing", [False, True])
def test_rows_come_back_and_graphs_see_the_same(missing: bool) -> None:
    rows = table(missing)
    mapped = Coordinates.fit(rows)
    again = Coordinates(rows.columns, mapped.state())
    assert repr(again.constraints) == repr(mapped.constraints)
    y, choice = mapped.forward(rows.values), again.choose(rows.values)
    back = mapped.inverse(y, choice)
    assert np.array_equal(np.isnan(back), np.isnan(rows.values))
    assert np.nanmax(np.abs(back - rows.values) / np.nanstd(rows.values, 0)) < 1e-4
    x = graph.argument(["n", len(rows.columns)])
    outputs = {"y": mapped.graph_forward(x), "slope": mapped.graph_log_slope(x)}
    outputs |= {f"c{k}": own for k, own in enumerate(mapped.graph_choose(x))}
    session = onnxruntime.InferenceSession(graph.model({"x": x}, outputs))
    ours, slope, *chosen = session.run(None, {"x": rows.values})
    assert np.allclose(ours, y, atol=1e-4)
    assert np.array_equal(np.stack(chosen, 1), choice)
    assert np.allclose(slope, mapped.log_slope(rows.values), atol=1e-3, equal_nan=True)
    broken = rows.values.copy()
    broken[:, rows.names.index("total")] += 5
    assert (mapped.log_slope(broken)[~np.isnan(broken).any(1)] == -np.inf).all() or missing


def test_equal_columns_that_miss_other_cells() -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal(N).round(3)
    parts = {"free": rng.standard_normal(N), "first": first.copy(), "second": first.copy()}
    for name in ("first", "second"):
        parts[name][rng.random(N) < 0.3] = np.nan
    rows = read_table(parts)
    mapped = Coordinates.fit(rows)
    back = mapped.inverse(mapped.forward(rows.values), mapped.choose(rows.values))
    assert np.allclose(back, rows.values, atol=1e-4, equal_nan=True)
    y = rng.standard_normal((3000, mapped.dims)).astype(np.float32)
    choice = np.stack([rng.integers(step.size, size=len(y)) for step in mapped.steps], 1)
    x = mapped.inverse(y, choice)
    both = ~np.isnan(x[:, 1:]).any(1)
    assert both.sum() > 100
    assert np.array_equal(x[both, 1], x[both, 2])
    alone = np.isnan(x[:, 1]) & ~np.isnan(x[:, 2])
    assert alone.sum() > 100
    assert np.abs(x[alone, 2]).max() < 5


def test_nothing_is_found_by_chance_or_because_of_ranges() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = rng.standard_normal((40, 12)) * rng.uniform(0.1, 10, 12)
        values[:, :4] = rng.integers(0, 5, (40, 4))
        values[:, 0] -= 1000
        assert not find_constraints(read_table(values))
    near = rng.standard_normal((N, 2))
    near[:, 1] += 2 * np.abs(near[:, 0]) + 1
    near[0, 1] = near[0, 0] - 1  # one row that breaks it
    assert not find_constraints(read_table(near))


def test_they_can_be_switched_off_and_are_shown() -> None:
    rows = table()
    assert not Coordinates.fit(rows, matches=()).constraints
    text = "\n".join(inspect(rows, Config()).lines())
    assert "total = price + tax" in text
    assert "end >= begin" in text
    assert "total = price + tax" not in "\n".join(inspect(rows, Config(constraints=False)).lines())
    free, kept = (resolve(Config(constraints=on), rows) for on in (False, True))
    assert int(free.encoder.latent_dim) > int(kept.encoder.latent_dim)


def test_a_training_looks_for_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: cells for name, cells in columns().items() if name in ("price", "tax", "total")}
    searches, find = [], constraints.find

    def counted(*args: Any) -> Any:
        searches.append(args)
        return find(*args)

    monkeypatch.setattr(constraints, "find", counted)
    few = {"clusters": {"k": 1}, "mapper": {"steps": 1}, "decoder": {"widths": 8, "warm_steps": 1}}
    run = train(rows, few, tmp_path / "run")
    assert len(searches) == 1
    kept = run.load_coordinates().constraints
    assert [c.shown(run.columns) for c in kept] == ["total = price + tax"]


def test_a_learned_distance_of_ten_decades_is_as_fine_as_it_was() -> None:
    bound = constraints.Constraint(
        *(1, Column("most"), ((0.0, ((0, 1.0),)),), 1, True), ends=(1e-3, 1e6), learned=True
    )
    rows = np.array([[0, 0.0123], [0, 1.5e6], [0, 0.0]], np.float32)
    wanted = np.array([0.0123, 5e5, 2e-3], np.float32)
    assert np.array_equal(bound.restore(rows), wanted)
    cells = graph.argument(["n", 2])
    parts = list(graph.op.split(graph.op.transpose(cells), num_outputs=2, axis=0))
    made = graph.model({"x": cells}, {"y": bound.restore_graph(parts)})
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"x": rows})[0][0], wanted)
