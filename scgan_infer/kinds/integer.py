"""Whole numbers up to 2**24, exact in float32; guessed where they are many, or few that repeat."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scgan_infer.kinds.base import EXACT, Floats, Raw, Storage, Values, reach, refuse
from scgan_infer.kinds.walls import Walled

if TYPE_CHECKING:
    from scgan_infer.columns import Column
    from scgan_infer.kinds.guessing import Evidence

FEW = 64  # distinct whole numbers, each repeated 4 times, are integers however few rows there are
REPEATED = 4
MANY = 100  # rows


class Integer(Walled):
    """See `scgan_infer.kinds.walls`; without walls f(x) = x."""

    whole = True
    storage: ClassVar[Storage] = "int32"

    fields = Walled.fields | {"grid", "origin"}

    def check(self, column: Column) -> str:
        if (column.grid or 0) % 1 or column.origin % 1:
            return f"a grid of whole numbers can't have steps of {column.grid} from {column.origin}"
        return super().check(column)

    def step(self, column: Column) -> float:
        return column.grid or 1.0

    def guess(self, evidence: Evidence) -> dict[str, Any] | None:
        if not evidence.whole:
            return None
        distinct, rows = len(np.unique(evidence.values)), len(evidence.values)
        if distinct <= FEW and rows >= REPEATED * distinct:
            return evidence.grid()
        return evidence.grid() | evidence.walls() if rows >= MANY else None

    def hold(self, raw: Raw, values: Values, column: Column | None) -> Values:
        fault = np.rint(values) != values
        if column is None or column.anchor is None:
            fault |= np.abs(values) > EXACT
        refuse(fault, raw, "is not a whole number up to 2**24, as an integer column needs")
        return super().hold(raw, values, column)

    def cells(self, values: Raw, column: Column) -> Raw:
        exact = np.rint(self.numbers(values, column).astype(np.float64))
        if column.anchor is not None:
            return exact.astype(np.int64)
        return np.clip(exact, -(2**31), 2**31 - 1).astype(np.int32)

    def edges(self, column: Column, values: Floats, bins: int) -> Floats:
        """See `Kind.edges`; each cell has as many whole numbers, one if there are few."""
        low, high = reach(values)
        width = max(1, math.ceil((high - low + 1) / bins))
        first = math.floor(low)
        return np.arange(first, math.ceil(high) + width + 1, width, dtype=np.float64) - 0.5
