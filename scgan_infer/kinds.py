"""What kind a column of numbers is, guessed where a wrong guess is unlikely; never log or periodic.

integer: whole numbers, where they are many, or few distinct ones that repeat.

decimals: all numbers have at most so many, and half of them are repeated: then rows of the same kind are rounded too.

bounded: a wall is an end at which many values lie exactly, or one at which the density breaks off. Up to a
wall values are evenly spaced: let s(k) be the mean distance between the k outermost; then s(a) / s(b) is
about 1 for every a < b (below 1 if the density rises towards the wall), where a Gaussian tail has s(10) /
s(300) = 11, an exponential one 9 and a density that falls to zero on a straight line 4. The limits below are
those that 1 in 200 level densities exceed.

Other rows of the same kind reach a little farther than these did, by s on average. So a guessed wall lies 5
to 10 s outside, at the roundest number there; or nearer, if there is a number so round that one would lie
within 10 s by chance in 1 of 4 cases at most. And as a wall with a rare leak can't be told from a strict one,
rows may reach over it by 100 s (`Column.slack`).
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import MOST_DECIMALS

FEWEST_ROWS = 1000
FEW_WHOLE = (
    64  # distinct whole numbers, each repeated 4 times, are integers however few rows there are
)
MANY_WHOLE = 100  # rows
LIMITS = {3: 3.2, 10: 2.0, 30: 1.55, 100: 1.3, 300: 1.0}


def guess(
    values: NDArray[np.float32], low: float, high: float, decimals: int | None
) -> dict[str, Any]:
    """Return a column's kind, and where it has them `low`, `high` and `slack`, or `decimals`.

    Args:
        values: float32 [n], a uniform sample of the column, all finite.
        low: The least value of the whole column.
        high: Its greatest.
        decimals: How many decimals hold all of the column, if few do.
    """
    if low == high:
        return {"kind": "real"}
    whole = decimals == 0 and max(-low, high) <= 2**24
    if whole:
        distinct = len(np.unique(values))
        if distinct <= FEW_WHOLE and len(values) >= 4 * distinct:
            return {"kind": "integer"}
    whole = whole and len(values) >= MANY_WHOLE
    scale = None
    if decimals is not None and (whole or is_rounded(values, decimals)):
        scale = 10.0**decimals
    exact = values.astype(np.float64)
    top, bottom = _wall(exact, high), _wall(-exact, -low)
    found: dict[str, Any] = {"kind": "integer" if whole else "bounded" if top or bottom else "real"}
    if scale and not whole:
        found["decimals"] = decimals
    if top or bottom:
        found["low"] = 0.0 - _outward(bottom[0], scale) if bottom else None
        found["high"] = _outward(top[0], scale) if top else None
        found["slack"] = max(wall[1] for wall in (top, bottom) if wall)
    return found


def decimals_of(values: NDArray[np.floating[Any]], least: int = 0) -> int | None:
    """Return with how many decimals all the numbers can be written, from `least` up, None if not with six.

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


def is_rounded(values: NDArray[np.float32], decimals: int) -> bool:
    """Say whether half of the numbers are repeated, at a rounding that float32 does not make by itself."""
    fine = float(np.abs(values).max()) * 10.0**decimals <= 2**22
    return fine and 2 * len(np.unique(values)) <= len(values)


def _outward(wall: float, scale: float | None) -> float:
    return wall if scale is None else math.ceil(round(wall * scale, 6)) / scale


def _wall(values: NDArray[np.float64], end: float) -> tuple[float, float] | None:
    """Return where the values' upper end is a wall, and its slack, else None."""
    if len(values) < FEWEST_ROWS:
        return None
    if np.count_nonzero(values >= np.float32(end)) >= max(20, len(values) / 1000):
        return float(np.float32(end)), 0.0
    outermost = -np.sort(-np.partition(values, -max(LIMITS) - 1)[-max(LIMITS) - 1 :])
    spacing = {k: (outermost[0] - outermost[k]) / k for k in LIMITS}
    if any(spacing[a] > LIMITS[a] * spacing[b] for a, b in combinations(LIMITS, 2)):
        return None
    reach = 10 * float(spacing[100])
    near, places = _roundest(end, end + reach)
    wall = near if 10.0**places * reach < 1 / 4 else _roundest(end + reach / 2, end + reach)[0]
    return wall, 10 * reach


def _roundest(start: float, stop: float) -> tuple[float, int]:
    """Return the least of the numbers in [start, stop] with the fewest decimals, and how many it has."""
    for places in range(-39, 30):
        number = round(math.ceil(start * 10.0**places) / 10.0**places, places)
        if start <= number <= stop:
            return number, places
    return stop, 30
