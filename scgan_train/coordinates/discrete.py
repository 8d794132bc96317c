"""Discrete values of a table: what the head draws, because no continuous map can.

A *step* of the chain is a column and the values that it may be given outright: every category,
every number of a column of few numbers, the *heavy* values of another number column ("capital gain
is exactly 0"), and a missing cell. Where other numbers are possible too, the step's last index
means that, and the column keeps a coordinate for them.

A value of c rows is heavy if it holds `HEAVY` of the column's rows and three times as many as its
neighbours' mean, or `SPIKE` and `PROMINENT` times as many; and so many are beyond chance there:

    c ln(c / t) - c + t >= `SURPLUS`,

which bounds the logarithm of Poisson's probability of c or more rows. t is m - 1 / m, nearly the
mean of Poisson's numbers whose mean is m where not 0: m that of the neighbours with one row more.
Six rows do amid values that don't repeat, seven at an end.

A chain of many steps learns badly. Where more than `MOST_STEPS` columns of numbers would have one,
those without missing cells have none: their coordinates are scores, which keep every value's share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.bundle.rules import MAX_BYTES
from scgan_infer.columns import Column, Table
from scgan_infer.kinds.base import CERTAIN
from scgan_infer.kinds.datetime import clock_of, unit_of
from scgan_train.graph import Var, const, op

Singles = NDArray[np.float32]
Labels = NDArray[np.int64]

# distinct numbers that make a column discrete, and in how many rows each has to be on average
FEW = ((40, 10), (128, 100))
SPIKY = (128, 10)  # the same where some are heavy, of the others
LONE, REPEATED = 4, 1.5  # so many others, in fewer rows each, are numbers like any that might be
MOST_STEPS = 12
HEAVY = 0.02
SPIKE = 0.005
TALL, PROMINENT = 3.0, 10.0
NEIGHBOURS = 5  # on either side, that a spike is compared with
SURPLUS = 12.0  # nats
PATTERN = 5.0  # nats, that a pattern of missing cells is beyond chance by
APART = 12.0  # nats, that a bound is kept, or two outcomes never come together, beyond chance by
MOST_PAIRS = 2**16  # of outcomes of two steps; beyond, only missing cells are tested
MANY = 256  # outcomes of a step that is drawn first
MOST_HEAVY = 32  # values of a column
EMBEDDING, WIDTH = 16, 128  # numbers of an outcome, and of the networks that draw outcomes
FEW_NAMES = 8  # outcomes up to which each name is a statistic of linear terms
MOST_WEIGHTS = MAX_BYTES * 7 // 8  # the rest of a generator's graph needs room, too


@dataclass(frozen=True)
class Step:
    """One step of the chain: the values that a column may be given outright.

    Attributes:
        column: Its index among the columns.
        values: float32 [V], ascending; a missing cell is NaN, and the last of them.
        rest: Whether other numbers are possible; index V then means one of them.
    """

    column: int
    values: Singles
    rest: bool

    @property
    def size(self) -> int:
        """How many outcomes there are."""
        return len(self.values) + self.rest

    @property
    def numbers(self) -> Singles:
        """The values but a missing cell."""
        return self.values[~np.isnan(self.values)]

    def names(self, column: Column) -> list[str]:
        """Return readable names of its outcomes."""
        numbers = self.numbers.astype(np.float64)
        named = column.categories if column.rules.named else [f"{value:g}" for value in numbers]
        missing = ["missing"] if len(numbers) < len(self.values) else []
        values = [*named, *missing, *(["other numbers"] if self.rest else [])]
        return [f"{column.name} {value}" for value in values]

    def choose(self, cells: NDArray[Any]) -> Labels:
        """Return the outcome [n] of each cell [n]; without a rest, the nearest value's."""
        numbers, cells = self.numbers, cells.astype(np.float32)
        if not self.rest:
            index = np.searchsorted(middles(numbers), cells, side="right")
        else:
            index = np.searchsorted(numbers, cells)
            known = numbers[np.minimum(index, len(numbers) - 1)] if len(numbers) else np.nan
            index = np.where(cells == known, index, len(self.values))
        return np.where(np.isnan(cells), len(numbers), index).astype(np.int64)

    def choose_graph(self, cells: Var) -> Var:
        """Return `choose` as a graph, of cells [n]."""
        numbers, last = self.numbers, const(len(self.numbers), np.int64)
        missing = op.isnan(cells)
        if self.size == len(self.values) == len(numbers) + 1 == 2:
            return op.where(missing, last, const(0, np.int64))
        if not len(numbers):
            return op.where(missing, last, const(len(self.values), np.int64))
        cells = op.where(missing, const(0), cells)
        if not self.rest and np.array_equal(numbers, np.arange(len(numbers))):
            index = op.cast(op.round(cells), to=np.int64)
            index = op.min([op.max([index, const(0, np.int64)]), op.sub(last, const(1, np.int64))])
        else:
            wide = op.unsqueeze(cells, const([1], np.int64))
            if self.rest:
                same = op.cast(op.equal(wide, const(numbers[None])), to=np.float32)
                order = np.arange(len(numbers)) - len(self.values)
                counted = op.matmul(same, const(order[:, None]))
                total = op.add(op.squeeze(counted, const([1], np.int64)), const(len(self.values)))
            else:
                passed = op.greater_or_equal(wide, const(middles(numbers)[None]))
                passed = op.cast(passed, to=np.float32)
                total = op.reduce_sum(passed, const([1], np.int64), keepdims=0)
            index = op.cast(total, to=np.int64)
        return op.where(missing, last, index)

    def fill(self, cells: NDArray[Any], choice: Labels) -> NDArray[Any]:
        """Return the cells [n] where the outcome [n] is the rest, else the value that it names."""
        table = np.append(self.values, np.float32(0))
        return np.where(choice == len(self.values), cells, table[choice]).astype(cells.dtype)

    def fill_graph(self, cells: Var, choice: Var) -> Var:
        """Return `fill` as a graph, of cells and outcome [1, n]."""
        values = op.gather(const(np.append(np.nan_to_num(self.values), np.float32(0))), choice)
        if np.isnan(self.values).any():  # a constant must be finite
            missing = op.equal(choice, const(len(self.numbers), np.int64))
            values = op.where(missing, op.sqrt(const(-1)), values)
        if not self.rest:
            return values
        return op.where(op.equal(choice, const(len(self.values), np.int64)), cells, values)


