"""The columns of a table, each with a name, a kind and a domain, and a table of rows over them.

`scgan_infer.kinds` has the kinds, and which of a column's fields each uses.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.kinds import KINDS, Kind
from scgan_infer.kinds.base import MOST_DECIMALS, Storage

ALWAYS = {"name", "kind", "unit", "missing"}
NUMBERS = ("period", "low", "high", "slack", "anchor", "grid", "origin")
DENOMINATOR = 10**6  # largest of a grid's step and origin


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the data: its name, kind, unit and domain.

    Attributes:
        period: Length of a circle.
        low: Least value; where the circle begins.
        high: Greatest value.
        categories: Names, by index.
        slack: How far over a wall a row may reach, and is taken as on it.
        decimals: Of generated values, as those of rounded data are.
        digits: Significant ones of generated values, as those of data rounded so are.
        grid: Distance of neighbouring values, where that is not a power of ten.
        origin: A value on the grid.
        anchor: What a cell's value in float32 is an offset from, where float32 can't carry the cell
            itself; `low` and `high` are values, not offsets.
        resolution: Of dates and times: M, D, h, m, s, ms or us, in which they are counted from 1970
            on.
        pattern: How dates, times and ids are spelt.
        missing: Whether cells may be missing, which NaN stands for.

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
    missing: bool = False
    digits: int | None = None
    anchor: float | None = None
    resolution: str = ""
    pattern: str = ""
    grid: float | None = None
    origin: float = 0.0

    def __post_init__(self) -> None:
        why = self._flaw()
        if why:
            raise ValueError(f"column {self.name!r}: {why}")

    def _flaw(self) -> str:
        """Return why the fields describe no domain; empty if they do."""
        if self.kind not in KINDS:
            kinds = f"{', '.join(KINDS)}, and drop leaves a column out"
            return f"unknown kind {self.kind!r}; the kinds are {kinds}"
        kind = KINDS[self.kind]
        for name in self.to_dict().keys() - ALWAYS - kind.fields:
            users = ", ".join(other for other in KINDS if name in KINDS[other].fields)
            return f"{name} is for columns that are {users}, not {self.kind}"
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None and not _is_number(value):
                return f"{name} must be a finite number, not {value!r}"
        if self.decimals is not None and not (
            type(self.decimals) is int and 0 <= self.decimals <= MOST_DECIMALS
        ):
            return (
                f"decimals must be a whole number from 0 to {MOST_DECIMALS}, not {self.decimals!r}"
            )
        if self.digits is not None and not (type(self.digits) is int and 1 <= self.digits <= 6):
            return f"digits must be a whole number from 1 to 6, not {self.digits!r}"
        if sum(part is not None for part in (self.digits, self.decimals, self.grid)) > 1:
            return "only one of decimals, digits and grid can be set"
        if self.grid is not None and self.lattice[0] < 1:
            return f"grid must be at least {1 / DENOMINATOR:g}, not {self.grid!r}"
        if self.origin and self.grid is None:
            return "origin needs a grid"
        return kind.check(self)

    @property
    def rules(self) -> Kind:
        """The rules of its kind."""
        return KINDS[self.kind]

    @property
    def storage(self) -> Storage:
        """How typed formats hold a cell; whole numbers, some missing, as floats with NaN."""
        kept = self.rules.storage
        if kept == "text" or self.pattern:
            return "text"
        if kept == "int64":
            return kept
        whole = kept == "int32" and not self.missing
        if self.anchor is None:
            return "int32" if whole else "float32"
        return "int64" if whole else "float64"

    @property
    def is_id(self) -> bool:
        """Whether its cells are numbered by whoever writes them."""
        return self.kind == "id"

    @property
    def is_wide(self) -> bool:
        """Whether its cells, as numbers, take float64."""
        return self.anchor is not None or self.is_id

    @property
    def walls(self) -> tuple[float | None, float | None]:
        """Low and high as offsets from the anchor."""
        anchor = self.anchor or 0.0
        low, high = (wall if wall is None else wall - anchor for wall in (self.low, self.high))
        return low, high

    @property
    def offsets(self) -> Column:
        """The column of the offsets themselves, as rows in float32 hold them."""
        if self.anchor is None:
            return self
        low, high = self.walls
        kind = "integer" if self.pattern else self.kind
        bare = {"anchor": None, "resolution": "", "pattern": "", "low": low, "high": high}
        return replace(self, kind=kind, **bare)  # type: ignore[arg-type]

    @property
    def unwalled(self) -> Column:
        """The column without its walls."""
        if "slack" not in self.rules.fields:
            return self
        kind = "real" if self.kind == "bounded" else self.kind
        return replace(self, kind=kind, low=None, high=None, slack=0.0)

    @property
    def loose(self) -> Column:
        """The column that takes any number where a wall or whole numbers are the rule."""
        if "slack" not in self.rules.fields or self.pattern:
            return self.unwalled
        return replace(self.unwalled, kind="real")

    @property
    def step(self) -> float | None:
        """Distance of neighbouring values; None where any number may stand."""
        return self.rules.step(self)

    @property
    def lattice(self) -> tuple[int, int, float]:
        """P, q and r of values (p k + r) / q, counted from the anchor; of a column with a step."""
        if self.grid is None:
            return 1, 10 ** (self.decimals or 0), 0.0
        from fractions import Fraction

        parts = (self.grid, self.origin, self.anchor or 0.0)
        step, origin, anchor = (Fraction(part).limit_denominator(DENOMINATOR) for part in parts)
        q = math.lcm(step.denominator, (origin - anchor).denominator)
        q = q if q <= 10 * DENOMINATOR else step.denominator
        p = int(step * q)
        return p, q, float((origin - anchor) * q % p) if p else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = {"name", "kind"} | {
            field.name for field in fields(self) if values[field.name] != field.default
        }
        values["categories"] = list(self.categories)
        return {name: value for name, value in values.items() if name in kept}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Column:
        """Inverse of `to_dict`."""
        return cls(**{**values, "categories": tuple(values.get("categories", ()))})


@dataclass(frozen=True)
class Table:
    """Rows over named columns.

    Attributes:
        columns: d columns.
        values: float32 [n, d], in the user's units; a category is its index.
        notes: Messages to the user on how they were read.
    """

    columns: tuple[Column, ...]
    values: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the values, which identifies the rows of a run and its bundle."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()


def grown(columns: Sequence[Column], table: Table) -> tuple[Column, ...]:
    """Return columns extended by the further names, and the missing cells, of a table of theirs."""
    return tuple(
        replace(column, categories=read.categories, missing=read.missing)
        for column, read in zip(columns, table.columns, strict=True)
    )


def quoted(name: str) -> str:
    """Return a column's name as a TOML key, in quotes where it needs them.

    >>> quoted("x"), quoted("Sepal.Length")
    ('x', '"Sepal.Length"')
    """
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
