"""Known answers: Gaussians a known distance apart, a missing component, junk, copies, and real rows."""

import json

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.judging import cuts
from scgan_infer.judging.cuts import Figure
from scgan_infer.judging.distances import energy_distance, features, nearest, sliced_wasserstein
from scgan_infer.judging.figures import FIGURES, Figures, evaluate, off_shares
from scgan_infer.judging.layout import table_text, verdict
from scgan_train.datasets import table

pytest.importorskip("sklearn")
stats = pytest.importorskip("scipy.stats")

XY = (Column("x"), Column("y"))


def gaussian(n, seed, d=2):
    return np.random.default_rng(seed).standard_normal((n, d))


def ring(n, seed, modes=8, scale=0.02):
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * rng.integers(modes, size=n) / 8
    return np.column_stack([np.cos(angle), np.sin(angle)]) + scale * rng.standard_normal((n, 2))


@pytest.fixture(scope="module")
def shifted():
    return evaluate(gaussian(12000, 0), gaussian(6000, 1) + np.array([1, 0]), columns=XY).overall


@pytest.fixture(scope="module")
def honest():
    plane = [table("checkerboard", n, seed) for n, seed in ((8000, 1), (4000, 2), (8000, 3))]
    return evaluate(
        plane[0].values, plane[1].values, columns=plane[0].columns, train=plane[2].values
    )


def test_two_gaussians_a_unit_apart_score_their_closed_forms(shifted):
    assert shifted["sliced_wasserstein"].value == pytest.approx(np.sqrt(1 / 2), rel=0.03)
    between = stats.rice(1 / np.sqrt(2), scale=np.sqrt(2)).mean()
    assert shifted["energy"].value == pytest.approx(2 * between - 2 * np.sqrt(np.pi), rel=0.06)
    best = stats.norm.cdf(1 / np.sqrt(2))
    assert best - 0.03 < shifted["c2st"].value < best + 0.01
    assert shifted["wasserstein"].value == pytest.approx(1, rel=0.03)


def test_floors_are_what_real_rows_score(shifted):
    assert shifted["c2st"].floor == pytest.approx(0.5, abs=0.02)
    assert shifted["sliced_wasserstein"].floor < 0.05
    assert shifted["energy"].floor < 0.002
    assert shifted["wasserstein"].floor < 0.05


def test_distances_agree_with_scipy_in_one_dimension():
    a, b = gaussian(900, 0, 1), 1.5 * gaussian(900, 1, 1) + 0.3
    assert energy_distance(a, b) == pytest.approx(
        stats.energy_distance(a[:, 0], b[:, 0]) ** 2, rel=1e-9
    )
    figures = evaluate(np.concatenate([a, a]), b, columns=[Column("x")])
    distance = stats.wasserstein_distance(a[:, 0], b[:, 0]) / a.std()
    assert figures.columns["x"]["wasserstein"].value == pytest.approx(distance, rel=0.1)


@pytest.mark.parametrize("d", [1, 2, 7, 64])
def test_sliced_wasserstein_of_a_shift_is_its_length_over_root_d(d):
    a, shift = gaussian(200, 0, d), np.linspace(1, 2, d)
    expected = np.linalg.norm(shift) / np.sqrt(d)
    assert sliced_wasserstein(a, a + shift) == pytest.approx(
        expected, rel=1e-9 if 256 % d == 0 else 0.02
    )


def test_a_missing_component_is_missed_in_its_share():
    overall = evaluate(ring(6000, 0), ring(6000, 1, modes=7), columns=XY).overall
    assert overall["missed"].value == pytest.approx(1 / 8, abs=0.015)
    assert overall["missed"].floor < 0.005
    assert overall["off"].value < 0.005


def test_rows_where_no_data_is_are_off_in_their_share():
    generated = ring(3000, 1)
    generated[:300] *= 0.5
    overall = evaluate(ring(6000, 0), generated, columns=XY).overall
    assert overall["off"].value == pytest.approx(0.1, abs=0.01)
    assert overall["off"].floor < 0.005
    assert overall["missed"].value < 0.005


