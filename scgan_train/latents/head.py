"""Latents to generate from: a cluster is drawn by its weight, and its map turns noise into one.

    u picks a cluster i with probability pi_i (by cumulative weights on the 2^-24 grid, so exact);
    w ~ N(0, 1) in R^m goes through g_i to a latent.

One Gaussian, noisy centres and training rows' latents are such models too. Trained maps: `maps`.

A cluster is found without a look at every bound: for each of 2^G cells of [0, 1) a table t has what
to add to s = 2^G u for the whole part to be the cluster (a first guess, if of many bounds):

    cluster = floor(s + t[floor(s)]), t = (clusters ended before) + 1 - 2^G bound, or - cell if none

All these numbers are multiples of 2^(G-24) below 2^G, so float32 and all runtimes compute exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from scgan_infer.bundle.manifest import GRID
from scgan_train.coordinates.given import Conditions, ConditionVars
from scgan_train.graph import Var, const, op
from scgan_train.latents.chain import Chain

REAL_ROWS = 2**15
LEAST = -1e30  # log-density, that of what is too far out for float32 to square
CELL_BITS = 12  # the most cells that a table is made for, unless there are more clusters


def thresholds(weights: Tensor) -> Tensor:
    """Return cumulative weights [K], int64, up to 2^24, every cluster at least one step wide."""
    steps = (weights.double() * GRID).round().to(torch.int64).clamp(min=1)
    steps[steps.argmax()] += GRID - steps.sum()
    return steps.cumsum(0)


def guide(limits: Tensor) -> tuple[Tensor, int]:
    """Return the table t [2^G] of cumulative weights [K], for least G, and most bounds in a cell.

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
        thresholds: int64 [K]; cluster i is drawn where thresholds[i-1] <= 2^24 u < thresholds[i],
            or, behind a chain, in that share of the rows.
        chain: draws discrete values and the cluster, where there are such or given columns.
    """

    thresholds: Tensor

    chain: Chain | None

    def __init__(self, limits: Tensor, ensemble: nn.Module, noise: int) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.noise = noise
        self.chain = None
        self.register_buffer("thresholds", limits, persistent=False)

    @property
    def steps(self) -> int:
        """How many uniforms a row takes, h."""
        return len(self.chain.sizes) if self.chain else 1

    def select(self, u: Tensor, given: Conditions | None = None) -> Tensor:
        """Return clusters [n] that u [n] selects; the outcomes [n, h] of u [n, h] of a chain."""
        if not self.chain:
            return torch.searchsorted(self.thresholds, (u * GRID).to(torch.int64), right=True)
        choice = self.chain.select(u.reshape(len(u), -1), given or self._nothing(u))
        return choice.reshape(u.shape)

    def forward(
        self, u: Tensor, w: Tensor, given: Conditions | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return latents [n, e] and choices, as `select`, of u, noise w [n, m], given columns."""
        choice = self.select(u, given)
        seen = (choice,) if given is None else (joined(given.s, choice), given.h)
        latent: Tensor = self.ensemble(w, *seen)
        return latent, choice

    @staticmethod
    def _nothing(u: Tensor) -> Conditions:
        return Conditions(u.new_zeros(len(u), 0), u.new_zeros(len(u), 0, dtype=torch.int64))

    def select_graph(self, u: Var, given: ConditionVars | None = None) -> list[Var]:
        """Return `select` as a graph, [n] for each step.

        Without a chain by the table of `guide`, and no look at every bound.
        """
        if self.chain:
            wide = op.unsqueeze(u, const([1], np.int64)) if self.steps == 1 else u
            return self.chain.graph(wide, given or ConditionVars(None, ()))
        limits = self.thresholds.cpu()
        cells, most = guide(limits)
        scaled = op.mul(u, const(len(cells)))
        step = op.gather(const(cells), op.cast(scaled, to=np.int64))
        cluster = op.cast(op.add(scaled, step), to=np.int64)
        for _ in range(most - 1):
            bound = op.gather(const(limits.double() / GRID), cluster)
            cluster = op.add(cluster, op.cast(op.greater_or_equal(u, bound), to=np.int64))
        return [cluster]

    def graph(self, u: Var, w: Var, given: ConditionVars | None = None) -> tuple[Var, list[Var]]:
        """Return `forward` as a graph; the choice in its steps."""
        choice = self.select_graph(u, given)
        seen = (choice,) if given is None else ([*given.s, *choice], given.h)
        latent: Var = self.ensemble.graph(w, *seen)  # type: ignore[operator]
        return latent, choice

    def log_density(
        self, latents: Tensor, choice: Tensor, given: Conditions | None = None
    ) -> Tensor:
        """Return log p [n] of latents [n, e] and discrete values [n, h - 1], given the rest.

        The ensemble is `Invertible`.
        """
        given = given or self._nothing(latents)
        before, shares = latents.new_zeros(()), self.log_shares().to(latents)
        if self.chain:
            before, shares = self.chain.log_shares(choice, given)
        outcomes = torch.cat([given.s, choice], 1)
        parts = self.ensemble.log_densities(latents, outcomes, given.h)  # type: ignore[operator]
        total: Tensor = before + (shares + parts.clamp(min=LEAST)).logsumexp(1)
        return total

    def log_share(self, choice: Tensor, given: Conditions | None = None) -> Tensor:
        """Return log p [n] of discrete values [n, h - 1] of a chain."""
        assert self.chain
        empty = self.chain.embeddings[0].new_zeros(len(choice), 0)
        return self.chain.log_shares(choice, given or self._nothing(empty))[0]

    def log_shares(self) -> Tensor:
        """Return the logarithms of the clusters' shares [K]."""
        widths = torch.diff(self.thresholds, prepend=self.thresholds.new_zeros(1))
        return (widths.double() / GRID).log()

    def log_density_graph(
        self, latents: Var, choice: Sequence[Var], given: ConditionVars | None = None
    ) -> Var:
        """Return `log_density` as a graph; the discrete values in steps [n]."""
        given = given or ConditionVars(None, ())
        outcomes = [*given.s, *choice]
        parts = self.ensemble.log_densities_graph(  # type: ignore[operator]
            latents, outcomes, given.h
        )
        parts = op.max([parts, const(LEAST)])
        if not self.chain:
            return log_sum_graph(op.add(parts, const(self.log_shares()[:, None])))
        before, shares = self.chain.log_shares_graph(choice, given)
        total = log_sum_graph(op.add(parts, op.transpose(shares)))
        return total if before is None else op.add(before, total)

    def draw(self, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Return n latents [n, e] for training."""
        shape = (n, self.steps) if self.steps > 1 else (n,)
        u = torch.randint(GRID, shape, generator=generator).float().div(GRID).to(device)
        w = torch.randn(n, self.noise, generator=generator).to(device)
        latent: Tensor = self(u, w)[0]
        return latent


def joined(outcomes: Tensor, choice: Tensor) -> Tensor:
    """Return outcomes [n, r] and choice [n] or [n, h] side by side; it alone without outcomes."""
    if not outcomes.shape[1]:
        return choice
    return torch.cat([outcomes, choice.reshape(len(choice), -1)], 1)


def log_sum_graph(logs: Var) -> Var:
    """Return log sum_i exp l_i [n] of logarithms [K, n], as a graph."""
    axis = const([0], np.int64)
    top = op.reduce_max(logs, axis)
    total = op.reduce_sum(op.exp(op.sub(logs, top)), axis)
    return op.squeeze(op.add(top, op.log(total)), axis)


class RealLatents(LatentModel):
    """Latents of training rows themselves, sorted by cluster, each with its choice; w is not used.

    Attributes:
        table: latents [N, e].
        choices: [N, h] where there are discrete values, else None.
    """

    table: Tensor
    choices: Tensor | None

    def __init__(self, table: Tensor, limits: Tensor, choices: Tensor | None = None) -> None:
        super().__init__(limits, nn.Identity(), table.shape[1])
        self.register_buffer("thresholds", limits)
        self.register_buffer("table", table)
        self.register_buffer("choices", choices)

    @classmethod
    def of(cls, latents: Tensor, choices: Tensor, generator: torch.Generator) -> RealLatents:
        """Return a model of latents [N, e] with choices [N] or [N, h], at most `REAL_ROWS`."""
        if len(latents) > REAL_ROWS:
            kept = torch.randperm(len(latents), generator=generator)[:REAL_ROWS]
            latents, choices = latents[kept], choices[kept]
        labels = choices if choices.dim() == 1 else choices[:, -1]
        order = torch.argsort(labels, stable=True)
        ends = torch.bincount(labels).cumsum(0)
        limits = torch.div(ends * GRID + len(labels) - 1, len(labels), rounding_mode="floor")
        # in float32, u times the number of rows may round up to a limit one step before it
        limits -= ((limits - 1).float() / GRID * len(labels) >= ends).to(torch.int64)
        return cls(latents[order], limits, choices[order] if choices.dim() > 1 else None)

    @property
    def steps(self) -> int:
        """See `LatentModel.steps`; all but the first uniform are not used."""
        return 1 if self.choices is None else self.choices.shape[1]

    def _row(self, u: Tensor) -> Tensor:
        first = u if u.dim() == 1 else u[:, 0]
        return (first * len(self.table)).to(torch.int64)

    def select(self, u: Tensor, given: Conditions | None = None) -> Tensor:
        return super().select(u) if self.choices is None else self.choices[self._row(u)]

    def forward(
        self, u: Tensor, w: Tensor, given: Conditions | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the latent of the row that u selects, and its choice."""
        return self.table.index_select(0, self._row(u)) + 0.0 * w, self.select(u)

    def _row_graph(self, u: Var) -> Var:
        if self.choices is not None:
            u = op.gather(u, const(0, np.int64), axis=1)
        return op.cast(op.mul(u, const(len(self.table))), to=np.int64)

    def select_graph(self, u: Var, given: ConditionVars | None = None) -> list[Var]:
        if self.choices is None:
            return super().select_graph(u)
        row = self._row_graph(u)
        return [
            op.gather(const(outcomes, np.int64), row) for outcomes in self.choices.T.contiguous()
        ]

    def graph(self, u: Var, w: Var, given: ConditionVars | None = None) -> tuple[Var, list[Var]]:
        latent = op.gather(const(self.table), self._row_graph(u))
        return op.add(latent, op.mul(w, const(0.0))), self.select_graph(u)
