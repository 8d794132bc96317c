"""Latents to generate from: a cluster is drawn by its weight, then a map of that cluster turns noise into a latent.

    u picks a cluster i with probability pi_i (comparison with cumulative weights on the 2^-24 grid, so exact);
    w ~ N(0, 1) in R^m goes through g_i to a latent.

One Gaussian, noisy centres and the latents of training rows are such models too. Trained maps are in `maps`.

A cluster is found without a look at every bound: [0, 1) is cut into 2^G cells, and a table t says for each what to add
to s = 2^G u so that the whole part is the cluster, where at most one bound falls inside the cell (a first guess else):

    cluster = floor(s + t[floor(s)]),   t = (clusters that end before the cell) + 1 - 2^G bound,   or - cell if none

All of these numbers are multiples of 2^(G-24) below 2^G, so float32 and every runtime compute them exactly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from scgan_infer.bundle.manifest import GRID
from scgan_train.graph import Var, const, op

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
    """The cluster-selection head and the ensemble of maps behind it.

    Attributes:
        noise: m.
        thresholds: int64 [K]; cluster i is drawn where thresholds[i-1] <= 2^24 u < thresholds[i].
    """

    thresholds: Tensor

    def __init__(self, limits: Tensor, ensemble: nn.Module, noise: int) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.noise = noise
        self.register_buffer("thresholds", limits, persistent=False)

    def select(self, u: Tensor) -> Tensor:
        """Return the cluster [n] that each u [n] selects."""
        return torch.searchsorted(self.thresholds, (u * GRID).to(torch.int64), right=True)

    def forward(self, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents [n, e] and clusters [n] of uniforms u [n] and noise w [n, m]."""
        cluster = self.select(u)
        latent: Tensor = self.ensemble(w, cluster)
        return latent, cluster

    def select_graph(self, u: Var) -> Var:
        """Return `select` as a graph: by the table of `guide`, without a look at every bound."""
        limits = self.thresholds.cpu()
        cells, most = guide(limits)
        scaled = op.mul(u, const(len(cells)))
        step = op.gather(const(cells), op.cast(scaled, to=np.int64))
        cluster = op.cast(op.add(scaled, step), to=np.int64)
        for _ in range(most - 1):
            bound = op.gather(const(limits.double() / GRID), cluster)
            cluster = op.add(cluster, op.cast(op.greater_or_equal(u, bound), to=np.int64))
        return cluster

    def graph(self, u: Var, w: Var) -> tuple[Var, Var]:
        """Return `forward` as a graph."""
        cluster = self.select_graph(u)
        latent: Var = self.ensemble.graph(w, cluster)  # type: ignore[operator]
        return latent, cluster

    def draw(self, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Return n latents [n, e] for training."""
        u = torch.randint(GRID, (n,), generator=generator).float().div(GRID).to(device)
        w = torch.randn(n, self.noise, generator=generator).to(device)
        latent: Tensor = self(u, w)[0]
        return latent


class RealLatents(LatentModel):
    """Latents of training rows themselves, sorted by cluster; w is not used."""

    table: Tensor

    def __init__(self, table: Tensor, limits: Tensor) -> None:
        super().__init__(limits, nn.Identity(), table.shape[1])
        self.register_buffer("thresholds", limits)
        self.register_buffer("table", table)

    @classmethod
    def of(cls, latents: Tensor, labels: Tensor, generator: torch.Generator) -> RealLatents:
        """Return the model of latents [N, e] with labels [N], of at most `REAL_ROWS` of them."""
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
        row = (u * len(self.table)).to(torch.int64)
        return self.table.index_select(0, row) + 0.0 * w, self.select(u)

    def graph(self, u: Var, w: Var) -> tuple[Var, Var]:
        """Return `forward` as a graph."""
        row = op.cast(op.mul(u, const(len(self.table))), to=np.int64)
        latent = op.add(op.gather(const(self.table), row), op.mul(w, const(0.0)))
        return latent, self.select_graph(u)
