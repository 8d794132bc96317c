"""Where data enters: raw cells become the float32 values of a column, or the first cell that can't is named.

One `Intake` per column takes its raw chunks in order. With a known column it holds the cells to that column's
domain; without, it notes what the cells are, and at the end says which column they make.

| raw cells | known column      | unknown                                                           |
| --------- | ----------------- | ----------------------------------------------------------------- |
| text      | category: by name | category, if few distinct and repeated; else refused              |
| numbers   | held to its kind  | integer, bounded or real (`scgan_infer.kinds`)                    |

Refused always: missing and infinite cells, numbers beyond float32, text among numbers, and a column of whole
numbers of which float32 (exact up to 2**24) would change one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column
from scgan_infer.errors import UsageError
from scgan_infer.kinds import decimals_of, guess, is_rounded
from scgan_infer.rows.codecs.base import Raw
from scgan_infer.rows.codecs.text import number

MISSING = {"", "na", "n/a", "nan", "null", "none", "<na>"}
EXACT = 2**24
MOST_CATEGORIES = 256


class BadCellError(Exception):
    """A cell that can't be taken; the caller knows the file and says so."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


class Intake:
    """One column on its way in.

    Args:
        name: The column's name.
        column: The column that it has to be, else None.
        settings: Fields that the user set, where `column` is None.
        unit: Its unit in the file.
    """

    def __init__(
        self,
        name: str,
        column: Column | None,
        settings: Mapping[str, Any] | None = None,
        unit: str = "",
    ) -> None:
        self.name, self.column, self.unit, self.known = name, column, unit, column is not None
        self.remedy = "remove the row" + (
            "" if column else ", or leave the column out with --columns"
        )
        self.settings = dict(settings or {})
        known = Column.__dataclass_fields__
        for key in self.settings:
            if key not in known:
                raise UsageError(
                    f"column {name!r}: there is no setting {key!r}, but {', '.join(known)}"
                )
        self.kind: str | None = column.kind if column else self._asked()
        self.rows = 0
        self.low, self.high = np.inf, -np.inf
        self.decimals: int | None = 0
        self.rounded: tuple[int, str] | None = None
        self.codes: dict[str, int] | None = None
        needs = {"periodic": ("low",), "bounded": ("low", "high"), "category": ("categories",)}
        given = [
            self.settings.get(field) not in (None, (), [])
            for field in needs.get(self.kind or "", ())
        ]
        if column is None and self.kind is not None and (any(given) or not given):
            self.column = self._build()

    def _asked(self) -> str | None:
        kind: str | None = self.settings.get("kind")
        implied = {
            "categories": "category",
            "period": "periodic",
            "low": "bounded",
            "high": "bounded",
        }
        for field, meant in implied.items():
            kind = meant if kind is None and self.settings.get(field) is not None else kind
        if kind == "periodic" and not self.settings.get("period"):
            raise UsageError(
                f"column {self.name!r}: a periodic column needs its period, e.g. --periodic {self.name}=360"
            )
        return kind

    def _build(self, found: Mapping[str, Any] | None = None) -> Column:
        fields = {"unit": self.unit, **(found or {}), **self.settings, "name": self.name}
        if self.kind:
            fields["kind"] = self.kind
        try:
            return Column.from_dict(fields)
        except ValueError as error:
            raise UsageError(str(error)) from error

    @property
    def text(self) -> bool:
        """Whether number-like cells are names all the same."""
        return self.kind == "category"

    def take(self, raw: Raw) -> NDArray[np.float32]:
        """Return the next cells' values, float32 [k]; of a category still unknown, numbered as they came.

        Raises:
            BadCellError: The first cell at fault; rows count from 0 over all chunks.
        """
        if raw.ndim != 1:
            raise BadCellError(
                self.rows, f"holds {raw.shape[1:]} values, not one; leave it out with --columns"
            )
        if raw.dtype.kind in "OUT":
            cells: list[Any] = raw.tolist()
            values = (
                self._named(cells) if self._is_text(cells) else self._numbers(self._parsed(cells))
            )
        elif raw.dtype.kind in "fiub":
            values = self._numbers(raw) if self.kind != "category" else self._coded(raw)
        else:
            raise BadCellError(
                self.rows, f"{raw.dtype} is neither number nor text; leave it out with --columns"
            )
        self.rows += len(raw)
        return values

    def _bad(self, index: int | np.intp, why: str) -> BadCellError:
        return BadCellError(self.rows + int(index), why)

    def _is_text(self, cells: Sequence[Any]) -> bool:
        if self.kind is not None:
            return self.kind == "category"
        if self.codes is None and self.rows == 0 and cells:
            first = str(cells[0])
            if number(first) is None and first.strip().lower() not in MISSING:
                self.codes = {}
        return self.codes is not None

    def _parsed(self, cells: Sequence[Any]) -> NDArray[np.float64]:
        out = np.empty(len(cells))
        for index, cell in enumerate(cells):
            value = number(cell) if isinstance(cell, str) else None
            if value is None:
                if cell is None or str(cell).strip().lower() in MISSING:
                    raise self._bad(index, f"{_shown(cell)} is missing; fill it in, {self.remedy}")
                raise self._bad(
                    index, f"{_shown(cell)} is text where a number belongs; mend it, {self.remedy}"
                )
            out[index] = value
        return out

    def _named(self, cells: Sequence[Any]) -> NDArray[np.float32]:
        known = (
            {name: k for k, name in enumerate(self.column.categories)}
            if self.column
            else self.codes
        )
        known = {} if known is None else known
        for cell in dict.fromkeys(cells):
            if not isinstance(cell, str) or not cell.strip():
                raise self._bad(
                    cells.index(cell), f"{_shown(cell)} is missing; fill it in, {self.remedy}"
                )
            if self.column and cell not in known:
                listed = ", ".join(self.column.categories[:8]) + (", ..." if len(known) > 8 else "")
                raise self._bad(
                    cells.index(cell),
                    f"{_shown(cell)} is none of its categories ({listed}); {self.remedy}",
                )
            if not self.column and self.kind is None and number(cell) is not None:
                if 2 * sum(number(other) is not None for other in cells) >= len(cells):
                    self._parsed(cells)
                raise self._bad(
                    cells.index(cell),
                    f"{_shown(cell)} is a number in a column of text; mend it, or say --category {self.name}",
                )
            known.setdefault(cell, len(known))
        if self.column is None:
            if self.kind is None and len(known) > MOST_CATEGORIES:
                raise self._bad(
                    len(cells) - 1,
                    f"{len(known)} different texts up to here are too many for categories; "
                    f"leave it out with --columns, or say --category {self.name}",
                )
            self.codes = known
        return np.array([known[cell] for cell in cells], np.float32)

    def _coded(self, raw: Raw) -> NDArray[np.float32]:
        """Take numbers for categories: as codes of known ones, else by their spelling."""
        self._refuse(~np.isfinite(raw), raw, "is missing or infinite")
        if self.column is None:
            distinct, inverse = np.unique(raw, return_inverse=True)
            spelt = [
                f"{value:.9g}" if isinstance(value, float) else str(value)
                for value in distinct.tolist()
            ]
            names = np.array(spelt, dtype=object)
            return self._named(names[inverse].tolist())
        codes = self.column.codes
        order = np.argsort(codes)
        values = raw.astype(np.float32)
        index = order[np.clip(np.searchsorted(codes, values, sorter=order), 0, len(codes) - 1)]
        listed = f"{codes.min():g} to {codes.max():g}"
        self._refuse(
            codes[index] != values,
            raw,
            f"stands for none of its {len(codes)} categories ({listed})",
        )
        return index.astype(np.float32)

    def _refuse(self, bad: NDArray[np.bool_], raw: Raw, why: str) -> None:
        if bad.any():
            index = int(np.argmax(bad))
            raise self._bad(index, f"{_shown(raw[index])} {why}; {self.remedy}")

    def _numbers(self, raw: Raw) -> NDArray[np.float32]:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            values = raw.astype(np.float32)
        finite = np.isfinite(values)
        if not finite.all():
            index = int(np.argmax(~finite))
            faults = {
                np.isnan: "missing",
                np.isinf: "infinite",
                np.isfinite: "beyond float32 (3.4e38)",
            }
            why = next(fault for holds, fault in faults.items() if holds(raw[index]))
            raise self._bad(index, f"{_shown(raw[index])} is {why}; mend it, {self.remedy}")
        self._note(raw, values)
        if self.kind == "log":
            self._refuse(values <= 0, raw, "is not positive, as a log column must be")
        if self.kind == "integer":
            fault = (np.rint(values) != values) | (np.abs(values) > EXACT)
            self._refuse(
                fault, raw, "is not a whole number up to 2**24, as an integer column needs"
            )
        if self.column and self.kind in ("bounded", "integer"):
            return self._walled(raw, values, self.column)
        if self.column and self.kind == "periodic":
            return wrapped(raw, self.column)
        return values

    def _walled(self, raw: Raw, values: NDArray[np.float32], column: Column) -> NDArray[np.float32]:
        low = np.float32(-np.inf if column.low is None else column.low)
        high = np.float32(np.inf if column.high is None else column.high)
        outside = np.maximum(low - values, values - high)
        walls = f"[{'' if column.low is None else column.low}, {'' if column.high is None else column.high}]"
        self._refuse(outside > column.slack, raw, f"is outside its walls {walls}")
        return np.clip(values, low, high)

    def _note(self, raw: Raw, values: NDArray[np.float32]) -> None:
        """Keep the extremes, how many decimals there are, and the first whole number that float32 changes."""
        if not len(raw):
            return
        self.low, self.high = min(self.low, float(raw.min())), max(self.high, float(raw.max()))
        if raw.dtype.kind == "f" and self.decimals is not None:
            self.decimals = decimals_of(raw, self.decimals)
        if self.decimals == 0 and self.rounded is None and max(-self.low, self.high) > EXACT:
            with np.errstate(invalid="ignore"):
                changed = (values.astype(np.float64).astype(raw.dtype) != raw) & (
                    np.abs(values) >= EXACT
                )
            if changed.any():
                index = int(np.argmax(changed))
                self.rounded = self.rows + index, _shown(raw[index])

    def finish(self) -> None:
        """Judge what only the whole column shows.

        Raises:
            BadCellError: All are whole numbers, and float32 would change one.
        """
        if self.decimals == 0 and self.rounded and self.kind != "category":
            row, shown = self.rounded
            raise BadCellError(
                row,
                f"{shown} is too large for float32, exact up to 2**24; use a larger unit, {self.remedy}",
            )

    def settle(self, values: NDArray[np.float32]) -> tuple[Column, NDArray[np.float32]]:
        """Return the column that was taken, and its values (all, or a sample), float32 [n].

        Raises:
            BadCellError: Text that makes no category.
            UsageError: Settings that don't fit.
        """
        if self.column is not None:
            return self._with_decimals(self.column, values), values
        if self.codes is not None:
            return self._settled_names(values, self.codes)
        if self.kind == "periodic":
            column = self._build({"low": self._start(float(self.settings["period"]))})
            return column, wrapped(values, column)
        if self.kind == "bounded":
            walls = {"low": float(np.float32(self.low)), "high": float(np.float32(self.high))}
            return self._with_decimals(self._build(walls), values), values
        found = guess(values, self.low, self.high, self.decimals)
        self.kind = found["kind"]
        return self._build(found), values

    def _with_decimals(self, column: Column, values: NDArray[np.float32]) -> Column:
        """Return a logarithmic or walled column that the user asked for, with the decimals that its numbers have."""
        asked = not self.known and column.kind in ("log", "bounded") and column.decimals is None
        if asked and self.decimals is not None and is_rounded(values, self.decimals):
            return replace(column, decimals=self.decimals)
        return column

    def _start(self, period: float) -> float:
        """Return where a periodic column begins: at 0 or half a period below, whichever holds all values."""
        near = 1e-6 * period
        inside = (
            -period / 2 - near <= self.low and self.high <= period / 2 + near and self.low < -near
        )
        return -period / 2 if inside else 0.0

    def _settled_names(
        self, values: NDArray[np.float32], codes: dict[str, int]
    ) -> tuple[Column, NDArray[np.float32]]:
        if self.kind is None and 2 * len(codes) > self.rows:
            raise BadCellError(
                0,
                f"text with {len(codes)} different values in {self.rows} rows makes no categories; "
                f"leave it out with --columns, or say --category {self.name}",
            )
        numeric = all(number(name) is not None for name in codes)
        names = sorted(
            codes, key=lambda name: (number(name) or 0.0, name) if numeric else (0.0, name)
        )
        place = np.empty(len(codes), np.float32)
        place[[codes[name] for name in names]] = np.arange(len(names))
        self.kind = "category"
        return self._build({"categories": tuple(names)}), place[values.astype(np.intp)]


def wrapped(raw: Raw, column: Column) -> NDArray[np.float32]:
    """Return numbers in [low, low + period), those outside moved by whole periods."""
    low, period = column.low or 0.0, column.period or 1.0
    exact = raw.astype(np.float64)
    outside = (exact < low) | (exact >= low + period)
    exact = np.where(outside, low + np.mod(exact - low, period), exact)
    first, last = np.float32(low), np.float32(low + period)
    first = np.nextafter(first, np.float32(np.inf)) if float(first) < low else first
    last = np.nextafter(last, np.float32(-np.inf)) if float(last) >= low + period else last
    return np.clip(exact.astype(np.float32), first, last)


def _shown(cell: object) -> str:
    """Show a cell, cut short."""
    text = repr(cell) if isinstance(cell, str) else "an empty cell" if cell is None else str(cell)
    text = text.removesuffix(".0")
    return text if len(text) <= 60 else text[:57] + "..."
