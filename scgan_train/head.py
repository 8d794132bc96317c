"""Latents to generate from: a cluster is drawn by its weight, then a map of that cluster turns noise into a latent.

    u picks a cluster i with probability pi_i (comparison with cumulative weights on the 2^-24 grid, so exact);
    w ~ N(0, 1) in R^m goes through g_i to a latent.

One Gaussian, noisy centres and the latents of training rows are such models too. Trained maps are in `mappers`.

A cluster is found without a look at every bound: [0, 1) is cut into 2^G cells, and a table t says for each what to add
to s = 2^G u so that the whole part is the cluster, where at most one bound falls inside the cell (a first guess else):

    cluster = floor(s + t[floor(s)]),   t = (clusters that end before the cell) + 1 - 2^G bound,   or - cell if none

All of these numbers are multiples of 2^(G-24) below 2^G, so float32 and every runtime compute them exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scgan_train.clusters import Clusters
from scgan_train.config import MapperConfig
from scgan_train.training.loop import Phase

GRID = 2**24
REAL_ROWS = 2**15
CELL_BITS = 12  # the most cells that a table is made for, unless there are more clusters


def thresholds(weights: Tensor) -> Tensor:
    """Return cumulative weights [K] on the 2^24 grid, int64, every cluster at least one step wide, the last 2^24."""
    steps = (weights.double() * GRID).round().to(torch.int64).clamp(min=1)
    steps[steps.argmax()] += GRID - steps.sum()
    return steps.cumsum(0)


def guide(limits: Tensor) -> tuple[Tensor, int]:
    """Return the table t [2^G] of cumulative weights [K], G as small as will do, and the most bounds in a cell.

    >>> guide(torch.tensor([GRID // 4, GRID]))
    (tensor([0.5000, 0.0000]), 1)
    """
    bounds = limits[:-1]
    least = len(bounds).bit_length()
    for bits in range(least, max(least, CELL_BITS) + 1):
        width = GRID >> bits
        starts = torch.arange(1 << bits) * width
        first = torch.searchsorted(bounds, starts, right=True)
        inside = torch.searchsorted(bounds, starts + width) - first
        if inside.max() <= 1:
            break
    bound = torch.cat([bounds, limits.new_zeros(1)])[first].double() / width
    table = torch.where(inside > 0, first + 1 - bound, first - starts / width)
    return table.float(), int(inside.max())


class LatentModel(nn.Module):
    """The cluster-selection head and the ensemble behind it: (u [n], w [n, m]) to latents [n, e] and clusters [n].

    Attributes:
        noise: m.
        thresholds: int64 [K], cluster i is drawn where thresholds[i-1] <= 2^24 u < thresholds[i].
    """

    thresholds: Tensor

    def __init__(self, limits: Tensor, ensemble: nn.Module, noise: int) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.noise = noise
        self.register_buffer("thresholds", limits, persistent=False)
        table, most = guide(limits)
        self.register_buffer("guide", table, persistent=False)
        self.register_buffer("bounds", limits.double().div(GRID).float(), persistent=False)
        self._more = most - 1

    def select(self, u: Tensor) -> Tensor:
        """Return the cluster [n] that each u [n] selects."""
        table, bounds = self.get_buffer("guide"), self.get_buffer("bounds")
        place = u * len(table)
        cluster = (place + table.index_select(0, place.to(torch.int64))).to(torch.int64)
        for _ in range(self._more):
            cluster = cluster + (u >= bounds.index_select(0, cluster)).to(torch.int64)
        return cluster

    def forward(self, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents [n, e] and clusters [n]."""
        cluster = self.select(u)
        latent: Tensor = self.ensemble(w, cluster)
        return latent, cluster

    def draw(self, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Return n latents [n, e] for training."""
        u = torch.randint(GRID, (n,), generator=generator).float().div(GRID).to(device)
        w = torch.randn(n, self.noise, generator=generator).to(device)
        latent: Tensor = self(u, w)[0]
        return latent


class RealLatents(LatentModel):
    """Latents of training rows themselves, sorted by cluster; w is not used."""

    def __init__(self, table: Tensor, limits: Tensor) -> None:
        super().__init__(limits, nn.Identity(), table.shape[1])
        self.register_buffer("thresholds", limits)
        self.register_buffer("table", table)

    @classmethod
    def of(cls, latents: Tensor, labels: Tensor, generator: torch.Generator) -> RealLatents:
        """Return the model of latents [N, e] with labels [N]; beyond `REAL_ROWS` rows it keeps a sample of them."""
        if len(latents) > REAL_ROWS:
            kept = torch.randperm(len(latents), generator=generator)[:REAL_ROWS]
            latents, labels = latents[kept], labels[kept]
        order = torch.argsort(labels, stable=True)
        ends = torch.bincount(labels).cumsum(0)
        limits = torch.div(ends * GRID + len(labels) - 1, len(labels), rounding_mode="floor")
        # in float32, u times the number of rows may round up to a limit one step before it
        limits -= ((limits - 1).float() / GRID * len(labels) >= ends).to(torch.int64)
        return cls(latents[order], limits)

    def forward(self, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent of the row that u selects, and its cluster."""
        table = self.get_buffer("table")
        row = (u * len(table)).to(torch.int64)
        return table.index_select(0, row) + 0.0 * w, self.select(u)


class Affine(nn.Module):
    """g_i(w) = mu_i + L_i w: one Gaussian (K = 1), noisy centres (L_i = sigma_i), or where every mapper starts.

    It is the row product (see `RowProduct`) of (w, 1) with L_i^T above mu_i, so that one gather brings both.
    """

    def __init__(self, means: Tensor, factors: Tensor) -> None:
        super().__init__()
        e = means.shape[1]
        self.register_buffer(
            "table", torch.cat([factors.mT.flatten(1), means], 1), persistent=False
        )
        spread = torch.eye(e + 1).repeat_interleave(e, 1)
        self.register_buffer("spread", spread[:e], persistent=False)
        self.register_buffer("one", spread[e], persistent=False)
        self.register_buffer("collect", torch.eye(e).repeat(e + 1, 1), persistent=False)

    def forward(self, w: Tensor, cluster: Tensor) -> Tensor:
        """Return latents [n, e] of w [n, e]."""
        spread = torch.addmm(self.get_buffer("one"), w, self.get_buffer("spread"))
        return (spread * self.get_buffer("table").index_select(0, cluster)) @ self.get_buffer(
            "collect"
        )


class Mapper(nn.Module, ABC):
    """A map g_i for every cluster. Subclasses say how it is computed and how it is trained.

    Attributes:
        noise: m, the number of Gaussian inputs.
        clusters: the frames that it works in.
    """

    def __init__(
        self, clusters: Clusters, config: MapperConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.clusters = clusters
        self.config = config
        self.noise = clusters.means.shape[1]

    @staticmethod
    def fits(dims: int) -> int:
        """Return how many fits of clusters, each under maps of its own, pay in so many dimensions."""
        return 1

    @staticmethod
    def most_clusters(dims: int) -> int:
        """Return the most clusters that `auto` should cut latents of so many dimensions into for it."""
        return 256

    @abstractmethod
    def forward(self, w: Tensor, cluster: Tensor) -> Tensor:
        """Return latents [n, e] of noise w [n, m] through the maps of cluster [n]; must export to ONNX."""

    @abstractmethod
    def phases(
        self, latents: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Phase]:
        """Yield the training phases on latents [N, e] with labels [N]; a phase is prepared when it is reached."""


class Members:
    """Rows grouped by cluster, in each cluster's own frame, to draw equal batches from all clusters at once."""

    def __init__(self, clusters: Clusters, latents: Tensor, labels: Tensor) -> None:
        order = torch.argsort(labels, stable=True)
        self.counts = torch.bincount(labels, minlength=len(clusters.weights))
        self.starts = self.counts.cumsum(0) - self.counts
        centred = (latents - clusters.means.to(latents)[labels])[order].unsqueeze(-1)
        factors = clusters.factors.to(latents)[labels[order]]
        self.whitened = torch.linalg.solve_triangular(factors, centred, upper=False).squeeze(-1)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return whitened rows [K, batch, e]."""
        share = torch.rand(len(self.counts), batch, generator=generator).to(self.whitened)
        index = self.starts[:, None] + (share * self.counts[:, None]).long().clamp(
            max=self.counts[:, None] - 1
        )
        rows: Tensor = self.whitened[index]
        return rows
