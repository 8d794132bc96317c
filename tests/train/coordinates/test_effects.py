from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cases import settings
from sklearn import linear_model

from scgan_infer.columns import Column, Table
from scgan_train import graph
from scgan_train.coordinates.effects import (
    PENALTIES,
    Effects,
    Ridge,
    features_of,
    hanging,
    preferred,
    seen,
    slopes_of,
)
from scgan_train.coordinates.transform import Coordinates
from scgan_train.exporting.parts import Parts
from scgan_train.maps.flow import FlowMapper
from scgan_train.training.stages import train

ROOMS = np.arange(1.0, 7.0)


def flats(n: int, seed: int = 0) -> Table:
    """Flats whose area hangs on their rooms, and which are more often not renovated where they were built late."""
    rng = np.random.default_rng(seed)
    rooms = 1 + rng.binomial(5, 0.35, n)
    area = 18 + 17 * rooms + rng.gamma(2, 6, n)
    built = 1900 + 120 * rng.beta(3, 1.5, n)
    renovated = built + 5 + 55 * rng.random(n)
    renovated[rng.random(n) < np.where(built < 1970, 0.2, 0.7)] = np.nan
    dated = (Column("built"), Column("renovated", missing=True))
    columns = (Column("rooms", "integer"), Column("area"), *dated)
    return Table(columns, np.column_stack([rooms, area, built, renovated]).astype(np.float32))


def linked(x: np.ndarray) -> tuple[float, float, float]:
    """Return how area hangs on rooms, and the shares that are not renovated of older and of later flats."""
    gone, old = np.isnan(x[:, 3]), x[:, 2] < 1970
    return float(np.corrcoef(x[:, 0], x[:, 1])[0, 1]), gone[old].mean(), gone[~old].mean()


@pytest.fixture
def outcomes() -> np.ndarray:
    """Rooms, and one of three names."""
    rng = np.random.default_rng(0)
    return np.column_stack([rng.integers(6, size=400), rng.integers(3, size=400)])


def fitted(choice: np.ndarray, y: np.ndarray) -> Effects | None:
    return Effects.fit(features_of([ROOMS, np.zeros(0)], [6, 3], choice), choice, y)


def test_means_are_those_of_the_rows(outcomes: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    mean = np.column_stack([outcomes[:, 0] - 2.5, np.array([-40.0, 0, 30])[outcomes[:, 1]]])
    y = mean + [0.5, 1.0] * rng.standard_normal(mean.shape)
    effects = fitted(outcomes, y)
    assert effects
    assert np.abs(effects.mean(outcomes) - mean).max() < 0.5
    assert effects.spread == pytest.approx([0.5, 1.0], rel=0.1)
    left = effects.forward(y, outcomes)
    assert left.std(0) == pytest.approx([1, 1], rel=0.1)
    assert np.allclose(effects.inverse(left, outcomes), y, atol=1e-4)


def test_ridge_regressions_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 12)) + 3, rng.standard_normal((80, 2)) - 1
    x[:, 5] = x[:, 4]
    ridge, peer = Ridge(x), linear_model.RidgeCV(PENALTIES, store_cv_results=True).fit(x, y)
    assert ridge.left_out(y) == pytest.approx(peer.cv_results_.mean(0), abs=2e-6)
    slopes, start = ridge.fit(y, 0.1)
    other = linear_model.Ridge(0.1).fit(x, y)
    assert x @ slopes + start == pytest.approx(other.predict(x), abs=1e-9)


def test_what_no_outcome_predicts_has_no_mean(outcomes: np.ndarray) -> None:
    y = np.random.default_rng(1).standard_normal((400, 3))
    assert fitted(outcomes, y) is None


def test_of_many_rows_the_flow_learns_means_also_where_few_have_the_coordinate() -> None:
    choice = np.random.default_rng(0).integers(3, size=(10_000, 1))
    features, y = features_of([np.zeros(0)], [3], choice), 5.0 * choice
    present = np.arange(10_000)[:, None] < 400
    assert Effects.fit(features, choice, y, present) is None
    assert Effects.fit(features, choice[1:], y[1:], present[1:])