def test_a_noisy_copy_of_the_training_rows_is_flagged_though_a_classifier_is_fooled():
    train = gaussian(4000, 0, 4)
    columns = [Column(name) for name in "abcd"]
    copy = train + 0.02 * gaussian(4000, 1, 4)
    overall = evaluate(gaussian(4000, 2, 4), copy, columns=columns, train=train).overall
    assert overall["c2st"].value < 0.53
    assert overall["nearest_ratio"].value < 0.3
    assert overall["nearest_close"].value > 0.5


def test_fresh_real_rows_score_the_floor(honest):
    assert set(honest.overall) == set(FIGURES) - {
        "clusters",
        "mse",
        "mse_raw",
        "reconstruction_c2st",
    }
    value = {name: figure.value for name, figure in honest.overall.items()}
    assert value["c2st"] == pytest.approx(0.5, abs=0.02)
    assert value["off"] < 0.005
    assert value["missed"] < 0.005
    assert value["nearest_ratio"] == pytest.approx(1, abs=0.05)
    assert value["nearest_close"] == pytest.approx(0.01, abs=0.01)
    for name in ("sliced_wasserstein", "energy", "wasserstein"):
        assert value[name] < 4 * honest.overall[name].floor


def test_correlations_that_changed_are_named_and_measured():
    rows, generated = gaussian(4000, 0, 3), gaussian(2000, 1, 3)
    generated[:, 2] = 0.6 * generated[:, 0] + 0.8 * generated[:, 2]
    figures = evaluate(rows, generated, columns=[Column(name) for name in "abc"])
    assert figures.pairs[0][:2] == ("a", "c")
    assert figures.overall["correlation"].value == pytest.approx(0.6, abs=0.05)
    assert figures.overall["correlation"].floor < 0.1


def test_units_do_not_matter():
    def figures(scale):
        rows = [np.exp(gaussian(n, seed)) * scale for n, seed in ((1000, 0), (500, 1), (800, 2))]
        columns = [Column("energy", "log"), Column("length")]
        measured = evaluate(
            rows[0],
            rows[1],
            columns=columns,
            train=rows[2],
            reconstructed=(rows[0], rows[0] * 1.01),
        )
        return {
            name: figure.value for name, figure in measured.overall.items() if name != "mse_raw"
        }

    assert figures(np.array([1000.0, 0.01])) == pytest.approx(figures(1.0), rel=1e-6)


def test_where_a_circle_is_cut_does_not_matter():
    rows = 360 * np.random.default_rng(0).beta(2, 3, size=(2000, 1))
    heldout, generated = rows[:1500], (rows[1500:] + 5) % 360

    def figures(turn, low):
        phi = Column("phi", "periodic", period=360, low=low)
        turned = ((part + turn - low) % 360 + low for part in (heldout, generated))
        return evaluate(*turned, columns=[phi]).overall

    whole, cut_in_the_middle = figures(0, 0.0), figures(200, -180.0)
    for name in ("energy", "wasserstein", "off", "missed"):
        assert cut_in_the_middle[name] == pytest.approx(whole[name], abs=1e-9)


def test_a_uniform_circle_lies_a_quarter_turn_from_a_point():
    phi = Column("phi", "periodic", period=24.0)
    hours = np.random.default_rng(0).uniform(0, 24, (4000, 1))
    figures = evaluate(hours, np.full((2000, 1), 23.99), columns=[phi])
    assert figures.columns["phi"]["wasserstein"].value == pytest.approx(np.pi / 2, rel=0.02)


def test_a_category_s_distance_is_the_share_to_move():
    kind = Column("kind", "category", categories=("star", "galaxy", "quasar"))
    rng = np.random.default_rng(0)
    real, generated = (
        rng.choice(3, p=p, size=(4000, 1)) for p in ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])
    )
    figures = evaluate(real, generated, columns=[kind])
    assert figures.columns["kind"]["wasserstein"].value == pytest.approx(0.3, abs=0.03)
    ranked_above, tied = 0.5 * (0.3 + 0.5) + 0.3 * 0.5, 2 * 0.5 * 0.2 + 0.3 * 0.3
    assert figures.overall["c2st"].value == pytest.approx(ranked_above + tied / 2, abs=0.03)


