"""Pictures of data beside samples, of latents, of a training and of the decoder's noise.

Each function returns a matplotlib figure, `preview` its PNG. All raise UsageError where matplotlib
is not installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, UsageError
from scgan_infer.judging.canvas import (
    CLUSTERS,
    DATA,
    PALE,
    SAMPLES,
    Rows,
    bin_edges,
    cloud,
    dot,
    fit_axis,
    has_cells,
    histogram,
    new_figure,
    png,
    shown,
    styled,
    tallest,
)
from scgan_infer.judging.conditional import slices
from scgan_infer.judging.distances import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = dict[tuple[str, str], dict[str, list[tuple[float, float]]]]

MOST_ROWS = 50_000
MOST_COLUMNS = 6
MOST_MATRIX_ROWS = 20_000
MOST_NUMBERED_CLUSTERS = 32
CURVES_ACROSS = 4
SLICES = 5  # of a given column of numbers
PATHS = 100  # rows whose movement is drawn
GAINS = [digit * 10.0**power for power in range(7) for digit in (1, 2, 5)]
HELD_OUT = "held_out"
TITLES = {"likelihood": "minus log-likelihood", "minus_log_likelihood": "minus log-likelihood"}
TITLES |= {"info_nce": "InfoNCE", "cross_entropy": "cross-entropy"}
UNMOVED = "the noise moves no row: this decoder was trained without it"


@styled
def data_and_samples(
    real: ArrayLike,
    generated: ArrayLike,
    columns: Sequence[Column],
    *,
    title: str = "",
    name: str = "samples",
) -> Figure:
    """Draw as many real rows [n, d] as generated rows [k, d], called `name`, on the same axes.

    One column is a histogram, two are two planes, more are a matrix of both with the data above its
    diagonal and the samples below: of the 6 columns that say most about the others; the title names
    those left out.
    """
    data, samples = _same_number(real, generated)
    if len(columns) > 2:
        return _matrix(data, samples, columns, title, name)
    figure = new_figure(10, 5)
    both = np.concatenate([data, samples])
    if len(columns) == 1:
        axes = figure.add_subplot()
        edges = bin_edges(columns[0], both[:, 0], _bins(len(data)))
        histogram(axes, data[:, 0], samples[:, 0], columns[0], edges, name)
        axes.set_ylabel("share of rows")
        figure.legend(loc="outside upper right", ncols=2)
    else:
        cells = [bin_edges(c, both[:, j], _bins(len(data))) for j, c in enumerate(columns)]
        whole = any(map(has_cells, columns, cells))
        top = max(tallest(rows, cells, whole=whole) for rows in (data, samples))
        for i, (label, rows, colour) in enumerate((("data", data, DATA), (name, samples, SAMPLES))):
            axes = figure.add_subplot(1, 2, i + 1)
            cloud(axes, rows, cells, colour, top, whole=whole)
            fit_axis(axes, "x", columns[0], cells[0])
            fit_axis(axes, "y", columns[1], cells[1])
            axes.set_title(shown(f"{label}, {len(rows):,} rows"))
    figure.suptitle(shown(title))
    return figure


def pages(out: Path, names: Sequence[str], chosen: str | None) -> Iterator[tuple[Path, list[int]]]:
    """Yield each picture's file and its columns' indices: one, or pages of six of those chosen.

    Args:
        out: the file; more than one are numbered.
        names: of all columns.
        chosen: names with commas between, or "all"; None leaves the choice to the picture.

    Raises:
        UsageError: a name that there is not.
    """
    if chosen is None:
        yield out, list(range(len(names)))
        return
    wanted = list(names) if chosen == "all" else [name.strip() for name in chosen.split(",")]
    for name in wanted:
        if name not in names:
            raise UsageError(f"no column {name!r} to draw; there are {', '.join(names[:12])}")
    parts = in_pages([names.index(name) for name in wanted])
    for number, part in enumerate(parts, 1):
        yield out if len(parts) == 1 else out.with_stem(f"{out.stem}-{number}"), part


def in_pages(columns: Sequence[int]) -> list[list[int]]:
    """Cut columns into groups of as many as a picture shows."""
    return [list(columns[k : k + MOST_COLUMNS]) for k in range(0, len(columns), MOST_COLUMNS)]


@styled
def preview(real: ArrayLike, generated: ArrayLike, columns: Sequence[Column], title: str) -> bytes:
    """Draw a bundle's preview: a PNG of 1000 x 450 pixels, the same bytes for the same rows.

    Above 2 columns it shows the two that say most about each other.
    """
    data, samples = (rows[:5000] for rows in _same_number(real, generated))
    if len(columns) > 2:
        information = _information(data)
        pair = sorted(divmod(int(np.argmax(information)), len(columns)))
        data, samples, columns = data[:, pair], samples[:, pair], [columns[j] for j in pair]
    figure = data_and_samples(data, samples, columns, title=title)
    figure.set_size_inches(10, 4.5)
    return png(figure)


@styled
def latent_clusters(latents: ArrayLike, clusters: ArrayLike) -> Figure:
    """Draw latents [n, e] coloured by cluster [n], or as a density where there are more than 12.

    Above 2 dimensions two principal components are drawn.
    """
    order = np.random.default_rng(0).permutation(len(np.asarray(latents)))[:MOST_ROWS]
    (points,), names = _flat([np.asarray(latents, np.float64)[order]])
    present, index = np.unique(np.asarray(clusters, np.int64)[order], return_inverse=True)
    centres = np.array([np.median(points[index == i], axis=0) for i in range(len(present))])
    figure = new_figure(6.5, 6)
    axes = figure.add_subplot()
    edges = [bin_edges(Column("x"), points[:, j], _bins(len(points))) for j in (0, 1)]
    if len(present) > len(CLUSTERS):
        cloud(axes, points, edges, DATA, tallest(points, edges))
    else:
        (x, y), colours = points.T, np.array(CLUSTERS)[index]
        axes.scatter(x, y, c=colours, s=dot(axes, len(points)), linewidths=0, rasterized=True)
    if len(present) <= MOST_NUMBERED_CLUSTERS:
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        for i, (x, y) in zip(present, centres, strict=True):
            axes.text(x, y, str(i), ha="center", va="center", fontsize=9, bbox=box)
    axes.set(title=f"{len(present)} clusters of latents", xlabel=names[0], ylabel=names[1])
    return figure


@styled
def latent_models(true: ArrayLike, models: Mapping[str, ArrayLike]) -> Figure:
    """Draw real rows' encoder latents [n, e] beside each latent model's, on the same axes."""
    flat, _ = _flat([np.asarray(points, np.float64) for points in (true, *models.values())])
    return planes({"": dict(zip(("real rows", *models), flat, strict=True))})


@styled
def planes(grid: Mapping[str, Mapping[str, ArrayLike]], *, title: str = "") -> Figure:
    """Draw a grid of planes; grid[distribution][name] is [n, 2], the first has data and axes."""
    width = max(len(row) for row in grid.values())
    figure = new_figure(2.4 * width + 0.4, 2.4 * len(grid) + 0.5)
    for i, (distribution, points_by_name) in enumerate(grid.items()):
        row = {name: np.asarray(points, np.float64) for name, points in points_by_name.items()}
        data, n = next(iter(row.values())), min(MOST_ROWS, *map(len, row.values()))
        middle = (data.max(axis=0) + data.min(axis=0)) / 2
        wider = middle + 1.15 * (data - middle)
        edges = [bin_edges(Column("x"), wider[:, j], _bins(n)) for j in (0, 1)]
        top = max(tallest(points[:n], edges) for points in row.values())
        for j, (name, points) in enumerate(row.items()):
            axes = figure.add_subplot(len(grid), width, i * width + j + 1)
            cloud(axes, points[:n], edges, SAMPLES if j else DATA, top)
            axes.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]], xticks=[], yticks=[])
            axes.set_title(name if i == 0 else "")
            axes.set_ylabel(distribution.replace("_", " ") if j == 0 else "", fontsize=11)
    figure.suptitle(shown(title))
    return figure


@styled
def training_curves(history: Path | str) -> Figure:
    """Draw every number of a run's `history.jsonl` against the step, by stage and phase.

    Values on rows held out stand beside the loss that they are of.

    Raises:
        DataError: the file can't be read, a line is not a JSON object, or there is nothing to draw.
    """
    panels = [
        (" ".join(dict.fromkeys(name)).strip() if j == 0 else "", term, terms)
        for name, terms in _read_history(Path(history)).items()
        for j, term in enumerate(term for term in terms if term != HELD_OUT)
    ]
    width = min(CURVES_ACROSS, len(panels))
    height = -(-len(panels) // width)
    figure = new_figure(max(5.0, 3.0 * width), 2.3 * height)
    for i, (name, term, terms) in enumerate(panels):
        axes = figure.add_subplot(height, width, i + 1)
        steps, losses = np.array(terms[term]).T
        window = max(1, len(losses) // 50)
        smooth = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        axes.plot(steps, losses, color=PALE, linewidth=1)
        axes.plot(steps[window - 1 :], smooth, color=DATA, linewidth=1.5, label="training")
        watched = next(t for t in terms if not t.startswith("critic_") and t != HELD_OUT)
        if HELD_OUT in terms and term == watched:
            held = np.array(terms[HELD_OUT])
            axes.plot(*held.T, color=SAMPLES, linewidth=1.5, label="held out")
            losses = np.concatenate([losses, held[:, 1]])
        if losses.min() > 0 and losses.max() > 20 * losses.min():
            axes.set_yscale("log")
        axes.locator_params(axis="x", nbins=4)
        axes.set(title=name, ylabel=TITLES.get(term, term.replace("_", " ")))
        if i + width >= len(panels):
            axes.set_xlabel("step")
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines[1:]}
    figure.legend(handles=list(lines.values()), loc="outside lower right", ncols=2, fontsize=9)
    return figure


@styled
def noise_directions(
    base: ArrayLike, moved: ArrayLike, strengths: Sequence[float], columns: Sequence[Column]
) -> Figure:
    """Draw what each dimension of the decoder's noise does to rows.

    Args:
        base: [n, d] rows decoded without noise.
        moved: [q, s, n, d] the same rows, noise dimension k at strength `strengths[i]`, others 0.
        strengths: s strengths, ascending, as -2 to 2.
        columns: d columns. With 2 the rows' paths are drawn, else each column's move in spreads.
    """
    start, end = np.asarray(base, np.float64), np.asarray(moved, np.float64)
    space = Space.fit(start, tuple(columns))
    shift = np.array([space.standardise(ends[-1]) - space.standardise(ends[0]) for ends in end])
    squares = [np.square(shift[..., part]).sum(axis=2).mean(axis=1) for part in space.parts]
    reach = np.sqrt(np.stack(squares, axis=1))
    if len(columns) == 2:
        return _paths(start, end, strengths, columns, reach)
    numbers = reach.size <= 200
    width, height = (0.75, 0.4) if numbers else (0.2, 0.2)  # of a cell
    figure = new_figure(2.5 + width * len(columns), 1.6 + height * len(reach))
    axes = figure.add_subplot()
    image = axes.imshow(reach, cmap="cividis", aspect="auto", vmin=0)
    axes.set_xticks(range(len(columns)), [shown(column.name) for column in columns], rotation=90)
    axes.set_yticks(range(len(reach)), [f"z{k}" for k in range(len(reach))])
    axes.tick_params(labelsize=9)
    if numbers:
        for (k, j), value in np.ndenumerate(reach):
            ink = "white" if value < reach.max() / 2 else "black"
            axes.text(j, k, f"{value:.2g}", ha="center", va="center", color=ink, fontsize=9)
    figure.colorbar(image, label="movement, in the column's spread")
    ends = f"from {strengths[0]:g} to {strengths[-1]:g}"
    axes.set_title(f"each dimension of the noise {ends}" if reach.max() else UNMOVED)
    return figure


def _same_number(real: ArrayLike, generated: ArrayLike) -> tuple[Rows, Rows]:
    """As many of each, at random: a file may be ordered."""
    data, samples = np.asarray(real), np.asarray(generated)
    n, rng = min(len(data), len(samples), MOST_ROWS), np.random.default_rng(0)
    return (
        data[rng.permutation(len(data))[:n]].astype(np.float64),
        samples[rng.permutation(len(samples))[:n]].astype(np.float64),
    )


def _bins(n: int) -> int:
    return int(np.clip(np.sqrt(n) / 1.5, 25, 120))


def _matrix(data: Rows, samples: Rows, columns: Sequence[Column], title: str, name: str) -> Figure:
    ranked = np.argsort(-_information(data).sum(axis=1), kind="stable")[:MOST_COLUMNS]
    kept = np.sort(ranked).tolist()
    left = [column.name for j, column in enumerate(columns) if j not in kept]
    data, samples = (rows[:MOST_MATRIX_ROWS, kept] for rows in (data, samples))
    columns = [columns[j] for j in kept]
    d, both = len(columns), np.concatenate([data, samples])
    edges = [bin_edges(c, both[:, j], _bins(len(data) // 4)) for j, c in enumerate(columns)]
    figure = new_figure(1.2 + 1.75 * d, 1.2 + 1.75 * d)
    for i, j in np.ndindex(d, d):
        axes = figure.add_subplot(d, d, i * d + j + 1)
        if i == j:
            histogram(axes, data[:, i], samples[:, i], columns[i], edges[i])
            fit_axis(axes, "x", columns[i], edges[i], 3)
            axes.set_yticks([])
            axes.set_ylabel(shown(columns[i].name))
        else:
            cells = [edges[j], edges[i]]
            whole = has_cells(columns[i], edges[i]) or has_cells(columns[j], edges[j])
            top = max(tallest(rows[:, [j, i]], cells, whole=whole) for rows in (data, samples))
            rows, colour = (data, DATA) if i < j else (samples, SAMPLES)
            cloud(axes, rows[:, [j, i]], cells, colour, top, whole=whole)
            fit_axis(axes, "x", columns[j], edges[j], 3)
            fit_axis(axes, "y", columns[i], edges[i])
        axes.tick_params(labelsize=9, labelbottom=i == d - 1, labelleft=j == 0)
        if (i, j) == (0, d - 1):  # the panel with the first row's labels is a histogram
            axes.yaxis.tick_right()
            axes.tick_params(labelright=True)
            axes.spines["right"].set_visible(True)
        if i < d - 1:
            axes.set_xlabel("")
        if j > 0:
            axes.set_ylabel("")
    head = [title] if title else []
    head.append(f"data above the diagonal (blue), {name} below (vermilion), both on it")
    if left:
        more = f" and {len(left) - 4} more" if left[4:] else ""
        head.append(f"not shown: {', '.join(left[:4])}{more}")
    figure.suptitle(shown("\n".join(head)), fontsize=11)
    return figure


def _information(data: Rows) -> Rows:
    """Mutual information [d, d] of columns in nats, of 12 x 12 cells of ranks; diagonal 0."""
    order = np.argsort(data[:5000], axis=0, kind="stable")
    ranks = np.argsort(order, axis=0) * 12 // len(order)
    information = np.zeros((data.shape[1], data.shape[1]))
    for i, j in combinations(range(data.shape[1]), 2):
        joint = np.bincount(12 * ranks[:, i] + ranks[:, j], minlength=144) / len(ranks)
        nonzero = joint[joint > 0]
        information[i, j] = information[j, i] = np.sum(nonzero * np.log(144 * nonzero))
    return information


def _flat(arrays: Sequence[Rows]) -> tuple[list[Rows], tuple[str, str]]:
    """Bring latents [n, e] to the plane and name its axes; for e > 2 by PCA of the first array."""
    e = arrays[0].shape[1]
    if e == 1:
        rng = np.random.default_rng(0)
        raised = [np.column_stack([points, rng.random(len(points))]) for points in arrays]
        return raised, ("latent 0", "random height")
    if e == 2:
        return list(arrays), ("latent 0", "latent 1")
    centre = arrays[0].mean(axis=0)
    axes = np.linalg.eigh(np.cov(arrays[0].T))[1][:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    names = ("first principal component", "second principal component")
    return [(points - centre) @ axes for points in arrays], names


def _read_history(path: Path) -> Curves:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"can't read {path}: {error.strerror}; give a run that was trained"
        ) from error
    curves: Curves = {}
    for number, line in enumerate(lines, 1):
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON; the file is damaged") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: not an object; the file is damaged")
        terms = curves.setdefault((str(record.get("stage", "")), str(record.get("phase", ""))), {})
        for key, value in record.items():
            if key != "step" and isinstance(value, int | float) and np.isfinite(value):
                points = terms.setdefault(key, [])
                points.append((float(record.get("step", len(points))), float(value)))
    curves = {key: terms for key, terms in curves.items() if terms}
    if not curves:
        raise DataError(f"{path} has no numbers to draw; train first")
    return curves


def _paths(
    base: Rows, moved: Rows, strengths: Sequence[float], columns: Sequence[Column], reach: Rows
) -> Figure:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    chosen = np.random.default_rng(0).permutation(len(base))[:PATHS]
    start, shift = base[chosen], np.empty_like(moved[:, :, chosen])
    for j, column in enumerate(columns):
        shift[..., j] = column.rules.difference(moved[:, :, chosen, j], base[chosen, j], column)
    gain = max([g for g in GAINS if g * reach.max() < 0.6], default=1.0) if reach.max() > 0 else 1.0
    edges = [bin_edges(column, base[:, j], 25) for j, column in enumerate(columns)]
    width = min(4, len(shift))
    height = -(-len(shift) // width)
    figure = new_figure(2.9 * width + 0.8, 2.7 * height + 0.5)
    for k, moves in enumerate(shift):
        axes = figure.add_subplot(height, width, k + 1)
        points = start + gain * moves
        segments = np.stack([points[:-1], points[1:]], axis=2).reshape(-1, 2, 2)
        between = np.repeat((np.array(strengths[:-1]) + strengths[1:]) / 2, len(start))
        ends = Normalize(strengths[0], strengths[-1])
        lines = LineCollection(list(segments), cmap="PuOr", norm=ends, array=between, linewidths=2)
        axes.add_collection(lines)
        axes.scatter(start[:, 0], start[:, 1], s=1.5, color="black", linewidths=0, zorder=3)
        fit_axis(axes, "x", columns[0], edges[0])
        fit_axis(axes, "y", columns[1], edges[1])
        axes.set(title=f"z{k}: {np.sqrt(np.mean(reach[k] ** 2)):.2g} spreads", xlabel="", ylabel="")
    figure.colorbar(lines, ax=figure.axes, label="noise")
    farther = f", drawn {gain:g} times as far" if gain > 1 else ""
    moves = f"where each dimension of the noise moves rows{farther}"
    figure.suptitle(moves if reach.max() else UNMOVED)
    return figure


@styled
def given_slices(
    real: Rows, made: Rows, condition: Rows, given: Column, columns: Sequence[Column]
) -> Figure:
    """Draw each column where a given one is low, in fifths, top to bottom, or has each name.

    Args:
        real: [n, d] rows.
        made: [n, d] rows generated at their conditions.
        condition: [n] the given column.
        given: that column.
        columns: d columns, of which the first six are drawn.
    """
    parts = [part for part in slices(given, condition, SLICES) if part[1].any()][:MOST_COLUMNS]
    columns = columns[:MOST_COLUMNS]
    figure = new_figure(2.2 * len(columns) + 0.6, 1.3 * len(parts) + 0.6)
    axes = figure.subplots(len(parts), len(columns), squeeze=False)
    for j, column in enumerate(columns):
        edges = bin_edges(column, real[:, j], 40)
        for row, (label, inside) in enumerate(parts):
            panel = axes[row, j]
            data, samples = (rows[inside, j] for rows in (real, made))
            data, samples = (cells[~np.isnan(cells)] for cells in (data, samples))
            histogram(panel, data, samples, column, edges)
            fit_axis(panel, "x", column, edges, ticks=3)
            panel.set_yticks([])
            if row < len(parts) - 1:
                panel.set(xlabel="", xticklabels=[])
            if not j:
                panel.set_ylabel(shown(label.replace(" to ", "\nto ")), fontsize=7)
    figure.suptitle(shown(f"where {given.name} lies; filled: data, line: samples"), fontsize=9)
    return figure
