"""Column shapes and pair trends, as SDMetrics 0.11 defines them, as errors: 1 less its score.

0 is best. Shapes: the Kolmogorov-Smirnov distance of a number column, the total variation of a
column of names. Trends, of a pair of columns: half the difference of Pearson's correlations of two
number columns, else the total variation of the joint table, for which each table's numbers are cut
into ten cells of equal width over its range.

SDMetrics drops missing cells, or counts them in the last cell. Here they are a value, behind all
numbers or one more name; only correlations leave them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column

Rows = NDArray[np.float64]
Codes = NDArray[np.int64]

CELLS = 10  # of a number column beside one of names
MOST_COUNTED = 1_000_000  # pairs of values up to which each has an element in an array
CONSTANT = 1e-9  # of a column's spread


def shape_errors(real: Rows, made: Rows, columns: Sequence[Column]) -> list[float]:
    """Return each column's shape error between rows [n, d] and [m, d]."""
    return [
        _variation(_names(a), _names(b)) if column.rules.named else _kolmogorov_smirnov(a, b)
        for column, a, b in zip(columns, real.T, made.T, strict=True)
    ]


def trend_errors(real: Rows, made: Rows, columns: Sequence[Column]) -> dict[tuple[int, int], float]:
    """Return the trend error of each pair of columns, but for a constant beside numbers."""
    named = [column.rules.named for column in columns]
    change = np.abs(_correlations(real) - _correlations(made)) / 2
    codes = [
        [_names(x) if name else _cells(x) for x, name in zip(rows.T, named, strict=True)]
        for rows in (real, made)
    ]
    count = [1 + max(int(a.max()), int(b.max())) for a, b in zip(*codes, strict=True)]
    errors = {}
    for i, j in combinations(range(len(columns)), 2):
        if named[i] or named[j]:
            errors[i, j] = _variation(*(side[i] * count[j] + side[j] for side in codes))
        elif np.isfinite(change[i, j]):
            errors[i, j] = float(change[i, j])
    return errors


def _names(cells: Rows) -> Codes:
    """Return names' indices, from 1 on; 0 is missing."""
    return np.where(np.isnan(cells), 0, cells + 1).astype(np.int64)


def _cells(numbers: Rows) -> Codes:
    """Return the cell of each number, from 1 on; 0 is missing."""
    edges = np.histogram_bin_edges(numbers[~np.isnan(numbers)], CELLS)
    return np.where(np.isnan(numbers), 0, np.digitize(numbers, edges)).astype(np.int64)


def _variation(a: Codes, b: Codes) -> float:
    """Return the total variation between indices [n] and [m]."""
    both = np.concatenate([a, b])
    if both.max() >= MOST_COUNTED:
        both = np.unique(both, return_inverse=True)[1]
    count = int(both.max()) + 1
    shares = [np.bincount(part, minlength=count) / len(part) for part in np.split(both, [len(a)])]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _kolmogorov_smirnov(a: Rows, b: Rows) -> float:
    """Return the greatest difference of cumulative shares; missing cells come last."""
    a, b = (np.sort(np.where(np.isnan(cells), np.inf, cells)) for cells in (a, b))
    both = np.concatenate([a, b])
    shares = [np.searchsorted(part, both, "right") / len(part) for part in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def _correlations(rows: Rows) -> Rows:
    """Return Pearson's correlations [d, d] where both are present; NaN beside a constant."""
    present = ~np.isnan(rows)
    n = present.sum(axis=0)
    filled = np.where(present, rows, 0)
    filled -= present * (filled.sum(axis=0) / np.maximum(n, 1))
    spread = np.sqrt(np.square(filled).sum(axis=0) / np.maximum(n, 1))
    size = np.abs(np.where(present, rows, 0)).max(axis=0)
    filled /= np.where(spread > CONSTANT * size, spread, np.nan)
    shared = present.T.astype(np.float64) @ present
    with np.errstate(invalid="ignore", divide="ignore"):
        sums, squares = filled.T @ present, np.square(filled).T @ present
        within = squares - sums**2 / shared
        both = filled.T @ filled - sums * sums.T / shared
        return np.asarray(both / np.sqrt(within * within.T))