def middles(values: Singles) -> Singles:
    """Return the midpoints between values [V], in float32 as graphs have them."""
    return ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)


def too_many(steps: Sequence[Step], columns: Sequence[Column], given: int = 0) -> str:
    """Return why no bundle could hold the networks that draw these steps; empty if one can.

    Their weights, and linear terms where a step may get them, grow with the square of the steps,
    and so many given columns' outcomes, which every network sees.
    """
    weights = 0
    for seen, step in enumerate(steps, given):
        linear = step.size <= FEW_NAMES or not columns[step.column].rules.named
        weights += EMBEDDING * seen * (WIDTH + linear * step.size) + WIDTH * (WIDTH + step.size)
    if 4 * weights <= MOST_WEIGHTS:
        return ""
    return (
        f"{len(steps)} columns are drawn outright; their networks need {weights >> 18} MiB, and a "
        f"graph has at most {MAX_BYTES >> 20}: leave some columns out (columns.NAME.kind=drop)"
    )


def find(table: Table, given: bool = False) -> tuple[Step, ...]:
    """Return a table's steps, those with fewest outcomes first; but many names before all others.

    The first step has no network but a table: it keeps each name's share, however rare, at no cost.

    Args:
        table: The rows.
        given: Whether the columns are given: then no number is drawn outright.
    """
    columns = list(enumerate(table.columns))
    few = {
        j
        for j, column in columns
        if not given and not column.rules.named and is_few(table.values[:, j])
    }
    steps = [_step(j, column, table.values[:, j], j in few, given) for j, column in columns]
    ordered = sorted((s for s in steps if s is not None), key=lambda s: (s.size, s.column))
    numbers = [step for step in ordered if not table.columns[step.column].rules.named]
    if len(numbers) > MOST_STEPS:
        scored = {step.column for step in numbers if not np.isnan(step.values).any()}
        ordered = [step for step in ordered if step.column not in scored]
    if ordered and ordered[-1].size > MANY:
        ordered.insert(0, ordered.pop())
    return tuple(ordered)


def is_spiked(column: Column, cells: Singles) -> bool:
    """Return whether numbers of a column are drawn outright, in a table with few such columns."""
    distinct, counts = np.unique(cells, return_counts=True)
    several = len(distinct) > 1 and not column.rules.named
    return several and (is_few(cells) or bool(heavy(counts).any()))