def test_a_relation_between_coordinates_holds_between_their_means(outcomes: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    y = np.array([-40.0, 0, 30])[outcomes[:, [1]]] + rng.standard_normal((400, 2))
    y = np.column_stack([y, y @ [2.0, -3.0]])
    effects = fitted(outcomes, y)
    assert effects
    mean = effects.mean(outcomes)
    assert np.abs(mean[:, 2] - mean[:, :2] @ [2.0, -3.0]).max() < 1e-3


def test_a_rare_outcome_is_no_copy_of_its_row() -> None:
    rng = np.random.default_rng(0)
    choice = rng.integers(3, size=(200, 1))
    choice[:2] = [[3], [4]]
    y = 5.0 * choice + rng.standard_normal((200, 1))
    y[:2] = [[100.0], [-100.0]]
    features = features_of([np.zeros(0)], [5], choice)
    effects = Effects.fit(features, choice, y)
    assert effects
    assert np.abs(effects.mean(choice[:2])).max() < 20


def test_graphs_compute_what_numpy_does(outcomes: np.ndarray) -> None:
    y = outcomes @ [[1.0, 0.0], [-2.0, 3.0]] + np.random.default_rng(1).standard_normal((400, 2))
    effects = fitted(outcomes, y)
    assert effects
    choice = [graph.argument(("n",), np.int64) for _ in range(2)]
    names = {"a": choice[0], "b": choice[1]}
    session = onnxruntime.InferenceSession(
        graph.model(names, {"m": effects.mean_graph(choice)}), providers=["CPUExecutionProvider"]
    )
    (mean,) = session.run(None, dict(zip("ab", outcomes.T.copy(), strict=True)))
    assert np.allclose(mean, effects.mean(outcomes), atol=1e-6)


def test_coordinates_hang_on_what_moves_spreads_turns_or_bends_them(outcomes: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    names, v = outcomes[:, 1], rng.standard_normal((400, 6))
    v[:, 0] += 0.6 * (names == 0)
    v[:, 1] *= 1 + 0.6 * (names == 1)
    v[:, 3] = np.where(names == 2, -0.5, 0.5) * v[:, 2] + 0.8 * v[:, 3]
    v[:, 4] = np.where(names == 1, np.sign(v[:, 4]), v[:, 4])
    found = hanging(v, outcomes)
    assert found[:, 1].tolist() == [True] * 5 + [False]
    chance = hanging(rng.standard_normal((400, 100)), outcomes)
    assert 0 < chance.mean() < 0.3


def test_few_rows_differ_by_no_name_that_says_nothing(tmp_path: Path) -> None:
    """Else rows are told apart by their names, and learned by heart."""
    plain, rng = flats(400), np.random.default_rng(3)
    columns = (*plain.columns, Column("lot", "category", categories=tuple("abcdefgh")))
    lots = rng.integers(8, size=(400, 1)).astype(np.float32)
    table = Table(columns, np.concatenate([plain.values, lots], 1))
    few = settings(mapper={"kind": "flow", "steps": 100}, clusters={"k": 2})
    parts = Parts.of(train(table, few, tmp_path / "run"))
    flow, steps = parts.latents.ensemble, parts.coordinates.steps
    choice = torch.zeros((64, len(steps) + 1), dtype=torch.int64)
    w = torch.randn((64, flow.noise), generator=torch.Generator().manual_seed(0))
    moved = {}
    for k, step in enumerate(steps):
        other = choice.clone()
        other[:, k] = step.size - 1
        difference = (flow(w, other) - flow(w, choice)).detach()
        moved[table.columns[step.column].name] = float(difference.abs().max())

    assert moved["lot"] == 0 < moved["renovated"]


def test_a_name_may_have_a_slope_of_its_own(outcomes: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    rooms, names = outcomes.T
    mean = np.array([1.0, -1.0, 0.0])[names] * (rooms - 2.5)
    y = np.column_stack([mean + 0.5 * rng.standard_normal(400), rng.standard_normal(400)])
    numbers, sizes = [ROOMS, np.zeros(0)], [6, 3]
    features, slopes = (each(numbers, sizes, outcomes) for each in (features_of, slopes_of))
    effects = Effects.fit(features, outcomes, y, slopes=slopes)
    assert effects
    assert effects.pairs.tolist() == [[0, 1]]
    assert np.abs(effects.mean(outcomes)[:, 0] - mean).mean() < 0.1
    assert effects.spread == pytest.approx([0.5, 1.0], rel=0.15)
    again = Effects(effects.table, effects.sizes, effects.spread, effects.pairs)
    choice = [graph.argument(("n",), np.int64) for _ in range(2)]
    session = onnxruntime.InferenceSession(
        graph.model(dict(zip("ab", choice, strict=True)), {"m": again.mean_graph(choice)}),
        providers=["CPUExecutionProvider"],
    )
    (found,) = session.run(None, dict(zip("ab", outcomes.T.copy(), strict=True)))
    assert np.allclose(found, effects.mean(outcomes), atol=1e-6)
    y[:, 0] = rooms + names + rng.standard_normal(400)
    plain = Effects.fit(features, outcomes, y, slopes=slopes)
    assert plain
    assert not len(plain.pairs)


@pytest.mark.parametrize("kept", ["coordinates", "frames"])
def test_few_rows_keep_a_slope_that_turns_by_name(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one slope for all names, the first correlation is -.54."""
    monkeypatch.setattr(
        "scgan_train.coordinates.transform.preferred", lambda *_: kept == "coordinates"
    )
    rng = np.random.default_rng(0)
    rooms, name = rng.integers(1, 13, 500), rng.integers(2, size=500)
    area = np.where(name, 1, -1) * (rooms - 6.5) / 3.5 + 0.5 * rng.standard_normal(500)
    columns = (
        Column("rooms", "integer"),
        Column("name", "category", categories=("a", "b")),
        Column("area"),
    )
    table = Table(columns, np.column_stack([rooms, name, area]).astype(np.float32))
    few = settings(mapper={"kind": "flow", "steps": 20}, clusters={"k": 2})
    parts = Parts.of(train(table, few, tmp_path / "run"))
    inputs = parts.inputs(20_000, torch.Generator().manual_seed(1))
    made = parts.compute("generator.onnx", inputs)["x"]
    found = [np.corrcoef(made[made[:, 1] == k][:, [0, 2]].T)[0, 1] for k in range(2)]
    assert found[0] < -0.65
    assert found[1] > 0.65


def test_means_stay_in_frames_where_columns_hang_together_in_other_ways_elsewhere(
    outcomes: np.ndarray,
) -> None:
    """Of three names, each at its place on a bent line; or of one straight line that is moved."""
    rng = np.random.default_rng(1)
    place = 2.0 * outcomes[:, 1] + rng.random(400)
    noise = 0.02 * rng.standard_normal((400, 2))
    bent = np.column_stack([place, np.sin(2 * place)]) + noise
    features = features_of([ROOMS, np.zeros(0)], [6, 3], outcomes)
    moved = outcomes @ [[1.0, 0.0], [0.0, 5.0]] + rng.random((400, 1)) + noise
    for y, taken in ((bent, False), (moved, True)):
        effects = fitted(outcomes, y)
        assert effects
        slopes = np.full(400, -np.log(effects.spread).sum())
        left = effects.forward(y, outcomes)
        assert preferred(seen(features, outcomes), y, left, slopes) is taken


def test_coordinates_come_back_and_graphs_agree() -> None:
    table = flats(400)
    mapped = Coordinates.fit(table)
    assert mapped.effects
    y, choice = mapped.forward(table.values), mapped.choose(table.values)
    assert np.allclose(mapped.inverse(y, choice), table.values, rtol=1e-4, equal_nan=True)
    again = Coordinates(table.columns, mapped.state())
    assert np.array_equal(again.forward(table.values), y)
    x = graph.argument(("n", 4))
    session = onnxruntime.InferenceSession(
        graph.model({"x": x}, {"y": again.graph_forward(x), "slope": again.graph_log_slope(x)}),
        providers=["CPUExecutionProvider"],
    )
    made, slope = session.run(None, {"x": table.values})
    assert np.allclose(made, y, atol=1e-4)
    there = ~np.isnan(mapped.log_slope(table.values))
    assert np.allclose(slope[there], mapped.log_slope(table.values)[there], atol=1e-4)


@pytest.mark.parametrize("kept", ["coordinates", "frames"])
def test_few_rows_keep_what_hangs_on_discrete_values(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any means, area hangs on rooms by .12, and the shares differ by .19 to .25."""
    monkeypatch.setattr(
        "scgan_train.coordinates.transform.preferred", lambda *_: kept == "coordinates"
    )
    table = flats(400)
    few = settings(mapper={"kind": "flow", "steps": 40}, clusters={"k": 2})
    parts = Parts.of(train(table, few, tmp_path / "run"))
    assert bool(parts.coordinates.effects) is (kept == "coordinates")
    assert isinstance(parts.latents.ensemble, FlowMapper)
    inputs = parts.inputs(20_000, torch.Generator().manual_seed(1))
    hangs, old, late = linked(parts.compute("generator.onnx", inputs)["x"])
    assert hangs == pytest.approx(linked(table.values)[0], abs=0.06)
    assert late - old > 0.24
