"""What pictures are drawn with: one style, two colours, axes that fit a column, clouds of rows, PNG and PDF.

Data are blue, samples vermilion. A row is a point whose shade runs with the square root of the number of rows
around it; very many rows, or whole numbers, are a density in the same shades, in which a stray row still
shows. The colours are Okabe and Ito's, which colour-blind readers can tell apart.

Figures are built without pyplot: nothing global is touched but matplotlib's style, for the length of a call.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column
from scgan_infer.errors import UsageError, install
from scgan_infer.files import write_bytes
from scgan_infer.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Rows = NDArray[np.float64]
P = ParamSpec("P")
T = TypeVar("T")

DATA, SAMPLES, INK, PALE = "#0072B2", "#D55E00", "#333333", "#C8C8C8"
OKABE_ITO = (DATA, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", SAMPLES, "#F0E442", "#777777")
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
}
MOST_POINTS = 20_000  # above this a density
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

    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(file, "png", optimize=True)
    return file.getvalue()


@styled
def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG or PDF, by the suffix; the file appears when it is complete.

    Raises:
        UsageError: another suffix.
        DataError: the file can't be written.
    """
    path, file = Path(path), io.BytesIO()
    if path.suffix == ".png":
        file.write(png(figure, dpi=150))
    elif path.suffix == ".pdf":
        nothing = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(file, format="pdf", dpi=200, metadata=nothing)
    else:
        raise UsageError(
            f"{path}: a picture is .png or .pdf, not {path.suffix!r}; choose another name"
        )
    write_bytes(path, file.getvalue())


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def shown(text: str) -> str:
    r"""Return text that matplotlib draws as it is, on the lines that it has: not as mathematics, all visible.

    >>> print(shown("$a_{b$"))
    \$a_{b\$
    """
    return "\n".join(map(visible, text.split("\n"))).replace("$", r"\$")


def bin_edges(column: Column, values: Rows, bins: int) -> Rows:
    """Cells over a column's domain, or over all of its values but the farthest thousandth, and a margin.

    Missing cells have no place in a picture.
    """
    there = values[~np.isnan(values)]
    return column.rules.edges(column, there if len(there) else np.zeros(1), bins)


def fit_axis(axes: Axes, which: Literal["x", "y"], column: Column, edges: Rows) -> None:
    """Give an axis the column's name, unit, range and ticks."""
    label = f"{column.name} [{column.unit}]" if column.unit else column.name
    if column.anchor is not None:
        label += f" - {column.rules.spell(0.0, column)}"
    settings = {
        "label": shown(fill(label, LONGEST_LINE)),
        "scale": column.rules.axis,
        "lim": (edges[0], edges[-1]),
    }
    axes.set(**{which + name: value for name, value in settings.items()})
    if column.categories:
        every = math.ceil(len(column.categories) / MOST_NAMES)
        names = [
            shown(name if len(name) <= 12 else f"{name[:11]}…")
            for name in column.categories[::every]
        ]
        axes.set(
            **{
                f"{which}ticks": range(0, len(column.categories), every),
                f"{which}ticklabels": names,
            }
        )
        if which == "x" and sum(map(len, names)) > 20:
            axes.tick_params(axis="x", labelrotation=90)
    elif column.rules.axis == "linear":
        axes.locator_params(axis=which, nbins=5)


def histogram(
    axes: Axes, data: Rows, samples: Rows, column: Column, edges: Rows, name: str = "samples"
) -> None:
    """Draw the share of data and of samples in each cell."""
    bins = edges.tolist()
    axes.hist(
        data, bins, weights=np.full(len(data), 1 / len(data)), color=DATA, alpha=0.35, label="data"
    )
    shares = np.full(len(samples), 1 / len(samples))
    axes.hist(
        samples,
        bins,
        weights=shares,
        color=SAMPLES,
        histtype="step",
        linewidth=1.5,
        label=shown(name),
    )
    fit_axis(axes, "x", column, edges)


def tallest(rows: Rows, edges: Sequence[Rows]) -> float:
    """Count of rows [n, 2] in a cell that nearly all filled cells stay below."""
    counts = np.histogram2d(rows[:, 0], rows[:, 1], bins=list(edges))[0]
    return float(np.quantile(counts[counts > 0], 0.995)) if counts.any() else 1.0


def cloud(
    axes: Axes, rows: Rows, edges: Sequence[Rows], colour: str, top: float, *, whole: bool = False
) -> None:
    """Draw rows [n, 2], darkest where a cell holds `top`; whole numbers and many rows as a density."""
    from matplotlib.colors import PowerNorm

    counts = np.histogram2d(rows[:, 0], rows[:, 1], bins=list(edges))[0]
    shade, scale = shades(colour), PowerNorm(0.5, 0, max(top, 1))
    if whole or len(rows) > MOST_POINTS:
        density = np.ma.masked_equal(counts, 0).T
        axes.pcolormesh(edges[0], edges[1], density, cmap=shade, norm=scale, rasterized=True)
        return
    i, j = (np.searchsorted(ends[1:-1], rows[:, k]) for k, ends in enumerate(edges))
    crowd = counts[i, j]
    order = np.argsort(crowd, kind="stable")
    x, y = rows[order].T
    size = dot(axes, len(rows))
    axes.scatter(
        x, y, c=crowd[order], s=size, linewidths=0, cmap=shade, norm=scale, rasterized=True
    )


def shades(colour: str) -> Colormap:
    """From a light tint, through the colour, to a dark shade of it."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    full = np.array(to_rgb(colour))
    return LinearSegmentedColormap.from_list(
        "", [tuple(0.4 * full + 0.6), tuple(full), tuple(0.4 * full)]
    )


def dot(axes: Axes, n: int) -> float:
    """Area of a point, in points squared, for n of them in a panel."""
    panel = axes.get_window_extent()
    inches = panel.width * panel.height / axes.figure.dpi**2
    return float(np.clip(1500 * inches / n, 1, max(1, 0.6 * inches)))
