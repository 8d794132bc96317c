"""How far generated rows are from real ones, every figure beside its floor.

Held-out rows are cut in two halves, R and R'. A figure compares generated rows G with R; its floor compares
R' with R, the same number of rows, so it says what a perfect generator would score:

    value = D(G, R),  floor = D(R', R),  |G| = |R| = |R'|

Both are means over three random cuts, taken in the one space that `scgan_infer.judging.distances` defines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.judging.distances import (
    MOST_TREE_ROWS,
    Rows,
    Space,
    c2st,
    correlations,
    energy_distance,
    nearest,
    searchable,
    sliced_wasserstein,
)

Compared = dict[tuple[str, ...], tuple[float, float]]  # (figure, columns...) -> value, floor

CUTS = 3
LEAST_ROWS = 20  # held-out
MOST_ROWS = 10_000  # in one comparison
SUPPORT = 0.999  # quantile of real-to-real nearest distances at which the real support ends

MEANINGS = {
    "c2st": ("C2ST", "a classifier's ROC AUC, generated against real: 0.5 can't tell"),
    "sliced_wasserstein": (
        "sliced Wasserstein-2",
        "distance of projections on 256 directions, in spreads",
    ),
    "energy": (
        "energy distance",
        "twice the distance between the sets less those within, in spreads",
    ),
    "off": ("off", "share of generated rows outside the support of the real ones"),
    "missed": ("missed", "share of real rows outside the support of the generated ones"),
    "wasserstein": (
        "column Wasserstein-1",
        "of the worst column, in spreads (a category: share to move)",
    ),
    "correlation": (
        "correlation change",
        "the largest change of a correlation between two columns",
    ),
    "clusters": ("cluster weights", "share of rows that would have to change cluster"),
    "nearest_ratio": (
        "nearest training row",
        "its median distance over a held-out row's: below 1 copies",
    ),
    "nearest_close": ("near-copies", "share as near a training row as the nearest 1 % held-out"),
    "mse": ("reconstruction error", "mean square over columns, in spreads squared"),
    "mse_raw": ("raw reconstruction error", "mean square over columns, in their own units squared"),
    "reconstruction_c2st": (
        "reconstruction C2ST",
        "ROC AUC, reconstructions against other real rows",
    ),
}
SHARES = {"off", "missed", "clusters", "nearest_close"}


class Figure(NamedTuple):
    """A figure for the generated rows, and for real rows in their place (None: there is no such thing)."""

    value: float
    floor: float | None = None


@dataclass(frozen=True)
class Figures:
    """What `evaluate` measured.

    Attributes:
        rows: rows compared at a time, `generated` against as many real ones; `train`, training rows searched.
        overall: figure by name, in the order of `MEANINGS`; those that need rows not given are missing.
        columns: by column name, `wasserstein` in spreads; with reconstructions also `mse` in spreads squared
            and `mse_raw` in the column's units squared (a category: share of rows that changed).
        pairs: two column names and the largest difference of their features' correlations; worst first.
        clusters: each cluster's weight in the data and in the samples.
    """

    rows: dict[str, int]
    overall: dict[str, Figure]
    columns: dict[str, dict[str, Figure]]
    pairs: tuple[tuple[str, str, Figure], ...] = ()
    clusters: tuple[tuple[float, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it: `{"c2st": {"value": 0.503, "floor": 0.498}, "off": ...}`."""
        return {
            "rows": self.rows,
            **{name: figure._asdict() for name, figure in self.overall.items()},
            "columns": {
                name: {key: figure._asdict() for key, figure in figures.items()}
                for name, figures in self.columns.items()
            },
            "pairs": [{"columns": [a, b], **figure._asdict()} for a, b, figure in self.pairs],
            "clusters": [{"data": data, "samples": samples} for data, samples in self.clusters],
        }


