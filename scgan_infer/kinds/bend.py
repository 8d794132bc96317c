"""Long tails: numbers whose distances from a centre differ by factors, on one side or on both."""

from __future__ import annotations

import numpy as np

from scgan_infer.kinds.base import Form, Parameters, Raw

FARTHEST = 40.0  # of a coordinate
FEWEST = 100  # rows
MOST = 20_000  # of them that are looked at
WIDTHS = 10.0 ** -np.arange(0, 4.1, 0.5)  # of the middle half's spread
CURVED = 0.5  # of the variance, that normal quantiles leave unexplained, before
NORMAL = 0.025  # and after


class Bend(Form):
    """f(x) = asinh((x - centre) / width): a line near the centre, a logarithm far from it."""

    name = "bend"

    def coordinate(self, x: Raw, p: Parameters) -> Raw:
        return np.asarray(np.arcsinh((x - p["centre"]) / p["width"]))

    def inverse(self, y: Raw, p: Parameters) -> Raw:
        return np.asarray(p["centre"] + p["width"] * np.sinh(np.clip(y, -FARTHEST, FARTHEST)))

    def log_slope(self, x: Raw, p: Parameters) -> Raw:
        t = (x - p["centre"]) / p["width"]
        return np.asarray(-np.log(p["width"]) - 0.5 * np.log1p(t * t), x.dtype)


BEND = Bend()


def bend_of(values: Raw, coordinates: Raw) -> tuple[float, float] | None:
    """Return centre and width if a bend makes a column far more normal than its form, else None.

    How normal numbers are is the squared correlation W of the sorted ones with normal quantiles
    (Shapiro and Francia). Of the coordinates 1 - W must be at least `CURVED`, of the bent ones at
    most `NORMAL`.

    Args:
        values: [n].
        coordinates: [n], of the column's own form.
    """
    from scipy.special import ndtri

    if len(values) < FEWEST:
        return None
    few = np.sort(values)[:: -(-len(values) // MOST)].astype(np.float64)
    low, middle, high = np.quantile(few, [0.25, 0.5, 0.75])
    if low == high:
        return None
    normal = ndtri((np.arange(len(few)) + 0.5) / len(few))
    original = np.sort(coordinates)[:: -(-len(values) // MOST)].astype(np.float64)
    unexplained = 1 - np.corrcoef(original, normal)[0, 1] ** 2
    if unexplained < CURVED:
        return None
    tried = {}
    for centre in (few[0], middle, few[-1]):
        for width in (high - low) * WIDTHS:
            bent = np.arcsinh((few - centre) / width)
            tried[centre, width] = 1 - np.corrcoef(bent, normal)[0, 1] ** 2
    best = min(tried, key=lambda pair: tried[pair])
    return (float(best[0]), float(best[1])) if tried[best] <= NORMAL else None
