"""Shape and trend errors are 1 less SDMetrics' scores; a missing cell is a value."""

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.judging.shapes import shape_errors, trend_errors

COLUMNS = (
    Column("a"),
    Column("b"),
    Column("c", "category", categories=tuple(f"n{i}" for i in range(5))),
    Column("d", "category", categories=("m0", "m1", "m2")),
)
# what SDMetrics 0.11.1's QualityReport gives for these rows
SHAPES = [0.996, 0.9693333333333334, 0.954, 0.9733333333333334]
TRENDS = {
    (0, 1): 0.9928609355199656,
    (0, 2): 0.8466666666666667,
    (0, 3): 0.9446666666666667,
    (1, 2): 0.8473333333333334,
    (1, 3): 0.8753333333333333,
    (2, 3): 0.9,
}


def rows(n, step):
    i = np.arange(n)
    a = (i * step % 101) / 7.0
    b = np.sin(i / step) * a + i % 3
    c = (i * i % 97) // (20 + step % 3)
    d = (a > 8).astype(float) + (i % (step % 5 + 2) == 0)
    return np.column_stack([a, b, c, d])


def test_scores_are_those_of_sdmetrics():
    real, made = rows(500, 37), rows(300, 23)
    assert 1 - np.array(shape_errors(real, made, COLUMNS)) == pytest.approx(SHAPES)
    errors = trend_errors(real, made, COLUMNS)
    assert {pair: 1 - error for pair, error in errors.items()} == pytest.approx(TRENDS)


def test_scores_are_those_of_the_sdmetrics_that_is_installed():
    single_column = pytest.importorskip(
        "sdmetrics.single_column", reason="sdmetrics needs an older numpy"
    )
    column_pairs = pytest.importorskip(
        "sdmetrics.column_pairs", reason="sdmetrics needs an older numpy"
    )
    real, made = rows(500, 37), rows(300, 23)
    shapes = shape_errors(real, made, COLUMNS)
    for j, metric in enumerate(["KSComplement", "KSComplement", "TVComplement", "TVComplement"]):
        score = getattr(single_column, metric).compute(real[:, j], made[:, j])
        assert 1 - shapes[j] == pytest.approx(score)
    score = column_pairs.ContingencySimilarity.compute(real[:, 2:], made[:, 2:])
    assert 1 - trend_errors(real, made, COLUMNS)[2, 3] == pytest.approx(score)


def test_a_missing_cell_is_a_value():
    real, made = rows(400, 37), rows(400, 37)
    made[:100, [1, 2]] = np.nan
    shapes = shape_errors(real, made, COLUMNS)
    assert shapes[0] == shapes[3] == 0
    assert shapes[1:3] == pytest.approx([0.25, 0.25], abs=0.05)
    trends = trend_errors(real, made, COLUMNS)
    assert trends[0, 3] == 0
    assert min(trends[0, 2], trends[1, 3], trends[2, 3]) >= 0.25
    assert trend_errors(made, made, COLUMNS) == pytest.approx(dict.fromkeys(TRENDS, 0), abs=1e-12)


def test_correlations_are_of_the_rows_where_both_are_there():
    x = np.random.default_rng(0).standard_normal((500, 2)) @ [[1, 0.5], [0, 1]]
    known = x.copy()
    x[:200, 0], x[150:300, 1] = np.nan, np.nan
    (error,) = trend_errors(x, known, COLUMNS[:2]).values()
    both = ~np.isnan(x).any(axis=1)
    change = np.corrcoef(x[both].T)[0, 1] - np.corrcoef(known.T)[0, 1]
    assert error == pytest.approx(abs(change) / 2, rel=1e-3)


def test_a_constant_has_no_trend_beside_numbers_and_many_names_are_counted():
    names = Column("n", "category", categories=tuple(map(str, range(3000))))
    columns = (Column("x"), Column("y"), names, names)
    real = np.column_stack([np.ones(3000), *np.tile(np.arange(3000.0), (3, 1))])
    errors = trend_errors(real, real[::-1], columns)
    assert (0, 1) not in errors
    assert set(errors.values()) == {0.0}
