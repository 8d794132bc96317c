"""Parts of pictures: one style, two colours, columns' axes, clouds of rows, PNG, PDF and SVG.

Data are blue, samples vermilion. A row is a point whose shade runs with the square root of the
density of rows around it, by a Gaussian kernel of about one cell of the axes; whole numbers are
cells in the same shades. Rows beyond the axes, which only a heavy tail has, are drawn on their
edge. The colours are Okabe and Ito's, which colour-blind readers can distinguish.

Figures are built without pyplot: only matplotlib's style is touched, for the length of a call.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column
from scgan_infer.errors import UsageError, install
from scgan_infer.files import write_bytes
from scgan_infer.kinds.datetime import Datetime, counts
from scgan_infer.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Rows = NDArray[np.float64]
P = ParamSpec("P")
T = TypeVar("T")

DATA, SAMPLES, INK, PALE = "#0072B2", "#D55E00", "#333333", "#C8C8C8"
OKABE_ITO = (DATA, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", SAMPLES, "#777777")
# yellow, the faintest on white, is the last to be taken
CLUSTERS = (*OKABE_ITO, "#882255", "#332288", "#999933", "#000000", "#F0E442")
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "svg.hashsalt": "scgan",  # the same names in each file
}
UNDATED: dict[str, dict[str, str | None]] = {
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}
KERNEL = 1.2  # cells of the axes
LETTER = 0.09  # inches that a letter of a tick's label takes
LARGE = 10_000  # from here on 25k stands for 25000
MOST_NAMES = 12  # of categories on an axis
LONGEST_LINE = 18  # letters of an axis label


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw in this module's style, whatever the user's is.

    Raises:
        UsageError: matplotlib is not installed.
    """

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            from matplotlib import style
        except ModuleNotFoundError as missing:
            raise UsageError(f"pictures need {missing.name}; {install('plot')}") from missing
        with style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return inside


@styled
def png(figure: Figure, dpi: int = 100) -> bytes:
    """Return a figure as a PNG of 256 colours, without a date or a program's version in it."""
    from PIL import Image

    full, file = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=dpi)
    with Image.open(full) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(file, "png", optimize=True)
    return file.getvalue()