def evaluate(
    real_heldout: ArrayLike,
    generated: ArrayLike,
    *,
    columns: Sequence[Column],
    train: ArrayLike | None = None,
    reconstructed: tuple[ArrayLike, ArrayLike] | None = None,
    clusters_data: ArrayLike | None = None,
    clusters_generated: ArrayLike | None = None,
    seed: int = 0,
) -> Figures:
    """Measure generated rows against real ones.

    Give twice as many held-out rows as generated ones: half of them stand in for the generated rows to make
    the floors. At most 10,000 rows are compared at a time; more generated rows sharpen every figure.

    Args:
        real_heldout: [n, d] rows that training never saw, in the user's units.
        generated: [k, d] rows of the model.
        columns: d columns.
        train: [t, d] training rows: memorisation needs them, and they enlarge the real support.
        reconstructed: real rows and their reconstructions, [r, d] each, row by row.
        clusters_data: int [.] cluster of real rows.
        clusters_generated: int [.] cluster of generated rows; give both or none.
        seed: of the cuts and of the classifier.

    Raises:
        DataError: too few rows, or a value that its column's kind does not allow.
        UsageError: scipy or scikit-learn is not installed.
    """
    columns = tuple(columns)
    rng = np.random.default_rng([seed, 0xE7A1])
    heldout, samples = _some(real_heldout, rng), _some(generated, rng)
    n = min(len(heldout) // 2, len(samples), MOST_ROWS)
    if n < LEAST_ROWS // 2:
        raise DataError(
            f"{len(heldout)} held-out and {len(samples)} generated rows are too few to compare; "
            f"give at least {LEAST_ROWS} and {LEAST_ROWS // 2}"
        )
    space = Space.fit(heldout, columns)
    real, made = space.place(heldout), space.place(samples)
    trained = None if train is None else searchable(space.place(_some(train, rng)))

    cuts = []
    for cut in range(CUTS):
        order = rng.permutation(len(real))
        first, other = real[order[:n]], real[order[-n:]]
        fake = made.take(range(cut * n, (cut + 1) * n), axis=0, mode="wrap")
        cuts.append(
            {
                ("c2st",): (c2st(fake, first, seed), c2st(other, first, seed)),
                ("sliced_wasserstein",): (
                    sliced_wasserstein(fake, first),
                    sliced_wasserstein(other, first),
                ),
                ("energy",): (energy_distance(fake, first), energy_distance(other, first)),
                **_support(
                    first if trained is None else np.concatenate([first, trained]), made, other
                ),
                **_columns(space, fake, other, first),
                **({} if trained is None else _memorisation(trained, fake, other, first)),
            }
        )
    mean = {key: Figure(*np.mean([cut[key] for cut in cuts], axis=0).tolist()) for key in cuts[0]}
    overall = {key[0]: figure for key, figure in mean.items() if len(key) == 1}
    by_column = {key[1]: {key[0]: figure} for key, figure in mean.items() if len(key) == 2}
    pairs = [(key[1], key[2], figure) for key, figure in mean.items() if len(key) == 3]

    if reconstructed is not None:
        overall |= _reconstruction(space, *reconstructed, by_column, rng, seed)
    clusters: tuple[tuple[float, float], ...] = ()
    if clusters_data is not None and clusters_generated is not None:
        clusters, overall["clusters"] = _cluster_weights(clusters_data, clusters_generated, rng)
    return Figures(
        rows={"generated": n, "train": 0 if trained is None else len(trained)},
        overall={name: overall[name] for name in MEANINGS if name in overall},
        columns=by_column,
        pairs=tuple(sorted(pairs, key=lambda pair: -pair[2].value)),
        clusters=clusters,
    )


def _some(rows: ArrayLike, rng: np.random.Generator) -> Rows:
    """Shuffle rows, which may be ordered, and keep what can be searched."""
    kept = np.asarray(rows)
    return kept[rng.permutation(len(kept))[:MOST_TREE_ROWS]].astype(np.float64)


def _support(reference: Rows, made: Rows, other: Rows) -> Compared:
    """Shares of generated rows beyond the real support, and of real rows beyond the generated one.

    A support is a set of rows and a reach around them, taken from distances between real rows in a set of
    that size.
    """

    def reach(rows: Rows) -> float:
        return float(np.quantile(nearest(rows[:MOST_ROWS], rows, skip=1), SUPPORT))

    def beyond(queries: Rows, rows: Rows, limit: float) -> float:
        return float(np.mean(nearest(queries, rows) > limit))

    m = min(len(made), len(reference))
    limit, limit_m = reach(reference), reach(reference[:m])
    return {
        ("off",): (beyond(made[:MOST_ROWS], reference, limit), beyond(other, reference, limit)),
        ("missed",): (beyond(other, made[:m], limit_m), beyond(other, reference[:m], limit_m)),
    }


def _memorisation(trained: Rows, fake: Rows, other: Rows, first: Rows) -> Compared:
    made, fresh, known = (nearest(rows, trained) for rows in (fake, other, first))
    close, typical = np.quantile(known, [0.01, 0.5])

    def ratio(distances: Rows) -> float:
        middle = float(np.median(distances))
        return middle / float(typical) if typical > 0 else 1.0 + middle

    return {
        ("nearest_ratio",): (ratio(made), ratio(fresh)),
        ("nearest_close",): (float(np.mean(made <= close)), float(np.mean(fresh <= close))),
    }


def _columns(space: Space, fake: Rows, other: Rows, first: Rows) -> Compared:
    figures: Compared = {}
    for column, part, spread in space.by_column():
        centre, target = space.centre[part], first[:, part]
        figures["wasserstein", column.name] = (
            column.rules.transport(fake[:, part], target, centre, spread),
            column.rules.transport(other[:, part], target, centre, spread),
        )
    by_fake, by_other = (np.abs(correlations(rows) - correlations(first)) for rows in (fake, other))
    for (a, rows, _), (b, across, _) in combinations(space.by_column(), 2):
        figures["correlation", a.name, b.name] = (
            float(by_fake[rows, across].max()),
            float(by_other[rows, across].max()),
        )
    for name in ("wasserstein", "correlation"):
        values_and_floors = [pair for key, pair in figures.items() if key[0] == name]
        if values_and_floors:
            value, floor = np.max(values_and_floors, axis=0).tolist()
            figures[name,] = (value, floor)
    return figures


def _reconstruction(
    space: Space,
    real: ArrayLike,
    back: ArrayLike,
    by_column: dict[str, dict[str, Figure]],
    rng: np.random.Generator,
    seed: int,
) -> dict[str, Figure]:
    rows, returned = np.asarray(real, np.float64), np.asarray(back, np.float64)
    if rows.shape != returned.shape or len(rows) < LEAST_ROWS:
        raise DataError(
            f"{rows.shape} rows, {returned.shape} reconstructions; give as many of each, {LEAST_ROWS} or more"
        )
    placed, placed_back = space.place(rows), space.place(returned)
    square = np.square(placed_back - placed).mean(axis=0)
    for j, (column, part, _) in enumerate(space.by_column()):
        error = column.rules.difference(returned[:, j], rows[:, j], column)
        if column.rules.named:
            error = np.sign(error)
        by_column[column.name] |= {
            "mse": Figure(float(square[part].sum())),
            "mse_raw": Figure(float(np.mean(error**2))),
        }
    half, rest = np.array_split(
        rng.permutation(len(rows))[: 2 * MOST_ROWS], 2
    )  # no row meets its reconstruction
    return {
        **{
            name: Figure(float(np.mean([figures[name].value for figures in by_column.values()])))
            for name in ("mse", "mse_raw")
        },
        "reconstruction_c2st": Figure(
            c2st(placed_back[half], placed[rest], seed), c2st(placed[half], placed[rest], seed)
        ),
    }


def _cluster_weights(
    data: ArrayLike, samples: ArrayLike, rng: np.random.Generator
) -> tuple[tuple[tuple[float, float], ...], Figure]:
    known, made = (rng.permutation(np.asarray(clusters, np.int64)) for clusters in (data, samples))
    count, n = int(max(known.max(), made.max())) + 1, min(len(known) // 2, len(made))

    def weights(clusters: NDArray[np.int64]) -> Rows:
        return np.bincount(clusters, minlength=count) / len(clusters)

    value, floor = (
        float(np.abs(weights(rows) - weights(known[:n])).sum() / 2)
        for rows in (made[:n], known[-n:])
    )
    table = tuple(zip(weights(known).tolist(), weights(made).tolist(), strict=True))
    return table, Figure(value, floor)


def tables(figures: Figures, lines: int) -> list[list[tuple[str, ...]]]:
    """Tables of text, head first: all figures, then the `lines` worst columns, pairs and clusters."""
    overall: list[tuple[str, ...]] = [
        (
            MEANINGS[name][0],
            *(number(part, share=name in SHARES) for part in figure),
            MEANINGS[name][1],
        )
        for name, figure in figures.overall.items()
    ]
    errors = [key for key in ("mse", "mse_raw") if key in figures.overall]
    columns: list[tuple[str, ...]] = [
        (name, *map(number, of["wasserstein"]), *(number(of[key].value) for key in errors))
        for name, of in sorted(
            figures.columns.items(), key=lambda item: -item[1]["wasserstein"].value
        )
    ]
    pairs: list[tuple[str, ...]] = [
        (f"{a}, {b}", *map(number, figure)) for a, b, figure in figures.pairs
    ]
    clusters: list[tuple[str, ...]] = [
        (f"{i}", number(data, share=True), number(samples, share=True))
        for i, (data, samples) in sorted(
            enumerate(figures.clusters), key=lambda item: -abs(item[1][0] - item[1][1])
        )
    ]
    heads_and_rows: list[tuple[tuple[str, ...], list[tuple[str, ...]]]] = [
        (("column", "Wasserstein-1", "floor", *("error", "raw error")[: len(errors)]), columns),
        (("pair", "correlation change", "floor"), pairs),
        (("cluster", "in data", "in samples"), clusters),
    ]
    return [
        [("figure", "value", "floor", "meaning"), *overall],
        *([head, *rows[:lines]] for head, rows in heads_and_rows if rows),
    ]


def table_text(figures: Figures, *, lines: int = 12) -> str:
    """Lay the figures out for a terminal; of columns, pairs and clusters the `lines` worst ones."""
    blocks = [heading(figures)]
    for table in tables(figures, lines):
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        words = {0, *(j for j, head in enumerate(table[0]) if head == "meaning")}
        blocks.append(
            "\n".join(
                "  ".join(
                    cell.ljust(width) if j in words else cell.rjust(width)
                    for j, (cell, width) in enumerate(zip(row, widths, strict=True))
                ).rstrip()
                for row in table
            )
        )
    return "\n\n".join(blocks)


def heading(figures: Figures) -> str:
    """Say what was compared with what."""
    n = f"{figures.rows['generated']:,}"
    return f"{n} generated rows against {n} held-out rows; floor: {n} other held-out rows in their place"


def number(value: float | None, *, share: bool = False) -> str:
    """Print four decimals, or two digits of a small number, or a share in percent; `-` for None."""
    if value is None:
        return "-"
    if share:
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.1e}"
