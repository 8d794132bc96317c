"""What a row is made of: columns with a name, a kind and a domain, and a table of rows over them.

| kind     | domain                          | fields used          |
| -------- | ------------------------------- | -------------------- |
| real     | any finite number               |                      |
| log      | positive numbers                |                      |
| periodic | [low, low + period)             | period, low          |
| bounded  | [low, high], either open        | low, high, slack     |
| integer  | whole numbers, -2**24 to 2**24  |                      |
| category | 0..C-1, index into names        | categories           |

A row that reaches over a wall by at most `slack` is taken as on it: guessed walls have some, walls that were
set have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("real", "log", "periodic", "bounded", "integer", "category")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the data: its name, kind, unit and domain (see the module's table).

    Raises:
        ValueError: The fields don't describe a domain; one line that names the column.
    """

    name: str
    kind: str = "real"
    unit: str = ""
    period: float | None = None
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    slack: float = 0.0

    def __post_init__(self) -> None:
        def refuse(why: str) -> None:
            raise ValueError(f"column {self.name!r}: {why}")

        if self.kind not in KINDS:
            refuse(f"unknown kind {self.kind!r}; the kinds are {', '.join(KINDS)}")
        for key in ("period", "low", "high", "slack"):
            value = getattr(self, key)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
            ):
                refuse(f"{key} must be a finite number, not {value!r}")
        if self.kind == "periodic" and (self.period is None or self.period <= 0):
            refuse(f"a periodic column needs a period above 0, not {self.period}")
        if self.kind == "bounded":
            if self.low is None and self.high is None:
                refuse("a bounded column needs a low or a high wall")
            if self.low is not None and self.high is not None and self.low >= self.high:
                refuse(f"low {self.low} is not below high {self.high}")
        if self.kind == "category":
            if not self.categories or not all(isinstance(name, str) and name for name in self.categories):
                refuse("a category column needs the names of its categories")
            if len(set(self.categories)) < len(self.categories):
                refuse("two of its categories have the same name")

    @property
    def codes(self) -> NDArray[np.float32]:
        """What stands for each category among numbers: its name if all names are numbers, else its index."""
        try:
            numbers = np.array([float(name) for name in self.categories], np.float32)
        except ValueError:
            return np.arange(len(self.categories), dtype=np.float32)
        distinct = len(np.unique(numbers)) == len(numbers) and bool(np.isfinite(numbers).all())
        return numbers if distinct else np.arange(len(numbers), dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for JSON."""
        fields: dict[str, Any] = {"name": self.name, "kind": self.kind}
        for key, nothing in (("unit", ""), ("period", None), ("low", None), ("high", None), ("slack", 0.0)):
            if getattr(self, key) != nothing:
                fields[key] = getattr(self, key)
        if self.categories:
            fields["categories"] = list(self.categories)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Column:
        """Inverse of `to_dict`."""
        return cls(**{**fields, "categories": tuple(fields.get("categories", ()))})


@dataclass(frozen=True)
class Table:
    """Rows over named columns.

    Attributes:
        columns: d columns.
        values: float32 [n, d], in the user's units; a category is its index.
    """

    columns: tuple[Column, ...]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)