def test_features_of_each_kind():
    columns = [
        Column("a"),
        Column("m", "log"),
        Column("phi", "periodic", period=4.0, low=-2.0),
        Column("n", "integer"),
        Column("k", "category", categories=("u", "v")),
    ]
    placed = features([[0.5, np.e, -2.0, 3, 1], [0.5, 1.0, -1.0, 3, 0]], columns)
    assert placed == pytest.approx(
        np.array([[0.5, 1, 1, 0, 3, 0, 1], [0.5, 0, 0, 1, 3, 1, 0]]), abs=1e-12
    )


def test_reconstruction_errors_are_in_spreads_and_in_units_and_wrap_around():
    rng = np.random.default_rng(0)
    columns = [Column("x"), Column("phi", "periodic", period=360.0)]
    rows = np.column_stack([3 * rng.standard_normal(4000), rng.uniform(0, 360, 4000)])
    noise = rng.standard_normal(rows.shape) * [0.3, 2.0]
    back = rows + noise
    back[:, 1] %= 360
    figures = evaluate(rows, rows[:2000], columns=columns, reconstructed=(rows, back))
    assert figures.columns["x"]["mse"].value == pytest.approx(0.01, rel=0.1)
    assert figures.columns["x"]["mse_raw"].value == pytest.approx(0.09, rel=0.1)
    assert figures.columns["phi"]["mse_raw"].value == pytest.approx(4, rel=0.1)
    assert figures.columns["phi"]["mse"].value == pytest.approx((2 * np.pi / 180) ** 2, rel=0.1)
    assert figures.overall["mse_raw"].value == pytest.approx((0.09 + 4) / 2, rel=0.1)
    assert figures.overall["reconstruction_c2st"].value == pytest.approx(0.5, abs=0.04)


def test_cluster_weights_stand_beside_each_other():
    data, samples = np.repeat([0, 1, 2], [500, 300, 200]), np.repeat([0, 1], [800, 200])
    figures = evaluate(
        gaussian(1000, 0),
        gaussian(500, 1),
        columns=XY,
        clusters=(data, samples),
    )
    assert figures.clusters == ((0.5, 0.8), (0.3, 0.2), (0.2, 0.0))
    assert figures.overall["clusters"].value == pytest.approx(0.3, abs=0.06)
    assert figures.overall["clusters"].floor < 0.1


@pytest.mark.parametrize("f", [3, 20])
def test_nearest_rows_are_the_nearest_and_a_row_can_be_left_out(f):
    rows = gaussian(300, 0, f)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    assert nearest(rows, rows) == pytest.approx(np.zeros(300), abs=1e-6)
    assert nearest(rows, rows, skip=1) == pytest.approx(np.sort(distances, axis=1)[:, 1])


def test_constant_columns_are_no_trouble():
    rows = np.column_stack([gaussian(400, 0, 1), np.full(400, 3.0)])
    figures = evaluate(rows, rows[:200], columns=XY, train=rows)
    assert figures.columns["y"]["wasserstein"].value == 0
    assert figures.overall["correlation"].value == 0
    assert np.isfinite([figure.value for figure in figures.overall.values()]).all()


def test_discrete_columns_have_floors_too():
    rng = np.random.default_rng(0)
    real, generated, train = (rng.poisson(2, (n, 1)).astype(float) for n in (800, 400, 500))
    overall = evaluate(real, generated, columns=[Column("n", "integer")], train=train).overall
    assert overall["nearest_close"].value == pytest.approx(overall["nearest_close"].floor, abs=0.02)
    assert overall["nearest_ratio"].value == overall["nearest_ratio"].floor == 1
    assert overall["off"].value < 0.01


