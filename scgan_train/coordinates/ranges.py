"""Ranges of numbers given discrete values: a cell missing above a threshold, a grade for a band.

An outcome of a step of the chain leaves column j a range where its rows lie side by side among the
column's values, none of another outcome between them, more often than chance. Of N rows in any
order, c lie side by side with a probability of

    (N - c + 1) / C(N, c).

The range ends in the middle between the last of them and the next row. A generated number beyond is
reflected at the end: a flow alone blurs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_train.coordinates.discrete import APART, Labels
from scgan_train.graph import Var, const, op

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

FEWEST = 10  # rows of an outcome
OPEN = 1e38  # end of a range that has none; twice as much is finite, too


@dataclass(frozen=True)
class Ranges:
    """Between which ends the outcomes of h - 1 steps hold d' numbers.

    Attributes:
        low: float32 [sum of sizes, d'], a step after another.
        high: The same.
        sizes: How many outcomes each step has.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    sizes: tuple[int, ...]

    @classmethod
    def find(cls, f: Floats, there: Bools, choice: Labels, sizes: Sequence[int]) -> Ranges | None:
        """Return ranges of numbers [n, d'], some present, by outcomes [n, h-1]; None if none."""
        low = np.full((sum(sizes), f.shape[1]), -OPEN, np.float32)
        high, starts = -low, np.cumsum([0, *sizes[:-1]])
        for j, present in enumerate(there.T):
            order = np.flatnonzero(present)
            order = order[np.argsort(f[order, j], kind="stable")]
            numbers = f[order, j].astype(np.float64)
            for step, start in zip(choice[order].T, starts, strict=True):
                for outcome, first, last in _runs(step, numbers):
                    if first > 0:
                        low[start + outcome, j] = (numbers[first - 1] + numbers[first]) / 2
                    if last < len(numbers) - 1:
                        high[start + outcome, j] = (numbers[last] + numbers[last + 1]) / 2
        bounded = (low > -OPEN).any() or (high < OPEN).any()
        return cls(low, high, tuple(sizes)) if bounded else None

    def hold(self, f: Floats, choice: Labels) -> Floats:
        """Return numbers [n, d'] within the ranges of outcomes [n, h-1]."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        low = self.low[choice + starts].max(1).astype(f.dtype)
        high = self.high[choice + starts].min(1).astype(f.dtype)
        f = np.minimum(f, 2 * high - f)
        f = np.maximum(f, 2 * low - f)
        held: Floats = np.minimum(np.maximum(f, low), high)
        return held

    def graph(self, f: Var, choice: Sequence[Var]) -> Var:
        """Return `hold` as a graph, of numbers [d', n] and outcomes in steps [n]."""
        ends = []
        for table in (self.low, -self.high):
            tables = np.split(table, np.cumsum(self.sizes)[:-1])
            bounds = [
                op.gather(const(each), outcomes)
                for each, outcomes in zip(tables, choice, strict=False)
                if (each > -OPEN).any()
            ]
            ends.append(op.transpose(op.max(bounds)) if bounds else const(-OPEN))
        low, high = ends[0], op.neg(ends[1])
        f = op.min([f, op.sub(op.add(high, high), f)])
        f = op.max([f, op.sub(op.add(low, low), f)])
        return op.min([op.max([f, low]), high])


def _runs(outcomes: Labels, numbers: Floats) -> list[tuple[int, int, int]]:
    """Return outcomes whose rows lie side by side, the first and last, where numbers [N] ascend."""
    runs, n = list[tuple[int, int, int]](), len(outcomes)
    if not n:
        return runs
    rows, starts = (
        np.bincount(outcomes),
        np.flatnonzero(np.append(True, outcomes[1:] != outcomes[:-1])),
    )
    for first, last in zip(starts, np.append(starts[1:], n) - 1, strict=True):
        c = last - first + 1
        if not FEWEST <= c == rows[outcomes[first]] < n:
            continue
        parted = first == 0 or numbers[first - 1] < numbers[first]
        parted &= last == n - 1 or numbers[last] < numbers[last + 1]
        chance = log(n - c + 1) - lgamma(n + 1) + lgamma(c + 1) + lgamma(n - c + 1)
        if parted and chance < -APART:
            runs.append((int(outcomes[first]), int(first), int(last)))
    return runs
