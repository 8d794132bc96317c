"""One space for every kind of column, and distances between sets of rows in it.

A column becomes features: a log column its logarithm, a periodic one cos and sin, so that a seam
does not matter, a category one-hot, others as they are. Features are centred and divided by their
column's *spread*, the root of its features' total variance over the real rows, so that every column
weighs the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, UsageError, install

Rows = NDArray[np.float64]

MOST_JUDGED_ROWS = 60_000  # of each side, by the classifier
MOST_PROJECTED_ROWS = 10_000
MOST_ENERGY_ROWS = 5_000  # the time grows with their square
TREE_FEATURES = 12  # above this a k-d tree is slower than comparing all rows
LEAST_TAIL_ROWS = 20  # that a feature's variance comes from, for a correlation's error
MOST_TREE_ROWS, MOST_BRUTE_ROWS = 1_000_000, 20_000  # searched for a nearest neighbour


def features(values: ArrayLike, columns: Sequence[Column]) -> Rows:
    """Turn values [n, d] into features float64 [n, f]: log, (cos, sin), one-hot, or as they are.

    Raises:
        DataError: a value is not finite, or outside its column's domain.
    """
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(columns):
        raise DataError(f"rows have shape {rows.shape}; give n rows of {len(columns)} columns")
    return np.concatenate([_embed(rows[:, j], column) for j, column in enumerate(columns)], axis=1)


def _embed(values: Rows, column: Column) -> Rows:
    """Return a column's features [n, f]; where cells may be missing, the last one marks them."""
    absent = np.isnan(values) if column.missing else np.zeros(len(values), bool)
    present = column.rules.features(values[~absent], column)
    bad = ~np.isfinite(present).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(~absent)[np.argmax(bad)])
        message = f"{values[row]:g} is no value of a {column.kind} column; mend or remove the row"
        raise DataError(f"column {column.name}, row {row}: {message}")
    if not column.missing:
        return present
    embedded = np.zeros((len(values), present.shape[1] + 1))
    embedded[~absent, :-1] = present
    embedded[:, -1] = absent
    return embedded


@dataclass(frozen=True)
class Space:
    """Standardised features, as the module's docstring defines them.

    Attributes:
        columns: d columns.
        parts: the features of each column.
        centre: [f] mean of each feature.
        spread: [d] spread of each column; 1 where it is constant.
    """

    columns: tuple[Column, ...]
    parts: tuple[slice, ...]
    centre: Rows
    spread: Rows

    @classmethod
    def fit(cls, real: Rows, columns: tuple[Column, ...]) -> Space:
        """Take centre and spread from real rows [n, d]."""
        raw = features(real, columns)
        widths = [features(real[:1, [j]], [column]).shape[1] for j, column in enumerate(columns)]
        ends = np.cumsum(widths)
        parts = tuple(
            slice(int(end) - width, int(end)) for end, width in zip(ends, widths, strict=True)
        )
        spread = [
            1.0
            if np.ptp(raw[:, part], axis=0).max() == 0
            else np.sqrt(raw[:, part].var(axis=0).sum())
            for part in parts
        ]
        return cls(columns, parts, raw.mean(axis=0), np.array(spread))

    def standardise(self, values: Rows) -> Rows:
        """Return standardised features [n, f] of values [n, d]."""
        rows = features(values, self.columns) - self.centre
        for part, spread in zip(self.parts, self.spread, strict=True):
            rows[:, part] /= spread
        return rows

    def by_column(self) -> Iterator[tuple[Column, slice, float]]:
        """Each column with its features and its spread."""
        return zip(self.columns, self.parts, self.spread.tolist(), strict=True)


