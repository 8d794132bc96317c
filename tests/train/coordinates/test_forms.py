"""Scores: coordinates of columns of numbers that repeat, and of those beside a heavy one."""

from __future__ import annotations

import numpy as np
import pytest

from scgan_infer.columns import Column, Table
from scgan_train.coordinates.transform import Coordinates
from tests.train.coordinates.test_coordinates import inverse_graph, run


@pytest.fixture(scope="module")
def amounts() -> Table:
    """Many columns of amounts on two sides of an empty band, or of whole numbers, that are often 0."""
    rng = np.random.default_rng(3)
    shape = (3000, 14)
    rows = rng.exponential(size=shape) + np.where(rng.random(shape) < 0.5, 1, 9)
    columns = [Column(f"x{j}") for j in range(14)]
    for j in (3, 8):
        rows[:, j] = np.rint(3e5 * rows[:, j])
        columns[j] = Column(f"x{j}", "integer")
    columns[5] = Column("x5", digits=4)
    rows[:, 5] = [float(f"{value:.4g}") for value in rows[:, 5]]
    rows[rng.random(shape) < 0.4] = 0
    return Table(tuple(columns), rows.astype(np.float32))


def test_numbers_may_stand_between_those_that_were_seen_beside_a_heavy_one(amounts: Table) -> None:
    mapped = Coordinates.fit(amounts)
    assert mapped.smooth.all()
    assert not mapped.steps
    y = np.random.default_rng(0).standard_normal((20_000, 14))
    x = mapped.inverse(y)
    for j, (column, own, made) in enumerate(
        zip(amounts.columns, amounts.values.T, x.T, strict=True)
    ):
        scale = 3e5 if column.step else 1
        assert abs((made == 0).mean() - (own == 0).mean()) < 0.02, j
        assert not ((made > 0) & (made < scale)).any(), j
        others = made[made != 0]
        assert np.isin(others, own).mean() < (1 if column.digits else 0.3), j
        for share in (0.1, 0.5, 0.9):
            wanted = np.quantile(own[own > 0], share)
            assert abs(np.mean(others < wanted) - share) < 0.03, j
        if column.step:
            assert np.array_equal(made, np.rint(made))
        if column.digits:
            assert all(float(f"{value:.4g}") == pytest.approx(value, 1e-6) for value in made[:500])
    again = mapped.inverse(mapped.forward(amounts.values.astype(float)))
    assert (np.abs(again - amounts.values).max(0) < 0.02 * amounts.values.std(0)).all()


def test_rounding_of_a_score_moves_a_number_little(amounts: Table) -> None:
    mapped = Coordinates.fit(amounts)
    y = np.random.default_rng(0).standard_normal((20_000, 14)).astype(np.float32)
    near = (y * (1 + 1e-6)).astype(np.float32)
    real = [j for j, column in enumerate(amounts.columns) if not (column.step or column.digits)]
    here, there = (run(inverse_graph(mapped), 14, rows)[:, real] for rows in (y, near))
    moved = np.abs(here - there) > 1e-4 * amounts.values[:, real].std(0)
    assert moved.mean() < 1e-5
    assert np.allclose(here, mapped.inverse(y)[:, real], atol=1e-4)
    unseen = amounts.values + np.random.default_rng(1).normal(0, 0.01, amounts.values.shape)
    unseen = unseen.astype(np.float32)
    assert np.allclose(run(mapped.graph_forward, 14, unseen), mapped.forward(unseen), atol=1e-3)
