"""The classifier reads the separation that is there: of close Gaussians, and where only a joint view sees it."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
from scgan_infer.judging.distances import c2st

N = 10_000


def gaussian(seed, d, n=N):
    return np.random.default_rng(seed).standard_normal((n, d))


def correlated(seed, d, correlation):
    rows = gaussian(seed, d)
    rows[:, 1] = correlation * rows[:, 0] + np.sqrt(1 - correlation**2) * rows[:, 1]
    return rows


def three(seed, d, excess):
    """Rows in which the product of three columns is positive more often than negative."""
    rows = gaussian(seed, d)
    kept = np.random.default_rng([seed, 1]).random(N) < excess
    rows[kept, 0] *= np.sign(rows[kept, :3].prod(axis=1))
    return rows


def spiral(seed, noise):
    rng = np.random.default_rng(seed)
    turn = rng.uniform(0.5, 3 * np.pi, N)
    curve = np.column_stack([turn * np.cos(turn), turn * np.sin(turn)]) / 9
    return curve + noise * rng.standard_normal((N, 2))


@pytest.mark.parametrize("d", [2, 6])
@pytest.mark.parametrize(("shift", "area"), [(0.0993, 0.528), (0.199, 0.556), (0.399, 0.611)])
def test_the_true_area_of_two_gaussians_is_read_within_two_hundredths(d, shift, area):
    assert area - 0.018 < c2st(gaussian(1, d) + shift / np.sqrt(d), gaussian(2, d)) < area + 0.01


@pytest.mark.parametrize(("n", "margin"), [(N, 0.012), (60_000, 0.005)])
def test_real_rows_beside_real_rows_are_a_coin(n, margin):
    assert c2st(gaussian(1, 3, n), gaussian(2, 3, n)) == pytest.approx(0.5, abs=margin)


@pytest.mark.parametrize(
    ("a", "b", "least"),  # true areas: .548, .552, .773
    [
        (correlated(1, 8, 0.1), correlated(2, 8, -0.1), 0.52),
        (three(1, 4, 0.2), gaussian(2, 4), 0.53),
        (spiral(1, 0.08), spiral(2, 0.03), 0.69),
    ],
    ids=["correlation", "three columns", "spiral"],
)
def test_what_only_a_joint_view_sees_is_seen(a, b, least):
    assert c2st(a, b) > least


def test_constant_and_few_rows_are_a_coin():
    assert c2st(np.zeros((50, 2)), np.zeros((60, 2))) == 0.5
