"""Optimal transport, then regression: the map `ot`.

In a cluster's frame pair rows v with Gaussian codes w at the least total distance

    min over permutations s of  sum_j |w_j - v_s(j)|^2,     w_j = normal quantiles of Sobol points

and regress g_i(w) = w + MLP_i(w) on the pairs. The optimal map is the gradient of a convex function
(Brenier). It moves mass no farther than it must, so a small network learns it in seconds, and there
is no game to balance.

Pairs of few rows in many dimensions are noisy, and regression answers noise with its mean: the map
shrinks. An affine map per cluster, the optimal one between Gaussians, gives each cluster its rows'
mean and covariance back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scgan_train.fitting.loop import Phase, Player
from scgan_train.maps.base import Affine, Members, ResidualMapper, cluster_of, draw

CHUNK = 128  # rows assigned at once, times e: the cost of a row grows with its square
PAIRS = 100_000  # in all; a cluster's rows are paired again with new codes until about so many
ROUNDS = 8  # but no more often than this
BATCH = 8192  # pairs a step, shared by the clusters
MOMENTS = 2048  # codes that measure a trained map's mean and covariance
JUDGED = 1024  # rows of a cluster that can tell whether it is more than a Gaussian


class TransportMapper(ResidualMapper):
    """The residual map of every cluster, regressed on optimal pairs of codes and rows."""

    @staticmethod
    def defaults(e: int, rows: int, steps: int = 0) -> dict[str, Any]:
        """Return width, steps and lr."""
        return {"width": 16 if e < 3 else 32, "steps": 800, "lr": 1e-2, "layers": 1}

    def loss(self, codes: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the squared distance of g(codes) to their rows, both [K, b, e] in the frames."""
        return {"transport": (codes + self.map(codes) - rows).square().mean()}

    def phases(
        self, latents: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Phase]:
        """Yield one phase of regression on the pairs, then match means and covariances."""
        labels = cluster_of(labels)
        most = math.ceil(1.5 * PAIRS / len(self.clusters))
        kept = _most(labels, most, generator)
        members = Members(self.clusters, latents[kept], labels[kept])
        codes, rows, counts = optimal_pairs(members.whitened, members.counts, generator)
        batch = min(256, max(48, BATCH // len(counts)))

        def batches(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            index = draw(counts, batch, generator)
            return codes[index], rows[index]

        parameters, steps = list(self.map.parameters()), int(self.config.steps)
        player = Player("map", parameters, self.loss, float(self.config.lr))
        yield Phase("optimal transport", steps, batches, (player,), average=self.map, decay=0.99)
        self._match(members, generator)
        with torch.no_grad():
            needless = self._needless(members, generator)
            for part in (self.map.weights[-1], self.map.biases[-1]):
                part[needless] = 0
        self._match(members, generator)

    @torch.no_grad()
    def _match(self, members: Members, generator: torch.Generator) -> None:
        """Move the frames so that each cluster's map has its rows' mean and covariance."""
        size, e = self.frame.means.shape
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        codes = torch.from_numpy(_codes(MOMENTS, e, rng)).to(self.frame.means)
        made = codes + self.map(codes.expand(size, -1, -1))
        made_mean, made_covariance = _moments(made.unbind())
        mean, covariance = _moments(members.by_cluster())
        half, back = _power(made_covariance, 0.5), _power(made_covariance, -0.5)
        turn = back @ _power(half @ covariance @ half, 0.5) @ back
        start, centres = self.clusters.factors.to(turn), self.clusters.means.to(turn)
        factors = start @ turn
        shift = start @ mean.unsqueeze(-1) - factors @ made_mean.unsqueeze(-1)
        self.frame.factors.copy_(factors)
        self.frame.means.copy_(centres + shift.squeeze(-1))

    def _needless(self, members: Members, generator: torch.Generator) -> Tensor:
        """Return which clusters [K] of many rows maps bring no nearer: regression trims tails."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        start = Affine(self.clusters.means, self.clusters.factors)
        needless = torch.zeros(len(self.clusters), dtype=torch.bool)
        for k, rows in enumerate(members.by_cluster()):
            some = rows[:MOMENTS].double().cpu().numpy()
            if len(some) < JUDGED:
                continue
            codes = torch.from_numpy(_codes(MOMENTS, rows.shape[1], rng)).to(rows)
            cluster = torch.full((len(codes),), k, device=rows.device)
            made = start.to(rows).inverse(self(codes, cluster), cluster)
            distances = [_energy(part.double().cpu().numpy(), some) for part in (codes, made)]
            needless[k] = distances[0] <= distances[1]
        return needless.to(members.whitened.device)


def _energy(made: NDArray[np.float64], rows: NDArray[np.float64]) -> float:
    """Return the energy distance of [n, e] to rows [m, e], but for what is of the rows alone."""
    from scipy.spatial.distance import cdist

    return float(2 * cdist(made, rows).mean() - cdist(made, made).mean())


def _moments(sets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return means [K, e] and covariances [K, e, e] of K sets of rows."""
    e = sets[0].shape[1]
    means = [rows.double().mean(0) for rows in sets]
    covariances = [torch.cov(rows.double().T, correction=0).view(e, e) for rows in sets]
    return torch.stack(means), torch.stack(covariances)


def _power(matrices: Tensor, exponent: float) -> Tensor:
    """Powers of symmetric positive matrices [K, e, e], eigenvalues kept above 1e-6."""
    values, vectors = torch.linalg.eigh(matrices)
    power: Tensor = (vectors * values.clamp(min=1e-6).pow(exponent).unsqueeze(1)) @ vectors.mT
    return power


def _most(labels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return which rows to keep: all of a cluster, or a random part if it has more than `most`."""
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
    """Return Gaussian codes [P, e], the rows [P, e] they are paired with, pairs per cluster [K].

    Rows [N, e] are in clusters' frames and, as the pairs, sorted by cluster; counts [K] are theirs.
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
