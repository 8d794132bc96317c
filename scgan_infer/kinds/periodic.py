"""Numbers on a circle, [low, low + period): angles, hours; never guessed.

Rounded ones are rounded along the circle: what rounds to its end is at its beginning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scgan_infer.kinds.base import Floats, Form, Kind, Parameters, Raw, Values

if TYPE_CHECKING:
    from scgan_infer.columns import Column

BINS = 180
SEAM = 0.01  # steps before the end of the circle, from which on a value is at its beginning


class Turn(Form):
    """f(x) = (x - cut) mod period, cut where data is emptiest. ONNX lacks Atan2, so no angles."""

    name = "turn"

    def fit(self, column: Column, values: Values) -> float:
        """Return the cut: the middle of the widest run of lowest smoothed counts."""
        period = column.period or 1.0
        counts, edges = np.histogram(np.mod(values, period), BINS, (0.0, period))
        smooth = np.sum([np.roll(counts, k) for k in range(-2, 3)], axis=0)
        empty = np.flatnonzero(smooth == smooth.min())
        runs = np.split(empty, np.flatnonzero(np.diff(empty) > 1) + 1)
        if len(runs) > 1 and runs[0][0] == 0 and runs[-1][-1] == BINS - 1:
            runs[0] = np.concatenate([runs.pop() - BINS, runs[0]])
        widest = max(runs, key=len)
        return float(edges[1]) * (float(widest[0] + widest[-1] + 1) / 2)

    def parameters(self, columns: Sequence[Column], fitted: Values) -> Parameters:
        """Return cut, low, period, and the last number before the period's end."""
        start = np.array([column.low or 0.0 for column in columns])
        low = start.astype(np.float32)
        low = np.where(low < start, np.nextafter(low, np.float32(np.inf)), low)
        period = np.array([column.period for column in columns], np.float32)
        end = low.astype(np.float64) + period
        last = end.astype(np.float32)
        last = np.where(last < end, last, np.nextafter(last, np.float32(-np.inf)))
        return {"cut": fitted, "low": low, "period": period, "last": last}

    def coordinate(self, x: Raw, p: Parameters) -> Raw:
        turn = x - p["cut"]
        return np.asarray(turn - p["period"] * np.floor(turn / p["period"]))

    def inverse(self, y: Raw, p: Parameters) -> Raw:
        turn = y + p["cut"] - p["low"]
        turn = turn - p["period"] * np.floor(turn / p["period"])
        return np.minimum(p["low"] + np.where(turn < p["period"], turn, 0), p["last"])

    def log_slope(self, x: Raw, p: Parameters) -> Raw:
        inside = (x >= p["low"]) & (x <= p["last"])
        return np.where(inside, 0, -np.inf).astype(x.dtype)


class Periodic(Kind):
    """f(x) = (x - cut) mod period."""

    fields = frozenset({"period", "low", "decimals", "grid", "origin"})
    marks = ("period",)
    forms = (Turn(),)
    learns_rounding = True

    def check(self, column: Column) -> str:
        if column.period is None:
            return f"a periodic column needs its period, e.g. {column.name}=360"
        if column.period <= 0:
            return f"its period must be above 0, not {column.period}"
        least, greatest = self.ends(column)
        step = self.step(column)
        return "" if least < greatest else f"steps of {step:g} are too long for its period"

    def ends(self, column: Column) -> tuple[float, float]:
        """Return the first and the last value; with steps, the last multiple before the end."""
        low, end = column.low or 0.0, (column.low or 0.0) + (column.period or 1.0)
        if self.step(column) is None:
            return low, end
        p, q, r = column.lattice
        counts = [math.ceil(round((bound * q - r) / p, 6)) for bound in (low, end)]
        return (counts[0] * p + r) / q, ((counts[1] - 1) * p + r) / q

    def seam(self, column: Column) -> float:
        """Return from which value on a number is at the beginning of the circle."""
        return (column.low or 0.0) + (column.period or 1.0) - SEAM * (self.step(column) or 0.0)

    def waits(self, settings: Mapping[str, Any]) -> bool:
        return settings.get("period") is not None and settings.get("low") is None

    def complete(self, settings: Mapping[str, Any], low: float, high: float) -> dict[str, Any]:
        """Begin at 0 or half a period below, whichever holds all values."""
        period = float(settings["period"])
        near = 1e-6 * period
        inside = -period / 2 - near <= low < -near and high <= period / 2 + near
        return {"low": -period / 2 if inside else 0.0}

    def hold(self, raw: Raw, values: Values, column: Column | None) -> Values:
        """Return numbers in [low, low + period), those outside moved by whole periods."""
        if column is None:
            return values
        low, period = column.low or 0.0, column.period or 1.0
        exact, end = raw.astype(np.float64), self.seam(column)
        outside = (exact < end - period) | (exact >= end)
        exact = np.where(outside, low + np.mod(exact - low, period), exact)
        if column.step is not None:
            return np.clip(exact, *self.ends(column)).astype(np.float32)
        first, last = np.float32(low), np.float32(low + period)
        first = np.nextafter(first, np.float32(np.inf)) if float(first) < low else first
        last = np.nextafter(last, np.float32(-np.inf)) if float(last) >= low + period else last
        return np.clip(exact.astype(np.float32), first, last)

    def features(self, values: Floats, column: Column) -> Floats:
        """Return cosine and sine, so that the seam does not matter."""
        angle = 2 * np.pi * (values - (column.low or 0.0)) / (column.period or 1.0)
        return np.column_stack([np.cos(angle), np.sin(angle)])

    def transport(self, a: Floats, b: Floats, centre: Floats, spread: float) -> float:
        """See `Kind.transport`; along the circle."""
        turns = [np.arctan2(*(side * spread + centre).T[::-1]) / (2 * np.pi) for side in (a, b)]
        return 2 * np.pi * circle_transport(turns[0], turns[1]) / spread

    def difference(self, a: Floats, b: Floats, column: Column) -> Floats:
        """See `Kind.difference`; at most half a period."""
        period = column.period or 1.0
        return np.asarray((a - b + period / 2) % period - period / 2)

    def edges(self, column: Column, values: Floats, bins: int) -> Floats:
        """See `Kind.edges`; the whole period."""
        low = column.low or 0.0
        return np.linspace(low, low + (column.period or 1.0), bins + 1)

    def form(self, column: Column) -> Form:
        return self.forms[0]


def circle_transport(a: Floats, b: Floats) -> float:
    """Wasserstein-1 on a circle of length 1: the integral of |F - G - c|, c the median of F - G."""
    points = np.concatenate([a, b]) % 1.0
    order = np.argsort(points)
    lead = np.cumsum(np.where(order < len(a), 1 / len(a), -1 / len(b)))
    length = np.diff(points[order], append=points[order[0]] + 1.0)
    rank = np.argsort(lead)
    middle = lead[rank][np.searchsorted(np.cumsum(length[rank]), 0.5)]
    return float(np.sum(np.abs(lead - middle) * length))
