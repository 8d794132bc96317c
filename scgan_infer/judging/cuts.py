"""One comparison of generated rows with real ones: its inputs and its figures.

See `scgan_infer.judging.figures` for what a value and its floor are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scgan_infer.judging.distances import (
    Rows,
    Space,
    c2st,
    correlations,
    nearest,
    searchable,
)
from scgan_infer.judging.shapes import shape_errors, trend_errors

MOST_QUERIES = 10_000  # whose nearest neighbour is searched
SAME = 6  # decimals of a distance; beyond, equal rows differ by rounding
SUPPORT = 0.999  # quantile of real-to-real nearest distances at which the real support ends


class Figure(NamedTuple):
    """A figure for generated rows, for real ones instead, its error; None where there is none."""

    value: float
    floor: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Cut:
    """The standardised inputs of a comparison, and its figures; None where rows are missing.

    Attributes:
        space: Columns and their features.
        made: [., f] all generated rows.
        fake: [n, f] generated rows of this cut.
        other: [n, f] held-out rows to measure the floor.
        first: [n, f] held-out rows that both are compared with.
        real: [., f] all held-out rows, `other` first.
        cells: [n, d] the values of `fake`, `other` and `first`, in the user's units.
        trained: [t, f] training rows.
        errors: Mean square reconstruction errors: name to one per column.
        back: Held-out rows and their reconstructions, [r, f] each.
        clusters: int [.] of real and of generated rows.
        seed: Of the classifier.
    """

    space: Space
    made: Rows
    fake: Rows
    other: Rows
    first: Rows
    real: Rows
    cells: tuple[Rows, Rows, Rows]
    trained: Rows | None
    errors: dict[str, list[float]]
    back: tuple[Rows, Rows] | None
    clusters: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    seed: int

    def both(self, distance: Callable[[Rows, Rows], float]) -> Figure:
        """Measure a distance for the generated rows, and for the floor."""
        return Figure(distance(self.fake, self.first), distance(self.other, self.first))

    @cached_property
    def reference(self) -> Rows:
        """All real rows, whose support is searched."""
        rows = self.real if self.trained is None else np.concatenate([self.real, self.trained])
        return searchable(rows)

    def off(self) -> Figure:
        queries = min(MOST_QUERIES, len(self.real) // 2)
        reach = _reach(self.reference[queries : 2 * queries], self.reference)
        real = nearest(self.reference[:queries], self.reference, skip=1)
        fake = nearest(self.fake[:MOST_QUERIES], self.reference)
        return _shares(fake > reach, real > reach)

    def missed(self) -> Figure:
        queries = min(MOST_QUERIES, len(self.real) // 2)
        m = min(len(self.made), len(self.reference) - queries)
        rows, support = self.reference[:queries], self.reference[queries : queries + m]
        reach = _reach(support[:MOST_QUERIES], support)
        return _shares(*(nearest(rows, other) > reach for other in (self.made[:m], support)))

    @cached_property
    def by_column(self) -> dict[str, Figure]:
        return {
            column.name: self.both(
                lambda a, b, j=part, k=column, s=spread: k.rules.transport(  # type: ignore[misc]
                    a[:, j], b[:, j], self.space.centre[j], s
                )
            )
            for column, part, spread in self.space.by_column()
        }

    @cached_property
    def by_pair(self) -> dict[tuple[str, str], Figure]:
        """Largest difference of correlations of each pair of columns."""
        expected = correlations(self.first)
        changes = [np.abs(correlations(rows) - expected) for rows in (self.fake, self.other)]
        return {
            (a.name, b.name): Figure(*(float(change[rows, across].max()) for change in changes))
            for (a, rows, _), (b, across, _) in combinations(self.space.by_column(), 2)
        }

    @cached_property
    def shapes(self) -> list[Figure]:
        *sides, first = self.cells
        values, floors = (shape_errors(first, side, self.space.columns) for side in sides)
        return list(map(Figure, values, floors))

    def trends(self) -> Figure | None:
        *sides, first = self.cells
        errors = [list(trend_errors(first, side, self.space.columns).values()) for side in sides]
        return Figure(*map(float, map(np.mean, errors))) if all(errors) else None

    @cached_property
    def to_training(self) -> tuple[Rows, Rows, Rows] | None:
        """Distances to training rows: of `fake`, `other` and `first`."""
        if self.trained is None:
            return None
        fake, other, first = (
            nearest(rows[:MOST_QUERIES], self.trained)
            for rows in (self.fake, self.other, self.first)
        )
        return fake, other, first

    def nearest_ratio(self) -> Figure | None:
        """The error is that of the medians, wide where many rows are near and many far."""
        if self.to_training is None:
            return None
        made, fresh, known = (float(np.median(distances)) for distances in self.to_training)
        error, _, known_error = map(_median_error, self.to_training)
        if known == 0:
            return Figure(1.0 + made, 1.0 + fresh, error)
        value = made / known
        return Figure(value, fresh / known, float(np.hypot(error, value * known_error) / known))

    def nearest_rank(self) -> Figure | None:
        """The error is Mann's and Whitney's."""
        if self.to_training is None:
            return None
        *both, known = (distances.round(SAME) for distances in self.to_training)
        error = np.sqrt((len(both[0]) + len(known) + 1) / (12 * len(both[0]) * len(known)))
        value, floor = (_nearer(part, known) for part in both)
        return Figure(value, floor, float(error))

    def nearest_close(self) -> Figure | None:
        if self.to_training is None:
            return None
        *both, known = (distances.round(SAME) for distances in self.to_training)
        reach = np.quantile(known, 0.01)
        share = np.mean(known <= reach)
        error = np.sqrt(share * (1 - share) * (1 / len(both[0]) + 1 / len(known)))
        value, floor = (float(np.mean(part <= reach)) for part in both)
        return Figure(value, floor, float(error))

    def cluster_weights(self) -> Figure | None:
        if self.clusters is None:
            return None
        rng = np.random.default_rng(self.seed)
        known, made = map(rng.permutation, self.clusters)
        count, n = int(max(known.max(), made.max())) + 1, min(len(known) // 2, len(made))
        held = weights(known[:n], count)
        parts = (np.abs(weights(rows, count) - held).sum() / 2 for rows in (made[:n], known[-n:]))
        return Figure(*map(float, parts))

    def error(self, name: str) -> Figure | None:
        return Figure(float(np.mean(self.errors[name]))) if self.errors else None

    def reconstruction_c2st(self) -> Figure | None:
        """The classifier between reconstructions and other rows; none meets its reconstruction."""
        if self.back is None:
            return None
        rows, returned = self.back
        order = np.random.default_rng(self.seed).permutation(len(rows))
        half, rest = np.array_split(order[: 2 * len(self.first)], 2)
        parts = (c2st(side[half], rows[rest], self.seed) for side in (returned, rows))
        return Figure(*parts)


def _median_error(distances: Rows) -> float:
    """A quarter of the range between the order statistics two standard errors around the median."""
    reach = min(0.5, 1 / np.sqrt(len(distances)))
    return float(np.ptp(np.quantile(distances, [0.5 - reach, 0.5 + reach])) / 4)


def _shares(value: NDArray[np.bool_], floor: NDArray[np.bool_]) -> Figure:
    """Return two shares, and the error of their difference if they are one."""
    shares = float(value.mean()), float(floor.mean())
    both = float(np.concatenate([value, floor]).mean())
    return Figure(*shares, float(np.sqrt(both * (1 - both) * (1 / len(value) + 1 / len(floor)))))


def _nearer(distances: Rows, known: Rows) -> float:
    """Return the chance that a distance is below a known one; ties count half."""
    known = np.sort(known)
    below = [np.searchsorted(known, distances, side).mean() for side in ("left", "right")]
    return 1 - float(np.mean(below)) / len(known)


def worst(figures: Iterable[Figure]) -> Figure:
    """Return the largest value and the largest floor."""
    return Figure(*map(max, zip(*(figure[:2] for figure in figures), strict=True)))


def _reach(queries: Rows, rows: Rows) -> float:
    """Return the reach of the support of rows, measured at some of them."""
    return float(np.quantile(nearest(queries, rows, skip=1), SUPPORT))


def weights(clusters: NDArray[np.int64], count: int) -> Rows:
    """Return the share of the rows in each of so many clusters."""
    return np.bincount(clusters, minlength=count) / len(clusters)
