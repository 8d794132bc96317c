"""Dates and times: whole numbers of a unit since 1970, from an anchor, written as they were read.

A value is the count of its resolution (days, minutes, ...) since 1970-01-01T00:00 on the clock of
its column, less the column's anchor. The pattern says how cells are spelt: `YYYY-MM-DD
hh:mm:ss.fff+02:00`, of which the parts from `-DD` on may be missing from the right, and `/` stand
for `-`, and `T` for the blank. Float32 is exact for 2**24 counts on either side of the anchor:
seconds over a year or more come out in steps of a few seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.kinds.base import BadCellError, Floats, Raw, Values, shown
from scgan_infer.kinds.integer import Integer

if TYPE_CHECKING:
    from scgan_infer.columns import Column

SPELT = re.compile(
    r"(\d{4}([-/])\d\d)(?:\2(\d\d)(?:([T ])(\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?"
    r"(Z|[+-]\d\d:?\d\d)?)?)?"
)
PATTERN = re.compile(
    r"YYYY([-/])MM(?:\1DD(?:([T ])hh:mm(?::ss(?:\.f{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?)?"
)
MICROSECONDS = {
    "D": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1000,
    "us": 1,
}
FARTHEST = 5 * 10**16  # microseconds from 1970, some 1,600 years
RESOLUTIONS = ("M", *MICROSECONDS)


class Datetime(Integer):
    """See the module; whole numbers, walls included."""

    fields = Integer.fields | {"anchor", "resolution", "pattern"}
    storage = "text"

    def check(self, column: Column) -> str:
        if column.resolution not in RESOLUTIONS:
            return f"resolution is one of {', '.join(RESOLUTIONS)}, not {column.resolution!r}"
        if not isinstance(column.pattern, str) or not PATTERN.fullmatch(column.pattern):
            return f"pattern {column.pattern!r} is not like YYYY-MM-DDThh:mm:ss.fffZ"
        return super().check(column)

    def guess(self, evidence: object) -> None:
        """See `Kind.guess`; dates come as text or as a type of their own, which the intake sees."""

    def waits(self, settings: object) -> bool:
        return True

    def hold(self, raw: Raw, values: Values, column: Column | None) -> Values:
        return super().hold(raw, np.rint(values), column)

    def moments(self, values: Values, column: Column) -> NDArray[np.datetime64]:
        """Return datetime64 [n] on the column's clock, in months, days or microseconds."""
        exact = np.rint(values.astype(np.float64) + (column.anchor or 0.0))
        unit = (
            30 * MICROSECONDS["D"] if column.resolution == "M" else MICROSECONDS[column.resolution]
        )
        counts = np.clip(exact, -FARTHEST // unit, FARTHEST // unit).astype(np.int64)
        if column.resolution in "MD":
            return counts.astype(f"datetime64[{column.resolution}]")
        return (counts * unit).astype("datetime64[us]")

    def instants(self, values: Values, column: Column) -> NDArray[np.datetime64]:
        """Return datetime64 in days or microseconds, UTC if a column has a zone; NaT if missing."""
        missing = np.isnan(values)
        moments = self.moments(np.where(missing, np.float32(0), values), column)
        unit = "us" if "hh" in column.pattern else "D"
        moments = moments.astype(f"datetime64[{unit}]")
        ahead = minutes_of(zone_of(column.pattern))
        if ahead:
            moments -= np.timedelta64(ahead, "m")
        moments[missing] = np.datetime64("NaT")
        return moments

    def numbers(self, values: Raw, column: Column) -> Raw:
        return np.asarray(values.astype(np.float64) + (column.anchor or 0.0))

    def spell(self, value: float, column: Column) -> str:
        return str(self.cells(np.array([value], np.float32), column)[0])

    def cells(self, values: Raw, column: Column) -> Raw:
        pattern = column.pattern
        marks = PATTERN.fullmatch(pattern)
        assert marks is not None
        dash, blank, zone = marks.groups()
        digits = pattern.count("f")
        units = {"f": "us", "ss": "s", "hh": "m", "DD": "D", "MM": "M"}
        unit = next(unit for part, unit in units.items() if part in pattern)
        texts = self.moments(values, column).astype(f"datetime64[{unit}]").astype(str).tolist()
        if dash == "/":
            texts = [text.replace("-", "/") for text in texts]
        if digits:
            texts = [f"{text[:20]}{text[20:]:0<{digits}.{digits}}" for text in texts]
        if blank == " ":
            texts = [text.replace("T", " ") for text in texts]
        return np.array([*(text + (zone or "") for text in texts), None], object)[:-1]

    def longest(self, column: Column) -> int:
        return len(column.pattern)

    def edges(self, column: Column, values: Floats, bins: int) -> Floats:
        return super(Integer, self).edges(column, values, bins)


@dataclass
class Dates:
    """The spelling of a column's dates in the rows read so far.

    Attributes:
        parts: 2 for months, 3 for days, 4 for minutes, 5 for seconds.
        digits: Of a fraction of a second; -1 where the type doesn't define it.
        dash: Between the parts of a date.
        blank: Between date and time.
        zones: As they are spelt.
        grain: Index in `RESOLUTIONS` of the coarsest that holds all.
        finer: Whether something finer than a microsecond was cut off.
    """

    parts: int = 2
    digits: int = -1
    dash: str = "-"
    blank: str = "T"
    zones: set[str] = field(default_factory=set)
    grain: int = 0
    finer: bool = False

    def read(self, cells: Sequence[Any]) -> Floats:
        """Return microseconds since 1970 [n], in UTC, and keep how the cells were spelt.

        Raises:
            BadCellError: The first that is no date.
        """
        clock, zones = [], []
        for row, cell in enumerate(cells):
            match = SPELT.fullmatch(cell) if isinstance(cell, str) else None
            if match is None:
                raise BadCellError(
                    row, f"{shown(cell)} is no date like 2024-05-31 or 2024-05-31T18:00"
                )
            month, dash, day, blank, minute, second, fraction, zone = match.groups()
            self.parts = max(self.parts, 2 + sum(map(bool, (day, minute, second))))
            self.digits = max(self.digits, len(fraction or ""))
            self.dash, self.blank = dash, blank or self.blank
            self.finer = self.finer or bool(fraction and fraction[6:].strip("0"))
            time = f"T{minute}:{second or '00'}.{(fraction or '0')[:6]}" if minute else ""
            clock.append(f"{month.replace('/', '-')}-{day or '01'}{time}")
            zones.append(zone or "")
        try:
            local = np.array(clock, "datetime64[us]").astype(np.int64)
        except ValueError:
            row = next(row for row, text in enumerate(clock) if not _is_date(text))
            raise BadCellError(row, f"{shown(cells[row])} is no date of the calendar") from None
        self._note(local)
        self.zones.update(zones)
        shift = {zone: minutes_of(zone) * MICROSECONDS["m"] for zone in set(zones)}
        return (local - np.array([shift[zone] for zone in zones], np.int64)).astype(np.float64)

    def take(self, raw: NDArray[np.datetime64]) -> Floats:
        """Return microseconds since 1970 [n] of values that are dates by their type."""
        exact = raw.astype("datetime64[us]")
        unit = np.datetime_data(raw.dtype)[0]
        self.parts = max(self.parts, {"Y": 2, "M": 2, "W": 3, "D": 3}.get(unit, 5))
        self.finer = self.finer or bool((exact.astype(raw.dtype) != raw).any())
        self.zones.add("")
        self._note(exact.astype(np.int64))
        return exact.astype(np.int64).astype(np.float64)

    def _note(self, local: NDArray[np.int64]) -> None:
        if self.parts > 2:
            self.grain = max(self.grain, 1)
        while RESOLUTIONS[self.grain] not in ("M", "us"):
            if not (local % MICROSECONDS[RESOLUTIONS[self.grain]]).any():
                break
            self.grain += 1

    def fields(self) -> dict[str, str]:
        """Return resolution and pattern of the column."""
        resolution = RESOLUTIONS[self.grain]
        if len(self.zones) > 1 and self.grain < RESOLUTIONS.index("m"):
            resolution = "m"
        digits = {"ms": 3, "us": 6}.get(resolution, 0) if self.digits < 0 else self.digits
        pieces = [f"YYYY{self.dash}MM", f"{self.dash}DD", f"{self.blank}hh:mm", ":ss"]
        pattern = "".join(pieces[: self.parts - 1])
        if self.parts > 3:
            pattern += ("." + "f" * digits if digits else "") + self.zone
        return {"resolution": resolution, "pattern": pattern}

    @property
    def zone(self) -> str:
        """The zone of the column's cells; UTC where they differ."""
        return next(iter(self.zones)) if len(self.zones) == 1 else "Z"


def counts(microseconds: Floats, resolution: str, zone: str) -> Floats:
    """Return how many of a resolution, on the clock of a zone, have passed since 1970 [n]."""
    local = microseconds + minutes_of(zone) * MICROSECONDS["m"]
    if resolution == "M":
        moments = local.astype(np.int64).astype("datetime64[us]")
        return moments.astype("datetime64[M]").astype(np.int64).astype(np.float64)
    return np.asarray(local / MICROSECONDS[resolution])


def zone_of(pattern: str) -> str:
    """Return the zone that a pattern ends in, "" without one."""
    match = PATTERN.fullmatch(pattern)
    return (match and match[3]) or ""


def minutes_of(zone: str) -> int:
    """Return the minutes that a zone is ahead of UTC.

    >>> minutes_of("Z"), minutes_of("+02:00"), minutes_of("-0330")
    (0, 120, -210)
    """
    if zone in ("", "Z"):
        return 0
    return (1 if zone[0] == "+" else -1) * (60 * int(zone[1:3]) + int(zone[-2:]))


def unit_of(column: Column) -> float:
    """Return the seconds in one count of a column of dates; 1 for numbers and months."""
    return MICROSECONDS.get(column.resolution, 10**6) / 10**6


def clock_of(column: Column) -> tuple[bool, str, bool]:
    """Return a key that is equal for columns whose values are comparable."""
    dates = bool(column.resolution)
    return dates, zone_of(column.pattern) if dates else "", column.resolution == "M"


def are_dates(cells: Sequence[Any]) -> bool:
    """Return whether all cells are spelt as dates."""
    return all(isinstance(cell, str) and SPELT.fullmatch(cell) for cell in cells)


def _is_date(text: str) -> bool:
    try:
        np.datetime64(text)
    except ValueError:
        return False
    return True
