"""A triangular spline flow: the map `flow`.

In a cluster's own frame, v = M_i^-1 (eps - mu_i), noise w becomes a row coordinate by coordinate:

    v_j = s(w_j; knots that a small network computes from v_1 .. v_(j-1) and the cluster)

with s a monotone rational-quadratic spline on [-4, 4] and the identity outside (Durkan et al. 2019, "Neural
spline flows"). Training goes the other way, w = g^-1(v), where all coordinates are known, and descends

    - log p(v) = |w|^2 / 2 - sum_j log dw_j/dv_j.

From three coordinates on, a second layer takes them in reverse order. The lumpiest coordinate comes first, so
that what jumps decides about what is smooth, and not the other way round.

A flow learns chance features of its rows together with the rest. Several narrow ones over clusters that were fitted
anew, every other one with the smooth coordinates reversed, differ in those, and their rows together are harder to tell
from fresh ones than those of a wide one (`LOG.md`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from scgan_train.clusters import Clusters
from scgan_train.config import MapperConfig
from scgan_train.head import Affine, Mapper
from scgan_train.training.loop import Phase, Player

BINS = 8
BOUND = 4.0
SMALLEST = 1e-4  # of the positive numbers that make a spline
UNITS = 128  # hidden units of all fits together, at most 64 each
BATCH = 256
JITTER = 0.02  # noise on training rows, in the cluster's frame


class Spline(nn.Module):
    """Monotone rational-quadratic splines of [-4, 4] onto itself, the identity outside.

    A spline is given by 3 BINS - 1 real numbers; (r + sqrt(r^2 + 4)) / 2 makes them positive, and 1 of 0. Shares
    of their sums are the bins' widths and heights; the last BINS - 1 are slopes at inner knots. Two constant
    matrices give all corners, and multiplication picks a bin: graph runtimes are slow at softmax, softplus,
    cumulative sums and gathering when rows are short.
    """

    def __init__(self) -> None:
        super().__init__()
        one, every = torch.eye(BINS), torch.ones(BINS, BINS)
        edges = 2 * BOUND * every.triu(1) - BOUND * every
        inner = torch.eye(BINS - 1)
        above, below = torch.zeros(2, 3 * BINS - 1, 6, BINS)
        above[:BINS, 0], above[:BINS, 2] = edges, 2 * BOUND * one
        above[BINS : 2 * BINS, 1], above[BINS : 2 * BINS, 3] = edges, 2 * BOUND * one
        above[2 * BINS :, 4, 1:], above[2 * BINS :, 5, :-1] = inner, inner
        below[:BINS, 0], below[:BINS, 2] = every, every
        below[BINS : 2 * BINS, 1], below[BINS : 2 * BINS, 3] = every, every
        above_bias, below_bias = torch.zeros(2, 6, BINS)
        above_bias[4, 0] = above_bias[5, -1] = 1.0
        below_bias[4:] = 1.0
        for name, tensor in {
            "above": above.flatten(1),
            "below": below.flatten(1),
            "above_bias": above_bias.flatten(),
            "below_bias": below_bias.flatten(),
            "steps": (one[1:] - one[:-1]).repeat(1, 6),
            "first": one[0].repeat(6),
            "collect": torch.eye(6).repeat_interleave(BINS, 0),
        }.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: Tensor, raw: Tensor) -> Tensor:
        """Return the values [..., 1] at x [..., 1] of the splines given by raw [..., 3 BINS - 1]."""
        inside = x.clamp(-BOUND, BOUND)
        left, low, width, height, start, end = self._bin(inside, raw, 0)
        z = (inside - left) / width
        mean = height / width
        bend = z * (1 - z)
        y = low + height * (mean * z * z + start * bend) / (mean + (start + end - 2 * mean) * bend)
        return y + (x - inside)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return x [..., 1] with spline(x) = y, and log dx/dy [..., 1]."""
        inside = y.clamp(-BOUND, BOUND)
        left, low, width, height, start, end = self._bin(inside, raw, 1)
        rise = inside - low
        mean = height / width
        twist = start + end - 2 * mean
        a = height * (mean - start) + rise * twist
        b = height * start - rise * twist
        z = 2 * mean * rise / (b + (b * b + 4 * a * mean * rise).clamp(min=1e-12).sqrt())
        bend = z * (1 - z)
        slope = (end * z * z + 2 * mean * bend + start * (1 - z).square()) * (
            mean / (mean + twist * bend)
        ).square()
        return left + z * width + (y - inside), torch.where(inside == y, -slope.log(), 0.0)

    def _bin(self, at: Tensor, raw: Tensor, side: int) -> tuple[Tensor, ...]:
        """Left and low corner, width, height and two slopes, [..., 1] each, of the bin that `at` falls in."""
        positive = SMALLEST + 0.5 * (raw + (raw * raw + 4).sqrt())
        above = positive @ self.get_buffer("above") + self.get_buffer("above_bias")
        table = above / (positive @ self.get_buffer("below") + self.get_buffer("below_bias"))
        passed = (at >= table[..., side * BINS + 1 : (side + 1) * BINS]).to(table.dtype)
        chosen = passed @ self.get_buffer("steps") + self.get_buffer("first")
        return torch.split((table * chosen) @ self.get_buffer("collect"), 1, -1)