@styled
def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, PDF or SVG, by the suffix; the file appears when it is complete.

    Raises:
        UsageError: another suffix.
        DataError: the file can't be written.
    """
    path, file = Path(path), io.BytesIO()
    if path.suffix == ".png":
        file.write(png(figure, dpi=150))
    elif path.suffix in UNDATED:
        figure.savefig(file, format=path.suffix[1:], dpi=200, metadata=UNDATED[path.suffix])
    else:
        raise UsageError(
            f"{path}: a picture is .png, .pdf or .svg, not {path.suffix!r}; choose another name"
        )
    write_bytes(path, file.getvalue())


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, which a notebook shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure._repr_png_ = partial(png, figure)  # type: ignore[attr-defined]
    return figure


def shown(text: str) -> str:
    r"""Return text that matplotlib draws as it is, on its lines: not as mathematics, all visible.

    >>> print(shown("$a_{b$"))
    \$a_{b\$
    """
    return "\n".join(map(visible, text.split("\n"))).replace("$", r"\$")


def bin_edges(column: Column, values: Rows, bins: int) -> Rows:
    """Cells over a column's domain, or its values but the farthest thousandth, and a margin.

    Missing cells are not drawn.
    """
    present = values[~np.isnan(values)]
    return column.rules.edges(column, present if len(present) else np.zeros(1), bins)


def fit_axis(
    axes: Axes, which: Literal["x", "y"], column: Column, edges: Rows, ticks: int = 5
) -> None:
    """Give an axis the column's name, unit, range and ticks."""
    label = f"{column.name} [{column.unit}]" if column.unit else column.name
    if isinstance(column.rules, Datetime):
        positions, dates, common = date_ticks(column, edges, ticks)
        label += f" ({common})" if common else ""
    elif column.anchor is not None:
        label += f" - {column.rules.spell(0.0, column)}"
    settings: dict[str, Any] = {
        "label": shown(fill(label, LONGEST_LINE)),
        "scale": column.rules.axis,
        "lim": (edges[0], edges[-1]),
    }
    if column.categories:
        every = math.ceil(len(column.categories) / MOST_NAMES)
        names = [
            shown(name if len(name) <= 12 else f"{name[:11]}…")
            for name in column.categories[::every]
        ]
        settings |= {"ticks": range(0, len(column.categories), every), "ticklabels": names}
        inches = axes.get_window_extent().width / axes.figure.dpi
        if which == "x" and LETTER * max(map(len, names)) * len(names) > 0.9 * inches:
            axes.tick_params(axis="x", labelrotation=90)
    elif isinstance(column.rules, Datetime):
        settings |= {"ticks": positions, "ticklabels": dates}
    axes.set(**{which + name: value for name, value in settings.items()})
    if column.rules.axis == "linear" and "ticks" not in settings:
        axes.locator_params(axis=which, nbins=ticks, integer=column.rules.whole)
        if np.abs(edges).max() >= LARGE:
            from matplotlib.ticker import EngFormatter

            getattr(axes, f"{which}axis").set_major_formatter(EngFormatter(sep=""))


def date_ticks(column: Column, edges: Rows, ticks: int) -> tuple[Rows, list[str], str]:
    """Return ticks' positions on a date column's axis, their labels, and what all dates share."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num, num2date

    assert isinstance(column.rules, Datetime)
    ends = column.rules.moments(edges[[0, -1]].astype(np.float32), column)
    locator = AutoDateLocator(minticks=2, maxticks=ticks, interval_multiples=True)
    days = locator.tick_values(*num2date(date2num(ends)))
    formatter = ConciseDateFormatter(locator)
    labels = formatter.format_ticks(days)
    moments = np.array([day.replace(tzinfo=None) for day in num2date(days)], "datetime64[us]")
    exact = moments.astype(np.int64).astype(np.float64)
    positions = counts(exact, column.resolution, "") - (column.anchor or 0.0)
    inside = (positions >= edges[0]) & (positions <= edges[-1])
    return positions[inside], [labels[k] for k in np.flatnonzero(inside)], formatter.get_offset()


def histogram(
    axes: Axes, data: Rows, samples: Rows, column: Column, edges: Rows, name: str = "samples"
) -> None:
    """Draw the share of data and of samples in each cell, rows beyond the axis in its last."""
    bins = edges.tolist()
    data, samples = (np.clip(rows, edges[0], edges[-1]) for rows in (data, samples))
    styles: tuple[tuple[Rows, dict[str, Any]], ...] = (
        (data, {"color": DATA, "alpha": 0.35, "label": "data"}),
        (samples, {"color": SAMPLES, "histtype": "step", "linewidth": 1.5, "label": shown(name)}),
    )
    for rows, options in styles:
        axes.hist(rows, bins, weights=np.full(len(rows), 1 / len(rows)), **options)
    fit_axis(axes, "x", column, edges)


def has_cells(column: Column, edges: Rows) -> bool:
    """Return whether each value of a column has its own cell."""
    return column.rules.whole and float(edges[1] - edges[0]) <= 1


def crowd(rows: Rows, edges: Sequence[Rows], whole: bool) -> Rows:
    """Return how many rows [n, 2] each cell has; by a kernel, unless each number has a cell."""
    from scipy.ndimage import gaussian_filter

    counts: Rows = np.histogram2d(rows[:, 0], rows[:, 1], bins=list(edges))[0]
    return counts if whole else np.asarray(gaussian_filter(counts, KERNEL, mode="reflect"))


def within(rows: Rows, edges: Sequence[Rows]) -> Rows:
    """Return rows [n, 2] without missing cells, those beyond the axes on their edge."""
    present = rows[~np.isnan(rows).any(axis=1)]
    return np.clip(present, [ends[0] for ends in edges], [ends[-1] for ends in edges])


def tallest(rows: Rows, edges: Sequence[Rows], *, whole: bool = False) -> float:
    """Return the 99.5 % quantile of the counts of cells that hold rows [n, 2]; see `crowd`."""
    heights = crowd(within(rows, edges), edges, whole)
    return float(np.quantile(heights[heights > 0], 0.995)) if heights.any() else 1.0


def cloud(
    axes: Axes, rows: Rows, edges: Sequence[Rows], colour: str, top: float, *, whole: bool = False
) -> None:
    """Draw rows [n, 2], darkest where `top` crowd together; whole numbers as cells."""
    from matplotlib.colors import PowerNorm
    from scipy.ndimage import map_coordinates

    rows = within(rows, edges)
    heights = crowd(rows, edges, whole)
    colormap, scale = shades(colour), PowerNorm(0.5, 0, max(top, 1e-9))
    if whole:
        density = np.ma.masked_equal(heights, 0).T
        axes.pcolormesh(edges[0], edges[1], density, cmap=colormap, norm=scale, rasterized=True)
        return
    cells = [
        np.interp(rows[:, k], ends, np.arange(len(ends))) - 0.5 for k, ends in enumerate(edges)
    ]
    densities = map_coordinates(heights, cells, order=1, mode="nearest")
    order = np.argsort(densities, kind="stable")
    x, y = rows[order].T
    axes.scatter(
        x,
        y,
        c=densities[order],
        s=dot(axes, len(rows)),
        linewidths=0,
        cmap=colormap,
        norm=scale,
        rasterized=True,
        clip_on=False,  # those on the edge would be halves
    )


def shades(colour: str) -> Colormap:
    """From a light tint, through the colour, to a dark shade of it."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    full = np.array(to_rgb(colour))
    tones = [tuple(0.4 * full + 0.6), tuple(full), tuple(0.4 * full)]
    return LinearSegmentedColormap.from_list("", tones)


def dot(axes: Axes, n: int) -> float:
    """Area of a point, in points squared, for n of them in a panel."""
    panel = axes.get_window_extent()
    inches = panel.width * panel.height / axes.figure.dpi**2
    return float(np.clip(1500 * inches / n, 1, max(3, 0.6 * inches)))
