"""Rows in memory: 2-D or structured arrays, mappings of 1-D arrays, any package's DataFrames."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence

import numpy as np

from scgan_infer.errors import DataError
from scgan_infer.rows.codecs.base import Raw, Reader, Untyped
from scgan_infer.rows.codecs.budget import Budget
from scgan_infer.rows.codecs.dialect import INDEX, is_index


class MemoryReader(Reader):
    """Rows of an array, or of anything with `items()` that gives names and columns."""

    def __init__(self, data: Untyped) -> None:
        self.data = data
        self.budget = Budget(self.label, None)

    def open(self) -> None:
        try:
            self._take(self.data)
        except (ValueError, TypeError) as error:
            kind = type(self.data).__name__
            raise DataError(f"rows of {kind} can't be read: {error}") from error
        if len({len(column) for column in self.columns}) > 1:
            raise DataError("rows: its columns differ in length")

    def _take(self, data: Untyped) -> None:
        if hasattr(data, "items"):
            pairs = [(str(name), _array(column)) for name, column in data.items()]
            self.settings = {
                str(name): {"kind": "category"}
                for name, column in data.items()
                if str(getattr(column, "dtype", "")) == "category"
            }
            self.names, self.columns = tuple(name for name, _ in pairs), [raw for _, raw in pairs]
            if len(pairs) > 1 and is_index(self.names[0], self.columns[0].tolist()):
                self.names, self.columns, self.notes = self.names[1:], self.columns[1:], (INDEX,)
            return
        rows = _array(data)
        if rows.dtype.names:
            self.names, self.columns = rows.dtype.names, [rows[name] for name in rows.dtype.names]
            return
        if rows.ndim not in (1, 2):
            raise DataError(f"rows have shape {rows.shape}; rows by columns are needed")
        table = rows if rows.ndim == 2 else rows[:, None]
        self.named, self.columns = False, list(table.T)
        self.names = tuple(f"x{j}" for j in range(len(self.columns)))

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        for first in range(0, len(self.columns[0]), size):
            yield [_plain(self.columns[j][first : first + size]) for j in wanted]


def _array(data: Untyped) -> Untyped:
    """Return an array, masked if the data is."""
    return data if isinstance(data, np.ma.MaskedArray) else np.asarray(data)


def _plain(cells: Untyped) -> Raw:
    """Return cells with None where they are masked, and objects that are all numbers as numbers."""
    if np.ma.is_masked(cells):
        objects = cells.data.astype(object)
        objects[cells.mask] = None
        return np.asarray(objects)
    raw = np.asarray(cells)
    if raw.dtype.kind == "O" and all(isinstance(cell, numbers.Real) for cell in raw.flat):
        return np.array(raw.tolist())
    return raw