def is_few(cells: Singles) -> bool:
    """Return whether a column has so few numbers, so often repeated, that each may be drawn."""
    distinct, counts = np.unique(cells[~np.isnan(cells)], return_counts=True)
    others = counts[~heavy(counts)]
    if any(len(distinct) <= min(most, counts.sum() / rows) for most, rows in FEW):
        return len(others) < LONE or others.sum() >= REPEATED * len(others)
    most, rows = SPIKY
    return len(others) < len(counts) <= most and len(others) <= others.sum() / rows


def _step(j: int, column: Column, cells: Singles, few: bool, given: bool) -> Step | None:
    """Return the step of a column, if it has one."""
    missing = np.isnan(cells)
    present = cells[~missing]
    gone = [np.float32(np.nan)] if missing.any() else []
    distinct, counts = np.unique(present, return_counts=True)
    if len(distinct) + len(gone) < 2:
        return None
    if column.rules.named:
        values = np.arange(len(column.categories), dtype=np.float32)
    elif few or len(distinct) == 1:
        values = distinct
    else:
        values = distinct[:0] if given else distinct[heavy(counts)]
        if not len(values) and not gone:
            return None
        return Step(j, np.append(values, gone).astype(np.float32), rest=True)
    return Step(j, np.append(values, gone).astype(np.float32), rest=False)


def heavy(counts: Labels) -> NDArray[np.bool_]:
    """Return which of a column's values, in order, are heavy, given how many rows [V] have each."""
    rows, width = counts.sum(), 2 * NEIGHBOURS + 1
    around = np.convolve(counts, np.ones(width), "full")[NEIGHBOURS:-NEIGHBOURS] - counts
    neighbours = (
        np.convolve(np.ones_like(counts), np.ones(width), "full")[NEIGHBOURS:-NEIGHBOURS] - 1
    )
    typical = np.maximum(around / np.maximum(neighbours, 1), 1)
    share = counts / rows
    high = (share >= HEAVY) & (counts >= TALL * typical)
    high |= (share >= SPIKE) & (counts >= PROMINENT * typical)
    mean = np.maximum((around + 1) / np.maximum(neighbours, 1), 1)
    by_chance = np.maximum(mean - 1 / mean, 1e-9)
    high &= counts * np.log(np.maximum(counts, 1) / by_chance) - counts + by_chance >= SURPLUS
    if high.sum() > MOST_HEAVY:
        high &= counts >= np.sort(counts[high])[-MOST_HEAVY]
    return np.asarray(high)


def follows(choices: Labels, sizes: Sequence[int], known: int) -> dict[tuple[int, int], Labels]:
    """Return steps that another always determines: (step, other) to an outcome per other outcome.

    It must be beyond chance: were outcomes independent, as many rows as there are beyond one of
    each of the other's outcomes would agree with a probability of at most e^-`CERTAIN`.

    Args:
        choices: Outcomes [n, k] of all steps.
        sizes: How many outcomes each has.
        known: How many of the steps come first and follow from nothing.
    """
    kinds = [len(np.unique(outcomes)) for outcomes in choices.T]
    order = sorted(range(len(kinds)), key=lambda j: (j >= known, -kinds[j], j))
    tables: dict[tuple[int, int], Labels] = {}
    free: list[int] = []
    for j in order:
        counts = np.bincount(choices[:, j], minlength=sizes[j])
        alike = -np.log(((counts / len(choices)) ** 2).sum())
        for other in free if j >= known else ():
            table = np.full(sizes[other], counts.argmax())
            table[choices[:, other]] = choices[:, j]
            chance = (len(choices) - kinds[other]) * alike
            if chance >= CERTAIN and (table[choices[:, other]] == choices[:, j]).all():
                tables[j, other] = table
                break
        else:
            free.append(j)
    return tables


