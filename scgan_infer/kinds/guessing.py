"""Infer a column's kind from its numbers, where a wrong guess is unlikely.

decimals: all numbers have at most that many, and half of them are repeated: then new rows are
rounded likewise. Or they came in float64 or as text, where n numbers have no decimal more by chance
with a probability of 10^-n, and 9 are different; those count where float32 resolves one step (two
decimals: up to 131,072).

grid: the numbers are multiples of a step from an origin on, to within e, which is half of their
last decimal or a few of float32's own steps. The probability that n different arbitrary numbers are
is about (2 e / step)^n; it must be below exp(-`CERTAIN`).

A wall is an end at which many values lie exactly, or one at which the density breaks off. Up to a
wall values are evenly spaced: let s(k) be the mean distance between the k outermost; then s(a) /
s(b) is about 1 for every a < b (below 1 if the density rises towards the wall), where a Gaussian
tail has s(10) / s(300) = 11, an exponential one 9 and a density that falls to zero on a straight
line 4. The limits below are those that 1 in 200 level densities exceed. Of fewer than 1,000 rows
the outermost three tenths are compared, of fewer than 300 none: there one Gaussian in 30 would have
a wall. Where one end has a wall, the other has it at the same distance from 0 if its values reach
nearly as far.

Other rows of the same kind reach a little farther than these did, by s on average. So a guessed
wall lies 5 to 10 s outside, at the roundest number there; or nearer, if there is a number so round
that one would lie within 10 s by chance in 1 of 4 cases at most. And as a wall with a rare leak
looks like a strict one, rows may reach over it by 100 s (`Column.slack`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np

from scgan_infer.kinds.base import (
    CERTAIN,
    EXACT,
    MOST_DECIMALS,
    NEAR,
    Floats,
    Raw,
    Values,
    significant,
)

LARGEST = 2**53  # the same of float64
ALIKE = 0.9
FEWEST_ROWS = 300
DEEPEST = 0.3  # share of the rows that are compared
EASE = 1.3  # of the limits where the other end has a wall
REPEATS = 100  # numbers, too many to have few significant digits by chance
LARGE = 20  # of the largest numbers
MOST_DIGITS = 6
FEWEST_ON_GRID = 4  # different numbers
MOST_STEPS = 12  # that the smallest distance may be
CLEAR = 32.0  # times its error, that a step is at least
FINEST = 4096  # denominator of a step
ON_WALL = 20  # values that lie on a wall, or one in a thousand if that is more
LIMITS = {3: 3.2, 10: 2.0, 30: 1.55, 100: 1.3, 300: 1.0}


def has_anchor(low: float, high: float) -> bool:
    """Return whether an anchor helps, as numbers are far larger than distances from the middle."""
    size = max(-low, high)
    return 0 < 2 * (high - low) <= size <= LARGEST


def anchor_of(values: Floats, low: float, high: float, decimals: int | None) -> float | None:
    """Return the anchor of a column whose cells float32 can't hold, else None.

    That is so where float32 changes the last of its decimals or, of numbers without a last one,
    lets a tenth of them fall together; and where the distances from the middle are a quarter of the
    numbers at most.

    Args:
        values: float64 [n], all of the column or a sample.
        low: The least value of the whole column.
        high: Its greatest.
        decimals: How many decimals hold all of the column, if few do.
    """
    if not has_anchor(low, high):
        return None
    size, spread = max(-low, high), high - low
    unit = 10.0 ** math.floor(math.log10(spread))
    anchor = float(np.rint((low + high) / 2 / unit) * unit)
    if decimals is not None:
        lossy = size > EXACT if decimals == 0 else size * 10.0**decimals > EXACT / 4
    else:
        exact = len(np.unique(values))
        kept = len(np.unique(values.astype(np.float32)))
        lossy = kept < ALIKE * min(exact, len(np.unique((values - anchor).astype(np.float32))))
    return anchor if lossy else None


@dataclass(frozen=True)
class Evidence:
    """A column of numbers that has been read.

    Attributes:
        values: float32 [n], a uniform sample of the column, all finite.
        low: The least value of the whole column.
        high: Its greatest.
        decimals: How many decimals hold all of the column, if few do.
        rows: How many rows the whole column has.
        base: What values, low and high are offsets from.
        named: Whether the column has a name of its own.
        digits: How many significant digits hold all of the column, if few do.
        exact: Whether it came in float64 or as text.
    """

    values: Values
    low: float
    high: float
    decimals: int | None
    rows: int = 0
    base: float = 0.0
    named: bool = True
    digits: int | None = None
    exact: bool = False

    @property
    def varies(self) -> bool:
        """Whether there are two different values."""
        return self.low < self.high

    @property
    def whole(self) -> bool:
        """Whether all are whole numbers that float32 holds exactly."""
        return self.varies and self.decimals == 0 and max(-self.low, self.high) <= EXACT

    def rounding(self) -> dict[str, Any]:
        """Return the decimals of a column that is not whole, if it is rounded."""
        if not self.varies or self.base:
            return {}
        if self.digits is not None and self._has_digits():
            return {"digits": self.digits}
        return self.grid() or ({"decimals": self.decimals} if self.is_rounded() else {})

    def grid(self) -> dict[str, Any]:
        """Return step and origin of a grid that is no power of ten, if the numbers lie on one."""
        distinct = np.unique(self.values).astype(np.float64)
        if len(distinct) < FEWEST_ON_GRID:
            return {}
        largest = float(np.abs(distinct).max())
        error = 4 * float(np.spacing(np.float32(largest)))
        if self.decimals is not None and 2 * error * 10.0**self.decimals < 1:
            scale = 10**self.decimals
            counts = np.rint(distinct * scale).astype(np.int64)
            step = Fraction(int(np.gcd.reduce(np.diff(counts))), scale)
            origin, error = Fraction(int(counts[0]), scale), 0.5 / scale
        else:
            fit = step_of(distinct, error)
            if fit is None:
                return {}
            step, start = fit
            origin = Fraction(start).limit_denominator(step.denominator)
            if abs(float(origin) - start) > error:
                decimals = next(d for d in range(30) if abs(round(start, d) - start) <= error)
                origin = Fraction(str(round(start, decimals)))
        sure = len(distinct) * math.log(float(step) / (2 * error)) >= CERTAIN
        if not sure or step == Fraction(1, 10 ** (self.decimals or 0)):
            return {}
        origin += Fraction(self.base)
        origin -= step * math.floor(origin / step)
        return {"grid": float(step)} | ({"origin": float(origin)} if origin else {})

    def _has_digits(self) -> bool:
        """Return whether digits, not decimals, are fixed: the largest have fewer decimals."""
        values = self.values[self.values != 0]
        if len(values) < REPEATS:
            return False
        exponent = np.floor(np.log10(np.abs(values).astype(np.float64)) + NEAR)
        edge = np.sort(exponent)[-LARGE]
        if edge == exponent.min():
            return False
        decimals = decimals_of(values[exponent >= edge])
        return decimals is not None and (self.decimals is None or decimals < self.decimals)

    def is_rounded(self) -> bool:
        """Return whether numbers are rounded more coarsely than float32 does by itself.

        Half of them are repeated, or 9 of those that came in float64 or as text are different; see
        above.
        """
        if self.decimals is None:
            return False
        distinct, scale = np.unique(self.values), 10.0**self.decimals
        resolved = int(np.count_nonzero(np.spacing(np.abs(distinct)) * scale < 1))
        if self.exact and resolved * math.log(10) >= CERTAIN:
            return True
        fine = float(np.abs(distinct).max()) * scale <= 2**22
        return fine and 2 * len(distinct) <= len(self.values)

    def walls(self) -> dict[str, Any]:
        """Return low, high and slack, if there is a wall."""
        if not self.varies or len(self.values) < FEWEST_ROWS:
            return {}
        stepped = self.whole or self.is_rounded()
        scale = 10.0 ** (self.decimals or 0) if stepped else None
        exact = self.values.astype(np.float64)
        top, bottom = _wall(exact, self.high), _wall(-exact, -self.low)
        if top and not bottom:
            bottom = _mirrored(-exact, -self.low, top[0])
        elif bottom and not top:
            top = _mirrored(exact, self.high, bottom[0])
        if not top and not bottom:
            return {}
        if top and bottom:
            for wall in sorted((top[0], bottom[0])):
                beyond = wall - self.high, wall + self.low
                if 0 <= beyond[0] <= top[1] / 10 and 0 <= beyond[1] <= bottom[1] / 10:
                    top, bottom = (wall, top[1]), (wall, bottom[1])
                    break
        return {
            "low": 0.0 - _outward(bottom[0], scale) if bottom else None,
            "high": _outward(top[0], scale) if top else None,
            "slack": max(wall[1] for wall in (top, bottom) if wall),
        }


def step_of(values: Floats, error: float) -> tuple[Fraction, float] | None:
    """Return the largest step dividing all differences, and the numbers' offset from its multiples.

    The smallest distance is a few steps. Each guess is made more exact as numbers farther away are
    taken in.

    Args:
        values: ascending, [n].
        error: of each number, at most.

    >>> step_of(np.array([0.5, 1.5, 2.0]) / 3, 1e-9)[0]
    Fraction(1, 6)
    """
    spans = values - values[0]
    least = float(np.diff(values).min())
    for count in range(1, MOST_STEPS + 1):
        step, reach = least / count, 0.0
        while step > CLEAR * error and reach < spans[-1]:
            reach = max(2 * reach, float(spans[np.searchsorted(spans, reach, side="right")]))
            part = spans[1 : np.searchsorted(spans, reach, side="right")]
            counts = np.rint(part / step)
            step = float(counts @ part / (counts @ counts))
            if np.abs(part - counts * step).max() > 2 * error:
                break
        else:
            if step <= CLEAR * error:
                return None
            exact = simplest(step, 2 * error / max(1.0, spans[-1] / step))
            off = values - float(exact) * np.rint(values / float(exact))
            turned = off[0] + (off - off[0]) - float(exact) * np.rint((off - off[0]) / float(exact))
            fits = np.ptp(turned) <= 4 * error and exact.denominator <= FINEST
            return (exact, float(turned.mean())) if fits else None
    return None


def simplest(value: float, error: float) -> Fraction:
    """Return the fraction of least denominator within an error, or any if that is beyond `FINEST`.

    >>> simplest(0.33334, 1e-4)
    Fraction(1, 3)
    """
    few = range(1, FINEST + 1)
    q = next((q for q in few if abs(round(value * q) / q - value) <= error), None)
    return Fraction(value) if q is None else Fraction(round(value * q), q)


def decimals_of(values: Raw, least: int = 0) -> int | None:
    """Return the fewest decimals, from `least` up, that write all numbers exactly; None beyond six.

    >>> decimals_of(np.array([0.5, 1.25, 3], np.float32))
    2
    """
    for decimals in range(least, MOST_DECIMALS + 1):
        scale = 10.0**decimals
        with np.errstate(over="ignore"):
            rounded = np.rint(values.astype(np.float64) * scale) / scale
            if np.array_equal(rounded.astype(values.dtype), values):
                return decimals
    return None


def digits_of(values: Raw, least: int = 1) -> int | None:
    """Return the fewest significant digits, from `least` up, that write all exactly; None over six.

    >>> digits_of(np.array([0.012, 1.25, 3]))
    3
    """
    for digits in range(least, MOST_DIGITS + 1):
        rounded = significant(values.astype(np.float64), np.array(digits))
        if np.array_equal(rounded.astype(values.dtype), values):
            return digits
    return None


def _outward(wall: float, scale: float | None) -> float:
    return wall if scale is None else math.ceil(round(wall * scale, 6)) / scale


def _mirrored(values: Floats, end: float, wall: float) -> tuple[float, float] | None:
    """Return a wall as far from 0 as the other end's, if density is nearly level up to there."""
    estimate = _wall(values, end, EASE)
    near = estimate is not None and 0 <= wall - end <= estimate[1] / 10
    return (wall, estimate[1]) if estimate and near else None


