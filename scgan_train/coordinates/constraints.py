"""Constraints between number columns that held in every row, and hold in every generated one.

    x_j = base(x) + r,        base(x) = constant + sum_k factor_k x_k

The head and the maps learn the remainder r instead of x_j, and x_j is computed at the end, so that

    equal     b = f a + g, c = a + b (+ d)     r is 0, up to one step left by rounding columns
    at least  a <= b (or the other way round)  r is a distance, never below 0 (never above)

A column is learned as it is, and only held to its bound, where some of its numbers are drawn
outright, or so few of its rows are near the bound that few would cross it (a share of less than
`CROWD` is nearer than `NEAR` standard deviations). What crosses a bound is reflected at it. Where a
part of the base is missing, the next of its bases is taken, and without any a number that the
column never has.

A constraint must hold in all rows, be beyond chance, and be stricter than the columns' ranges: of
rows with cells from different rows a share p keeps it; -n log p must be at least `CERTAIN` for n
rows, and p at most `LOOSE` for bounds and `TIGHT` for sums that only hold up to rounding. The chain
keeps those of discrete columns.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import chain, combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column, Table
from scgan_infer.kinds.base import CERTAIN
from scgan_infer.kinds.datetime import clock_of, unit_of
from scgan_train.coordinates.rounding import LARGE, Rounding
from scgan_train.graph import Var, const, op

Floats = NDArray[np.floating[Any]]
Array = NDArray[np.float64]

KINDS = ("real", "bounded", "integer", "datetime")
TIGHT, LOOSE = 0.05, 0.95
NEAR, CROWD = 0.05, 0.05
MOST_COLUMNS = 128  # of a table that is searched
MOST_SUMMED = 48  # of one where three are added
SAMPLE = 2000  # rows that are searched first
FEW = 24  # of them that all sums are tried on
FEWEST = 20  # rows
EPSILON = 2.0**-23
ULPS = 8  # of float32, by which numbers that are not rounded may differ
DIGITS = 6  # of a factor


Base = tuple[float, tuple[tuple[int, float], ...]]


@dataclass(frozen=True)
class Constraint:
    """One constraint on one column.

    Attributes:
        column: Its index.
        owner: The column.
        bases: Its base, and others that stand in where one before misses a part: a constant each,
            and indices of columns with their factors.
        side: 1 where it is at least its base, -1 at most, 0 equal.
        fine: Whether the base lies on the column's steps.
        room: How far rounding may have taken it from an equal base.
        filler: Value of a base where all miss a part; nan if the column is missing just then.
        ends: Its least and its greatest value.
        learned: Whether the remainder is learned instead.
    """

    column: int
    owner: Column
    bases: tuple[Base, ...]
    side: int
    fine: bool
    room: float = 0.0
    filler: float = 0.0
    ends: tuple[float, float] = (-math.inf, math.inf)
    learned: bool = True

    @cached_property
    def inner(self) -> Column:
        """The column that is learned."""
        if not self.learned:
            return self.owner
        stepped = self.owner.step is not None and (self.fine or not self.side)
        fields: dict[str, Any] = {"name": f"{self.owner.name} less its base"}
        fields |= {"missing": self.owner.missing, "kind": "bounded" if self.side else "real"}
        fields |= {"low": 0.0} if self.side else {}
        if stepped and self.owner.rules.whole:
            fields["kind"] = "integer"
        elif stepped:
            fields["decimals"] = self.owner.decimals
        return Column(**fields, grid=self.owner.grid if stepped else None)

    @cached_property
    def roundings(self) -> tuple[Rounding | None, Rounding | None]:
        """How the column and what is learned are rounded."""
        return Rounding.of([self.owner]), Rounding.of([self.inner])

    @property
    def parts(self) -> set[int]:
        """The indices of all columns of its bases."""
        return {index for _, terms in self.bases for index, _ in terms}

    def base(self, x: Floats) -> Floats:
        """Return the base [n] of rows [n, d]; missing where all miss a part."""
        result = None
        for constant, terms in self.bases:
            candidate = sum(x[:, index] * factor for index, factor in terms) + constant
            result = candidate if result is None else np.where(np.isnan(result), candidate, result)
        total = np.asarray(result, x.dtype)
        return total if self.side else _rounded(self.roundings[0], total)

    def base_graph(self, cells: Sequence[Var]) -> Var:
        """Return `base` as a graph, of the cells of each column, all [n, 1] or all [1, n]."""
        total = None
        for constant, terms in self.bases:
            parts = [cells[k] if f == 1 else op.mul(cells[k], const(f)) for k, f in terms]
            candidate = reduce(op.add, [*parts, const(constant)] if constant else parts)
            total = candidate if total is None else op.where(op.isnan(total), candidate, total)
        assert total
        return total if self.side else _rounded_graph(self.roundings[0], total)

    def remainder(self, x: Floats) -> Floats:
        """Return r [n] of rows [n, d]."""
        base, values = self.base(x), x[:, self.column]
        r = np.asarray(values - np.where(np.isnan(base), self.filler, base), x.dtype)
        if math.isnan(self.filler):
            r = np.where(np.isnan(base), np.zeros_like(r), r)
        r = np.maximum(r * self.side, 0) if self.side else r
        if self.roundings[1] is None and not self.side:
            return np.where(np.abs(r) <= ULPS * EPSILON * np.abs(values), 0, r)
        return _rounded(self.roundings[1], r)

    def remainder_graph(self, cells: Sequence[Var]) -> Var:
        """Return `remainder` as a graph; see `base_graph`."""
        base, cell = self.base_graph(cells), cells[self.column]
        if math.isnan(self.filler):
            r = op.where(op.isnan(base), const(0), op.sub(cell, base))
        else:
            r = op.sub(cell, op.where(op.isnan(base), const(self.filler), base))
        if self.side:
            r = op.neg(r) if self.side < 0 else r
            r = op.where(op.less(r, const(0)), const(0), r)
        elif self.roundings[1] is None:
            near = op.mul(op.abs(cell), const(ULPS * EPSILON))
            return op.where(op.less_or_equal(op.abs(r), near), const(0), r)
        return _rounded_graph(self.roundings[1], r)

    def restore(self, x: Floats) -> Floats:
        """Return the column's cells [n] of rows [n, d] with its remainder and restored parts."""
        base, r = self.base(x), x[:, self.column]
        missing = np.isnan(base)
        safe = np.where(missing, np.nan_to_num(self.filler), base)
        if not self.side:
            held = np.where(~missing & (np.abs(r) > self.room), 0, r)
            values = _rounded(self.roundings[0], np.asarray(safe + held, x.dtype))
            fallback = np.nan if self.owner.missing else self.ends[0]
            return np.asarray(
                np.where(missing & (np.abs(r) <= self.room), fallback, values), x.dtype
            )
        values = r
        if self.learned:
            low, high = self.ends
            values = safe + self.side * r
            values = np.where(values > high, 2 * high - values, values)
            values = np.where(values < low, 2 * low - values, values)
            values = _rounded(self.roundings[0], np.asarray(values, x.dtype))
        end = _rounded(self.roundings[0], np.asarray(safe, x.dtype))
        end = np.where(self.side * (safe - end) > 0, end + self.side * (self.owner.step or 0), end)
        outside = ~missing & (self.side * (end - values) > 0)
        reflected = np.clip(2 * end - values, *self.ends)
        reflected = np.where(self.side * (end - reflected) > 0, end, reflected)
        return np.asarray(np.where(outside, reflected, values), x.dtype)

    def restore_graph(self, cells: Sequence[Var]) -> Var:
        """Return `restore` as a graph; see `base_graph`."""
        base, r = self.base_graph(cells), cells[self.column]
        missing = op.isnan(base)
        safe = op.where(missing, const(np.nan_to_num(self.filler)), base)
        if not self.side:
            far = op.greater(op.abs(r), const(self.room))
            held = op.where(op.and_(op.not_(missing), far), const(0), r)
            cell = _rounded_graph(self.roundings[0], op.add(safe, held))
            fallback = op.sqrt(const(-1)) if self.owner.missing else const(self.ends[0])
            near = op.less_or_equal(op.abs(r), const(self.room))
            return op.where(op.and_(missing, near), fallback, cell)
        cell = r
        if self.learned:
            low, high = self.ends
            cell = op.add(safe, r) if self.side > 0 else op.sub(safe, r)
            if math.isfinite(high):
                cell = op.where(op.greater(cell, const(high)), op.sub(const(2 * high), cell), cell)
            if math.isfinite(low):
                cell = op.where(op.less(cell, const(low)), op.sub(const(2 * low), cell), cell)
            cell = _rounded_graph(self.roundings[0], cell)
        end = _rounded_graph(self.roundings[0], safe)
        beyond = op.less if self.side > 0 else op.greater
        if self.owner.step is not None:
            next_one = op.add(end, const(self.side * self.owner.step))
            end = op.where(beyond(end, safe), next_one, end)
        least, most = (const(np.clip(limit, -LARGE, LARGE)) for limit in self.ends)
        reflected = op.sub(op.add(end, end), cell)
        reflected = op.where(op.less(reflected, least), least, reflected)
        reflected = op.where(op.greater(reflected, most), most, reflected)
        reflected = op.where(beyond(reflected, end), end, reflected)
        return op.where(op.and_(op.not_(missing), beyond(cell, end)), reflected, cell)

    def shown(self, columns: Sequence[Column]) -> str:
        """Return the constraint as readable text."""
        sign = {0: "=", 1: ">=", -1: "<="}[self.side]
        terms = [
            columns[k].name if f == 1 or self.side else f"{f:g} {columns[k].name}"
            for k, f in self.bases[0][1]
        ]
        anchors = sum((columns[k].anchor or 0.0) * f for k, f in self.bases[0][1])
        constant = self.bases[0][0] + (self.owner.anchor or 0.0) - anchors
        terms += [f"{constant:g}"] if constant and not self.side else []
        return f"{self.owner.name} {sign} {' + '.join(terms)}".replace("+ -", "- ")


