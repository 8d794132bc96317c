"""What a row is made of: columns with a name, a kind and a domain, and a table of rows over them.

| kind     | domain                          | fields used                |
| -------- | ------------------------------- | -------------------------- |
| real     | any finite number               | decimals                   |
| log      | positive numbers                | decimals                   |
| periodic | [low, low + period)             | period, low                |
| bounded  | [low, high], either open        | low, high, slack, decimals |
| integer  | whole numbers, -2**24 to 2**24  | low, high, slack           |
| category | 0..C-1, index into names        | categories                 |

A row that reaches over a wall by at most `slack` is taken as on it: guessed walls have some, walls that were
set have none. With `decimals`, generated values are multiples of 10**-decimals, as those of rounded data are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("real", "log", "periodic", "bounded", "integer", "category")
ROUNDABLE = ("real", "log", "bounded")  # what may have decimals
MOST_DECIMALS = 6


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
    decimals: int | None = None

    def __post_init__(self) -> None:
        def refuse(why: str) -> None:
            raise ValueError(f"column {self.name!r}: {why}")

        if self.kind not in KINDS:
            refuse(f"unknown kind {self.kind!r}; the kinds are {', '.join(KINDS)}")
        for key in ("period", "low", "high", "slack"):
            value = getattr(self, key)
            if value is not None and (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not math.isfinite(value)
            ):
                refuse(f"{key} must be a finite number, not {value!r}")
        if self.kind == "periodic" and (self.period is None or self.period <= 0):
            refuse(f"a periodic column needs a period above 0, not {self.period}")
        if self.decimals is not None:
            if isinstance(self.decimals, bool) or self.decimals not in range(MOST_DECIMALS + 1):
                refuse(
                    f"decimals must be a whole number from 0 to {MOST_DECIMALS}, not {self.decimals!r}"
                )
            if self.kind not in ROUNDABLE:
                refuse(f"decimals are for columns that are {', '.join(ROUNDABLE)}, not {self.kind}")
        if self.kind == "bounded" and self.low is None and self.high is None:
            refuse("a bounded column needs a low or a high wall")
        if self.kind in ("bounded", "integer"):
            for wall in (self.low, self.high):
                if wall is not None and self.step and abs(wall) > 2**53 * self.step:
                    refuse(f"a wall at {wall} is too far out for steps of {self.step:g}")
            if self.low is not None and self.high is not None and self.low >= self.high:
                refuse(f"low {self.low} is not below high {self.high}")
            if self.ends[0] > self.ends[1]:
                refuse(f"no multiple of {self.step:g} lies from {self.low} to {self.high}")
        if self.kind == "category":
            if not self.categories or not all(
                isinstance(name, str) and name for name in self.categories
            ):
                refuse("a category column needs the names of its categories")
            if len(set(self.categories)) < len(self.categories):
                refuse("two of its categories have the same name")

    @property
    def step(self) -> float | None:
        """Distance of neighbouring values; None where any number may stand."""
        if self.kind in ("integer", "category"):
            return 1.0
        return None if self.decimals is None else 10.0**-self.decimals

    @property
    def ends(self) -> tuple[float, float]:
        """Least and greatest value inside the walls, infinite without one; with steps a multiple of the step."""
        if self.kind == "category":
            return 0.0, len(self.categories) - 1.0
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if self.step is None:
            return low, high
        scale = 10 ** (self.decimals or 0)
        least = low if math.isinf(low) else math.ceil(round(low * scale, 6)) / scale
        greatest = high if math.isinf(high) else math.floor(round(high * scale, 6)) / scale
        return (self.step if self.kind == "log" else least), greatest

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
        nothing = {
            "unit": "",
            "period": None,
            "low": None,
            "high": None,
            "slack": 0.0,
            "decimals": None,
        }
        fields |= {key: getattr(self, key) for key in nothing if getattr(self, key) != nothing[key]}
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

    def fingerprint(self) -> str:
        """Return the SHA-256 of the values, by which a run and its bundle know their rows."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()
