"""Conditions: the values of given columns, one row of them for every `each` samples.

sample i has condition i div each; one condition alone is that of every sample
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from os import PathLike
from typing import Any

import numpy as np

from scgan_infer.arguments import whole
from scgan_infer.bundle.manifest import GivenColumn, Manifest
from scgan_infer.columns import Column
from scgan_infer.errors import UsageError
from scgan_infer.sampling.draw import END, Floats


@dataclass(frozen=True)
class Given:
    """Conditions of samples.

    Attributes:
        values: float32 [N, g], a category as its index.
        each: how many samples have each of them; 0: all samples have the first.

    Raises:
        UsageError: a number of samples that is none.
    """

    values: Floats
    each: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "each", whole("each", self.each))
        if self.each < 0:
            raise UsageError(f"each must be at least 1, not {self.each}")

    @property
    def identity(self) -> str:
        """The SHA-256 of their values, and `each`."""
        return f"{sha256(self.values.tobytes()).hexdigest()} {self.each}"

    def rows(self, low: int, high: int) -> Floats:
        """Return the conditions [high - low, g] of samples low .. high - 1."""
        if not self.each:
            return np.repeat(self.values[:1], high - low, axis=0)
        first, last = low // self.each, -(-high // self.each)
        repeated = np.repeat(self.values[first:last], self.each, axis=0)
        return repeated[low - first * self.each :][: high - low]

    def count(self, n: int | None, start: int) -> int:
        """Return how many samples are meant from `start` on: n, or as many as have conditions.

        Raises:
            UsageError: n is missing for one condition alone, or more than there are conditions for.
        """
        if n is not None:
            n = whole("n", n)
        if not self.each:
            if n is None:
                raise UsageError("n is missing: say how many rows the one condition is to have")
            return n
        start = whole("start", start)
        remaining = len(self.values) * self.each - start
        if not 0 <= start < END or remaining < 0 or (n is not None and n > remaining):
            total = (
                f"{len(self.values)} conditions, {self.each} rows each, "
                f"are {remaining + start} rows"
            )
            raise UsageError(f"{total}: there are none from {start + (n or 0)} on")
        return remaining if n is None else n

    def outside(self, columns: Sequence[GivenColumn]) -> dict[str, int]:
        """Return how many conditions lie outside training's range, by name of columns with any."""
        counts = {}
        for one, cells in zip(columns, self.values.T, strict=True):
            if one.low is None or one.high is None or one.column.period is not None:
                continue
            count = int(((cells < np.float32(one.low)) | (cells > np.float32(one.high))).sum())
            if count:
                counts[one.column.name] = count
        return counts


def given_of(manifest: Manifest, conditions: Any, each: int = 1) -> Given:
    """Return the conditions that a caller means.

    Args:
        manifest: the bundle's.
        conditions: a mapping of names to one value each, for all samples; or a table: a file, an
            array [N, g] with categories by index, or what has names, with categories by name.
        each: how many samples have each row of a table.

    Raises:
        DataError: cells that don't fit the given columns.
        UsageError: the bundle has no given columns, or names that are not theirs.
    """
    columns = [one.column.loose for one in manifest.given]
    names = [column.name for column in columns]
    if not columns:
        raise UsageError("this bundle has no given columns; leave the conditions out")
    if isinstance(conditions, Given):
        return conditions
    if whole("each", each) < 1:
        raise UsageError(f"each must be at least 1, not {each}")
    single = isinstance(conditions, Mapping) and all(np.ndim(v) == 0 for v in conditions.values())
    if single:
        if unknown := [name for name in conditions if name not in names]:
            raise UsageError(
                f"{unknown[0]} is no given column of this bundle; those are {', '.join(names)}"
            )
        if each != 1:
            raise UsageError("one condition for all rows has no each; say n")
        conditions = {name: [value] for name, value in conditions.items()}
    return Given(values_of(conditions, columns), 0 if single else each)


def values_of(rows: Any, columns: Sequence[Column]) -> Floats:
    """Return rows [n, k] of columns; categories by name in a file or what has names, else by index.

    Raises:
        DataError: cells that don't fit the columns.
    """
    from scgan_infer.rows.formats import read_table

    if not isinstance(rows, str | PathLike) and not hasattr(rows, "items"):
        if np.shape(rows) == (0, len(columns)):
            return np.empty((0, len(columns)), np.float32)
        if np.asarray(rows).dtype.names is None:
            columns = tuple(map(_by_index, columns))
    return read_table(rows, columns=columns).values


def _by_index(column: Column) -> Column:
    """Return a column for a category column's indices, or for the offsets from an anchor."""
    if not column.rules.named:
        return column.offsets
    high = len(column.categories) - 0.5
    return Column(column.name, "integer", low=-0.5, high=high, missing=column.missing)
