"""How good rows are at their own conditions: ranks of true values, and a classifier.

    rank of a true value among `DRAWS` drawn at its row's condition: uniform if they come from the
        same distribution
    C2ST of (condition, row) in each tenth of a given column: real rows against rows drawn at other
        rows' conditions

Ranks alone are a weak check: rows that ignore what they could know pass them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column
from scgan_infer.judging.distances import Space, c2st
from scgan_infer.judging.figures import LEAST_JUDGED_ROWS
from scgan_infer.judging.layout import Table

if TYPE_CHECKING:
    from scgan_infer.sampling.model import Model

Floats = NDArray[np.float32]

DRAWS = 200  # at each condition
MOST_RANKED = 500  # rows
SHARES = (0.68, 0.95)  # of draws, in the middle, that should hold as many true values
TENTHS = 10


@dataclass(frozen=True)
class Ranks:
    """A column's Kolmogorov-Smirnov test of uniform ranks, shares of true values in the middle."""

    column: str
    p: float
    covered: tuple[float, ...]


@dataclass(frozen=True)
class Slice:
    """C2ST where a given column lies between two numbers, or is a name."""

    column: str
    where: str
    rows: int
    c2st: float


@dataclass(frozen=True)
class Conditional:
    """What was measured at rows' own conditions; slices worst first."""

    ranks: tuple[Ranks, ...]
    slices: tuple[Slice, ...]

    def to_dict(self) -> dict[str, Any]:
        names = [f"covered_{100 * share:.0f}" for share in SHARES]
        return {
            "ranks": {
                rank.column: {"p": rank.p, **dict(zip(names, rank.covered, strict=True))}
                for rank in self.ranks
            },
            "slices": [vars(part) for part in self.slices],
        }

    def tables(self) -> dict[str, Table]:
        head = ("column", "p of uniform ranks", *(f"middle {share:.0%}" for share in SHARES))
        ranks: Table = [head]
        for rank in self.ranks:
            covered = (f"{share:.1%}" for share in rank.covered)
            ranks.append((rank.column, f"{rank.p:.3g}", *covered))
        worst: Table = [("given column", "where", "C2ST", "rows")]
        worst += [
            (part.column, part.where, f"{part.c2st:.3f}", f"{part.rows}") for part in self.slices
        ]
        tables = {
            f"True values among {DRAWS} drawn at their conditions": ranks,
            "Condition and row where a given column lies, the worst first": worst,
        }
        return {caption: table for caption, table in tables.items() if table[1:]}


def measure(model: Model, rows: Floats, seed: int) -> Conditional:
    """Measure a bundle with given columns on whole rows [n, d + g] that it was not trained on.

    Raises:
        UsageError: scipy or scikit-learn is not installed.
    """
    order = np.random.default_rng([seed, 0xC0]).permutation(len(rows))
    return Conditional(
        tuple(_ranks(model, rows[order[:MOST_RANKED]], seed)), _slices(model, rows[order], seed)
    )


def _ranks(model: Model, rows: Floats, seed: int) -> Iterator[Ranks]:
    from scipy.stats import kstest

    true, given = model.divided(rows)
    drawn = model.sample(given=given, each=DRAWS, seed=seed).reshape(len(rows), DRAWS, -1)
    rng = np.random.default_rng([seed, 0x4A])
    for j, column in enumerate(model.columns):
        if column.rules.named or column.is_id:
            continue
        present = ~np.isnan(true[:, j])
        values, draws = true[present, j, None], drawn[present, :, j]
        below, equal = ((draws < values).sum(1), (draws == values).sum(1))
        count = (~np.isnan(draws)).sum(1)
        rank = (below + (equal + 1) * rng.random(len(values))) / (count + 1)
        if not len(rank):
            continue
        covered = tuple(float((np.abs(rank - 0.5) <= part / 2).mean()) for part in SHARES)
        yield Ranks(column.name, float(kstest(rank, "uniform").pvalue), covered)


def _slices(model: Model, rows: Floats, seed: int) -> tuple[Slice, ...]:
    columns = model.manifest.whole
    _, given = model.divided(rows)
    made = model.together(model.sample(given=given, seed=seed), given)
    space = Space.fit(rows.astype(np.float64), columns)
    real, fake = (space.standardise(part.astype(np.float64)) for part in (rows, made))
    parts = []
    for k, one in enumerate(model.manifest.given):
        for where, inside in slices(one.column, given[:, k], TENTHS):
            index = np.flatnonzero(inside)
            half = len(index) // 2
            if half >= LEAST_JUDGED_ROWS:
                value = c2st(fake[index[half : 2 * half]], real[index[:half]], seed)
                parts.append(Slice(one.column.name, where, half, value))
    return tuple(sorted(parts, key=lambda part: -part.c2st))


def slices(
    column: Column, cells: NDArray[np.floating[Any]], count: int
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield a column's parts, about equal in size, or its names, and which rows [n] they have."""
    if column.rules.named:
        for k, name in enumerate(column.categories):
            yield name, cells == k
        return
    edges = np.unique(np.nanquantile(cells, np.linspace(0, 1, count + 1))).tolist()
    for low, high in pairwise(edges if edges[1:] else edges * 2):
        below = cells <= high if high == edges[-1] else cells < high
        ends = (
            f"{end:.4g}" if column.anchor is None else column.rules.spell(end, column)
            for end in (low, high)
        )
        yield " to ".join(ends), (cells >= low) & below