def least(
    steps: Sequence[Step], columns: Sequence[Column], choices: Labels, tied: Collection[int]
) -> dict[tuple[int, int], Labels]:
    """Return steps whose numbers are never below another's: the least outcome per other's outcome.

    Only of columns whose numbers are all drawn. A share p of n rows keeps that by chance, and all
    do; -n log p must be at least `APART`. Unlike `constraints`, it changes no rows that keep it.

    Args:
        steps: All steps.
        columns: All columns.
        choices: Outcomes [n, h - 1].
        tied: Steps that follow from others.
    """
    numbers = {
        k: (step.numbers.astype(np.float64) + (column.anchor or 0.0)) * unit_of(column)
        for k, step in enumerate(steps)
        if not (step.rest or (column := columns[step.column]).rules.named)
    }
    rng, bounds = np.random.default_rng(0), {}
    mean = {k: each[np.minimum(choices[:, k], len(each) - 1)].mean() for k, each in numbers.items()}
    for k, upper in sorted(numbers.items(), key=lambda item: mean[item[0]]):
        for other, lower in numbers.items():
            a, b = columns[steps[other].column], columns[steps[k].column]
            if k == other or k in tied or clock_of(a) != clock_of(b):
                continue
            both = (choices[:, k] < len(upper)) & (choices[:, other] < len(lower))
            low, high = lower[choices[both, other]], upper[choices[both, k]]
            if len(low) and (low <= high).all():
                p = float((low <= rng.permutation(high)).mean())
                if -len(low) * np.log(max(p, 1 / len(low))) >= APART:
                    table = np.zeros(steps[other].size, np.int64)
                    table[: len(lower)] = np.minimum(np.searchsorted(upper, lower), len(upper) - 1)
                    bounds[k, other] = table
    return bounds


def never(steps: Sequence[Step], choices: Labels) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """Return outcomes that never meet: (step, earlier step) to pairs [W, V], W the earlier's.

    Of n rows, m have one outcome, k another, none both. By chance k rows would avoid the m with a
    probability of C(n - m, k) / C(n, k), which must be at most e^-`APART`; or e^-`PATTERN` for a
    missing cell, or all that are not (m rows), and an outcome elsewhere.

    Args:
        steps: All steps.
        choices: Outcomes [n, h - 1].
    """
    excluded: dict[tuple[int, int], NDArray[np.bool_]] = {}
    logs = np.concatenate([[0.0], np.log(np.arange(1, len(choices) + 1)).cumsum()])
    missing = [step.size - step.rest if np.isnan(step.values).any() else 0 for step in steps]

    def disjoint(both: Labels, least: float) -> NDArray[np.bool_]:
        """Return which rows and columns of counts [V, W] never occur together, beyond chance."""
        m, k = both.sum(1, keepdims=True), both.sum(0, keepdims=True)
        free = len(choices) - np.where(both > 0, len(choices), m)
        chance = logs[free] - logs[np.maximum(free - k, 0)] - logs[-1] + logs[len(choices) - k]
        return np.asarray((both == 0) & (m > 0) & (k > 0) & (chance <= -least), np.bool_)

    for other, j in combinations(range(len(steps)), 2):
        shape = (steps[j].size, steps[other].size)
        many = shape[0] * shape[1] > MOST_PAIRS
        if many and not (missing[j] or missing[other]):
            continue
        both = np.zeros(shape, np.int64)
        np.add.at(both, (choices[:, j], choices[:, other]), 1)
        barred = np.zeros(shape, np.bool_) if many else disjoint(both, APART)
        for axis, last in enumerate((missing[j], missing[other])):
            if last:
                table, pairs = (both, barred) if not axis else (both.T, barred.T)
                is_missing = np.arange(len(table)) == last - 1
                halves = np.stack([table[is_missing].sum(0), table[~is_missing].sum(0)])
                for mask, half in zip(
                    (is_missing, ~is_missing), disjoint(halves, PATTERN), strict=True
                ):
                    pairs[np.ix_(mask, half)] = True
        if barred.any():
            excluded[j, other] = barred.T
    return excluded


def choose(steps: Sequence[Step], rows: NDArray[Any]) -> Labels:
    """Return the outcome of every step [n, h-1] of rows [n, d]."""
    chosen = [step.choose(rows[:, step.column]) for step in steps]
    return np.stack(chosen, 1) if chosen else np.zeros((len(rows), 0), np.int64)


def state(steps: Sequence[Step]) -> dict[str, NDArray[Any]]:
    """Return the arrays that make the steps again."""
    return {
        "steps": np.array([(s.column, len(s.values), s.rest) for s in steps], np.int64).reshape(
            -1, 3
        ),
        "values": np.concatenate([np.zeros(0, np.float32), *(s.values for s in steps)]),
    }


def load(arrays: Mapping[str, NDArray[Any]]) -> tuple[Step, ...]:
    """Inverse of `state`; no steps where there are none of its arrays."""
    described = arrays.get("steps", np.zeros((0, 3), np.int64)).tolist()
    ends = np.cumsum([size for _, size, _ in described])
    parts = np.split(arrays.get("values", np.zeros(0, np.float32)), ends[:-1]) if described else []
    return tuple(
        Step(column, np.asarray(values, np.float32), bool(rest))
        for (column, _, rest), values in zip(described, parts, strict=True)
    )
