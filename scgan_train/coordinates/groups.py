"""Groups of rows that no cluster crosses: what an empty band separates, and spikes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

GAP = 0.1  # narrowest empty band that splits, in standard deviations of the coordinate
SHARE = 0.01  # smallest share of the rows on either side of it
SPIKE = 0.1  # widest band that splits as a spike, in standard deviations of its group's coordinate
SPIKE_SHARE = 0.05  # smallest share of a group's rows in a spike, and outside of it
SPIKE_ROWS = 20  # smallest number of them
SPIKE_HEIGHT = 50.0  # how many times as dense as the bands beside it a spike is
LOOK_GAPS = 200_000  # rows that the search for empty bands and spikes looks at


def split(rows: Array, min_rows: int) -> Labels:
    """Number the groups of rows [N, e] that a band of some coordinate separates.

    An empty band counts when it is wider than `GAP`, leaves at least `SHARE` of the rows (and
    `min_rows`) on either side, and is wider than chance explains: at the sparser side's density,
    less than e^-3 such bands are expected in all. Groups without one are searched for a `_spike`.
    """
    groups = np.zeros(len(rows), np.int64)
    least = max(int(np.ceil(SHARE * len(rows))), min_rows)
    spread = rows.std(0)
    unlikely = np.log(rows.size) + 3
    pending, count = [np.arange(len(rows))], 0
    while pending:
        inside = pending.pop()
        stride = -(-len(inside) // LOOK_GAPS)
        some = rows[inside[::stride]]
        cut = None
        if len(inside) >= 2 * least:
            cut = _widest_gap(some, -(-least // stride), GAP * spread, unlikely)
        if cut is not None:
            column, value = cut
            selected = rows[inside, column] < value
        elif (spike := _spike(some)) is not None:
            column, low, high = spike
            selected = (rows[inside, column] >= low) & (rows[inside, column] <= high)
        else:
            groups[inside] = count
            count += 1
            continue
        pending += [inside[~selected], inside[selected]]
    return groups


def _widest_gap(
    rows: Array, least: int, narrowest: Array, unlikely: float
) -> tuple[int, float] | None:
    """Column and middle of the band whose emptiness is the least likely, or None."""
    best, gap = unlikely, None
    near = min(50, least - 1)
    for column in range(rows.shape[1]):
        values = np.sort(rows[:, column])
        low, high = values[least - 1 : len(values) - least], values[least : len(values) - least + 1]
        for at in np.flatnonzero(high - low > narrowest[column]):
            left, right = (
                low[at] - values[at + least - 1 - near],
                values[at + least + near] - high[at],
            )
            surprise = near * (high[at] - low[at]) / max(left, right, 1e-12)
            if surprise > best:
                best, gap = surprise, (column, float(low[at] + high[at]) / 2)
    return gap


def _spike(rows: Array) -> tuple[int, float, float] | None:
    """Column and ends of the narrowest spike, or None.

    It is the band that holds `SPIKE_SHARE` of the rows most tightly, and all beside it no thinner
    by `SPIKE_HEIGHT`, over five rows; it counts if narrower than `SPIKE` with as many rows outside.
    """
    many = max(SPIKE_ROWS, int(np.ceil(SPIKE_SHARE * len(rows))))
    near, best, spike = 5, SPIKE, None
    if len(rows) < 2 * many:
        return None
    for column, spread in enumerate(rows.std(0)):
        values = np.sort(rows[:, column])
        start = int(np.argmin(values[many - 1 :] - values[: len(values) - many + 1]))
        core = max(values[start + many - 1] - values[start], 1e-9 * spread) / many
        thin = np.flatnonzero(values[near:] - values[:-near] > SPIKE_HEIGHT * near * core)
        after, before = thin[thin >= start + many - 1], thin[thin <= start - near]
        last = after[0] if len(after) else len(values) - 1
        first = before[-1] + near if len(before) else 0
        width = (values[last] - values[first]) / max(spread, 1e-300)
        if width < best and len(values) - (last - first + 1) >= many:
            best, spike = width, (column, float(values[first]), float(values[last]))
    return spike