def inner(columns: Sequence[Column], constraints: Sequence[Constraint]) -> tuple[Column, ...]:
    """Return the columns that are learned."""
    replacements = {constraint.column: constraint.inner for constraint in constraints}
    return tuple(replacements.get(j, column) for j, column in enumerate(columns))


def forward(x: Floats, constraints: Sequence[Constraint]) -> Floats:
    """Return rows [n, d] with remainders."""
    out = x.copy() if constraints else x
    for constraint in constraints:
        if constraint.learned:
            out[:, constraint.column] = constraint.remainder(x)
    return out


def forward_graph(x: Var, constraints: Sequence[Constraint], d: int) -> Var:
    """Return `forward` as a graph."""
    if not any(constraint.learned for constraint in constraints):
        return x
    cells = list(op.split(x, num_outputs=d, axis=1))
    out = list(cells)
    for constraint in constraints:
        if constraint.learned:
            out[constraint.column] = constraint.remainder_graph(cells)
    return op.concat(out, axis=1)


def inverse(x: Floats, constraints: Sequence[Constraint]) -> Floats:
    """Return rows [n, d] of rows with remainders; a constraint's parts are restored before it."""
    out = x.copy() if constraints else x
    for constraint in constraints:
        out[:, constraint.column] = constraint.restore(out)
    return out