class Triangular(nn.Module):
    """One layer: e networks side by side, the j-th sees the coordinates before j and the cluster.

    Clusters of different fits go through networks of their own.
    """

    def __init__(
        self, sizes: Sequence[int], width: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        fits, clusters, outputs = len(sizes), sum(sizes), 3 * BINS - 1
        self.first = uniform(math.sqrt(6 / width), fits, width, width, hidden)
        self.first_bias = uniform(1.0, clusters, width, hidden)
        self.second = uniform(1.5 * math.sqrt(3 / hidden), fits, width, hidden, hidden)
        self.second_bias = nn.Parameter(torch.zeros(fits, width, 1, hidden))
        self.last = nn.Parameter(torch.zeros(fits, width, hidden, outputs))
        self.last_bias = nn.Parameter(torch.zeros(clusters, width, outputs))
        self.spline = Spline()
        before = torch.ones(width, width).triu(1).unsqueeze(-1)
        self.register_buffer("before", before, persistent=False)
        self.register_buffer(
            "fit", torch.arange(fits).repeat_interleave(torch.tensor(sizes)), persistent=False
        )

    def inverse(self, v: Tensor, cluster: Tensor) -> tuple[Tensor, Tensor]:
        """Return w [f, b, e] and log |det dw/dv| [f, b] of b rows of clusters [f, b] of each fit."""
        fits, batch, width = v.shape
        first = v @ (self.first * self.get_buffer("before")).reshape(fits, width, -1)
        hidden = nn.functional.silu(first.view(fits, batch, width, -1) + self.first_bias[cluster])
        hidden = nn.functional.silu(hidden.transpose(1, 2) @ self.second + self.second_bias)
        raw = (hidden @ self.last).transpose(1, 2) + self.last_bias[cluster]
        w, logs = self.spline.inverse(v.unsqueeze(-1), raw)
        return w.squeeze(-1), logs.sum((2, 3))

    def forward(self, w: Tensor, cluster: Tensor) -> Tensor:
        """Return v [n, e]: e small steps, the first from a table of the clusters alone."""
        silu, fit = nn.functional.silu, self.get_buffer("fit")
        first, last = self.first_bias.unbind(1), self.last_bias.unbind(1)
        second = self.second_bias[fit].squeeze(2).unbind(1)
        units = self._mask(self.second.shape[-1])
        table = silu(_own(silu(first[0]), self.second[:, 0], units) + second[0])
        table = _own(table, self.last[:, 0], units) + last[0]
        units = units.index_select(0, cluster)
        v: Tensor = self.spline(w[:, :1], table.index_select(0, cluster))
        for j in range(1, w.shape[1]):
            hidden = _own(v, self.first[:, :j, j], self._mask(j).index_select(0, cluster))
            hidden = silu(hidden + first[j].index_select(0, cluster))
            hidden = _own(hidden, self.second[:, j], units) + second[j].index_select(0, cluster)
            raw = _own(silu(hidden), self.last[:, j], units) + last[j].index_select(0, cluster)
            v = torch.cat([v, self.spline(w[:, j : j + 1], raw)], 1)
        return v

    def _mask(self, inputs: int) -> Tensor:
        """Return [K, f * inputs]: 1 for the inputs to the fit of a cluster, 0 for those to the others."""
        fit = self.get_buffer("fit")
        return torch.eye(len(self.first), device=fit.device, dtype=self.first.dtype)[
            fit
        ].repeat_interleave(inputs, 1)


def _own(x: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return x [n, i] times each row's own weight of [f, i, o]: copies of x, all but one masked, times all weights."""
    if len(weight) == 1:
        return x @ weight[0]
    return (torch.cat([x] * len(weight), 1) * mask) @ weight.flatten(0, 1)


class FlowMapper(Mapper):
    """g_i(w) = mu_i + M_i flow(w, i), M_i the cluster's Cholesky factor in the flow's coordinate order."""

    @staticmethod
    def fits(dims: int) -> int:
        """Return four up to four dimensions, then two: more dimensions need wider networks."""
        return 4 if dims <= 4 else 2

    @staticmethod
    def most_clusters(dims: int) -> int:
        """Return three a dimension, up to 16: the flow shares what clusters have in common, and more copy more."""
        return min(16, 3 * dims)

    def __init__(
        self, clusters: Clusters, config: MapperConfig, generator: torch.Generator
    ) -> None:
        super().__init__(clusters, config, generator)
        width = clusters.means.shape[1]
        hidden = min(64, UNITS // len(clusters.sizes)) if config.width == "auto" else config.width
        layers = 1 if width < 3 else 2
        self.layers = nn.ModuleList(
            Triangular(clusters.sizes, width, hidden, generator) for _ in range(layers)
        )
        order = coordinate_order(clusters)
        orders = [order, torch.cat([order[:1], order[1:].flip(0)])]
        frames = torch.cat(
            [_frames(fit.factors, orders[i % 2]) for i, fit in enumerate(clusters.fits())]
        )
        self.frame = Affine(clusters.means, frames.float())
        self.register_buffer("means", clusters.means, persistent=False)
        self.register_buffer("whiten", torch.linalg.inv(frames).float(), persistent=False)

    def forward(self, w: Tensor, cluster: Tensor) -> Tensor:
        """Return latents [n, e]."""
        for depth in reversed(range(len(self.layers))):
            w = self.layers[depth](w, cluster)
            w = w.flip(1) if depth else w
        latent: Tensor = self.frame(w, cluster)
        return latent

    def whitened(self, latents: Tensor, cluster: Tensor) -> Tensor:
        """Return latents [n, e] in the frames of their clusters [n]."""
        centred = latents - self.get_buffer("means")[cluster]
        return (self.get_buffer("whiten")[cluster] @ centred.unsqueeze(-1)).squeeze(-1)

    def loss(self, v: Tensor, cluster: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return minus the mean log-likelihood of rows v [f, b, e], given in their clusters' frames."""
        w, gained = v, torch.zeros_like(v[..., 0])
        for depth, layer in enumerate(self.layers):
            assert isinstance(layer, Triangular)
            w, logs = layer.inverse(w.flip(2) if depth else w, cluster)
            gained = gained + logs
        normal = 0.5 * w.square().sum(2) + 0.5 * math.log(2 * math.pi) * w.shape[2]
        return {"likelihood": (normal - gained).mean()}

    def phases(
        self, latents: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Phase]:
        """Yield one phase of maximum likelihood; the weights' average is what stays."""
        starts = np.cumsum([0, *self.clusters.sizes]).tolist()
        fits = [
            torch.nonzero((labels >= start) & (labels < end)).squeeze(1)
            for start, end in pairwise(starts)
        ]

        def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            index = torch.stack(
                [
                    own[torch.randint(len(own), (BATCH,), generator=generator).to(own.device)]
                    for own in fits
                ]
            )
            v = self.whitened(latents[index], labels[index])
            return v + JITTER * torch.randn(v.shape, generator=generator).to(v), labels[index]

        steps = (
            steps_for(len(latents) // len(fits))
            if self.config.steps == "auto"
            else self.config.steps
        )
        lr = 5e-3 if self.config.lr == "auto" else self.config.lr
        player = Player("flow", list(self.layers.parameters()), self.loss, lr, weight_decay=0.01)
        yield Phase("likelihood", steps, draw, (player,), average=self.layers, decay=0.995)


def _frames(factors: Tensor, order: Tensor) -> Tensor:
    """Cholesky factors [K, e, e] of the covariances in an order of the coordinates, rows in the old order, float64."""
    ordered = factors.double()[:, order]
    frames: Tensor = torch.linalg.cholesky(ordered @ ordered.mT)
    return frames[:, torch.argsort(order)]


def steps_for(rows: int) -> int:
    """Return how many steps to train on so many rows: as many as they bear before the flow copies them.

    >>> [steps_for(rows) for rows in (100, 1000, 5000, 10**6)]
    [126, 502, 1320, 2000]
    """
    return round(2000 * float(min(1.0, rows / 10_000) ** 0.6))


def coordinate_order(clusters: Clusters) -> Tensor:
    """Coordinates [e] by the entropy of the clusters' mixture along each, the lowest first."""
    weights, means = clusters.weights.double().numpy(), clusters.means.double().numpy()
    spreads = clusters.factors.double().square().sum(2).sqrt().numpy()
    entropies = []
    for mean, spread in zip(means.T, spreads.T, strict=True):
        grid = np.linspace((mean - 3 * spread).min(), (mean + 3 * spread).max(), 200)
        wide = np.maximum(spread, grid[1] - grid[0])
        mass = (weights / wide * np.exp(-0.5 * ((grid[:, None] - mean) / wide) ** 2)).sum(1)
        mass /= mass.sum()
        entropies.append(-(mass * np.log(np.maximum(mass, 1e-300))).sum())
    return torch.from_numpy(np.argsort(entropies, kind="stable"))
