"""Identifiers of rows: never learned, and numbered anew wherever rows are written.

A value is 0 in every row. Written is `low` plus the row's index, behind the pattern's letters where
it has some: `PID-0000` gives PID-0001, PID-0002, ... with `low` 1. When inferred, `low` is after
the last of the rows' numbers, so that no generated row repeats one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scgan_infer.kinds.base import LINE, Floats, Form, Kind, Raw

if TYPE_CHECKING:
    from scgan_infer.columns import Column
    from scgan_infer.kinds.guessing import Evidence

LARGEST = 2**53  # number that is counted from
FEWEST = 20  # rows
MANY = 1000  # rows of numbers that begin elsewhere than at 0 or 1, as years do
LONGEST = 19  # digits of the largest number


class Id(Kind):
    """See the module."""

    fields = frozenset({"low", "pattern"})
    storage = "int64"

    def check(self, column: Column) -> str:
        if column.low is not None and abs(column.low) > LARGEST:
            return f"low {column.low} is beyond 2**53; number from a smaller one"
        whole = isinstance(column.pattern, str) and re.fullmatch(r"(.*\D)?0+|", column.pattern)
        return "" if whole else f"pattern {column.pattern!r} does not end in zeros, like PID-0000"

    def guess(self, evidence: Evidence) -> dict[str, Any] | None:
        """Take consecutive numbers, each there once."""
        first = evidence.low + evidence.base
        counted = evidence.whole and evidence.high - evidence.low + 1 == evidence.rows
        many = evidence.rows >= (FEWEST if first in (0, 1) else MANY)
        if not (evidence.named and counted and many):
            return None
        unique = len(np.unique(evidence.values)) == len(evidence.values)
        return {"low": evidence.high + 1} if unique else None

    def waits(self, settings: Mapping[str, Any]) -> bool:
        return settings.get("low") is None

    def features(self, values: Floats, column: Column) -> Floats:
        return np.zeros((len(values), 1))

    def cells(self, values: Raw, column: Column) -> Raw:
        """Return the cells of rows that have these indices [n]."""
        numbers = np.asarray(values, np.int64) + int(column.low or 0)
        if not column.pattern:
            return numbers
        letters = column.pattern.rstrip("0")
        width = len(column.pattern) - len(letters)
        return np.array([*(f"{letters}{k:0{width}}" for k in numbers.tolist()), None], object)[:-1]

    def numbers(self, values: Raw, column: Column) -> Raw:
        return np.asarray(values, np.float64) + (column.low or 0)

    def spell(self, value: float, column: Column) -> str:
        return str(self.cells(np.array([value]), column)[0])

    def longest(self, column: Column) -> int:
        return len(column.pattern.encode()) + LONGEST

    def form(self, column: Column) -> Form:
        return LINE


def after(least: float, greatest: float, rows: int) -> float:
    """Return a number after those of all rows, if consecutive; 1 where none can be counted from.

    The least and the greatest may be those of the first rows alone.
    """
    first = max(greatest + 1, least + rows)
    return first if abs(first) <= LARGEST else 1.0


def shape(names: Collection[str], rows: int) -> dict[str, Any]:
    """Return the fields of a column of texts, each there once; names are those of the first rows.

    >>> shape(["A07", "A12"], 2), shape(["Ann", "Bob"], 2)
    ({'pattern': 'A00', 'low': 13.0}, {'pattern': '0', 'low': 1.0})
    """
    least, most = min(names), max(names)
    same = next((k for k, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), 0)
    letters = least[:same].rstrip("0123456789")
    ends = [name[len(letters) :] for name in names]
    widths = {len(end) for end in ends}
    whole = len(widths) == 1 and all(end.isascii() and end.isdecimal() for end in ends)
    if whole and float(max(ends)) < LARGEST:
        low = after(float(min(ends)), float(max(ends)), rows)
        return {"pattern": letters + "0" * widths.pop(), "low": low}
    return {"pattern": "0", "low": 1.0}
