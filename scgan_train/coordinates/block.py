"""Columns of one form, computed together: coordinates and values back, in numpy and as graphs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.kinds import Form
from scgan_infer.kinds.base import Parameters
from scgan_train.coordinates.forms import GRAPHS, SCORES
from scgan_train.coordinates.rounding import Rounding
from scgan_train.graph import Var, const, op

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]

FAR = 1e38  # larger than any number


@dataclass(frozen=True)
class Block:
    """Columns that are computed together.

    Attributes:
        form: Of all of them.
        index: Indices of the columns, [k].
        positions: Slice of the coordinates.
        p: The form's parameters.
        rounding: Of the values; None where any number is possible.
        ends: The range [k] seen, at whose ends values are reflected; None where they may leave it.
        mirrors: Where f(x) is reflected, half a step beyond; `FAR` where the form itself ends.
    """

    form: Form
    index: NDArray[np.int64]
    positions: slice
    p: Parameters
    rounding: Rounding | None = None
    ends: tuple[Singles, Singles] | None = None
    mirrors: tuple[Singles, Singles] | None = None

    def reflected(self, low: Singles, high: Singles, steps: Singles) -> Block:
        """Return the block with its values, `steps` [k] apart, held between ends [k]."""
        room = steps.astype(np.float64) / 2
        last = np.stack([low - room, high + room])
        with np.errstate(all="ignore"):
            images = self.form.coordinate(last, self.p)
            reach = self.form.inverse(np.array([[-FAR], [FAR]]) + 0 * last, self.p)
            left = np.stack([last[0] - reach.min(0), reach.max(0) - last[1]])
            opens = np.isfinite(images) & (left > 2 * np.spacing(np.abs(last).astype(np.float32)))
        far = np.where(reach[0] < reach[1], [[-FAR], [FAR]], [[FAR], [-FAR]])
        first, second = np.sort(np.where(opens, images, far), 0).astype(np.float32)
        return replace(self, ends=(low, high), mirrors=(first, second))

    def rows(self, f: Floats) -> Floats:
        """Return values [n, k] of f(x) [n, k]."""
        if self.mirrors is not None:
            low, high = self.mirrors
            f = np.minimum(f, 2 * high - f)  # as it was where it is within: differences round
            f = np.maximum(f, 2 * low - f)
        x: Floats = self.form.inverse(f, self.p)
        x = x if self.ends is None else np.clip(x, *self.ends)
        return x if self.rounding is None else self.rounding.apply(x)

    def _upright(self) -> Parameters:
        """Return the parameters as graphs take them; tables of scores as they are."""
        return self.p if self.form is SCORES else {k: upright(row) for k, row in self.p.items()}

    def graph_log_slope(self, x: Var) -> Var:
        """Return log |f'(x)| [k, n] of values [k, n], as a graph."""
        return GRAPHS[self.form.name].log_slope(x, self._upright())

    def graph_forward(self, x: Var) -> Var:
        """Return f(x) [k, n] of values [k, n], as a graph."""
        return GRAPHS[self.form.name].forward(x, self._upright())

    def graph_rows(self, f: Var) -> Var:
        """Return values [k, n] of f(x) [k, n], as a graph; see `rows`."""
        if self.mirrors is not None:
            low, high = (upright(2 * mirror) for mirror in self.mirrors)
            f = op.min([f, op.sub(const(high), f)])
            f = op.max([f, op.sub(const(low), f)])
        x = GRAPHS[self.form.name].back(f, self._upright())
        if self.ends is not None:
            low, high = map(upright, self.ends)
            x = op.min([op.max([x, const(low)]), const(high)])
        return x if self.rounding is None else self.rounding.graph(x)


def upright(row: NDArray[Any]) -> NDArray[Any]:
    """Return [k] as [k, 1], one number per column where columns lie along axis 0."""
    return row[:, None]
