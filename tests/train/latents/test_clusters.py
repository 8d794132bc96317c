"""Laws of the clusters: what belongs together stays, what is apart is kept apart, shares are exact."""

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.mixture import GaussianMixture

from scgan_infer.columns import Column, Table
from scgan_infer.errors import UsageError
from scgan_train import datasets
from scgan_train.config import ClusterConfig, Config
from scgan_train.coordinates import groups as grouping
from scgan_train.coordinates.groups import split
from scgan_train.graph import argument, model
from scgan_train.latents import clusters as clustering
from scgan_train.latents.clusters import Assign, Clusters, fit, settle
from scgan_train.resolving import resolve


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    which = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    centres = np.array([[0.0, 0.0], [3.0, 0.5], [0.5, 3.0]])
    rows = centres[which] + rng.standard_normal((n, 2)) @ np.array([[0.3, 0.0], [0.1, 0.1]])
    return torch.from_numpy(rows).float(), which


def log_likelihood(clusters: Clusters, rows: np.ndarray) -> float:
    terms = [
        np.log(float(w)) + multivariate_normal(m.numpy(), (f @ f.T).numpy()).logpdf(rows)
        for w, m, f in zip(clusters.weights, clusters.means, clusters.factors.double(), strict=True)
    ]
    return float(np.logaddexp.reduce(terms).mean())


def test_blobs_are_found_with_their_shares_and_shapes():
    rows, which = blobs(6000)
    clusters, labels, _ = fit(rows, ClusterConfig(k=3, choose=False), seeded())
    for blob in range(3):
        inside = labels[which == blob]
        found = int(inside.mode().values)
        assert (inside == found).double().mean() > 0.99
        assert abs(float(clusters.weights[found]) - np.mean(which == blob)) < 0.005
        covariance = clusters.factors[found] @ clusters.factors[found].T
        torch.testing.assert_close(
            covariance, torch.tensor([[0.1, 0.01], [0.01, 0.01]]), rtol=0.1, atol=0.002
        )


def test_held_out_likelihood_is_that_of_scikit_learn():
    rows, _ = blobs(4000)
    fresh = blobs(4000, seed=1)[0].double().numpy()
    clusters, _, _ = fit(rows, ClusterConfig(k=3, choose=False, split=False), seeded())
    peer = GaussianMixture(3, random_state=0).fit(rows.numpy()).score(fresh)
    assert log_likelihood(clusters, fresh) > peer - 0.01


def test_auto_finds_about_as_many_clusters_as_there_are_and_says_why():
    rng = np.random.default_rng(0)
    angle = rng.integers(16, size=8000) * np.pi / 8
    rows = 3 * np.column_stack([np.cos(angle), np.sin(angle)]) + 0.1 * rng.standard_normal(
        (8000, 2)
    )
    clusters, _, note = fit(
        torch.from_numpy(rows).float(), ClusterConfig(k=256, choose=True, split=False), seeded()
    )
    assert 16 <= len(clusters) <= 32
    assert f"{len(clusters)} clusters, more gain nothing" in note


def test_the_same_rows_score_every_number_of_clusters_of_a_plane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what rows are drawn decides, and the doubling stops early by luck."""
    rows, _ = blobs(3000)
    seen, score = [], clustering._Fitting.score

    def noted(self, *args):
        seen.append(self.rng.bit_generator.state["state"]["state"])
        return score(self, *args)

    monkeypatch.setattr(clustering._Fitting, "score", noted)
    fit(rows, ClusterConfig(k=64, choose=True), seeded())
    assert len(seen) > 2
    assert len(set(seen)) == 1


def test_none_of_eight_gaussians_share_a_cluster():
    """One start of K-means merges two of them with seed 4, and what follows can't part them."""
    for seed in range(6):
        rows = torch.from_numpy(datasets.table("eight_gaussians", 2000, seed).values)
        config = ClusterConfig(k=8, choose=False, split=False)
        clusters, _, _ = fit(rows, config, seeded(seed))
        assert clusters.weights.max() < 0.2


