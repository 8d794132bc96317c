"""Columns that are copied to the output unchanged: given columns, and those of --keep.

    cell of row i  =  cells[i div each]

A text format gets the text as it was, or a number's shortest spelling; others get numbers of the
type that they came in, float64 for text that spells them. A DataFrame and Parquet get dates as
datetime64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import UsageError
from scgan_infer.kinds import Kind
from scgan_infer.kinds.base import Form, Raw, Storage
from scgan_infer.kinds.datetime import Dates, Datetime
from scgan_infer.rows.codecs.base import number
from scgan_infer.rows.intake import gone

TEXTUAL = (".csv", ".tsv", ".csv.gz", "-")  # how the name of a text format's output ends
DATED = ".parquet"  # how that of one with dates does; a DataFrame has the same types


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied(Column):
    """A column whose cells are given.

    Attributes:
        cells: [N], str objects, numbers or datetime64.
        each: How many rows have each of them; 0: all have the first.
    """

    cells: Raw
    each: int = 1

    def __post_init__(self) -> None:
        """Accept any cells; there is no domain to check."""

    @property
    def rules(self) -> Kind:
        return COPYING

    @property
    def storage(self) -> Storage:
        names: dict[str, Storage] = {"float32": "float32", "int32": "int32", "int64": "int64"}
        return (
            "text" if self.cells.dtype.kind == "O" else names.get(str(self.cells.dtype), "float64")
        )

    @property
    def is_id(self) -> bool:
        """Whether cells come by the index of their row; they do."""
        return True

    @property
    def is_wide(self) -> bool:
        return self.cells.dtype.kind != "O" and self.storage != "float32"

    def to_dict(self) -> dict[str, object]:
        """Return what is known of the column, and the SHA-256 of its cells."""
        plain = Column(self.name, unit=self.unit).to_dict()
        data = "\0".join(map(str, self.cells.tolist())).encode()
        return plain | {"copied": hashlib.sha256(data).hexdigest(), "each": self.each}


class Copying(Kind):
    """Cells of `Copied` columns, by the indices of rows."""

    def form(self, column: Column) -> Form:
        raise TypeError(f"column {column.name!r} is copied, and has no coordinate")

    def cells(self, values: Raw, column: Column) -> Raw:
        """Return the cells of rows with these indices."""
        assert isinstance(column, Copied)
        index = values // column.each if column.each else np.zeros_like(values)
        cells: Raw = column.cells[index]
        return cells if cells.dtype.kind in "OM" else cells.astype(column.storage)

    def numbers(self, values: Raw, column: Column) -> Raw:
        """Return `cells` for a format of numbers alone.

        Raises:
            UsageError: They are text.
        """
        if column.storage == "text":
            raise UsageError(
                f"column {column.name!r} is text, which this format can't hold; "
                "write CSV or Parquet"
            )
        return self.cells(values, column)

    def longest(self, column: Column) -> int:
        assert isinstance(column, Copied)
        return max((len(str(cell).encode()) for cell in column.cells.tolist()), default=1) or 1


COPYING = Copying()


def copied(column: Column, raw: Raw, each: int, out: str) -> Column:
    """Return the column that copies raw cells [N] to this output; names are copied only to text."""
    resolution = pattern = ""
    if out.lower().endswith(TEXTUAL):
        cells = np.array([_text(cell) for cell in raw], dtype=object)
    elif column.rules.named:
        return column
    elif isinstance(column.rules, Datetime) and out.lower().endswith(DATED):
        resolution, pattern = column.resolution, column.pattern
        cells = _instants(raw, pattern)
    else:
        cells = _numbers(raw)
    return Copied(
        column.name,
        unit=column.unit,
        resolution=resolution,
        pattern=pattern,
        cells=cells,
        each=each,
    )


def _text(cell: object) -> str:
    """Return a cell as text has it; the empty one where it is missing."""
    return "" if cell is None or cell != cell else str(cell)


def _instants(raw: Raw, pattern: str) -> Raw:
    """Return cells as datetime64, UTC, in their own unit, or text in days or us; NaT if missing."""
    if raw.dtype.kind == "M":
        return raw
    present = ~gone(raw)
    texts = [str(cell.isoformat() if hasattr(cell, "isoformat") else cell) for cell in raw[present]]
    unit = "us" if "hh" in pattern else "D"
    out = np.full(len(raw), np.datetime64("NaT"), f"datetime64[{unit}]")
    out[present] = Dates().read(texts).astype(np.int64).astype("datetime64[us]").astype(out.dtype)
    return out


def _numbers(raw: Raw) -> Raw:
    """Return cells as numbers of their own type, float64 for text that spells some; else text."""
    if raw.dtype.kind == "b":
        return raw.astype(np.int32)
    if raw.dtype.kind in "fiu":
        known = raw.dtype in (np.float32, np.float64, np.int32, np.int64)
        return raw if known else raw.astype(np.int64 if raw.dtype.kind in "iu" else np.float64)
    values = [number(cell) for cell in raw.tolist()]
    spelt = [_text(cell) for cell in raw.tolist()]
    if all(value is not None or not text for value, text in zip(values, spelt, strict=True)):
        return np.array([np.nan if value is None else value for value in values])
    return np.array(spelt, dtype=object)


def all_copied(
    columns: Sequence[Column], cells: dict[str, Raw], each: int, out: str
) -> tuple[Column, ...]:
    """Return columns, those that have cells copied, then what else there are cells of."""
    known = {column.name for column in columns}
    others = [Column(name) for name in cells if name not in known]
    return tuple(
        copied(column, cells[column.name], each, out) if column.name in cells else column
        for column in (*columns, *others)
    )
