"""What kind a column of numbers is, guessed where a wrong guess is unlikely; never log or periodic.

integer: whole numbers, few of them distinct and each repeated.

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

FEWEST_ROWS = 1000
MOST_WHOLE = 64
LIMITS = {3: 3.2, 10: 2.0, 30: 1.55, 100: 1.3, 300: 1.0}


def guess(values: NDArray[np.float32], low: float, high: float, whole: bool) -> dict[str, Any]:
    """Return a column's kind, and with a wall or two `low`, `high` and `slack`.

    Args:
        values: float32 [n], a uniform sample of the column, all finite.
        low: The least value of the whole column.
        high: Its greatest.
        whole: Whether all of the column are whole numbers.
    """
    if low == high:
        return {"kind": "real"}
    if whole and max(-low, high) <= 2**24:
        distinct = len(np.unique(values))
        if distinct <= MOST_WHOLE and len(values) >= 4 * distinct:
            return {"kind": "integer"}
    exact = values.astype(np.float64)
    top, bottom = _wall(exact, high), _wall(-exact, -low)
    if top is None and bottom is None:
        return {"kind": "real"}
    slack = max(wall[1] for wall in (top, bottom) if wall)
    return {
        "kind": "bounded",
        "low": 0.0 - bottom[0] if bottom else None,
        "high": top[0] if top else None,
        "slack": slack,
    }


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