def inverse_graph(x: Var, constraints: Sequence[Constraint], d: int) -> Var:
    """Return `inverse` as a graph, of columns along the first axis [d, n]."""
    if not constraints:
        return x
    cells = list(op.split(x, num_outputs=d, axis=0))
    for constraint in constraints:
        cells[constraint.column] = constraint.restore_graph(cells)
    return op.concat(cells, axis=0)


def state(constraints: Sequence[Constraint]) -> dict[str, NDArray[Any]]:
    """Return the arrays that, with the columns, make them again."""
    if not constraints:
        return {}
    rows = [(c.column, c.side, c.fine, c.room, c.filler, *c.ends, c.learned) for c in constraints]
    terms = [
        (k, number, constant, *term)
        for k, c in enumerate(constraints)
        for number, (constant, terms) in enumerate(c.bases)
        for term in terms
    ]
    return {"constraints": np.array(rows, np.float64), "terms": np.array(terms, np.float64)}


def load(columns: Sequence[Column], arrays: Mapping[str, NDArray[Any]]) -> tuple[Constraint, ...]:
    """Inverse of `state`."""
    all_terms = arrays.get("terms", np.zeros((0, 5))).tolist()
    loaded = []
    for k, row in enumerate(arrays.get("constraints", np.zeros((0, 8))).tolist()):
        column, side, fine, room, filler, *ends, learned = row
        bases: dict[float, Base] = {}
        for _, number, constant, index, factor in (term for term in all_terms if term[0] == k):
            _, earlier = bases.get(number, (constant, ()))
            bases[number] = constant, (*earlier, (int(index), factor))
        owner = columns[int(column)] if side else columns[int(column)].unwalled
        fields = int(column), owner, tuple(bases.values()), int(side), bool(fine)
        loaded.append(Constraint(*fields, room, filler, (ends[0], ends[1]), bool(learned)))
    return tuple(loaded)


