from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import Watcher

from scgan_infer.errors import UsageError
from scgan_train.config import ClusterConfig, MapperConfig
from scgan_train.fitting.loop import fit, generator_for
from scgan_train.latents import clusters as clustering
from scgan_train.latents.clusters import Clusters
from scgan_train.latents.head import GRID, RealLatents, thresholds
from scgan_train.maps import MAPS, choose, latent_model


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    """Two crescents, so no piece is a Gaussian."""
    rng = np.random.default_rng(0)
    angle = np.pi * rng.random(4000)
    side = rng.integers(2, size=4000)
    x = (
        np.column_stack([np.cos(angle), np.sin(angle)]) * (1 - 2 * side)[:, None]
        + 3.0 * side[:, None]
    )
    return torch.from_numpy(x + 0.05 * rng.standard_normal(x.shape)).float()


@pytest.fixture(scope="module")
def clustered(latents: torch.Tensor) -> tuple[Clusters, torch.Tensor]:
    found, labels, _ = clustering.fit(latents, ClusterConfig(k=4), generator_for(0, "clusters"))
    return found, labels


@pytest.mark.parametrize(
    "weights", [[0.5, 0.5], [1.0], [1e-12, 1 - 1e-12], [1 / 3] * 3, [0.1] * 10]
)
def test_thresholds_cut_the_whole_grid_and_forget_no_cluster(weights: list[float]) -> None:
    limits = thresholds(torch.tensor(weights))
    widths = torch.diff(limits, prepend=torch.zeros(1, dtype=torch.int64))
    assert limits[-1] == GRID
    assert (widths >= 1).all()
    assert (widths.double() / GRID - torch.tensor(weights).double()).abs().max() < len(
        weights
    ) / GRID


def test_u_selects_clusters_exactly_at_their_thresholds(
    clustered: tuple[Clusters, torch.Tensor],
) -> None:
    model = latent_model("centers", clustered[0], MapperConfig(), torch.Generator())
    for cluster, limit in enumerate(model.thresholds[:-1].tolist()):
        u = torch.tensor([limit - 1, limit]).float() / GRID
        assert model.select(u).tolist() == [cluster, cluster + 1]


@pytest.mark.parametrize("kind", MAPS)
def test_an_untrained_map_is_its_cluster_s_gaussian(
    kind: str, clustered: tuple[Clusters, torch.Tensor]
) -> None:
    found, _ = clustered
    config = MapperConfig(kind=kind, **MAPS[kind].defaults(2, 4000))
    model = latent_model("mapper", found, config, generator_for(0, "map"))
    made = model.draw(200_000, generator_for(1, "draw"), torch.device("cpu"))
    mean = (found.weights[:, None] * found.means).sum(0)
    second = found.factors @ found.factors.mT + found.means[:, :, None] * found.means[:, None, :]
    covariance = (found.weights[:, None, None] * second).sum(0) - mean[:, None] * mean
    assert torch.allclose(made.mean(0), mean, atol=0.02)
    assert torch.allclose(torch.cov(made.T), covariance, atol=0.03)


@pytest.mark.parametrize("kind", MAPS)
def test_training_brings_a_map_closer_to_its_clusters(
    kind: str, latents: torch.Tensor, clustered: tuple[Clusters, torch.Tensor]
) -> None:
    """Where a Gaussian leaves the crescents, a trained map should not."""
    from scipy.spatial import cKDTree

    found, labels = clustered
    config = MapperConfig(kind=kind, **MAPS[kind].defaults(2, 4000) | {"steps": 300})
    model = latent_model("mapper", found, config, generator_for(0, "map"))
    mapper = model.ensemble
    tree = cKDTree(latents.numpy())

    def far() -> float:
        with torch.no_grad():
            made = model.draw(20_000, generator_for(1, "draw"), torch.device("cpu")).numpy()
        return float((tree.query(made)[0] > 0.08).mean())

    before = far()
    fit("mapper", mapper, lambda g: mapper.phases(latents, labels, g), 0, Watcher())
    assert far() < 0.6 * before


def test_real_latents_are_rows_and_their_clusters(
    latents: torch.Tensor, clustered: tuple[Clusters, torch.Tensor]
) -> None:
    _, labels = clustered
    model = RealLatents.of(latents, labels, torch.Generator())
    u = torch.randint(GRID, (50_000,), generator=generator_for(0, "u")).float() / GRID
    made, cluster = model(u, torch.zeros(len(u), 2))
    owner = {tuple(row): int(label) for row, label in zip(latents.tolist(), labels, strict=True)}
    assert all(
        owner[tuple(row)] == c for row, c in zip(made.tolist(), cluster.tolist(), strict=True)
    )
    assert len({tuple(row) for row in made.tolist()}) > 0.99 * len(latents)


@pytest.mark.parametrize("rows", [7, 20_001, 32_768])
def test_real_latents_change_clusters_where_u_does(rows: int) -> None:
    labels = torch.arange(rows) * 7 // rows
    model = RealLatents.of(labels[:, None].float(), labels, torch.Generator())
    steps = (model.thresholds[:, None] + torch.tensor([-2, -1, 0, 1])).flatten()
    u = steps[steps < GRID].float() / GRID
    made, cluster = model(u, torch.zeros(len(u), 1))
    assert (made[:, 0] == cluster).all()


def test_noisy_centres_keep_each_cluster_s_size(clustered: tuple[Clusters, torch.Tensor]) -> None:
    found, _ = clustered
    model = latent_model("centers", found, MapperConfig(), torch.Generator())
    w = torch.randn(50_000, 2, generator=generator_for(0, "w"))
    for cluster in range(len(found)):
        made = model.ensemble(w, torch.full((len(w),), cluster))
        size = torch.trace(found.factors[cluster] @ found.factors[cluster].T)
        assert float(made.var(0).sum()) == pytest.approx(float(size), rel=0.02)


def test_an_unknown_map_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'spline'; choose from auto, aae"):
        choose("spline", 2)
