"""What a row is made of: columns with a name, a kind and a domain, and a table of rows over them.

| kind     | domain                    | fields used          |
| -------- | ------------------------- | -------------------- |
| real     | any finite number         |                      |
| log      | positive numbers          |                      |
| periodic | [low, low + period)       | period, low          |
| bounded  | [low, high], either open  | low, high            |
| integer  | whole numbers             |                      |
| category | 0..C-1, index into names  | categories           |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("real", "log", "periodic", "bounded", "integer", "category")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the data: its name, kind, unit and domain (see the module's table)."""

    name: str
    kind: str = "real"
    unit: str = ""
    period: float | None = None
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for JSON."""
        fields: dict[str, Any] = {"name": self.name, "kind": self.kind}
        for key in ("unit", "period", "low", "high"):
            if getattr(self, key) not in (None, ""):
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