def _rounded(rounding: Rounding | None, x: Floats) -> Floats:
    return x if rounding is None else rounding.apply(x[:, None])[:, 0]


def _rounded_graph(rounding: Rounding | None, x: Var) -> Var:
    if rounding is None:
        return x
    missing = op.isnan(x)
    return op.where(missing, x, rounding.graph(op.where(missing, const(0), x)))


def find(table: Table, free: Collection[int], drawn: Collection[int]) -> tuple[Constraint, ...]:
    """Return the constraints that hold in a table, each after those on its parts.

    Args:
        table: All rows.
        free: Columns whose remainder may be learned instead where it is a distance.
        drawn: Columns that are drawn outright; what holds between two of them they keep anyway.
    """
    search = _Search(table, free, drawn)
    if len(table) >= FEWEST and len(search.indices) <= MOST_COLUMNS:
        search.copies()
        search.sums()
        search.bounds()
    return search.ordered()


class _Search:
    """The columns of a table that may be constrained, and their constraints.

    Attributes:
        indices: Indices of those columns.
        exact: Numbers of some rows in the user's units, float64 [n, d].
    """

    def __init__(self, table: Table, free: Collection[int], drawn: Collection[int]) -> None:
        self.table, self.columns, self.free, self.drawn = table, table.columns, free, drawn
        rows = np.random.default_rng(0).permutation(len(table))[:SAMPLE]
        self.sample = table.values[rows]
        self.exact = self._as_known(self.sample, range(len(self.columns)))
        self.indices = [
            j for j, c in enumerate(self.columns) if c.kind in KINDS and _varies(self.sample[:, j])
        ]
        self.constraints: dict[int, Constraint] = {}

    def _as_known(self, cells: Floats, indices: Sequence[int]) -> Array:
        """Return cells [n, k] of some columns in the user's units."""
        columns = [self.columns[j] for j in indices]
        exact = cells.astype(np.float64) + [column.anchor or 0.0 for column in columns]
        return np.asarray(exact * [unit_of(column) for column in columns])

    def ordered(self) -> tuple[Constraint, ...]:
        """Return the constraints, each after those on its parts."""
        done: list[Constraint] = []
        waiting = list(self.constraints.values())
        while waiting:
            pending = {constraint.column for constraint in waiting}
            ready = [c for c in waiting if not pending & c.parts]
            done += ready
            waiting = [c for c in waiting if c not in ready]
        return tuple(done)

    def _before(self, parts: Sequence[int], j: int) -> bool:
        """Return whether none of these parts depends on a column."""
        seen, pending = set(), list(parts)
        while pending:
            index = pending.pop()
            if index not in seen:
                seen.add(index)
                pending += self.constraints[index].parts if index in self.constraints else []
        return j not in seen

    def copies(self) -> None:
        """Find columns that equal another, perhaps in another unit."""
        pairs = permutations(self.indices, 2)
        for k, j in sorted(pairs, key=lambda pair: (pair[0] > pair[1], pair)):
            more = (
                j in self.constraints
                and self._may_miss(self.constraints[j].parts)
                and k not in self.constraints
            )
            both = j in self.drawn and k in self.drawn
            if (j not in self.constraints or more) and self._before([k], j) and not both:
                for factor, constant in self._lines(j, k):
                    if self._equal(j, [(k, factor)], constant):
                        break

    def _may_miss(self, indices: Collection[int]) -> bool:
        return any(self.columns[index].missing for index in indices)

    def _lines(self, j: int, k: int) -> Iterator[tuple[float, float]]:
        """Yield factors and constants of lines that the numbers of two columns may lie on."""
        both = ~np.isnan(self.sample[:, [j, k]]).any(1)
        y, x = self.sample[both][:, [j, k]].astype(np.float64).T
        if len(y) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
            return
        low, high = x.argmin(), x.argmax()
        slope = (y[high] - y[low]) / (x[high] - x[low])
        steps = (self.columns[j].step or 0) + abs(slope) * (self.columns[k].step or 0)
        room = 2 * steps + 1e-5 * np.ptp(y)
        if slope == 0 or np.ptp(y - slope * x) > room:
            return
        slope = float(np.polyfit(x, y, 1)[0])
        for digits in range(1, DIGITS + 1):
            factor = float(f"{slope:.{digits}g}")
            off = y - factor * x
            if np.ptp(off) <= room:
                middle = float(off.min() + off.max()) / 2
                anchors = (self.columns[j].anchor or 0.0) - factor * (self.columns[k].anchor or 0.0)
                for decimals in range(DIGITS):
                    yield factor, round(middle + anchors, decimals) - anchors

    def sums(self) -> None:
        """Find columns that are sums of two others, or three in tables of up to `MOST_SUMMED`."""
        whole = np.flatnonzero(~np.isnan(self.sample[:, self.indices]).any(1))[:FEW]
        if len(whole) < FEW:
            return
        few = self.exact[whole][:, self.indices]
        steps = [self.columns[j].step or 0 for j in self.indices]
        units = [unit_of(self.columns[j]) for j in self.indices]
        room = 1.5 * np.multiply(steps, units) + ULPS * EPSILON * np.abs(few).max(0)
        sizes = (2, 3) if len(self.indices) <= MOST_SUMMED else (2,)
        for first in chain(*(combinations(range(len(self.indices)), n - 1) for n in sizes)):
            sums = few[:, first].sum(1)[:, None] + few[:, first[-1] + 1 :]
            near = np.abs(sums[:, :, None] - few[:, None]) <= room
            for b, j in np.argwhere(near.all(0)).tolist():
                parts = [self.indices[k] for k in (*first, first[-1] + 1 + b)]
                self._sum(self.indices[j], parts)

    def _sum(self, j: int, indices: Sequence[int]) -> None:
        owner, parts = self.columns[j], [self.columns[k] for k in indices]
        if sum(bool(column.resolution) for column in parts) != bool(owner.resolution):
            return
        if j in self.constraints or not self._before(indices, j):
            return
        factors = [unit_of(column) / unit_of(owner) for column in parts]
        shifts = [(c.anchor or 0.0) * f for c, f in zip(parts, factors, strict=True)]
        constant = sum(shifts) - (owner.anchor or 0.0)
        self._equal(j, list(zip(indices, factors, strict=True)), constant)

    def _equal(self, j: int, parts: Sequence[tuple[int, float]], constant: float) -> bool:
        """Append a base to those of a column if the column equals it; return whether it does."""
        owner, new, p = self.columns[j].unwalled, (constant, tuple(parts)), 1.0
        step = owner.step or 0.0
        for x in (self.sample, self.table.values):
            base, values = Constraint(j, owner, (new,), 0, True).base(x), x[:, j]
            both = ~np.isnan(base + values)
            base, values = base[both].astype(np.float64), values[both].astype(np.float64)
            near = step / 2 + ULPS * EPSILON * np.abs(values)
            gap = np.abs(values - base)
            room = 0.0 if (gap <= near).all() else step
            if len(values) < FEWEST or (gap > near + room).any():
                return False
            if x is self.sample:
                shuffled = np.random.default_rng(0).permutation(values)
                p = max(float((np.abs(shuffled - base) <= near + room).mean()), 1 / len(values))
        previous = self.constraints.get(j, Constraint(j, owner, (), 0, True, 1.25 * room))
        if (
            previous.room != 1.25 * room
            or -len(values) * math.log(p) < CERTAIN
            or (room and p > TIGHT)
        ):
            return False
        updated = replace(previous, bases=(*previous.bases, new))
        cells = self.table.values
        together = np.array_equal(np.isnan(cells[:, j]), np.isnan(updated.base(cells)))
        low, high = _ends(cells[:, j])
        filler = math.nan if together else 2 * low - high - 8 * (step or high - low)
        self.constraints[j] = replace(updated, filler=filler, ends=(low, high))
        return True

    def bounds(self) -> None:
        """Find columns that are never below another, the nearest pairs first."""
        pairs = []
        for a in self.indices:
            over = self.exact[:, a, None] > self.exact  # False where a cell is missing
            for b in np.flatnonzero(~over.any(0)).tolist():
                if b != a and b in self.indices and self._bound(a, b):
                    distance = np.nanmedian(self.exact[:, b] - self.exact[:, a])
                    pairs.append((distance / np.nanstd(self.exact[:, b]), a, b))
        above: dict[int, set[int]] = {j: {j} for j in self.indices}
        for _, a, b in sorted(pairs):
            if b not in above[a] and self._keep(a, b):
                for others in above.values():
                    others |= above[b] if a in others else set()
        for a, others in above.items():
            for b in sorted(others - {a}):
                if self._holds(a, b):
                    self._stand_in(a, b)

    def _stand_in(self, a: int, b: int) -> None:
        """Add one of two columns as a further base of the other where parts may be missing."""
        for j, k, side in ((b, a, 1), (a, b, -1)):
            constraint = self.constraints.get(j)
            known = constraint is not None and (
                k in constraint.parts or not self._may_miss(constraint.parts)
            )
            if constraint and constraint.side == side and not known and self._before([k], j):
                self.constraints[j] = replace(
                    constraint, bases=(*constraint.bases, self._single(j, k))
                )
                return

    def _single(self, j: int, k: int) -> Base:
        """Return the base that is another column, in the unit and from the anchor of the first."""
        column, other = self.columns[j], self.columns[k]
        factor = unit_of(other) / unit_of(column)
        return (other.anchor or 0.0) * factor - (column.anchor or 0.0), ((k, factor),)

    def _bound(self, a: int, b: int) -> bool:
        """Return whether a column is never below another, beyond chance and not by their ranges."""
        first, second = self.columns[a], self.columns[b]
        if clock_of(first) != clock_of(second) or (a in self.drawn and b in self.drawn):
            return False
        both = ~np.isnan(self.exact[:, [a, b]]).any(1)
        low, high = self.exact[both][:, [a, b]].T
        p = float((low <= np.random.default_rng(0).permutation(high)).mean()) if both.any() else 1.0
        rows = self._holds(a, b) if p <= LOOSE else 0
        return rows >= FEWEST and -rows * math.log(max(p, 1 / len(self.sample))) >= CERTAIN

    def _holds(self, a: int, b: int) -> int:
        """Return in how many rows a column is not below another; 0 if it is in one."""
        low, high = self._as_known(self.table.values[:, [a, b]], [a, b]).T
        return 0 if (low > high).any() else int((low <= high).sum())

    def _keep(self, a: int, b: int) -> bool:
        """Put a bound on one of two columns, and return whether one can have it."""
        pairs = [(b, a, 1), (a, b, -1)]
        units = [unit_of(column) for column in self.columns]
        distances = self.exact[:, b] - self.exact[:, a]
        distances = distances[~np.isnan(distances)]
        crowded = (distances < NEAR * np.nanstd(self.exact[:, b])).mean() >= CROWD
        free = [(j, k, side) for j, k, side in pairs if j in self.free and units[j] <= units[k]]
        learned = free if crowded else []
        held = [pair for pair in pairs if pair[0] not in self.drawn]
        for j, k, side in [*learned, *held]:
            if j not in self.constraints and self._before([k], j):
                owner = self.columns[j]
                low, high = _ends(self.table.values[:, j])
                constraint = Constraint(j, owner, (self._single(j, k),), side, False)
                base = constraint.base(self.sample)
                off = np.abs(base - _rounded(constraint.roundings[0], base))
                self.constraints[j] = replace(
                    constraint,
                    fine=bool(np.nanmax(off) <= 1e-3 * (owner.step or 0)),
                    filler=low if side > 0 else high,
                    ends=(low, high),
                    learned=(j, k, side) in learned,
                )
                return True
        return False


def _ends(cells: Floats) -> tuple[float, float]:
    return float(np.nanmin(cells)), float(np.nanmax(cells))


def _varies(cells: Floats) -> bool:
    present = cells[~np.isnan(cells)]
    return len(present) > 0 and float(np.ptp(present)) > 0