def test_a_row_that_no_component_expects_stretches_the_one_it_falls_to():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40_000, 2))
    rows[:, 0] = rng.random(len(rows)) < 0.001
    rows = torch.from_numpy(rows / rows.std(0)).float()
    clusters, labels, _ = fit(rows, ClusterConfig(k=256, choose=True, split=False), seeded())
    centred = (rows - clusters.means[labels]).unsqueeze(-1)
    whitened = torch.linalg.solve_triangular(clusters.factors[labels], centred, upper=False)
    assert float(whitened.abs().max()) < 200  # by the pull to few rows' diagonal at most sqrt(rows)


def curves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows on eight noisy arcs, and how far each row is from the middle of its arc."""
    rng = np.random.default_rng(seed)
    arc, angle = rng.integers(8, size=n), rng.uniform(0.3, 2.8, n)
    away = 0.003 * rng.standard_normal(n)
    centre = 1.5 * np.column_stack([np.cos(arc * np.pi / 4), np.sin(arc * np.pi / 4)])
    turned = angle + arc
    unit = np.column_stack([np.cos(turned), np.sin(turned)])
    return centre + (0.5 + away[:, None]) * unit, away


def test_no_cluster_that_likelihood_chose_is_dropped_for_being_small():
    """Thin curves need many small clusters: without them rows leave the curves."""
    rows = torch.from_numpy(curves(6000, 0)[0]).float()
    clusters, labels, note = fit(rows, ClusterConfig(k=256, choose=True), seeded())
    counts = torch.bincount(labels)
    assert len(clusters) > 0.95 * int(note.partition(" ")[0])
    assert (counts < 50).double().mean() > 0.2
    fresh = curves(6000, 1)[0]
    assert log_likelihood(clusters, fresh) > log_likelihood(clusters, rows.numpy()) - 0.35
    few, _, _ = fit(rows, ClusterConfig(k=32, choose=False), seeded())
    assert log_likelihood(clusters, fresh) > log_likelihood(few, fresh) + 0.5


@pytest.mark.parametrize("n", [60, 120, 200])
def test_few_rows_may_have_several_clusters(n: int):
    rows, _ = blobs(n)
    table = Table((Column("x"), Column("y")), rows.numpy())
    config = resolve(Config(device="cpu"), table).clusters
    assert config.choose
    clusters, _, note = fit(rows, config, seeded())
    assert 3 <= len(clusters) <= n // 10
    assert "log-likelihood" in note


def test_the_message_says_whether_rows_or_map_allow_no_more():
    rows = torch.from_numpy(curves(600, 0)[0]).float()
    for allowed, words in ((20, "the rows allow no more"), (60, "the map allows no more")):
        _, _, note = fit(rows, ClusterConfig(k=20, choose=True), seeded(), 0, allowed)
        assert note.startswith(f"20 clusters, {words}")


def test_few_rows_of_many_columns_borrow_the_correlations_of_all():
    """Three blobs of one shape in 40 columns, 60 rows each: nearly as likely as with the true covariance."""
    rng = np.random.default_rng(0)
    shape = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 40)) / 3
    shape += 0.2 * np.eye(40)
    covariance = shape @ shape.T
    centres = 6 * rng.standard_normal((3, 40))

    def draw(n: int) -> np.ndarray:
        noise = rng.multivariate_normal(np.zeros(40), covariance, n)
        return centres[np.arange(n) % 3] + noise

    rows, fresh = draw(180), draw(900)
    clusters, _, _ = fit(
        torch.from_numpy(rows).float(), ClusterConfig(k=3, choose=False, split=False), seeded()
    )
    parts = [multivariate_normal(centre, covariance).logpdf(fresh) for centre in centres]
    true = float((np.logaddexp.reduce(parts) - np.log(3)).mean())
    assert log_likelihood(clusters, fresh) > true - 15  # with its own rows' alone: a loss of 60


def test_scores_of_equal_numbers_are_drawn_by_what_the_other_columns_say():
    """Two columns that are 0 in most rows, of correlation .9: spread at random, little of it is left."""
    rng = np.random.default_rng(0)
    exact = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 4000)
    zero = exact < 0.5
    low, high = np.where(zero, -4.0, exact), np.where(zero, 0.5, exact)
    spread = norm.ppf(rng.random(zero.shape) * norm.cdf(0.5))
    rows = torch.from_numpy(np.where(zero, spread, exact))
    config = ClusterConfig(k=1, choose=False)
    clusters, labels, _ = fit(rows, config, seeded())
    bounds = torch.from_numpy(low), torch.from_numpy(high)
    settled, clusters, _ = settle(rows, bounds, clusters, labels, seeded())
    assert np.corrcoef(rows.T)[0, 1] < 0.6
    assert np.corrcoef(settled.T)[0, 1] > 0.8
    covariance = clusters.factors[0] @ clusters.factors[0].T
    assert float(covariance[0, 1]) == pytest.approx(np.cov(settled.T)[0, 1], abs=0.01)
    assert ((settled >= bounds[0]) & (settled <= bounds[1])).all()
    assert torch.equal(settled[~torch.from_numpy(zero)], rows[~torch.from_numpy(zero)])


@pytest.mark.parametrize("n", [200, 2000, 50_000])
def test_continuous_rows_are_not_split_by_chance(n: int):
    rng = np.random.default_rng(n)
    rows = np.column_stack(
        [rng.standard_normal((n, 3)), rng.exponential(size=(n, 2)), rng.random(n)]
    )
    assert split(rows, 5).max() == 0


def test_an_empty_band_splits():
    rng = np.random.default_rng(0)
    rows = rng.random((1000, 2))
    rows[:, 1] += rng.integers(2, size=1000) * 1.5
    groups = split(rows, 20)
    assert groups.max() == 1
    assert len(set(groups[rows[:, 1] < 1])) == len(set(groups[rows[:, 1] > 1])) == 1


@pytest.mark.parametrize("width", [0.0, 3e-4])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_spike_is_a_group_of_its_own(width: float, share: float):
    rng = np.random.default_rng(0)
    spike = rng.random(4000) < share
    amounts = np.where(spike, width * rng.standard_normal(4000), rng.exponential(size=4000) + 0.01)
    groups = split(np.column_stack([rng.standard_normal(4000), amounts]), 20)
    assert groups.max() == 1
    inside = groups[spike][0]
    assert (groups[spike] == inside).mean() > 0.98
    assert (groups[~spike] == inside).mean() < 0.01


@pytest.mark.parametrize("n", [200, 5000])
def test_heavy_tails_are_no_spike(n: int):
    rng = np.random.default_rng(n)
    rows = np.column_stack(
        [rng.standard_t(3, n), rng.laplace(size=n), np.exp(rng.standard_normal(n))]
    )
    assert all(grouping._spike(rows[:, [column]]) is None for column in range(3))


def test_plain_k_means_gives_each_row_its_nearest_mean():
    rows = torch.randn(3000, 3, generator=seeded())
    clusters, labels, _ = fit(
        rows, ClusterConfig(k=20, choose=False, refine=False, split=False), seeded()
    )
    assert torch.equal(torch.cdist(rows, clusters.means).argmin(1), labels)
    torch.testing.assert_close(clusters.means[3], rows[labels == 3].mean(0), atol=0.01, rtol=0)


@pytest.mark.parametrize("k", [1, 7, 40, -60])
@pytest.mark.parametrize("refine", [True, False])
def test_clusters_are_whole(k: int, refine: bool):
    rows = torch.randn(600, 4, generator=seeded()).round(decimals=1)
    clusters, labels, _ = fit(rows, ClusterConfig(k=abs(k), choose=k < 0, refine=refine), seeded())
    counts = torch.bincount(labels, minlength=len(clusters))
    assert counts.min() >= 1
    torch.testing.assert_close(clusters.weights, counts / len(rows))
    assert torch.isfinite(torch.linalg.inv(clusters.factors)).all()
    assert torch.equal(clusters.factors, clusters.factors.tril())


def test_the_same_generator_gives_the_same_clusters():
    rows, _ = blobs(1500)
    first, second = (fit(rows, ClusterConfig(k=256, choose=True), seeded(3)) for _ in range(2))
    assert torch.equal(first[0].means, second[0].means)
    assert torch.equal(first[1], second[1])


def test_duplicates_and_constant_rows_are_fine():
    rows = torch.tensor([[1.0, 2.0], [3.0, 2.0]]).repeat(100, 1)
    clusters, labels, _ = fit(rows, ClusterConfig(k=8, choose=False), seeded())
    assert len(clusters) == 2
    torch.testing.assert_close(clusters.means[labels], rows)
    clusters, _, _ = fit(torch.full((80, 3), 5.0), ClusterConfig(k=256, choose=True), seeded())
    torch.testing.assert_close(clusters.means, torch.full((1, 3), 5.0))


def test_more_clusters_than_rows_is_an_error():
    with pytest.raises(UsageError, match="12 clusters asked of 10 rows"):
        fit(torch.zeros(10, 2), ClusterConfig(k=12, choose=False), seeded())


def test_assign_agrees_with_exact_likelihoods_and_exports():
    factors = torch.tensor(
        [[[1e-4, 0.0], [0.0, 1e-4]], [[1.0, 0.0], [0.5, 0.2]], [[1e-4, 0.0], [0.3, 1e-3]]]
    )
    means = torch.tensor([[1.5, 0.0], [1.5, 0.1], [1.50001, 0.3]])
    clusters = Clusters(torch.tensor([0.2, 0.5, 0.3]), means, factors, "em")
    which = torch.randint(3, (4000,), generator=seeded())
    noise = torch.randn(4000, 2, 1, generator=seeded(1))
    rows = means[which] + (factors[which] @ noise).squeeze(2)
    white = torch.linalg.solve_triangular(
        factors.double(), (rows[:, None] - means).double()[..., None], upper=False
    )
    scale = factors.double().diagonal(dim1=1, dim2=2).log().sum(1)
    exact = (clusters.weights.double().log() - scale - 0.5 * white.square().sum((2, 3))).argmax(1)
    found = Assign(clusters)(rows)
    assert (found == exact).double().mean() > 0.999
    latent = argument(("n", 2))
    graph = model({"latent": latent}, {"choice": Assign(clusters).graph(latent)})
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {"latent": rows.numpy()})
    assert np.array_equal(exported, found.numpy())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clusters_with_given_coordinates_tell_apart_what_is_generated(seed: int):
    """Two planes over given rows in nine heaps: all coordinates together fall in eighteen."""
    rng = np.random.default_rng(seed)
    given = rng.integers(0, 3, (3000, 2)) * [3.0, 3.0] + rng.normal(0, 0.2, (3000, 2))
    made = given @ [0.5, -0.3] + rng.choice([-2.0, 2.0], 3000) + rng.normal(0, 0.3, 3000)
    rows = torch.from_numpy(np.column_stack([given, made])).float()
    clusters, labels, note = fit(rows, ClusterConfig(12, True), seeded(seed), 2)
    assert len(clusters) == 2, note
    above = rows[:, 2] - rows[:, :2] @ torch.tensor([0.5, -0.3]) > 0
    assert abs(float((above == labels.bool()).double().mean()) - 0.5) > 0.49
    joint = fit(rows, ClusterConfig(12, True), seeded(seed))[0]
    assert len(joint) > 4


@pytest.mark.parametrize("seed", [0, 1])
def test_no_cluster_with_given_coordinates_has_fewer_rows_than_numbers(seed: int):
    rng = np.random.default_rng(seed)
    made, angle = rng.uniform(-1, 1, (3000, 2)), rng.uniform(-np.pi / 2, np.pi / 2, 3000)
    given = np.column_stack([-np.abs(made.sum(1)), made[:, 1] - made[:, 0]]) / np.sqrt(2)
    given += rng.normal(0.1, 0.01, (3000, 1)) * np.column_stack([np.cos(angle), np.sin(angle)])
    rows = torch.from_numpy(np.hstack([given, made])).float()
    _, labels, _ = fit(rows, ClusterConfig(12, True), seeded(seed), 2)
    assert torch.bincount(labels).min() > 4
