"""Optimal transport, then regression: the map `ot`.

In a cluster's own frame v = F_i^-1 (eps - mu_i), pair rows with Gaussian codes at the least total distance

    min over permutations s of  sum_j |w_j - v_s(j)|^2,     w_j = normal quantiles of scrambled Sobol points

and regress g_i(w) = w + MLP_i(w) on the pairs. The optimal map is the gradient of a convex function (Brenier).
It moves mass no farther than it must, so a small network learns it in seconds, and there is no game to balance.

Pairs of few rows in many dimensions are noisy, and regression answers noise with its mean: the map shrinks. An
affine map per cluster, the optimal one between Gaussians, gives each cluster its rows' mean and covariance back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scgan_train.clusters import Clusters
from scgan_train.config import MapperConfig
from scgan_train.head import Mapper, Members
from scgan_train.nets import ClusterMLP, RowProduct
from scgan_train.training.loop import Phase, Player

CHUNK = 128  # rows assigned at once, times e: the cost of a row grows with its square
PAIRS = 100_000  # in all; a cluster's rows are paired again with new codes until about so many
ROUNDS = 8  # but no more often than this
BATCH = 8192  # pairs a step, shared by the clusters
MOMENTS = 2048  # codes that measure a trained map's mean and covariance


class TransportMapper(Mapper):
    """g_i(w) = mu_i + F_i (w + MLP_i(w)), one hidden layer, starting as the cluster's Gaussian."""

    means: Tensor
    factors: Tensor

    def __init__(
        self, clusters: Clusters, config: MapperConfig, generator: torch.Generator
    ) -> None:
        super().__init__(clusters, config, generator)
        size, width = clusters.means.shape
        hidden = (16 if width < 3 else 32) if config.width == "auto" else config.width
        self.map = ClusterMLP(size, [width, hidden, width], generator, zero=True)
        self.product = RowProduct(width, width)
        self.register_buffer("means", clusters.means.clone())
        self.register_buffer("factors", clusters.factors.clone())

    def forward(self, w: Tensor, cluster: Tensor) -> Tensor:
        """Return latents [n, e]."""
        factors = self.factors.mT.flatten(1).index_select(0, cluster)
        turned: Tensor = self.product(w + self.map.rows(w, cluster), factors)
        return self.means.index_select(0, cluster) + turned

    def loss(self, codes: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the squared distance of g(codes) to their rows, both [K, b, e] in the clusters' frames."""
        return {"transport": (codes + self.map(codes) - rows).square().mean()}

    def phases(
        self, latents: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Phase]:
        """Yield one phase of regression on the pairs, then match each cluster's mean and covariance."""
        kept = _most(labels, math.ceil(1.5 * PAIRS / len(self.means)), generator)
        members = Members(self.clusters, latents[kept], labels[kept])
        codes, rows, counts = optimal_pairs(members.whitened, members.counts, generator)
        starts = (counts.cumsum(0) - counts)[:, None]
        batch = min(256, max(48, BATCH // len(counts)))

        def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            share = torch.rand(len(counts), batch, generator=generator)
            index = starts + (share * counts[:, None]).long().clamp(max=counts[:, None] - 1)
            return codes[index], rows[index]

        steps = 800 if self.config.steps == "auto" else self.config.steps
        lr = 1e-2 if self.config.lr == "auto" else self.config.lr
        player = Player("map", list(self.map.parameters()), self.loss, lr)
        yield Phase("optimal transport", steps, draw, (player,), average=self.map, decay=0.99)
        self._match(members, generator)

    @torch.no_grad()
    def _match(self, members: Members, generator: torch.Generator) -> None:
        """Move the frames so that each cluster's map has its rows' mean and covariance."""
        size, width = self.means.shape
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        codes = torch.from_numpy(_codes(MOMENTS, width, rng)).to(self.means)
        made = (codes + self.map(codes.expand(size, -1, -1))).double()
        made_mean = made.mean(1)
        made_covariance = torch.stack(
            [torch.cov(some.T, correction=0).view(width, width) for some in made]
        )
        rows = members.whitened.double().split(members.counts.tolist())
        mean = torch.stack([some.mean(0) for some in rows])
        covariance = torch.stack(
            [torch.cov(some.T, correction=0).view(width, width) for some in rows]
        )
        half = _power(made_covariance, 0.5)
        back = _power(made_covariance, -0.5)
        turn = back @ _power(half @ covariance @ half, 0.5) @ back
        factors = self.clusters.factors.to(made) @ turn
        shift = self.clusters.factors.to(made) @ mean.unsqueeze(-1) - factors @ made_mean.unsqueeze(
            -1
        )
        self.factors.copy_(factors)
        self.means.copy_(self.clusters.means.to(made) + shift.squeeze(-1))


def _power(matrices: Tensor, exponent: float) -> Tensor:
    """Powers of symmetric positive matrices [K, e, e], eigenvalues kept above 1e-6."""
    values, vectors = torch.linalg.eigh(matrices)
    power: Tensor = (vectors * values.clamp(min=1e-6).pow(exponent).unsqueeze(1)) @ vectors.mT
    return power


def _most(labels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Indices of the rows to keep: all of a cluster that has at most so many, a random part of a larger one."""
    shuffled = torch.randperm(len(labels), generator=generator).to(labels.device)
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    counts = torch.bincount(labels)
    rank = (
        torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels[order]]
    )
    return order[rank < most]


def optimal_pairs(
    whitened: Tensor, counts: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Pair rows with Gaussian codes, cluster by cluster.

    Args:
        whitened: rows [N, e] in their clusters' frames, sorted by cluster.
        counts: rows of each cluster [K].
        generator: draws the codes.

    Returns:
        Codes [P, e], their rows [P, e], sorted by cluster, and how many pairs each cluster has [K].
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    rounds = max(1, min(ROUNDS, round(PAIRS / len(whitened))))
    size = CHUNK * whitened.shape[1]
    codes, rows, numbers = [], [], []
    for members in np.split(whitened.double().cpu().numpy(), counts.cumsum(0)[:-1].tolist()):
        for _ in range(rounds):
            for chunk in np.array_split(rng.permutation(members), math.ceil(len(members) / size)):
                code = _codes(len(chunk), chunk.shape[1], rng)
                codes.append(code)
                rows.append(chunk[_assign(code, chunk)])
        numbers.append(rounds * len(members))
    return (
        torch.from_numpy(np.concatenate(codes)).to(whitened),
        torch.from_numpy(np.concatenate(rows)).to(whitened),
        torch.tensor(numbers),
    )


def _codes(n: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    from scipy.special import ndtri
    from scipy.stats import qmc

    points = qmc.Sobol(width, rng=rng).random_base2(math.ceil(math.log2(max(n, 2))))[:n]
    return np.asarray(ndtri(points.clip(1e-7, 1 - 1e-7)), np.float64)


def _assign(codes: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the row that each code is assigned to."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    return np.asarray(linear_sum_assignment(cdist(codes, rows, "sqeuclidean"))[1], np.int64)
