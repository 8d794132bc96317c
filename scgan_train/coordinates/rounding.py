"""Rounded numbers: to values (p k + r) / q for whole k, as decimals are, or significant digits.

p, q and r are whole (`Column.lattice`), fractions are computed in float64, so that a value is the
float32 nearest to the exact one; where float32 has wider steps, it is the value itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column
from scgan_infer.kinds.base import NEAR, SMALL, significant, snapped
from scgan_infer.kinds.periodic import Periodic
from scgan_train.graph import Var, const, op

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]

LARGE = 3e38


@dataclass(frozen=True)
class Rounding:
    """How the k columns of a block are rounded, all of them in the same way.

    Attributes:
        lattice: p, q and r of each, [3, k]; None for numbers with significant digits.
        digits: Significant ones [k]; None for numbers with steps.
        least: Least value [k].
        greatest: Greatest value [k].
        circle: Seam and period [k] of each, [2, k]; None unless they are periodic.
    """

    lattice: Singles | None
    digits: Singles | None
    least: Singles
    greatest: Singles
    circle: Singles | None = None

    @classmethod
    def of(cls, columns: Sequence[Column]) -> Rounding | None:
        """Return how columns are rounded; None where any number is possible."""
        ends = np.array([column.rules.ends(column) for column in columns])
        least, greatest = np.clip(ends, -LARGE, LARGE).astype(np.float32).T
        if columns[0].step is not None:
            lattice = np.array([column.lattice for column in columns], np.float32).T
            circles = [
                (column.rules.seam(column), column.period)
                for column in columns
                if isinstance(column.rules, Periodic)
            ]
            circle = np.array(circles, np.float32).T if circles else None
            return cls(lattice, None, least, greatest, circle)
        if columns[0].digits is not None:
            digits = np.array([column.digits for column in columns], np.float32)
            return cls(None, digits, least, greatest)
        return None

    def apply(self, x: Floats) -> Floats:
        """Return values [n, k], rounded and within their ends."""
        if self.lattice is None:
            assert self.digits is not None
            rounded = significant(x, self.digits)
        else:
            with np.errstate(over="ignore"):
                rounded = _nearest(x, self.lattice)
                if self.circle is not None:
                    end, period = self.circle
                    again = _nearest(rounded - period, self.lattice)
                    rounded = np.where(rounded < end, rounded, again)
        return np.asarray(np.clip(rounded + 0.0, self.least, self.greatest))  # -0 + 0 is 0

    def graph(self, x: Var) -> Var:
        """Return `apply` as a graph, of values [k, n]."""

        def constant(row: Singles) -> Var:
            return const(row[:, None])

        if self.lattice is None:
            assert self.digits is not None
            x = _significant(x, constant(self.digits - 1))
        else:
            x = _snapped(x, self.lattice)
            if self.circle is not None:
                end, period = map(constant, self.circle)
                again = _snapped(op.sub(x, period), self.lattice)
                x = op.where(op.less(x, end), x, again)
        x = op.where(op.equal(x, const(0)), const(0), x)  # no -0
        return op.min([op.max([x, constant(self.least)]), constant(self.greatest)])


def _nearest(x: Floats, lattice: Singles) -> Floats:
    """Return `snapped` in the precision of x."""
    return np.asarray(snapped(x.astype(np.float64), lattice).astype(x.dtype))


def _snapped(x: Var, lattice: Singles) -> Var:
    """Return `snapped` as a graph, of values [k, n]."""
    scaled, moved, stretched = (lattice[1] != 1).any(), lattice[2].any(), (lattice[0] != 1).any()
    dtype = np.float64 if scaled else np.float32
    p, q, r = (const(row[:, None], dtype) for row in lattice)
    x = op.mul(op.cast(x, to=np.float64), q) if scaled else x
    x = op.sub(x, r) if moved else x
    x = op.round(op.div(x, p) if stretched else x)
    x = op.mul(x, p) if stretched else x
    x = op.add(x, r) if moved else x
    return op.cast(op.div(x, q), to=np.float32) if scaled else x


def _significant(x: Var, decimals: Var) -> Var:
    """Return `significant` as a graph, of values and one less than their digits."""
    powers = const(10.0 ** np.arange(39))
    size = op.mul(op.log(op.max([op.abs(x), const(SMALL)])), const(1 / np.log(10)))
    decimals = op.sub(decimals, op.floor(op.add(size, const(NEAR))))
    up, down = (
        op.gather(powers, op.cast(op.clip(part, const(0), const(38)), to=np.int64))
        for part in (decimals, op.neg(decimals))
    )
    return op.div(op.mul(op.round(op.div(op.mul(x, up), down)), down), up)
