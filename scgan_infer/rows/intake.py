"""Where data enters: raw cells become the float32 values of a column, or the first cell that can't is named.

One `Intake` per column takes its raw chunks in order. With a known column it holds the cells to that column's
domain; without, it notes what the cells are, and at the end says which column they make.

| raw cells | known column      | unknown                                                           |
| --------- | ----------------- | ----------------------------------------------------------------- |
| text      | category: by name | category, if few distinct and repeated; else refused              |
| numbers   | held to its kind  | the last of `KINDS` that guesses itself                           |

A missing cell (empty, NaN, null, NA) is NaN; a column that was trained without any refuses one.

Refused always: infinite cells, numbers beyond float32, text among numbers, and a column of whole
numbers of which float32 (exact up to 2**24) would change one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column, quoted
from scgan_infer.errors import UsageError
from scgan_infer.kinds import KINDS, BadCellError, Kind
from scgan_infer.kinds.base import Raw, Values, refuse, shown
from scgan_infer.kinds.guessing import EXACT, Evidence, decimals_of
from scgan_infer.rows.codecs.base import number

MISSING = {"", "na", "n/a", "nan", "null", "none", "<na>"}
MOST_CATEGORIES = 256
LEAVE_OUT = "leave the column out"


class Intake:
    """One column on its way in.

    Args:
        name: The column's name.
        column: The column that it has to be, else None.
        settings: Fields that the user set, where `column` is None.
        unit: Its unit in the file.
        missing: Whether cells may be missing, where `column` is None.

    Raises:
        UsageError: Settings that describe no column.
    """

    def __init__(
        self,
        name: str,
        column: Column | None,
        settings: Mapping[str, Any] | None = None,
        unit: str = "",
        missing: bool = True,
    ) -> None:
        self.name, self.column, self.unit, self.known = name, column, unit, column is not None
        self.setting = f"columns.{quoted(name)}.kind"
        self.remedy = "remove the row" if column else f"remove the row, or {LEAVE_OUT}"
        self.settings = dict(settings or {})
        self.kind: Kind | None = None
        self.rows = 0
        self.low, self.high = np.inf, -np.inf
        self.decimals: int | None = 0
        self.rounded: BadCellError | None = None
        self.names: dict[str, int] | None = None
        self.missing, self.may_miss = False, missing if column is None else column.missing
        if column is None:
            self._set_up()
        else:
            self.kind = column.rules

    def _set_up(self) -> None:
        """Find the kind that the settings mean, and the column where they say all of it."""
        known = [field.name for field in fields(Column)]
        for key in self.settings:
            if key not in known:
                raise UsageError(
                    f"column {self.name!r}: there is no setting {key!r}, but {', '.join(known)}"
                )
        if self.settings.get("kind") is None:
            marked = (
                name
                for name, kind in KINDS.items()
                if any(self.settings.get(mark) is not None for mark in kind.marks)
            )
            self.settings["kind"] = next(marked, None)
        kind = self.settings["kind"]
        if kind is None:
            return
        self.kind = KINDS.get(kind)
        if self.kind is None or not self.kind.waits(self.settings):
            self.column = self._build({})

    def _build(self, found: Mapping[str, Any]) -> Column:
        """Return the column of what was found, which settings win over."""
        stated = {key: value for key, value in self.settings.items() if value is not None}
        try:
            return Column.from_dict({"unit": self.unit, **found, **stated, "name": self.name})
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from error

    @property
    def text(self) -> bool:
        """Whether number-like cells are names all the same."""
        return self.kind is not None and self.kind.named

    def take(self, raw: Raw) -> Values:
        """Return the next cells' values, float32 [k]; of a category still unknown, numbered as they came.

        Raises:
            BadCellError: The first cell at fault; rows count from 0 over all chunks.
        """
        try:
            values = self._present(raw)
        except BadCellError as error:
            raise BadCellError(self.rows + error.row, str(error)) from None
        self.rows += len(raw)
        return values

    def _present(self, raw: Raw) -> Values:
        """Return the values of cells, with NaN where one is missing."""
        gone = _gone(raw) if self.may_miss else np.zeros(0, np.bool_)
        if not gone.any():
            return self._taken(raw)
        self.missing = True
        there = np.flatnonzero(~gone)
        values = np.full(len(raw), np.nan, np.float32)
        if len(there):
            try:
                values[there] = self._taken(raw[there])
            except BadCellError as error:
                raise BadCellError(int(there[error.row]), str(error)) from None
        return values

    def _taken(self, raw: Raw) -> Values:
        if raw.ndim != 1:
            raise BadCellError(0, f"holds {raw.shape[1:]} values, not one; {LEAVE_OUT}")
        if raw.dtype.kind in "OUT":
            cells: list[Any] = raw.tolist()
            return (
                self._named(cells) if self._is_text(cells) else self._numbers(self._parsed(cells))
            )
        if raw.dtype.kind not in "fiub":
            raise BadCellError(0, f"{raw.dtype} is neither number nor text; {LEAVE_OUT}")
        if self.text and self.column is None:
            return self._named(self._spelt(raw))
        return self._numbers(raw)

    def _is_text(self, cells: Sequence[Any]) -> bool:
        if self.kind is not None:
            return self.kind.named
        first = cells[0] if cells and self.rows == 0 else None
        if isinstance(first, str) and number(first) is None and not _missing(first):
            self.names = self.names or {}
        return self.names is not None

    def _parsed(self, cells: Sequence[Any]) -> NDArray[np.float64]:
        out = np.empty(len(cells))
        for row, cell in enumerate(cells):
            value = number(cell)
            if value is None:
                if _missing(cell):
                    raise BadCellError(row, f"{shown(cell)} is missing; fill it in, {self.remedy}")
                raise BadCellError(
                    row, f"{shown(cell)} is text where a number belongs; mend it, {self.remedy}"
                )
            out[row] = value
        return out

    def _spelt(self, raw: Raw) -> list[str]:
        """Return numbers as the names of categories."""
        refuse(~np.isfinite(raw), raw, f"is missing or infinite; {self.remedy}")
        distinct, inverse = np.unique(raw, return_inverse=True)
        names = [f"{v:.9g}" if isinstance(v, float) else str(v) for v in distinct.tolist()]
        spelt: list[str] = np.array(names, dtype=object)[inverse].tolist()
        return spelt

    def _named(self, cells: Sequence[Any]) -> Values:
        """Return the index of each name; of an unknown category's, in the order in which they came."""
        names = self.names or {}
        if self.column:
            names = {name: k for k, name in enumerate(self.column.categories)}
        for cell in dict.fromkeys(cells):
            if not isinstance(cell, str) or not cell.strip():
                why = f"{shown(cell)} is missing; fill it in, {self.remedy}"
            elif self.column and cell not in names:
                listed = ", ".join(self.column.categories[:8]) + (", ..." if len(names) > 8 else "")
                why = f"{shown(cell)} is none of its categories ({listed}); {self.remedy}"
            elif self.kind is None and number(cell) is not None:
                if 2 * sum(number(other) is not None for other in cells) >= len(cells):
                    self._parsed(cells)
                why = f"{shown(cell)} is a number in a column of text; mend it, or set {self.setting}=category"
            else:
                names.setdefault(cell, len(names))
                continue
            raise BadCellError(cells.index(cell), why)
        if self.kind is None and len(names) > MOST_CATEGORIES:
            raise BadCellError(
                len(cells) - 1,
                f"{len(names)} different texts up to here are too many for categories; "
                f"{LEAVE_OUT}, or set {self.setting}=category",
            )
        if self.column is None:
            self.names = names
        return np.array([names[cell] for cell in cells], np.float32)

    def _numbers(self, raw: Raw) -> Values:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            values = raw.astype(np.float32)
        if not np.isfinite(values).all():
            first = raw[np.argmin(np.isfinite(values))]
            finite = "infinite" if np.isinf(first) else "beyond float32 (3.4e38)"
            why = "missing" if np.isnan(first) else finite
            refuse(~np.isfinite(values), raw, f"is {why}; mend it, {self.remedy}")
        self._note(raw, values)
        if self.kind is None:
            return values
        try:
            return self.kind.hold(raw, values, self.column)
        except BadCellError as error:
            raise BadCellError(error.row, f"{error}; {self.remedy}") from None

    def _note(self, raw: Raw, values: Values) -> None:
        """Keep the extremes, how many decimals there are, and the first whole number that float32 changes."""
        if not len(raw):
            return
        self.low, self.high = min(self.low, float(raw.min())), max(self.high, float(raw.max()))
        if raw.dtype.kind == "f" and self.decimals is not None:
            self.decimals = decimals_of(raw, self.decimals)
        if self.decimals == 0 and self.rounded is None and max(-self.low, self.high) > EXACT:
            with np.errstate(invalid="ignore"):
                changed = values.astype(np.float64).astype(raw.dtype) != raw
            changed &= np.abs(values) >= EXACT
            why = "is too large for float32, exact up to 2**24; use a larger unit"
            try:
                refuse(changed, raw, f"{why}, {self.remedy}")
            except BadCellError as error:
                self.rounded = BadCellError(self.rows + error.row, str(error))

    def finish(self) -> None:
        """Judge what only the whole column shows.

        Raises:
            BadCellError: All are whole numbers, and float32 would change one.
        """
        if self.decimals == 0 and self.rounded and not self.text:
            raise self.rounded

    def settle(self, values: Values) -> tuple[Column, Values]:
        """Return the column that was taken, and its values (all, or a sample), float32 [n].

        Raises:
            BadCellError: Text that makes no category.
            UsageError: Settings that don't fit.
        """
        if self.known and self.column is not None:
            return self.column, values
        if not self.missing:
            return self._settled(values)
        there = ~np.isnan(values)
        if self.low > self.high and not self.names:
            raise BadCellError(0, f"is missing in every row; {LEAVE_OUT}")
        column, values[there] = self._settled(values[there])
        return replace(column, missing=True), values

    def _settled(self, values: Values) -> tuple[Column, Values]:
        evidence = Evidence(values, self.low, self.high, self.decimals)
        if self.column is None and self.names is not None:
            return self._categories(values, self.names)
        if self.column is None and self.kind is None:
            for name, kind in reversed(KINDS.items()):
                found = kind.guess(evidence)
                if found is not None:
                    return self._build({"kind": name, **found}), values
        column = self.column
        if column is None:
            assert self.kind is not None
            column = self._build(self.kind.complete(self.settings, self.low, self.high))
            values = self.kind.hold(values, values, column)
        learns = not self.known and column.rules.learns_decimals and column.decimals is None
        if learns and evidence.is_rounded():
            column = replace(column, decimals=self.decimals)
        return column, values

    def _categories(self, values: Values, names: Mapping[str, int]) -> tuple[Column, Values]:
        """Return the category column of the names that came, sorted as numbers if they all are."""
        if self.kind is None and 2 * len(names) > self.rows:
            raise BadCellError(
                0,
                f"text with {len(names)} different values in {self.rows} rows makes no categories; "
                f"{LEAVE_OUT}, or set {self.setting}=category",
            )
        values_of = {name: number(name) for name in names}
        numeric = None not in values_of.values()
        ordered = sorted(names, key=lambda name: (values_of[name] if numeric else 0.0, name))
        index = np.empty(len(names), np.float32)
        index[[names[name] for name in ordered]] = np.arange(len(names))
        column = self._build({"kind": "category", "categories": tuple(ordered)})
        return column, index[values.astype(np.intp)]


def _gone(raw: Raw) -> NDArray[np.bool_]:
    """Say which cells [n] are missing."""
    if raw.dtype.kind in "OUT":
        return np.array([_missing(cell) or cell != cell for cell in raw.tolist()], np.bool_)
    return (
        np.isnan(raw) if raw.dtype.kind == "f" and raw.ndim == 1 else np.zeros(len(raw), np.bool_)
    )


def _missing(cell: object) -> bool:
    return cell is None or str(cell).strip().lower() in MISSING
