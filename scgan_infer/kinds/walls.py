"""Numbers between walls, of which one may be missing: what bounded and integer columns share.

    two walls   f(x) = logit(margin + (1 - 2 margin) (x - low) / (high - low))
    one wall    f(x) = log(exp t - 1), t = margin + |x - wall| / spread     linear far from the wall

Values that are steps apart have walls half a step farther out, so that the first and last have as
much room as any. A row that reaches over a wall by at most `slack` is taken as on it: guessed walls
have some, walls that were set have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgan_infer.kinds.base import LINE, Form, Kind, Parameters, Raw, Values, refuse
from scgan_infer.kinds.bend import BEND

if TYPE_CHECKING:
    from scgan_infer.columns import Column

MARGIN = 1e-4


def _walls(column: Column) -> tuple[float, float]:
    """Return low and high as coordinates have them; nan for none."""
    room = (column.step or 0.0) / 2
    low, high = column.walls
    return np.nan if low is None else low - room, np.nan if high is None else high + room


def _ends(column: Column) -> tuple[np.float32, np.float32]:
    """Return low and high; infinite for none."""
    low, high = column.walls
    return np.float32(-np.inf if low is None else low), np.float32(np.inf if high is None else high)


class Between(Form):
    """Two walls."""

    name = "between"

    def parameters(self, columns: Sequence[Column], fitted: Values) -> Parameters:
        """Return low, high and their distance."""
        low, high = np.array([_walls(column) for column in columns], np.float32).T
        return {"low": low, "high": high, "range": high - low}

    def coordinate(self, x: Raw, p: Parameters) -> Raw:
        share = MARGIN + (1 - 2 * MARGIN) * np.clip((x - p["low"]) / p["range"], 0, 1)
        return np.asarray(np.log(share / (1 - share)))

    def inverse(self, y: Raw, p: Parameters) -> Raw:
        sigmoid = 1 / (1 + np.exp(-np.clip(y, -80, 80)))
        share = np.clip((sigmoid - MARGIN) / (1 - 2 * MARGIN), 0, 1)
        return np.asarray(np.minimum(p["low"] + p["range"] * share, p["high"]))

    def log_slope(self, x: Raw, p: Parameters) -> Raw:
        share = MARGIN + (1 - 2 * MARGIN) * np.clip((x - p["low"]) / p["range"], 0, 1)
        slope = (1 - 2 * MARGIN) / (p["range"] * share * (1 - share))
        inside = (x >= p["low"]) & (x <= p["high"])
        return np.where(inside, np.log(slope), -np.inf).astype(x.dtype)


class Above(Form):
    """One wall, below the values."""

    name = "above"
    sign = 1.0

    def _wall(self, column: Column) -> np.float32:
        low, high = _walls(column)
        return np.float32(low if self.sign > 0 else high)

    def fit(self, column: Column, values: Values) -> float:
        """Return the spread: the median distance from the wall."""
        return max(float(np.median(np.abs(values - self._wall(column)))), 1e-30)

    def parameters(self, columns: Sequence[Column], fitted: Values) -> Parameters:
        """Return wall and spread, the latter below 0 where values lie below the wall."""
        wall = np.array([self._wall(column) for column in columns])
        return {"wall": wall, "spread": fitted * np.float32(self.sign)}

    def coordinate(self, x: Raw, p: Parameters) -> Raw:
        t = MARGIN + np.maximum((x - p["wall"]) / p["spread"], 0)
        return np.asarray(t + np.log(1 - np.exp(-t)))

    def inverse(self, y: Raw, p: Parameters) -> Raw:
        softplus = np.maximum(y, 0) + np.log(1 + np.exp(-np.abs(y)))
        return np.asarray(p["wall"] + p["spread"] * np.maximum(softplus - MARGIN, 0))

    def log_slope(self, x: Raw, p: Parameters) -> Raw:
        distance = (x - p["wall"]) / p["spread"]
        t = MARGIN + np.maximum(distance, 0)
        slope = np.abs(p["spread"]) * (1 - np.exp(-t))
        return np.where(distance >= 0, -np.log(slope), -np.inf).astype(x.dtype)


class Below(Above):
    """One wall, above the values."""

    name = "below"
    sign = -1.0


BETWEEN, ABOVE, BELOW = Between(), Above(), Below()


class Walled(Kind):
    """Base of kinds with walls."""

    fields = frozenset({"low", "high", "slack", "anchor"})
    forms = (BETWEEN, ABOVE, BELOW, LINE, BEND)

    def check(self, column: Column) -> str:
        step = self.step(column)
        for wall in column.walls:
            if wall is not None and step and abs(wall) > 2**53 * step:
                return f"a wall at {wall} is too far out for steps of {step:g}"
        if column.low is not None and column.high is not None and column.low >= column.high:
            return f"low {column.low} is not below high {column.high}"
        least, greatest = self.ends(column)
        if least > greatest:
            return f"no multiple of {step:g} lies from {column.low} to {column.high}"
        return ""

    def beyond(self, values: Values, column: Column) -> NDArray[np.bool_]:
        low, high = _ends(column)
        return (low - values > column.slack) | (values - high > column.slack)

    def hold(self, raw: Raw, values: Values, column: Column | None) -> Values:
        """See `Kind.hold`; what reaches over a wall by its slack is on it."""
        if column is None:
            return values
        if (beyond := self.beyond(values, column)).any():
            ends = ["" if wall is None else str(wall) for wall in (column.low, column.high)]
            if column.pattern:  # of dates
                raw = self.cells(values, column)
                ends = ["" if wall is None else self.spell(wall, column) for wall in column.walls]
            refuse(beyond, raw, f"is outside its walls [{ends[0]}, {ends[1]}]")
        return np.clip(values, *_ends(column))

    def form(self, column: Column) -> Form:
        if column.low is None:
            return LINE if column.high is None else BELOW
        return ABOVE if column.high is None else BETWEEN
