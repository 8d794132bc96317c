"""How far generated rows are from real ones, every figure beside its floor.

Held-out rows are cut in two halves, R and R'. A figure compares generated rows G with R; its floor
compares R' with R, the same number of rows, so it is what a perfect generator would score:

    value = D(G, R),  floor = D(R', R),  |G| = |R| = |R'|

Both are means over random cuts, three unless said, taken in the one space that
`scgan_infer.judging.distances` defines; a figure's error is the standard deviation of its value
over the cuts, or what so many rows leave to chance where that is known and more. A missing cell is
a value like others. A support is a set of rows and a reach around them, the 99.9 % quantile of
distances between real rows in a set of that size: the more real rows there are, the finer is what
lies off it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import erfc
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgan_infer.arguments import whole
from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.judging.cuts import Cut, Figure, weights, worst
from scgan_infer.judging.distances import (
    MOST_JUDGED_ROWS,
    MOST_TREE_ROWS,
    Rows,
    Space,
    c2st,
    correlation_errors,
    correlations,
    energy_distance,
    searchable,
    sliced_wasserstein,
)

Counts = NDArray[np.int64]

CUTS = 3
LEAST_ROWS = 20  # held-out
LEAST_JUDGED_ROWS = 200  # by the classifier, at an export
MOST_ROWS = MOST_JUDGED_ROWS  # in one comparison
OFF_ERRORS, OFF_TIMES = 4.5, 1.25  # by how many errors and times a share is off
PAIR_CHANCE = 0.002  # that one of real rows' pairs is off
PAIR_CHANGE = 0.1  # of a correlation, at least, where a pair is off

Change = tuple[float, float, str, str, str, Figure]  # chance, minus errors, columns, name, figure


class Measure(NamedTuple):
    """A figure's title and meaning, what else the page says, its function, and if it is a share."""

    title: str
    meaning: str
    details: str
    of: Callable[[Cut], Figure | None]
    share: bool = False


FIGURES: dict[str, Measure] = {
    "c2st": Measure(
        "C2ST",
        "a classifier's ROC AUC against real rows: 0.5 can't tell",
        "the chance that gradient-boosted trees, which learned to tell the two apart on four "
        "fifths of the rows, rank a generated row of the others above a real one; 1 is certainty",
        lambda cut: cut.both(lambda a, b: c2st(a, b, cut.seed)),
    ),
    "sliced_wasserstein": Measure(
        "sliced Wasserstein-2",
        "distance of projections on 256 directions, in spreads",
        "how far rows must move, as a root mean square, to turn one set into the other",
        lambda cut: cut.both(sliced_wasserstein),
    ),
    "energy": Measure(
        "energy distance",
        "twice the distance between less those within, in spreads",
        "0 only where both have the same distribution",
        lambda cut: cut.both(energy_distance),
    ),
    "off": Measure(
        "off",
        "generated rows outside the support of the real ones",
        "farther from all real rows than real rows lie from each other, beyond the 99.9 % quantile",
        Cut.off,
        share=True,
    ),
    "missed": Measure(
        "missed",
        "real rows outside the support of the generated ones",
        "parts of the data that the model does not make",
        Cut.missed,
        share=True,
    ),
    "wasserstein": Measure(
        "column Wasserstein-1",
        "worst column, in spreads (a category: share to move)",
        "how far its values must move on average; around the circle for a periodic column",
        lambda cut: worst(cut.by_column.values()),
    ),
    "shape": Measure(
        "shape error",
        "1 less SDMetrics' column shapes, mean of columns",
        "the largest difference of cumulative shares of numbers, the share of names to change",
        lambda cut: Figure(*_mean(cut.shapes)[:2]),
        share=True,
    ),
    "trend": Measure(
        "trend error",
        "1 less SDMetrics' column pair trends, mean of pairs",
        "half the change of a correlation of numbers, "
        "the share of pairs of names or cells to change",
        Cut.trends,
        share=True,
    ),
    "correlation": Measure(
        "correlation change",
        "the largest change of a correlation between two columns",
        "over all pairs",
        lambda cut: worst(cut.by_pair.values()) if cut.by_pair else None,
    ),
    "clusters": Measure(
        "cluster weights",
        "share of rows that would have to change cluster",
        "so that every cluster has its weight in the data",
        Cut.cluster_weights,
        share=True,
    ),
    "nearest_ratio": Measure(
        "nearest training row",
        "its median distance over a held-out row's: below 1 copies",
        "well below 1 means that training rows are being copied",
        Cut.nearest_ratio,
    ),
    "nearest_rank": Measure(
        "nearer than held-out",
        "chance to be nearer a training row than a held-out row is",
        "ties count half: 50 % where no training row is copied, whatever the distances are",
        Cut.nearest_rank,
        share=True,
    ),
    "nearest_close": Measure(
        "near-copies",
        "share as near a training row as the nearest 1 % held-out",
        "well above 1 % means that some training rows are being copied",
        Cut.nearest_close,
        share=True,
    ),
    "mse": Measure(
        "reconstruction error",
        "mean square over columns, in spreads squared",
        "of the difference between rows and their reconstructions",
        lambda cut: cut.error("mse"),
    ),
    "mse_raw": Measure(
        "raw reconstruction error",
        "mean square over columns, in their own units squared",
        "a category: share of rows that changed",
        lambda cut: cut.error("mse_raw"),
    ),
    "reconstruction_c2st": Measure(
        "reconstruction C2ST",
        "ROC AUC, reconstructions against other real rows",
        "the same classifier",
        Cut.reconstruction_c2st,
    ),
}


