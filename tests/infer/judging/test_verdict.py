"""Real rows of any table are not accused, copies of training rows and pairs of columns that changed are."""

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.judging.cuts import Figure
from scgan_infer.judging.figures import Figures, evaluate
from scgan_infer.judging.layout import verdict

pytest.importorskip("sklearn")

D = 24


@pytest.fixture(autouse=True)
def fooled(monkeypatch):
    """A classifier takes most of the time, and is asked nothing here."""
    monkeypatch.setattr("scgan_infer.judging.figures.c2st", lambda *_: 0.5)


def sensors(n, seed):
    """Half of the rows idle and nearly all zeros, the others far from each other."""
    rng = np.random.default_rng([seed, n])
    on = rng.random((n, D)) < np.where(rng.random(n) < 0.5, 0.04, 0.6)[:, None]
    return np.column_stack([np.where(on, rng.lognormal(1, 0.8, (n, D)), 0), rng.random(n)])


def answers(n, seed, q=10, loading=0.75):
    """Answers from 1 to 5 that share a factor."""
    rng = np.random.default_rng([seed, n])
    shared, own = rng.standard_normal((n, 1)), rng.standard_normal((n, q))
    return np.clip(np.round(3 + loading * shared + np.sqrt(1 - loading**2) * own), 1, 5)


def tails(n, seed):
    rng = np.random.default_rng([seed, n])
    rare = (rng.random((n, 3)) < 0.004).astype(float)
    return np.column_stack([rng.standard_cauchy((n, 3)), rng.pareto(1.1, (n, 3)), rare])


def judged(table, made, seed, train=None, n=800):
    heldout = table(n, 100 + seed)
    columns = [Column(f"c{j}") for j in range(heldout.shape[1])]
    return evaluate(heldout, made, columns=columns, train=train, seed=seed)


@pytest.mark.parametrize("seed", range(6))
def test_fresh_rows_of_a_table_with_near_and_far_rows_are_no_copies(seed):
    figures = judged(sensors, sensors(401, seed), seed, sensors(801, seed))
    assert verdict(figures).grade == "good"
    assert figures.overall["nearest_rank"].value == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("seed", range(2))
def test_copies_in_a_table_with_near_and_far_rows_are_bad(seed):
    train, rng = sensors(801, seed), np.random.default_rng(seed)
    noisy = train[:400] + 0.01 * rng.standard_normal((400, D + 1))
    found = verdict(judged(sensors, noisy, seed, train))
    assert found.grade == "bad"
    assert "nearest training row" in found.why
    some = sensors(402, seed)
    some[::10] = train[: len(some[::10])]
    found = verdict(judged(sensors, some, seed, train))
    assert found.grade == "bad"
    assert "near-copies" in found.why


def test_the_median_s_error_covers_what_it_swings_by_where_rows_are_near_or_far():
    found = [judged(sensors, sensors(401, s), s, sensors(801, s)) for s in range(6)]
    ratios = [figures.overall["nearest_ratio"] for figures in found]
    errors = [figure.error for figure in ratios]
    assert np.sqrt(np.mean(np.square(errors))) > 0.4 * np.std([figure.value for figure in ratios])


def test_nearer_rows_of_one_kind_only_are_no_copies():
    rows = {"generated": 1000, "real": 2000, "train": 1000}

    def grade(ratio, rank):
        figures = {"nearest_ratio": Figure(ratio, 1.0, 0.02), "nearest_rank": Figure(rank, 0.5)}
        return verdict(Figures(rows, {"c2st": Figure(0.5, 0.5, 0.01)} | figures, {})).grade

    assert grade(0.5, 0.53) == "good"
    assert grade(0.97, 0.7) == "good"
    assert grade(0.5, 0.57) == "fair"
    assert grade(0.5, 0.7) == "bad"


def test_pairs_of_columns_that_are_off_are_named():
    figures = judged(answers, answers(1201, 0, loading=0.55), 0)
    found = verdict(figures)
    assert found.grade == "fair"
    a, b, worst = figures.pairs_off[0]
    assert f"of 45 pairs of columns changed, most clearly of {a}, {b} by {worst.value:.4f}" in str(
        found
    )
    assert figures.to_dict()["pairs_off"][0] == {"columns": [a, b], **worst._asdict()}


def turned(n, seed, slope=0.8):
    """Two numbers that rise together in one name and against each other in another, and a name that is rare."""
    rng = np.random.default_rng([seed, n])
    name = rng.choice(3, n, p=[0.49, 0.49, 0.02])
    x, noise = rng.standard_normal((2, n))
    y = np.array([slope, -slope, 0])[name] * x + np.sqrt(1 - slope**2) * noise
    return np.column_stack([name, x, y])


TURNED = (Column("k", "category", categories=("p", "q", "rare")), Column("x"), Column("y"))


def test_slopes_that_turn_by_name_and_are_lost_are_named():
    figures = evaluate(turned(1600, 1), turned(800, 2, slope=0.2), columns=TURNED)
    assert figures.pairs_off == ()
    assert {(a, b) for a, b, *_ in figures.pairs_within} == {("x", "y")}
    assert {name for *_, name, _ in figures.pairs_within} == {"k p", "k q"}
    known = verdict(figures)
    assert known.grade == "bad"
    assert known.why.startswith("correlations within names changed, most clearly of x, y where k ")
    found = figures.to_dict()["pairs_within"][0]
    assert found["columns"] == ["x", "y"]
    assert found["value"] == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_slopes_of_real_rows_turn_as_they_do(seed):
    figures = evaluate(turned(1600, seed), turned(800, seed + 100), columns=TURNED)
    assert figures.pairs_within == ()


def test_one_pair_of_many_is_enough():
    made = answers(1201, 0)
    made[:, 9] = answers(1202, 1)[:1201, 9]
    made[:, 8] = answers(1201, 0, loading=0.2)[:, 8]
    found = verdict(judged(answers, made, 0))
    assert found.grade == "bad"
    assert "c9" in found.why


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("table", [answers, tails])
def test_pairs_and_columns_of_real_rows_are_not_off(table, seed):
    figures = judged(table, table(1201, seed), seed)
    assert figures.pairs_off == ()
    assert verdict(figures).grade == "good"


def test_the_worst_column_counts_by_itself():
    made = answers(1201, 0, q=10)
    made[:, 3] = np.clip(made[:, 3] + (np.random.default_rng(0).random(1201) < 0.8), 1, 5)
    found = verdict(judged(answers, made, 0))
    assert found.grade in ("fair", "bad")
    assert "shape error of c3" in found.why


def test_errors_of_correlations_are_what_they_swing_by():
    from scgan_infer.judging.distances import correlation_errors, correlations

    draws = [answers(500, seed, q=3) ** 2 for seed in range(300)]
    swing = np.std([correlations(rows) for rows in draws], axis=0)
    errors = np.mean([correlation_errors(rows) for rows in draws[:50]], axis=0)
    pairs = np.triu_indices(3, 1)
    assert errors[pairs] == pytest.approx(swing[pairs], rel=0.12)
    rare = np.column_stack([draws[0], np.arange(500) < 10])
    assert np.isinf(correlation_errors(rare)[3]).all()