def c2st(a: Rows, b: Rows, seed: int = 0) -> float:
    """ROC AUC of a gradient-boosted classifier of rows a and b, mean of five folds; 0.5 is perfect.

    At most 60,000 rows of each are used. Where differences are small, a strong classifier learns
    noise and detects less than a regularised one. So leaves are shrunken towards 0, as in ridge
    regression, by the weight of a tenth of the rows of one side, at most 1,000.
    """
    boosting, scores = _need("sklearn.ensemble"), _need("sklearn.metrics")
    a, b = a[:MOST_JUDGED_ROWS], b[:MOST_JUDGED_ROWS]
    n = min(len(a), len(b))
    rows, label = np.concatenate([a, b]), np.repeat([1, 0], [len(a), len(b)])
    fold = np.concatenate([np.arange(len(a)), np.arange(len(b))]) % 5
    areas = []
    for k in range(5):
        judge = boosting.HistGradientBoostingClassifier(
            max_iter=30,
            learning_rate=0.3,
            min_samples_leaf=int(np.clip(n // 50, 10, 50)),
            l2_regularization=min(n / 10, 1000),
            early_stopping=False,
            random_state=seed,
        )
        judge.fit(rows[fold != k], label[fold != k])
        odds = judge.decision_function(rows[fold == k])
        areas.append(scores.roc_auc_score(label[fold == k], odds))
    return float(np.mean(areas))


def sliced_wasserstein(a: Rows, b: Rows) -> float:
    """Root mean square Wasserstein-2 distance of the rows projected to 256 fixed directions.

    Both have n rows of f features, of which the first 10,000 are used. The directions come in
    orthogonal frames, so a shift by v scores |v| / sqrt f.
    """
    a, b = a[:MOST_PROJECTED_ROWS], b[:MOST_PROJECTED_ROWS]
    rng = np.random.default_rng(0x51CE)
    f = a.shape[1]
    frames = [np.linalg.qr(rng.standard_normal((f, f)))[0] for _ in range(-(-256 // f))]
    squares = [
        np.mean(np.square(np.sort(a @ frame, axis=0) - np.sort(b @ frame, axis=0)), axis=0)
        for frame in frames
    ]
    return float(np.sqrt(np.mean(np.concatenate(squares)[:256])))


def energy_distance(a: Rows, b: Rows) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| over the first 5,000 rows of each, 500 at a time."""
    distance = _need("scipy.spatial.distance")
    a, b = a[:MOST_ENERGY_ROWS], b[:MOST_ENERGY_ROWS]

    def mean(x: Rows, y: Rows) -> float:
        total = sum(distance.cdist(x[i : i + 500], y).sum() for i in range(0, len(x), 500))
        return float(total / (len(x) * len(y)))

    return max(0.0, 2 * mean(a, b) - mean(a, a) - mean(b, b))


def nearest(queries: Rows, reference: Rows, *, skip: int = 0) -> Rows:
    """Distance [n] from each query to its nearest `searchable` reference row but `skip`."""
    reference = searchable(reference)
    if reference.shape[1] <= TREE_FEATURES:
        tree = _need("scipy.spatial").cKDTree(reference)
        return np.asarray(tree.query(queries, k=[skip + 1])[0][:, 0])
    search = _need("sklearn.neighbors").NearestNeighbors(n_neighbors=skip + 1, algorithm="brute")
    return np.asarray(search.fit(reference).kneighbors(queries)[0][:, skip])


def searchable(rows: Rows) -> Rows:
    """The first rows that can be searched in seconds: a million, or 20,000 above 12 features."""
    return rows[: MOST_TREE_ROWS if rows.shape[1] <= TREE_FEATURES else MOST_BRUTE_ROWS]


def correlations(rows: Rows) -> Rows:
    """Pearson correlations [f, f]; 0 beside a constant feature."""
    centred = rows - rows.mean(axis=0)
    spread = centred.std(axis=0)
    unit = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9)
    return np.asarray(unit.T @ unit / len(rows))


def correlation_errors(rows: Rows) -> Rows:
    """Standard errors [f, f] of Pearson correlations, to first order for any distribution.

    A row of standardised x and y moves their correlation r by (x y - r (x^2 + y^2) / 2) / n. Of a
    feature to whose variance fewer than about 20 rows contribute, as a rare name or a heavy tail,
    the error is unknown, so infinite.
    """
    centred = rows - rows.mean(axis=0)
    spread = centred.std(axis=0)
    unit = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9)
    n, square = len(rows), np.square(unit)
    r, both, skew = (
        a.T @ b / n for a, b in ((unit, unit), (square, square), (square * unit, unit))
    )
    fourth = np.diag(both)
    variance = both - r * (skew + skew.T) + r**2 / 4 * (fourth[:, None] + fourth + 2 * both)
    # few rows seldom show the tail they come from
    short = 10 * np.maximum(fourth[:, None], fourth) / n
    errors = np.sqrt(np.maximum(variance, 1e-9) * (1 + short) / n)
    rare = fourth > n / LEAST_TAIL_ROWS
    errors[rare | (spread <= 1e-9)] = errors[:, rare | (spread <= 1e-9)] = np.inf
    return np.asarray(errors)


def _need(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise UsageError(f"measuring needs {missing.name}; {install('plot')}") from missing