def test_the_figures_survive_json_and_the_table_has_them_all(honest):
    loaded = json.loads(json.dumps(honest.to_dict()))
    assert loaded["c2st"] == {
        "value": honest.overall["c2st"].value,
        "floor": honest.overall["c2st"].floor,
        "error": honest.overall["c2st"].error,
    }
    assert loaded["rows"] == {"generated": 4000, "real": 16000, "train": 8000}
    assert loaded["pairs"][0]["columns"] == ["x", "y"]
    text = table_text(honest)
    assert all(FIGURES[name].title in text for name in honest.overall)
    assert f"{honest.overall['c2st'].value:.4f}" in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_same_rows_give_the_same_figures(honest):
    rows = gaussian(400, 0)
    once, again = (
        evaluate(rows, rows[:200] * 1.1, columns=XY, train=rows, seed=5) for _ in range(2)
    )
    assert once == again


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (Column("x"), np.nan, "column x, row 7: nan is no value of a real column"),
        (Column("x", "log"), -1, "column x, row 7: -1 is no value of a log column"),
        (Column("x", "category", categories=("a", "b")), 2, "2 is no value of a category column"),
    ],
)
def test_values_that_a_column_cannot_hold_are_named(column, value, message):
    values = np.ones((10, 1))
    values[7] = value
    with pytest.raises(DataError, match=message):
        features(values, [column])


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="8 held-out and 100 generated rows are too few"):
        evaluate(gaussian(8, 0), gaussian(100, 1), columns=XY)


def overall(**figures):
    rows = {"generated": 1000, "real": 2000, "train": 0}
    return Figures(rows, {"c2st": Figure(0.51, 0.5, 0.01)} | figures, {})


def test_the_verdict_is_that_of_the_worst_figure_beyond_its_error():
    assert verdict(overall()).grade == "good"
    assert "C2ST 0.5100 ± 0.0100 (floor 0.5000)" in verdict(overall()).why
    for figures, grade, why in (
        ({"c2st": Figure(0.60, 0.5, 0.01)}, "fair", "C2ST"),
        ({"c2st": Figure(0.60, 0.5, 0.03)}, "good", "C2ST"),
        ({"c2st": Figure(0.60, 0.5, 0.01), "off": Figure(0.2, 0.001, 0.01)}, "bad", "off"),
        ({"nearest_ratio": Figure(0.5, 1.0, 0.01)}, "bad", "nearest training row"),
        ({"nearest_ratio": Figure(1.5, 1.0, 0.01)}, "good", "C2ST"),
        ({"nearest_close": Figure(0.03, 0.01, None)}, "fair", "near-copies"),
    ):
        found = verdict(overall(**figures))
        assert (found.grade, found.why.startswith(why) or grade == "good") == (grade, True)
    assert str(verdict(overall())).startswith("verdict: good: ")


def test_a_figure_s_error_is_what_it_swings_by_from_draw_to_draw():
    columns = XY
    seeds = range(6)
    found = [
        evaluate(gaussian(1200, 10 + s), gaussian(1800, 100 + s), columns=columns, seed=s).overall
        for s in seeds
    ]
    values = [figures["shape"].value for figures in found]
    errors = [figures["shape"].error for figures in found]
    assert 0.4 < np.sqrt(np.mean(np.square(errors))) / np.std(values) < 3


def test_a_share_is_off_where_neither_chance_nor_a_small_change_explains_it():
    real, made = np.array([500, 300, 150, 50, 0]), np.array([470, 300, 30, 50, 150])
    found = list(off_shares(real, made))
    assert [value for value, _, _ in found] == [4, 2]
    assert found[1] == (2, 0.15, 0.03)
    assert list(off_shares(real, real)) == []
    assert list(off_shares(np.array([5, 5]), np.array([8, 2]))) == []


def test_reconstructions_of_missing_cells_have_errors():
    columns = (
        Column("x", missing=True),
        Column("n", "category", categories=("a", "b"), missing=True),
    )
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.standard_normal(100), rng.integers(2, size=100)])
    rows[:40, 0], rows[50:80, 1] = np.nan, np.nan
    back = rows.copy()
    back[60:, 0] += 0.5
    back[70:80, 1] = 1
    found = evaluate(rows, rows[:50], columns=columns, reconstructed=(rows, back)).columns
    assert found["x"]["mse_raw"].value == pytest.approx(0.25 * 40 / 60)
    assert found["n"]["mse_raw"].value == pytest.approx(0.1)


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_the_error_of_a_median_is_what_it_swings_by(draw: str) -> None:
    rng = np.random.default_rng(0)
    rows = getattr(rng, draw)((2000, 400))
    errors = [cuts._median_error(own) for own in rows]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.median(rows, 1).std(), rel=0.1)
