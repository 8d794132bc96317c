"""Curves that give each column of generated rows the distribution of the training rows.

A map trained on all columns together has each right up to a percent of the rows or so. Where y is
a generated row's coordinate, F its distribution in such rows, and Q the quantiles of training rows,

    y' = Q(F(y))

has the training rows' distribution. The curve is near the identity: it hardly changes dependence
between columns. It is a polygon with corners at a normal distribution's quantiles 1 / L, 2 / L,
..., so cells need no search, and slope 1 beyond. `Coordinates` has it, in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_train.coordinates.groups import GAP
from scgan_train.graph import Var, const, op

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

CELLS = 256  # of probability, at most
CELL_ROWS = 50  # training rows in each of them, at least
FEWEST = 400  # rows that a curve needs
FEW = 10  # of them, between every so many of which generated rows are counted
FLATTEST = 0.02  # slope
FEWEST_MISSING = 100  # rows where a cell is missing, that may have a separate curve
SURE = 4.0  # nats by which they differ beyond chance
LOOKED_AT = 20_000  # generated rows
FARTHEST = 1.0  # standard deviation that a corner of theirs may move


@dataclass(frozen=True)
class Margins:
    """The curves of d' coordinates.

    Attributes:
        values: y' at the corners, float32 [L - 1, d'], ascending.
        missing: The same in rows where another step's cell is missing; None without such steps.
        steps: That step of each coordinate, int64 [d']; -1 where there is none.
    """

    values: NDArray[np.float32]
    missing: NDArray[np.float32] | None = None
    steps: NDArray[np.int64] | None = None

    @classmethod
    def fit(
        cls,
        real: Floats,
        made: Floats,
        there: tuple[Bools, Bools],
        gone: Mapping[int, tuple[Bools, Bools]] | None = None,
    ) -> Margins:
        """Return the curves from generated to training coordinates, from `FEWEST` training rows on.

        A corner that would move by as much as an empty band is wide would fill one with rows, and
        is left to its neighbours; so is one with few rows beyond it. Half of the generated rows
        make a curve, half judge it: it stays straight unless they then lie more evenly in training
        rows.

        Where another column's cell is missing, generated coordinates may differ from training ones
        beyond chance, as maps blur what depends on a threshold. Such rows get a separate curve.

        Args:
            real: Of training rows [n, d'].
            made: Of generated rows [N, d'].
            there: Which of both are used, bool [n, d'] and [N, d'].
            gone: In which of both a step's cell is missing, bool [n] and [N], per step with such.
        """
        corners = _corners(min(CELLS, len(real) // CELL_ROWS))
        values = np.repeat(corners[:, None], real.shape[1], 1).astype(np.float32)
        missing, steps = values.copy(), np.full(real.shape[1], -1, np.int64)
        gone = gone or {}
        half = np.arange(len(made)) < len(made) // 2
        for j, (y, drawn, known, valid) in enumerate(
            zip(real.T, made.T, *(each.T for each in there), strict=True)
        ):
            surprises = [
                (_surprise(y[known & rows], drawn[valid & others]), step)
                for step, (rows, others) in gone.items()
            ]
            surprise, step = max(surprises, default=(0.0, -1))
            step = step if surprise > SURE else -1
            if step >= 0:
                rows, others = gone[step]
                steps[j] = step
                parts = drawn[valid & others & half], drawn[valid & others & ~half]
                missing[:, j] = _curve(np.sort(y[known & rows]), *parts, corners, FARTHEST)
                known, valid = known & ~rows, valid & ~others
            if known.sum() >= (FEWEST if step < 0 else FEWEST_MISSING):
                parts = drawn[valid & half], drawn[valid & ~half]
                values[:, j] = _curve(np.sort(y[known]), *parts, corners, GAP)
        return cls(values, missing, steps) if (steps >= 0).any() else cls(values)

    def sides(self, gone: Mapping[int, Bools], n: int) -> Bools | None:
        """Return which of two curves coordinates [n, d'] use, by the missing cells [n] of steps."""
        if self.steps is None:
            return None
        missing = {-1: np.zeros(n, np.bool_), **gone}
        return np.stack([missing[k] for k in self.steps.tolist()], 1)

    def _lines(self) -> tuple[Floats, Floats]:
        """Return height and slope [L, d' or 2 d'] of each cell's line, y' = height + slope y."""
        values = self.values.astype(np.float64)
        if self.missing is not None:
            values = np.concatenate([values, self.missing], 1)
        corners = _corners(len(values) + 1)[:, None]
        ends = np.ones((1, values.shape[1]))
        slope = np.concatenate([ends, np.diff(values, axis=0) / np.diff(corners, axis=0), ends])
        at, to = (np.concatenate([part[:1], part]) for part in (corners, values))
        return to - slope * at, slope

    def forward(self, y: Floats, gone: Bools | None = None) -> Floats:
        """Return y' [n, d'] of y [n, d'], where cells of `steps` are missing or not [n, d']."""
        corners = _corners(len(self.values) + 1)
        return self._through(y, np.searchsorted(corners, y), gone, *self._lines())

    def inverse(self, y: Floats, gone: Bools | None = None) -> Floats:
        """Return y [n, d'] of y' [n, d']."""
        height, slope = self._lines()
        return self._through(y, self._cell(y, gone), gone, -height / slope, 1 / slope)

    def log_slope(self, y: Floats, gone: Bools | None = None) -> Floats:
        """Return log dy/dy' [n, d'] at y' [n, d']."""
        _, slope = self._lines()
        return np.asarray(-np.log(slope)[self._cell(y, gone), self._curves(gone)], y.dtype)

    def _curves(self, gone: Bools | None) -> NDArray[np.int64]:
        """Return the indices of the curves, [d'] or [n, d']."""
        index = np.arange(self.values.shape[1])
        return index if self.missing is None or gone is None else index + len(index) * gone

    def _cell(self, y: Floats, gone: Bools | None) -> NDArray[np.int64]:
        def cells(table: NDArray[np.float32]) -> NDArray[np.int64]:
            pairs = zip(table.T, y.T, strict=True)
            return np.stack([np.searchsorted(values, column) for values, column in pairs], 1)

        if self.missing is None or gone is None:
            return cells(self.values)
        return np.where(gone, cells(self.missing), cells(self.values))

    def _through(
        self, y: Floats, cell: NDArray[np.int64], gone: Bools | None, height: Floats, slope: Floats
    ) -> Floats:
        curves = self._curves(gone)
        return np.asarray(height[cell, curves] + slope[cell, curves] * y, y.dtype)

    def graph(self, f: Var, scale: Floats, shift: Floats, gone: Var | None = None) -> Var:
        """Return `forward` of y scale + shift [d', n], in its units, as a graph; gone: int64."""
        cells = len(self.values) + 1
        height, slope = self._lines()
        inner = np.sqrt(0.5) / scale
        share = op.add(op.mul(f, const(inner[:, None])), const(-(shift * inner)[:, None]))
        share = op.mul(op.add(op.erf(share), const(1)), const(cells / 2))
        cell = op.cast(op.clip(share, const(0), const(cells - 1)), to=np.int64)
        curves = height.shape[1] // len(scale)
        height = height * np.tile(scale, curves) + np.tile(shift, curves) * (1 - slope)
        return self._through_graph(f, self._index(cell, gone), height, slope)

    def inverse_graph(self, y: Var, gone: Var | None = None) -> Var:
        """Return `inverse` of y' [d', n] as a graph."""
        height, slope = self._lines()
        index = self._index(self._cell_graph(y, gone), gone)
        return self._through_graph(y, index, -height / slope, 1 / slope)

    def log_slope_graph(self, y: Var, gone: Var | None = None) -> Var:
        """Return `log_slope` [d', n] as a graph, at y' [d', n]."""
        _, slope = self._lines()
        index = self._index(self._cell_graph(y, gone), gone)
        return op.gather(const(-np.log(slope).T.reshape(-1)), index)

    def _cell_graph(self, y: Var, gone: Var | None) -> Var:
        columns = op.split(y, num_outputs=len(self.values.T))

        def cells(table: NDArray[np.float32]) -> Var:
            counts = []
            for values, column in zip(table.T, columns, strict=True):
                passed = op.cast(op.greater(column, const(values[:, None])), to=np.float32)
                counts.append(op.reduce_sum(passed, const([0], np.int64)))
            return op.cast(op.concat(counts, axis=0), to=np.int64)

        if self.missing is None or gone is None:
            return cells(self.values)
        present = op.equal(gone, const(0, np.int64))
        return op.where(present, cells(self.values), cells(self.missing))

    def _index(self, cell: Var, gone: Var | None) -> Var:
        """Return the indices of the lines [d', n] of cells in a table of all, curve after curve."""
        cells, dims = len(self.values) + 1, self.values.shape[1]
        index = op.add(cell, const(cells * np.arange(dims)[:, None], np.int64))
        if self.missing is None or gone is None:
            return index
        return op.add(index, op.mul(gone, const(cells * dims, np.int64)))

    def _through_graph(self, y: Var, index: Var, height: Floats, slope: Floats) -> Var:
        at, by = (op.gather(const(part.T.reshape(-1)), index) for part in (height, slope))
        return op.add(at, op.mul(by, y))


def _curve(
    rows: Floats, first: Floats, last: Floats, corners: Floats, most: float
) -> NDArray[np.float32]:
    """Return the curve [L - 1] of sorted training numbers and both generated halves; see `fit`."""
    bent = corners.copy()
    if len(rows) and len(first):
        bent += _moved(rows, np.sort(first), corners, most)
    rise = FLATTEST * corners
    values = (np.maximum.accumulate(bent - rise) + rise).astype(np.float32)
    moved = Margins(values[:, None]).forward(last[:, None])[:, 0]
    return values if uneven(rows, moved) < uneven(rows, last) else corners.astype(np.float32)


def _surprise(real: Floats, made: Floats) -> float:
    """Return by how many nats, beyond chance, training [n] and generated [N] deciles differ."""
    from scipy.special import chdtrc

    if min(len(real), len(made)) < FEWEST_MISSING:
        return 0.0
    made = made[:LOOKED_AT]
    ends = np.unique(np.quantile(made, np.linspace(0, 1, 11)[1:-1]))
    counts, drawn = (
        np.bincount(np.searchsorted(ends, each), minlength=len(ends) + 1) for each in (real, made)
    )
    expected = np.maximum(drawn, 1) * (len(real) / len(made))
    distance = ((counts - expected) ** 2 / expected).sum()
    return -math.log(max(chdtrc(max(1, len(ends)), distance), 1e-300))


def uneven(real: Floats, made: Floats) -> float:
    """Return how unevenly generated numbers [N] lie between every few sorted training ones [n]."""
    if not len(real) or not len(made):
        return 0.0
    ends = np.unique(real[FEW::FEW])
    shares = (
        np.bincount(np.searchsorted(ends, values, side="right"), minlength=len(ends) + 1)
        / len(values)
        for values in (real, made)
    )
    return float(np.abs(np.subtract(*shares)).sum())


def _moved(real: Floats, made: Floats, corners: Floats, most: float) -> Floats:
    """Return moves of corners, below `most`, by sorted training and generated numbers [n], [N]."""
    share = np.searchsorted(made, corners) / len(made)
    off = np.quantile(real, share) - corners
    known = np.minimum(share, 1 - share) * len(real) >= CELL_ROWS / 2
    known &= np.abs(off) < most
    if not known.any():
        return np.zeros(len(corners))
    return np.interp(corners, corners[known], off[known])


def _corners(cells: int) -> NDArray[np.float64]:
    from scipy.special import ndtri

    return np.asarray(ndtri(np.arange(1, cells) / cells), np.float64)
