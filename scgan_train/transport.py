"""Optimal transport, then regression: the map `ot`.

In a cluster's own frame v = F_i^-1 (eps - mu_i), pair rows with Gaussian codes at the least total distance

    min over permutations s of  sum_j |w_j - v_s(j)|^2,     w_j = normal quantiles of scrambled Sobol points

and regress g_i(w) = w + MLP_i(w) on the pairs. The optimal map is the gradient of a convex function (Brenier).
It moves mass no farther than it must, so a small network learns it in seconds, and there is no game to balance.
With few rows in many dimensions the pairs say more about the sample than about the cluster.
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
from scgan_train.latents import Affine, Mapper, Members
from scgan_train.nets import ClusterMLP
from scgan_train.training import Phase, Player

CHUNK = 256  # rows assigned at once: the cost of a row grows with its square
PAIRS = 100_000  # in all; a cluster's rows are paired again with new codes until about so many
ROUNDS = 8  # but no more often than this
BATCH = 96  # pairs a cluster and step


class TransportMapper(Mapper):
    """g_i(w) = mu_i + F_i (w + MLP_i(w)), one hidden layer, starting as the cluster's Gaussian."""

    def __init__(self, clusters: Clusters, config: MapperConfig, generator: torch.Generator) -> None:
        super().__init__(clusters, config, generator)
        size, width = clusters.means.shape
        hidden = 16 if config.width == "auto" else config.width
        self.map = ClusterMLP(size, [width, hidden, width], generator, zero=True)
        self.frame = Affine(clusters.means, clusters.factors)

    def forward(self, w: Tensor, cluster: Tensor) -> Tensor:
        """Return latents [n, e]."""
        latent: Tensor = self.frame(w + self.map.rows(w, cluster), cluster)
        return latent

    def loss(self, codes: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the squared distance of g(codes) to their rows, both [K, b, e] in the clusters' frames."""
        return {"transport": (codes + self.map(codes) - rows).square().mean()}

    def phases(self, latents: Tensor, labels: Tensor, generator: torch.Generator) -> Iterator[Phase]:
        """Yield one phase of regression on the pairs."""
        members = Members(self.clusters, latents, labels)
        codes, rows, counts = optimal_pairs(members.whitened, members.counts, generator)
        starts = (counts.cumsum(0) - counts)[:, None]

        def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            share = torch.rand(len(counts), BATCH, generator=generator)
            index = starts + (share * counts[:, None]).long().clamp(max=counts[:, None] - 1)
            return codes[index], rows[index]

        steps = 800 if self.config.steps == "auto" else self.config.steps
        lr = 1e-2 if self.config.lr == "auto" else self.config.lr
        player = Player("map", list(self.map.parameters()), self.loss, lr)
        yield Phase("optimal transport", steps, draw, (player,), average=self.map, decay=0.99)


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
    most = math.ceil(PAIRS * 1.5 / len(counts))
    codes, rows, numbers = [], [], []
    for members in np.split(whitened.double().cpu().numpy(), counts.cumsum(0)[:-1].tolist()):
        chunks = [
            chunk
            for _ in range(rounds)
            for chunk in np.array_split(rng.permutation(members), math.ceil(len(members) / CHUNK))
        ]
        kept = 0
        for chunk in chunks:
            if kept < most:
                code = _codes(len(chunk), chunk.shape[1], rng)
                codes.append(code)
                rows.append(chunk[_assign(code, chunk)])
                kept += len(chunk)
        numbers.append(kept)
    return (
        torch.from_numpy(np.concatenate(codes)).float().to(whitened.device),
        torch.from_numpy(np.concatenate(rows)).float().to(whitened.device),
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