def _wall(values: Floats, end: float, ease: float = 1.0) -> tuple[float, float] | None:
    """Return where the values' upper end is a wall, and its slack, else None.

    Args:
        values: All.
        end: The greatest.
        ease: What the limits are multiplied by.
    """
    if np.count_nonzero(values >= np.float32(end)) >= max(ON_WALL, len(values) / 1000):
        return float(np.float32(end)), 0.0
    last = min(max(LIMITS), int(DEEPEST * len(values)))
    counts = [k for k in LIMITS if k < last] + [last]
    outermost = -np.sort(-np.partition(values, -last - 1)[-last - 1 :])
    spacing = {k: (outermost[0] - outermost[k]) / k for k in counts}
    if any(spacing[a] > ease * LIMITS[a] * spacing[b] for a, b in combinations(counts, 2)):
        return None
    reach = 10 * float(spacing[min(100, last)])
    near, decimals = _roundest(end, end + reach)
    wall = near if 10.0**decimals * reach < 1 / 4 else _roundest(end + reach / 2, end + reach)[0]
    return wall, 10 * reach


def _roundest(start: float, stop: float) -> tuple[float, int]:
    """Return the least number in [start, stop] with the fewest decimals, and how many it has."""
    for decimals in range(-39, 30):
        number = round(math.ceil(start * 10.0**decimals) / 10.0**decimals, decimals)
        if start <= number <= stop:
            return number, decimals
    return stop, 30
