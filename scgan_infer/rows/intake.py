"""Convert raw cells to a column's float32 values, or name the first cell that can't be converted.

One `Intake` per column takes its raw chunks in order. With a known column it holds the cells to
that column's domain; without, it notes what the cells are, and infers the column at the end.

| raw cells | known column      | unknown                                                       |
| --------- | ----------------- | ------------------------------------------------------------- |
| text      | category: by name | category, if repeated; id, if all are different; else refused |
| dates     | to its resolution | datetime, if all of the first chunk are dates                 |
| numbers   | held to its kind  | the last of `KINDS` that guesses itself                       |

Cells of a known column come as float32 offsets from its anchor; of an unknown one as float64, from
all of which the anchor is chosen: see `scgan_infer.kinds.guessing.anchor_of`.

A missing cell (empty, NaN, null, NA) is NaN; a column that was trained without any refuses one.

Refused always: infinite cells, numbers beyond float32, text among numbers, and a column of whole
numbers of which float32 (exact up to 2**24), counted from an anchor or not, would let a tenth fall
together; of fewer numbers than half the rows such a column is a category, else its numbers keep 7
digits, which is noted. Those from 2**53 to 2**64 that all differ are an id. A known column takes
none that float32 would change, unless it has an anchor.
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
from scgan_infer.kinds.base import EXACT, Floats, Raw, Values, refuse, shown
from scgan_infer.kinds.category import codes
from scgan_infer.kinds.datetime import Dates, Datetime, are_dates, counts, zone_of
from scgan_infer.kinds.guessing import (
    ALIKE,
    LARGEST,
    Evidence,
    anchor_of,
    decimals_of,
    digits_of,
    has_anchor,
)
from scgan_infer.kinds.id import FEWEST, Id, after, shape
from scgan_infer.kinds.real import Real
from scgan_infer.rows.codecs.base import number
from scgan_infer.rows.codecs.text import CODE
from scgan_infer.rows.spelling import fault, misspelt

MISSING = {"", "na", "n/a", "nan", "null", "<na>"}  # in small letters
MOST_NAMES = 1 << 14  # of a category, which the manifest lists
LEAVE_OUT = "leave the column out"


class Intake:
    """One column on its way in.

    Args:
        name: The column's name.
        column: The column that it has to be, else None.
        settings: Fields that the user set, where `column` is None.
        unit: Its unit in the file.
        missing: Whether cells may be missing, where `column` is None.
        named: Whether the name is the file's own.

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
        named: bool = True,
    ) -> None:
        self.named, self.coded, self.unique, self.grows = named, False, False, False
        self.name, self.column, self.unit, self.known = name, column, unit, column is not None
        self.remedy = "remove the row" if column else f"remove the row, or {LEAVE_OUT}"
        self.last = f"or {self.remedy}" if column else self.remedy  # of several
        self.settings = dict(settings or {})
        self.kind: Kind | None = None
        self.rows = 0
        self.low, self.high = np.inf, -np.inf
        self.decimals: int | None = 0
        self.digits: int | None = 1
        self.rounded: BadCellError | None = None
        self.large = False
        self.wide = False
        self.names: dict[str, int] | None = None
        self.dates: Dates | None = None
        self.missing, self.may_miss = False, missing if column is None else column.missing
        if column is None:
            self._set_up()
        else:
            self.kind = column.rules

    def _set_up(self) -> None:
        """Set the kind that the settings imply, and the column if they define it completely."""
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

    def _build(self, inferred: Mapping[str, Any]) -> Column:
        """Return the column of inferred fields, which settings override."""
        stated = {key: value for key, value in self.settings.items() if value is not None}
        try:
            return Column.from_dict({"unit": self.unit, **inferred, **stated, "name": self.name})
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from error

    def grow(self) -> None:
        """Accept missing cells, and new names, appended to a known column's categories."""
        self.grows = self.may_miss = True

    @property
    def text(self) -> bool:
        """Whether even number-like cells are names."""
        return self.kind is not None and self.kind.named

    def take(self, raw: Raw) -> Values | Floats:
        """Return the next cells' values [k]; of a category still unknown, numbered as they came.

        Raises:
            BadCellError: The first cell at fault; rows count from 0 over all chunks.
        """
        if isinstance(self.kind, Id) and (self.column is not None or self.rows):
            self.rows += len(raw)
            return np.zeros(len(raw), np.float32)
        try:
            values = self._convert_present(raw)
        except BadCellError as error:
            raise BadCellError(self.rows + error.row, str(error)) from None
        self.rows += len(raw)
        return values

    def _convert_present(self, raw: Raw) -> Values | Floats:
        """Return the values of cells, with NaN where one is missing."""
        absent = gone(raw) if self.may_miss else np.zeros(0, np.bool_)
        if not absent.any():
            return self._convert(raw)
        self.missing = True
        rows = np.flatnonzero(~absent)
        if not len(rows):
            return np.full(len(raw), np.nan, np.float32)
        try:
            present = self._convert(raw[rows])
        except BadCellError as error:
            raise BadCellError(int(rows[error.row]), str(error)) from None
        values = np.full(len(raw), np.nan, present.dtype)
        values[rows] = present
        return values

    def _convert(self, raw: Raw) -> Values | Floats:
        if raw.ndim != 1:
            raise BadCellError(0, f"holds {raw.shape[1:]} values, not one; {LEAVE_OUT}")
        if raw.dtype.kind == "M":
            return self._dated(raw)
        if raw.dtype.kind in "OUT":
            cells: list[Any] = [_isoformat(cell) for cell in raw.tolist()]
            if self._is_dated(cells):
                return self._dated(cells)
            return (
                self._named(cells) if self._is_text(cells) else self._numbers(self._parsed(cells))
            )
        if isinstance(self.kind, Datetime) and not self.known:
            raise BadCellError(0, f"{raw[0]} is a number and no date; {LEAVE_OUT}")
        if raw.dtype.kind not in "fiub":
            raise BadCellError(0, f"{raw.dtype} is neither number nor text; {LEAVE_OUT}")
        far = raw.dtype.kind in "fiu" and float(np.abs(raw).max(initial=0)) > EXACT
        if self.text and (self.column is None or far):
            return self._named(self._spelt(raw))
        if self.grows and self.text and self.column:
            names = dict(zip(codes(self.column).tolist(), self.column.categories, strict=True))
            both = zip(raw.astype(np.float32).tolist(), self._spelt(raw), strict=True)
            return self._named([names.get(value, spelt) for value, spelt in both])
        return self._numbers(raw)

    def _is_dated(self, cells: Sequence[Any]) -> bool:
        if self.kind is not None:
            return isinstance(self.kind, Datetime) and not (
                self.known and all(number(cell) is not None for cell in cells)
            )
        first = self.names is None and self.low > self.high
        return self.dates is not None or (first and are_dates(cells))

    def _dated(self, cells: Any) -> Values | Floats:
        """Return dates as microseconds since 1970 in UTC or, of a known column, in its counts.

        Raises:
            BadCellError: The first cell that is no date; or the column is of another kind.
        """
        read = isinstance(cells, np.ndarray)
        if self.known and not isinstance(self.kind, Datetime):
            raise BadCellError(0, f"{cells[0]} is a date, and the column is not; {self.remedy}")
        if not self.may_miss:
            absent = gone(cells if read else np.array([*cells, None], object)[:-1])
            refuse(absent, cells, f"is missing; fill it in, {self.last}")
        dates = Dates() if self.known else self.dates or Dates()
        try:
            times = dates.take(cells) if read else dates.read(cells)
        except BadCellError as error:
            raise BadCellError(error.row, f"{error}; mend it, {self.last}") from None
        column = self.column
        if column is not None and self.known:
            counted = counts(times, column.resolution, zone_of(column.pattern))
            return self._numbers(counted)
        self.dates = dates
        self.low, self.high = min(self.low, float(times.min())), max(self.high, float(times.max()))
        return times

    def _is_text(self, cells: Sequence[Any]) -> bool:
        if self.kind is not None and not isinstance(self.kind, Id):
            return self.kind.named
        first = cells[0] if self.names is None and self.low > self.high else None
        if isinstance(first, str):
            self.coded = any(isinstance(cell, str) and CODE.fullmatch(cell) for cell in cells)
            if self.coded or number(first) is None:
                self.names = {}
        return self.names is not None

    def _parsed(self, cells: Sequence[Any]) -> NDArray[np.float64]:
        out = np.empty(len(cells))
        for row, cell in enumerate(cells):
            value = number(cell)
            if self.kind is None and isinstance(cell, str) and CODE.fullmatch(cell):
                value = None
            if value is None:
                why = (
                    "is missing; fill it in" if _missing(cell) else fault(str(cell), self._setting)
                )
                kind, names = self.settings.get("kind"), self._setting("category")
                if not (self.kind or _missing(cell) or names in why):
                    why += f", choose {names} if these are names"
                asked = f" (the column is set to {kind})" if kind else ""
                raise BadCellError(row, f"{shown(cell)} {why}, {self.last}{asked}")
            out[row] = value
        return out

    def _spelt(self, raw: Raw) -> list[str]:
        """Return numbers as the names of categories."""
        refuse(~np.isfinite(raw), raw, f"is missing or infinite; {self.remedy}")
        distinct, inverse = np.unique(raw, return_inverse=True)
        names = [
            f"{v:.9g}" if isinstance(v, float) and (v % 1 or abs(v) > LARGEST) else f"{v:.0f}"
            for v in distinct.tolist()
        ]
        spelt: list[str] = np.array(names, dtype=object)[inverse].tolist()
        return spelt

    def _named(self, cells: Sequence[Any]) -> Values:
        """Return the index of each name; of an unknown category, in order of appearance."""
        names = self.names or {}
        if self.unique:
            return np.zeros(len(cells), np.float32)
        spelt = (
            [] if self.kind or self.coded else [cell for cell in cells if number(cell) is not None]
        )
        if spelt and 2 * len(spelt) >= len(cells):
            self._parsed(cells)
        if self.column:
            names = {name: k for k, name in enumerate(self.column.categories)}
        for cell in dict.fromkeys(cells):
            if not isinstance(cell, str) or not cell.strip():
                why = f"{shown(cell)} is missing; fill it in, {self.last}"
            elif self.column and cell not in names and not self.grows:
                listed = ", ".join(self.column.categories[:8]) + (", ..." if len(names) > 8 else "")
                why = f"{shown(cell)} is none of its categories ({listed}); {self.remedy}"
            else:
                names.setdefault(cell, len(names))
                continue
            raise BadCellError(cells.index(cell), why)
        indices = np.array([names[cell] for cell in cells], np.float32)
        if isinstance(self.kind, Id) or (self.kind is None and len(names) > MOST_NAMES):
            self.unique = True
            if self.kind is None and len(names) < self.rows + len(cells):
                raise self._no_category(names, self.rows + len(cells), len(cells) - 1)
        if self.column is None:
            self.names = names
        elif len(names) > len(self.column.categories):
            self.column = replace(self.column, categories=tuple(names))
        return indices

    def _no_category(self, names: Mapping[str, int], rows: int, row: int = 0) -> BadCellError:
        """Return the error of text that is neither category nor id."""
        if advice := misspelt(names):
            return BadCellError(row, f"{shown(next(iter(names)))} is text; {advice}")
        ways = " or ".join(map(self._setting, ("drop", "id", "category")))
        return BadCellError(
            row,
            f"text with {len(names)} different values in {rows} rows is no category; choose {ways}",
        )

    def _setting(self, kind: str) -> str:
        """Return the setting that makes the column one of a kind."""
        return f"columns.{quoted(self.name)}.kind={kind}"

    def _numbers(self, raw: Raw) -> Values | Floats:
        anchor = None if self.column is None else self.column.anchor
        self.wide = self.wide or not np.can_cast(raw.dtype, np.float32)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            exact = raw if anchor is None else raw.astype(np.float64) - anchor
            values = exact.astype(np.float32)
        if not np.isfinite(values).all():
            first = raw[np.argmin(np.isfinite(values))]
            finite = "infinite" if np.isinf(first) else "beyond float32 (3.4e38)"
            why = "missing" if np.isnan(first) else finite
            refuse(~np.isfinite(values), raw, f"is {why}; mend it, {self.last}")
        self._note(raw, values)
        far = self.wide and not self.known and self.may_anchor
        if self.kind is not None and not (far and np.abs(values).max(initial=0) > EXACT):
            try:
                clipped = self.kind.hold(raw, values, self.column)
            except BadCellError as error:
                raise BadCellError(error.row, f"{error}; {self.remedy}") from None
            if not far or not np.array_equal(clipped, values):
                return clipped
        return raw.astype(np.float64) if far else values

    @property
    def may_anchor(self) -> bool:
        """Whether an anchor may be chosen for the column."""
        fields = set() if self.kind is None else self.kind.fields
        stated = self.column is not None and self.column.anchor is not None
        return self.kind is None or ("anchor" in fields and not stated)

    def _note(self, raw: Raw, values: Values) -> None:
        """Keep the extremes, the number of decimals, and the first integer that float32 changes."""
        if not len(raw):
            return
        self.low, self.high = min(self.low, float(raw.min())), max(self.high, float(raw.max()))
        if raw.dtype.kind == "f" and self.decimals is not None:
            self.decimals = decimals_of(raw, self.decimals)
        if self.digits is not None and not self.known:
            self.digits = digits_of(raw, self.digits) if raw.dtype.kind == "f" else None
        if self.decimals == 0 and self.rounded is None and max(-self.low, self.high) > EXACT:
            with np.errstate(invalid="ignore"):
                changed = values.astype(np.float64).astype(raw.dtype) != raw
            changed &= np.abs(values) >= EXACT
            why = "is too large for float32, exact up to 2**24; use a larger unit"
            why += f", or choose {self._setting('id')} if it names the row" if self.named else ""
            try:
                refuse(changed, raw, f"{why}, {self.last}")
            except BadCellError as error:
                self.rounded = BadCellError(self.rows + error.row, str(error))

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages to the user on how it was read."""
        if self.dates is not None and self.dates.finer:
            return (f"column {self.name}: dates are taken to the microsecond",)
        if self.large:
            return (
                f"column {self.name}: whole numbers beyond 2**24 are kept to 7 digits; "
                f"if they name something, choose {self._setting('id')}, or category",
            )
        advice = misspelt(self.names) if self.names and self.kind is None else ""
        if advice and not self.unique:
            first = shown(next(iter(self.names or ())))
            way = f"{advice}, or choose {self._setting('category')}"
            return (f"column {self.name}: {first} and others are taken for names; {way}",)
        return ()

    def finish(self) -> None:
        """Check what only the whole column shows.

        Raises:
            BadCellError: All are whole numbers, and float32 would change one.
        """
        exact = max(-self.low, self.high) <= LARGEST
        taken = self.may_anchor and self.wide and not self.known and (exact or self.kind is None)
        if self.is_large and not taken:
            assert self.rounded
            raise self.rounded

    @property
    def is_large(self) -> bool:
        """Whether all are integers, and float32 would change one, counted from an anchor or not."""
        named = self.text or isinstance(self.kind, Id)
        if self.known and self.column is not None and self.column.anchor is not None:
            return False
        near = self.high - self.low < EXACT and has_anchor(self.low, self.high)
        near = near and self.may_anchor and self.wide
        return self.decimals == 0 and self.rounded is not None and not (named or near)

    def settle(self, values: Values | Floats) -> tuple[Column, Values]:
        """Return the column that was taken, and its values (all, or a sample), float32 [n].

        Raises:
            BadCellError: Text that makes no category.
            UsageError: Settings that don't fit.
        """
        if self.known and self.column is not None:
            column = replace(self.column, missing=True) if self.missing else self.column
            return column, values.astype(np.float32, copy=False)
        if not self.missing:
            return self._settled(values)
        present = ~np.isnan(values)
        if self.low > self.high and not self.names:
            way = f"choose {self._setting('drop')}"
            raise BadCellError(0, f"is missing in every row; {LEAVE_OUT}: {way}")
        out = np.full(len(values), np.nan, np.float32)
        column, out[present] = self._settled(values[present])
        return replace(column, missing=True), out

    def _settled(self, values: Values | Floats) -> tuple[Column, Values]:
        if self.dates is not None:
            return self._datetimes(values, self.dates)
        if isinstance(self.kind, Id):
            counted = self.decimals == 0 and self.low <= self.high
            low = after(self.low, self.high, self.rows) if counted else 1.0
            numbered = self._build(shape(self.names, self.rows) if self.names else {"low": low})
            return self.column or numbered, np.zeros(len(values), np.float32)
        if self.column is None and self.names is not None:
            return self._categories(values.astype(np.float32), self.names)
        if self.is_large and not self.known:
            return self._large(values.astype(np.float64))
        return self._of_numbers(values)

    def _of_numbers(self, values: Values | Floats) -> tuple[Column, Values]:
        """Return the column of numbers, of the last kind that guesses itself, and its values."""
        offsets, anchor = self._anchored(values)
        base = anchor or 0.0
        evidence = Evidence(
            offsets,
            self.low - base,
            self.high - base,
            self.decimals,
            rows=self.rows,
            base=base,
            named=self.named and not self.missing,
            digits=self.digits,
            exact=self.wide,
        )
        more = {} if anchor is None else {"anchor": anchor}
        if anchor is not None and self.decimals:
            more["decimals"] = self.decimals
        if self.column is None and self.kind is None:
            for name, kind in reversed(KINDS.items()):
                guess = kind.guess(evidence)
                if guess is not None:
                    extra = {key: more[key] for key in more if key in kind.fields}
                    guessed = self._build({"kind": name, **extra, **_moved(guess, anchor)})
                    return guessed, np.zeros_like(offsets) if guessed.is_id else offsets
        column = self._completed(evidence, more, anchor)
        if column != self.column:
            offsets = column.rules.hold(offsets, offsets, column)
        return column, offsets

    def _completed(self, evidence: Evidence, more: dict[str, Any], anchor: float | None) -> Column:
        """Return a known column, or one of a chosen kind, with what its rows say of it."""
        column = self.column
        if column is None:
            assert self.kind is not None
            completed = self.kind.complete(self.settings, evidence.low, evidence.high)
            column = self._build({**more, **_moved(completed, anchor)})
        elif anchor is not None:
            column = replace(column, anchor=anchor)
        stated = column.step is not None or column.digits is not None
        if not self.known and column.rules.learns_rounding and not stated:
            rounding = evidence.rounding()
            fields = {key: rounding[key] for key in rounding if key in column.rules.fields}
            column = self._build(column.to_dict() | fields)
        return column

    def _large(self, values: Floats) -> tuple[Column, Values]:
        """Return what integers beyond float32 make: names if they repeat, else their first digits.

        Those of so many digits that float64 can't hold them either name their rows, if all differ.

        Raises:
            BadCellError: Too many of them would fall together.
        """
        distinct, index = np.unique(values, return_inverse=True)
        if max(-self.low, self.high) > LARGEST:
            long = self.low > LARGEST and self.high < 2**64 and self.digits is None
            unique = len(values) >= FEWEST and len(distinct) == len(values)
            if long and unique and self.named and not self.missing:
                return self._build({"kind": "id", "low": 1.0}), np.zeros(len(values), np.float32)
            assert self.rounded
            raise self.rounded
        if self.kind is None and 2 * len(distinct) <= self.rows and len(distinct) <= MOST_NAMES:
            names = tuple(f"{value:.0f}" for value in distinct)
            column = self._build({"kind": "category", "categories": names})
            return column, index.reshape(-1).astype(np.float32)
        anchor = float(self.settings.get("anchor") or 0.0)
        if not anchor and has_anchor(self.low, self.high):
            anchor = float(np.rint((self.low + self.high) / 2))
        offsets = (values - anchor).astype(np.float32)
        if len(np.unique(offsets)) < ALIKE * len(distinct):
            assert self.rounded
            raise self.rounded
        self.large = True
        evidence = Evidence(offsets, self.low - anchor, self.high - anchor, None, rows=self.rows)
        walls = {} if isinstance(self.kind, Real) else evidence.walls()
        fields = {"kind": self.settings.get("kind") or "integer", "anchor": anchor}
        column = self._build({**fields, **_moved(walls, anchor)})
        return column, column.rules.hold(offsets, offsets, column)

    def _anchored(self, values: Values | Floats) -> tuple[Values, float | None]:
        """Return cells as offsets from an anchor, and the anchor, if they have one."""
        if self.column is not None and self.column.anchor is not None:
            return values.astype(np.float32), self.column.anchor
        anchor = self.settings.get("anchor")
        if anchor is None and self.wide and self.may_anchor:
            exact = values.astype(np.float64)
            anchor = anchor_of(exact, self.low, self.high, self.decimals)
        if anchor is not None:
            values = values - np.float64(anchor)
        return values.astype(np.float32), anchor

    def _datetimes(self, values: Values | Floats, dates: Dates) -> tuple[Column, Values]:
        """Return the column of microseconds since 1970, and its counts."""
        if self.kind is not None and not isinstance(self.kind, Datetime):
            raise BadCellError(0, f"holds dates, and is to be {self.settings['kind']}; {LEAVE_OUT}")
        fields = dates.fields()
        fields |= {key: self.settings[key] for key in fields if self.settings.get(key)}
        zone = zone_of(fields["pattern"])
        resolution = fields["resolution"]
        counted = counts(values.astype(np.float64), resolution, zone)
        low, high = counts(np.array([self.low, self.high]), resolution, zone).tolist()
        anchor = self.settings.get("anchor")
        if anchor is None:
            anchor = float(np.rint((low + high) / 2))
        offsets = np.rint(counted - anchor).astype(np.float32)
        evidence = Evidence(offsets, low - anchor, high - anchor, 0, base=anchor)
        walls = evidence.grid() | evidence.walls()
        seen = {"low": low, "high": high}
        walls |= {key: seen[key] for key in seen if walls.get(key) is not None}
        return self._build({"kind": "datetime", "anchor": anchor, **fields, **walls}), offsets

    def _categories(self, values: Values, names: Mapping[str, int]) -> tuple[Column, Values]:
        """Return the category column of the names that came, sorted as numbers if they all are."""
        if self.kind is None and 2 * len(names) > self.rows:
            few = self.missing or len(names) < FEWEST
            if few or misspelt(names) or (len(names) < self.rows and not self.unique):
                raise self._no_category(names, self.rows)
            column = self._build({"kind": "id", **shape(names, self.rows)})
            return column, np.zeros(len(values), np.float32)
        values_of = {name: number(name) for name in names}
        numeric = None not in values_of.values()
        ordered = sorted(names, key=lambda name: (values_of[name] if numeric else 0.0, name))
        index = np.empty(len(names), np.float32)
        index[[names[name] for name in ordered]] = np.arange(len(names))
        column = self._build({"kind": "category", "categories": tuple(ordered)})
        return column, index[values.astype(np.intp)]


def gone(raw: Raw) -> NDArray[np.bool_]:
    """Return whether each cell is missing, [n]."""
    if raw.dtype.kind == "M":
        return np.isnat(raw)
    if raw.dtype.kind in "OUT":
        return np.array([_missing(cell) or cell != cell for cell in raw.tolist()], np.bool_)
    return (
        np.isnan(raw) if raw.dtype.kind == "f" and raw.ndim == 1 else np.zeros(len(raw), np.bool_)
    )


def _moved(fields: Mapping[str, Any], anchor: float | None) -> dict[str, Any]:
    """Return fields whose walls were offsets from an anchor."""
    walls = {
        key: fields[key] + (anchor or 0.0) for key in ("low", "high") if fields.get(key) is not None
    }
    return {**fields, **walls}


def _isoformat(cell: Any) -> Any:
    """Return a cell of Python's own dates as text."""
    return cell.isoformat() if hasattr(cell, "isoformat") else cell


def _missing(cell: object) -> bool:
    if cell is None:
        return True
    mark = str(cell).strip()
    return mark == "None" or mark.lower() in MISSING  # "none" is a word, and a name
