"""Curves that give each column of generated rows the distribution of the training rows.

A map that is trained on all columns together has each of them right up to a percent of the rows or so. Where y is a
coordinate of a generated row, F its distribution among generated rows, and Q the quantiles of training rows,

    y' = Q(F(y))

has the training rows' distribution. The curve is close to the identity, so it hardly touches how columns hang
together. It is a polygon with corners at the quantiles 1 / L, 2 / L, ... of a normal distribution, so that a cell
is found without a search, and goes on with slope 1 beyond. It is part of `Coordinates`, in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_train.graph import Var, const, op
from scgan_train.groups import GAP

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

CELLS = 256  # of probability, at most
CELL_ROWS = 50  # training rows in each of them, at least
FEWEST = 400  # rows that say anything
FEW = 10  # of them, between every so many of which generated rows are counted
FLATTEST = 0.02  # slope


@dataclass(frozen=True)
class Margins:
    """The curves of d' coordinates.

    Attributes:
        values: y' at the corners, float32 [L - 1, d'], ascending.
    """

    values: NDArray[np.float32]

    @classmethod
    def fit(cls, real: Floats, made: Floats, there: tuple[Bools, Bools]) -> Margins:
        """Return the curves from generated to training coordinates, of at least `FEWEST` training rows.

        A corner that would move by as much as an empty band is wide would fill one with rows, and is left to its
        neighbours; so is one with few rows beyond it. Half of the generated rows make a curve and the other half judge
        it: it stays straight unless they then share themselves out more evenly among the training rows.

        Args:
            real: Of training rows [n, d'].
            made: Of generated rows [N, d'].
            there: Which of both say something, bool [n, d'] and [N, d'].
        """
        corners = _corners(min(CELLS, len(real) // CELL_ROWS))
        bent, half = np.repeat(corners[:, None], real.shape[1], 1), len(made) // 2
        training = [np.sort(y[own]) for y, own in zip(real.T, there[0].T, strict=True)]
        first, last = (
            [y[own] for y, own in zip(made[part].T, there[1][part].T, strict=True)]
            for part in (slice(half), slice(half, None))
        )
        for j, (rows, drawn) in enumerate(zip(training, first, strict=True)):
            if len(rows) >= FEWEST and len(drawn):
                bent[:, j] += _moved(rows, np.sort(drawn), corners)
        rise = FLATTEST * corners[:, None]
        values = (np.maximum.accumulate(bent - rise) + rise).astype(np.float32)
        for j, (rows, drawn) in enumerate(zip(training, last, strict=True)):
            curve = cls(values[:, [j]])
            if uneven(rows, curve.forward(drawn[:, None])[:, 0]) >= uneven(rows, drawn):
                values[:, j] = corners
        return cls(values)

    def _lines(self) -> tuple[Floats, Floats]:
        """Return height and slope [L, d'] of the line in each cell, y' = height + slope y."""
        values = self.values.astype(np.float64)
        corners = _corners(len(values) + 1)[:, None]
        ends = np.ones((1, values.shape[1]))
        slope = np.concatenate([ends, np.diff(values, axis=0) / np.diff(corners, axis=0), ends])
        at, to = (np.concatenate([part[:1], part]) for part in (corners, values))
        return to - slope * at, slope

    def forward(self, y: Floats) -> Floats:
        """Return y' [n, d'] of y [n, d']."""
        corners = _corners(len(self.values) + 1)
        return self._through(y, np.searchsorted(corners, y), *self._lines())

    def inverse(self, y: Floats) -> Floats:
        """Return y [n, d'] of y' [n, d']."""
        height, slope = self._lines()
        return self._through(y, self._cell(y), -height / slope, 1 / slope)

    def log_slope(self, y: Floats) -> Floats:
        """Return log dy/dy' [n, d'] at y' [n, d']."""
        _, slope = self._lines()
        return np.take_along_axis(-np.log(slope), self._cell(y), 0).astype(y.dtype)

    def _cell(self, y: Floats) -> NDArray[np.int64]:
        own = zip(self.values.T, y.T, strict=True)
        return np.stack([np.searchsorted(values, column) for values, column in own], 1)

    @staticmethod
    def _through(y: Floats, cell: NDArray[np.int64], height: Floats, slope: Floats) -> Floats:
        height, slope = (np.take_along_axis(part, cell, 0) for part in (height, slope))
        return np.asarray(height + slope * y, y.dtype)

    def graph(self, f: Var, scale: Floats, shift: Floats) -> Var:
        """Return `forward` of y scale + shift [d', n], in the same units, as a graph."""
        cells = len(self.values) + 1
        height, slope = self._lines()
        inner = np.sqrt(0.5) / scale
        share = op.add(op.mul(f, const(inner[:, None])), const(-(shift * inner)[:, None]))
        share = op.mul(op.add(op.erf(share), const(1)), const(cells / 2))
        cell = op.cast(op.clip(share, const(0), const(cells - 1)), to=np.int64)
        height = height * scale + shift * (1 - slope)
        return self._through_graph(f, cell, height, slope)

    def inverse_graph(self, y: Var) -> Var:
        """Return `inverse` of y' [d', n] as a graph."""
        height, slope = self._lines()
        return self._through_graph(y, self._cell_graph(y), -height / slope, 1 / slope)

    def log_slope_graph(self, y: Var) -> Var:
        """Return `log_slope` [d', n] as a graph, at y' [d', n]."""
        _, slope = self._lines()
        return op.gather(const(-np.log(slope).T.reshape(-1)), self._places(self._cell_graph(y)))

    def _cell_graph(self, y: Var) -> Var:
        cells = []
        for values, own in zip(
            self.values.T, op.split(y, num_outputs=len(self.values.T)), strict=True
        ):
            passed = op.cast(op.greater(own, const(values[:, None])), to=np.float32)
            cells.append(op.reduce_sum(passed, const([0], np.int64)))
        return op.cast(op.concat(cells, axis=0), to=np.int64)

    def _places(self, cell: Var) -> Var:
        """Return where the lines [d', n] of cells are in a table of all, a column after another."""
        cells, dims = len(self.values) + 1, self.values.shape[1]
        return op.add(cell, const(cells * np.arange(dims)[:, None], np.int64))

    def _through_graph(self, y: Var, cell: Var, height: Floats, slope: Floats) -> Var:
        place = self._places(cell)
        at, by = (op.gather(const(part.T.reshape(-1)), place) for part in (height, slope))
        return op.add(at, op.mul(by, y))


def uneven(real: Floats, made: Floats) -> float:
    """Return how unevenly generated numbers [N] lie between every few of training numbers [n], which are sorted."""
    if not len(real) or not len(made):
        return 0.0
    ends = np.unique(real[FEW::FEW])
    shares = (
        np.bincount(np.searchsorted(ends, own, side="right"), minlength=len(ends) + 1) / len(own)
        for own in (real, made)
    )
    return float(np.abs(np.subtract(*shares)).sum())


def _moved(real: Floats, made: Floats, corners: Floats) -> Floats:
    """Return by how much corners move, by training numbers [n] and generated ones [N], both sorted."""
    share = np.searchsorted(made, corners) / len(made)
    off = np.quantile(real, share) - corners
    known = np.minimum(share, 1 - share) * len(real) >= CELL_ROWS / 2
    known &= np.abs(off) < GAP
    if not known.any():
        return np.zeros(len(corners))
    return np.interp(corners, corners[known], off[known])


def _corners(cells: int) -> NDArray[np.float64]:
    from scipy.special import ndtri

    return np.asarray(ndtri(np.arange(1, cells) / cells), np.float64)