@dataclass(frozen=True)
class Figures:
    """What `evaluate` measured.

    Attributes:
        rows: rows compared at a time, `generated` against as many real ones; `real`, in the
            support; `train`, training rows searched.
        overall: figure by name, in the order of `FIGURES`, without those that need rows not given.
        columns: by column name, `wasserstein` in spreads and `shape`; with reconstructions also
            `mse` in spreads squared and `mse_raw` in the column's units squared (a category: share
            of rows that changed).
        pairs: two column names and their features' largest difference of correlations; worst first.
        clusters: each cluster's weight in the data and in the samples.
        pairs_off: those whose correlation changed by more than chance and by more than .1, with
            that change between all generated and held-out rows and its error; most errors first.
        pairs_within: the same in the rows of one name, `column name`, the third item: a slope may
            differ by name.
    """

    rows: dict[str, int]
    overall: dict[str, Figure]
    columns: dict[str, dict[str, Figure]]
    pairs: tuple[tuple[str, str, Figure], ...] = ()
    clusters: tuple[tuple[float, float], ...] = ()
    pairs_off: tuple[tuple[str, str, Figure], ...] = ()
    pairs_within: tuple[tuple[str, str, str, Figure], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON: `{"c2st": {"value": 0.503, "floor": 0.498}, "off": ...}`."""
        return {
            "rows": self.rows,
            **{name: figure._asdict() for name, figure in self.overall.items()},
            "columns": {
                name: {key: figure._asdict() for key, figure in figures.items()}
                for name, figures in self.columns.items()
            },
            "pairs": [{"columns": [a, b], **figure._asdict()} for a, b, figure in self.pairs],
            "pairs_off": [
                {"columns": [a, b], **figure._asdict()} for a, b, figure in self.pairs_off
            ],
            "pairs_within": [
                {"columns": [a, b], "name": name, **figure._asdict()}
                for a, b, name, figure in self.pairs_within
            ],
            "clusters": [{"data": data, "samples": samples} for data, samples in self.clusters],
        }


def evaluate(
    real_heldout: ArrayLike,
    generated: ArrayLike,
    *,
    columns: Sequence[Column],
    train: ArrayLike | None = None,
    reconstructed: tuple[ArrayLike, ArrayLike] | None = None,
    clusters: tuple[ArrayLike, ArrayLike] | None = None,
    n: int = MOST_ROWS,
    cuts: int = CUTS,
    seed: int = 0,
) -> Figures:
    """Measure generated rows against real ones.

    Give at least twice as many held-out rows as generated ones: half of them stand in for the
    generated rows to make the floors. More rows of either kind sharpen every figure.

    Args:
        real_heldout: [., d] rows that training never saw, in the user's units.
        generated: [k, d] rows of the model.
        columns: d columns.
        train: [t, d] training rows: memorisation needs them, and they enlarge the real support.
        reconstructed: real rows and their reconstructions, [r, d] each, row by row.
        clusters: int [.] cluster of real rows, and of generated ones.
        n: most rows to compare at a time, up to 60,000.
        cuts: of the held-out rows, over which figures are means.
        seed: of the cuts and of the classifier.

    Raises:
        DataError: too few rows, or a value that its column's kind does not allow.
        UsageError: scipy or scikit-learn is not installed; n, cuts or seed is no whole number.
    """
    columns = tuple(columns)
    n, cuts, seed = whole("n", n), whole("cuts", cuts), whole("seed", seed)
    rng = np.random.default_rng([seed, 0xE7A1])
    heldout, samples = _shuffled(real_heldout, rng), _shuffled(generated, rng)
    n = min(len(heldout) // 2, len(samples), n, MOST_ROWS)
    if n < LEAST_ROWS // 2:
        raise DataError(
            f"{len(heldout)} held-out and {len(samples)} generated rows are too few to compare; "
            f"give at least {LEAST_ROWS} and {LEAST_ROWS // 2}"
        )
    space = Space.fit(heldout, columns)
    real, made = space.standardise(heldout), space.standardise(samples)
    trained = None if train is None else searchable(space.standardise(_shuffled(train, rng)))
    back, errors = _reconstruction(space, *reconstructed) if reconstructed else (None, {})
    labels = tuple(np.asarray(part, np.int64) for part in clusters) if clusters else None
    assert labels is None or len(labels) == 2

    parts = []
    for k in range(cuts):
        order = rng.permutation(len(real))
        mixed, other, first = real[order], order[:n], order[n : 2 * n]
        drawn = np.arange(k * n, (k + 1) * n) % len(made)
        rows = (space, made, made[drawn], mixed[:n], mixed[n : 2 * n], mixed)
        cells = (samples[drawn], heldout[other], heldout[first])
        parts.append(Cut(*rows, cells, trained, errors, back, labels, seed + k))
    counts = {
        "generated": n,
        "real": len(parts[0].reference),
        "train": 0 if trained is None else len(trained),
    }
    standardised = space, real[:MOST_ROWS], made[:MOST_ROWS]
    return Figures(
        counts,
        _overall(parts),
        _by_column(parts, columns, errors),
        _by_pair(parts),
        _cluster_table(*labels) if labels else (),
        tuple((a, b, figure) for a, b, _, figure in _beyond_chance(_changes(*standardised))),
        _pairs_within(*standardised, heldout[:MOST_ROWS], samples[:MOST_ROWS]),
    )


def _overall(parts: Sequence[Cut]) -> dict[str, Figure]:
    """Return the means of the figures that every cut has."""
    by_cut = {name: [measure.of(cut) for cut in parts] for name, measure in FIGURES.items()}
    return {
        name: _mean([figure for figure in figures if figure is not None])
        for name, figures in by_cut.items()
        if None not in figures
    }


def _by_column(
    parts: Sequence[Cut], columns: Sequence[Column], errors: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, Figure]]:
    return {
        column.name: {
            "wasserstein": _mean([cut.by_column[column.name] for cut in parts]),
            "shape": _mean([cut.shapes[j] for cut in parts]),
            **{name: Figure(errors[name][j]) for name in errors},
        }
        for j, column in enumerate(columns)
    }


def _by_pair(parts: Sequence[Cut]) -> tuple[tuple[str, str, Figure], ...]:
    """Return the pairs of columns, the worst first."""
    pairs = [(*key, _mean([cut.by_pair[key] for cut in parts])) for key in parts[0].by_pair]
    return tuple(sorted(pairs, key=lambda pair: -pair[2].value))


def _changes(space: Space, real: Rows, made: Rows, name: str = "") -> list[Change]:
    """Return how much each pair of columns' correlations differ, in the rows of a name or all."""
    change = np.abs(correlations(made) - correlations(real))
    error = np.hypot(correlation_errors(made), correlation_errors(real))
    ratio, changes = change / error, []
    for (a, rows, _), (b, across, _) in combinations(space.by_column(), 2):
        block = ratio[rows, across]
        peak = np.unravel_index(np.argmax(block), block.shape)
        chance = block.size * erfc(float(block[peak]) / np.sqrt(2))
        figure = Figure(float(change[rows, across][peak]), None, float(error[rows, across][peak]))
        changes.append((chance, -float(block[peak]), a.name, b.name, name, figure))
    return changes


def _beyond_chance(changes: list[Change]) -> tuple[tuple[str, str, str, Figure], ...]:
    """Return the pairs of columns that Benjamini and Hochberg's test finds, less small changes."""
    changes = sorted(changes, key=lambda pair: pair[:2])
    ranks = [k for k, pair in enumerate(changes, 1) if pair[0] <= PAIR_CHANCE * k / len(changes)]
    significant = changes[: max(ranks, default=0)]
    return tuple(pair[2:] for pair in significant if pair[5].value > PAIR_CHANGE)


def _pairs_within(
    space: Space, real: Rows, made: Rows, cells: Rows, drawn: Rows
) -> tuple[tuple[str, str, str, Figure], ...]:
    """Return the pairs off in a name's rows; rows are [n, f] and [m, f], their cells [n, d]."""
    changes = []
    for j, column in enumerate(space.columns):
        if not column.rules.named:
            continue
        values, counts = np.unique(cells[:, j], return_counts=True)
        common = values[(counts >= LEAST_JUDGED_ROWS) & ~np.isnan(values)]
        for value in common.astype(int):
            heldout, generated = real[cells[:, j] == value], made[drawn[:, j] == value]
            if len(generated) >= LEAST_JUDGED_ROWS:
                changes += _changes(
                    space, heldout, generated, f"{column.name} {column.categories[value]}"
                )
    return _beyond_chance(changes)


def held_out(
    real: ArrayLike, generated: ArrayLike, reconstructed: ArrayLike, columns: Sequence[Column]
) -> dict[str, float]:
    """Return the figures that travel with a bundle: `mse`, `rows` and, from 200 rows up, `c2st`.

    Rows are [n, d]: held-out ones, those of the model, and the held-out ones reconstructed.

    Raises:
        DataError: a value that its column's kind does not allow.
        UsageError: scikit-learn is not installed.
    """
    rows = np.asarray(real, np.float64)
    space = Space.fit(rows, tuple(columns))
    held, made, back = map(
        space.standardise, (rows, np.asarray(generated), np.asarray(reconstructed))
    )
    figures = {"mse": float(np.mean((back - held) ** 2)), "rows": float(len(rows))}
    if len(rows) >= LEAST_JUDGED_ROWS:
        figures["c2st"] = c2st(made, held)
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def off_shares(real: Counts, made: Counts) -> Iterator[tuple[int, float, float]]:
    """Yield each value whose share is off, and both shares, worst first, from counts [V]."""
    a, b = (counts / counts.sum() for counts in (real, made))
    both = (real + made) / (real.sum() + made.sum())
    error = np.sqrt(both * (1 - both) * (1 / real.sum() + 1 / made.sum()))
    errors = np.divide(np.abs(a - b), error, out=np.zeros_like(a), where=error > 0)
    off = (errors > OFF_ERRORS) & (np.maximum(a, b) > OFF_TIMES * np.minimum(a, b))
    for value in np.argsort(-errors, kind="stable"):
        if off[value]:
            yield int(value), float(a[value]), float(b[value])


def paired_c2st(real: ArrayLike, generated: ArrayLike, columns: Sequence[Column]) -> float:
    """Return the classifier's figure on rows [n, k] with conditions, made at the real rows' own.

    One half of the real rows is compared with rows generated at the conditions of the other: no
    condition is in both.
    """
    space = Space.fit(np.asarray(real, np.float64), tuple(columns))
    held, made = map(space.standardise, (np.asarray(real), np.asarray(generated)))
    half = len(held) // 2
    return c2st(made[half : 2 * half], held[:half])


def _shuffled(rows: ArrayLike, rng: np.random.Generator) -> Rows:
    """Shuffle rows, which may be ordered, and keep what can be searched."""
    kept = np.asarray(rows)
    return kept[rng.permutation(len(kept))[:MOST_TREE_ROWS]].astype(np.float64)


def _mean(figures: Sequence[Figure]) -> Figure:
    """Mean over cuts, and the error, at least what each cut has; no floor where there is none."""
    values = [figure.value for figure in figures]
    floors = [figure.floor for figure in figures if figure.floor is not None]
    floor = float(np.mean(floors)) if floors else None
    errors = [figure.error for figure in figures if figure.error is not None]
    parts = [float(np.mean(errors))] if errors else []
    parts += [float(np.std(values, ddof=1))] if values[1:] else []
    return Figure(float(np.mean(values)), floor, max(parts, default=None))


def _reconstruction(
    space: Space, real: ArrayLike, back: ArrayLike
) -> tuple[tuple[Rows, Rows], dict[str, list[float]]]:
    """Return standardised rows and reconstructions, and each column's errors by name."""
    rows, returned = np.asarray(real, np.float64), np.asarray(back, np.float64)
    if rows.shape != returned.shape or len(rows) < LEAST_ROWS:
        raise DataError(
            f"{rows.shape} rows, {returned.shape} reconstructions; give as many of each, "
            f"{LEAST_ROWS} or more"
        )
    original, restored = space.standardise(rows), space.standardise(returned)
    square = np.square(restored - original).mean(axis=0)
    raw = []
    for j, column in enumerate(space.columns):
        error = column.rules.difference(returned[:, j], rows[:, j], column)
        missing = np.isnan(np.column_stack([returned[:, j], rows[:, j]]))
        if column.rules.named:
            error = np.where(missing.any(axis=1), missing[:, 0] != missing[:, 1], np.sign(error))
        else:  # no number of units lies between a number and a missing cell
            error = error[~missing.any(axis=1)]
        raw.append(float(np.mean(error**2)) if len(error) else 0.0)
    errors = {"mse": [float(square[part].sum()) for part in space.parts], "mse_raw": raw}
    return (original, restored), errors


def _cluster_table(
    known: NDArray[np.int64], made: NDArray[np.int64]
) -> tuple[tuple[float, float], ...]:
    count = int(max(known.max(), made.max())) + 1
    parts = (weights(rows, count).tolist() for rows in (known, made))
    return tuple(zip(*parts, strict=True))
