"""Between rows in the user's units and the space that networks see, in both directions, inside the exported graphs.

Each varying column becomes one standardised coordinate y = (f(x) - shift) / scale, with f by the column's kind:

    real, integer, category   f(x) = x
    log                       f(x) = log x
    periodic                  f(x) = (x - cut) mod period                 the cut lies where the data is emptiest
    bounded, two walls        f(x) = logit(margin + (1 - 2 margin) (x - low) / (high - low))
    bounded, one wall         f(x) = log(exp t - 1), t = margin + |x - wall| / spread      linear far from the wall

Columns whose values are steps apart (whole numbers, decimals) are rounded on the way back, and integers with walls are
bounded; there walls lie half a step farther out, so that the first and last value have as much room as any.

A column that never varies has no coordinate; it is written back as it was. ONNX has no Atan2, hence no angles.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scgan_infer.columns import Column, Table

MARGIN = 1e-4
WALLED = ("bounded", "integer")
DEQUANTISE_ABOVE = 16
LARGE = 3e38


class Transform(nn.Module):
    """The map of one data set: `forward` to standardised coordinates, `inverse` back.

    Attributes:
        columns: the d columns.
        dims: number d' of varying columns, so of coordinates.
    """

    cut: Tensor
    spread: Tensor
    shift: Tensor
    scale: Tensor
    constant: Tensor
    varying: Tensor

    def __init__(
        self, columns: tuple[Column, ...], varying: NDArray[np.int64] | None = None
    ) -> None:
        super().__init__()
        d = len(columns)
        self.columns = columns
        self._present: set[str] = set()
        keep = torch.arange(d) if varying is None else torch.from_numpy(varying)
        self.dims = len(keep)
        slot = torch.zeros(d, dtype=torch.int64)
        slot[keep] = torch.arange(self.dims)
        self.register_buffer("varying", keep)
        self.register_buffer("slot", slot, persistent=False)
        self.register_buffer("constant", torch.zeros(d))
        self.register_buffer("cut", torch.zeros(d))
        self.register_buffer("spread", torch.ones(d))
        self.register_buffer("shift", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        still = torch.ones(d, dtype=torch.bool)
        still[keep] = False
        self._mask("still", still.tolist())
        self._mask("log", [c.kind == "log" for c in columns])
        self._mask("periodic", [c.kind == "periodic" for c in columns])
        self._mask("rounded", [c.step is not None for c in columns])
        self._scaled = any(c.decimals for c in columns)
        walls = [
            (c.low is not None, c.high is not None) if c.kind in WALLED else (False, False)
            for c in columns
        ]
        self._mask("walled", [low and high for low, high in walls])
        self._mask("floored", [low and not high for low, high in walls])
        self._mask("roofed", [high and not low for low, high in walls])
        self._row("period", [c.period or 1.0 for c in columns])
        self._row("tens", [10.0 ** (c.decimals or 0) for c in columns])
        room = [c.step / 2 if c.step and c.kind in WALLED else 0.0 for c in columns]
        self._row(
            "low", [0.0 if c.low is None else c.low - r for c, r in zip(columns, room, strict=True)]
        )
        self._row(
            "high",
            [1.0 if c.high is None else c.high + r for c, r in zip(columns, room, strict=True)],
        )

        end = (
            self.get_buffer("low").double()
            + torch.tensor([c.period or 1.0 for c in columns]).double()
        )
        last = end.float()
        last = torch.where(
            last.double() < end, last, torch.nextafter(last, torch.full((d,), -LARGE))
        )
        self.register_buffer("last", last, persistent=False)
        ends = [column.rules.ends(column) if column.step else (-LARGE, LARGE) for column in columns]
        self._row("bottom", [max(bottom, -LARGE) for bottom, _ in ends])
        self._row("top", [min(top, LARGE) for _, top in ends])

    def _mask(self, name: str, flags: list[bool]) -> None:
        self.register_buffer(name, torch.tensor(flags), persistent=False)
        if any(flags):
            self._present.add(name)

    def _row(self, name: str, values: list[float]) -> None:
        self.register_buffer(name, torch.tensor(values), persistent=False)

    def _has(self, name: str) -> bool:
        return name in self._present

    @classmethod
    def fit(cls, table: Table) -> Transform:
        """Return the transform of a table: cuts, spreads, means and standard deviations from its rows."""
        values = table.values
        varying = np.flatnonzero(values.min(0) < values.max(0))
        transform = cls(table.columns, varying if len(varying) else np.zeros(1, np.int64))
        transform.constant.copy_(torch.from_numpy(values[0].copy()))
        for j, column in enumerate(table.columns):
            if column.kind == "periodic":
                transform.cut[j] = _emptiest(values[:, j], column.period or 1.0)
            elif column.kind in WALLED:
                wall = transform.get_buffer("low" if column.low is not None else "high")[j].numpy()
                transform.spread[j] = max(float(np.median(np.abs(values[:, j] - wall))), 1e-30)
        coordinates = transform._coordinates(torch.from_numpy(values).double())
        deviation = coordinates.std(0, correction=0)
        transform.shift.copy_(coordinates.mean(0))
        transform.scale.copy_(torch.where(deviation > 0, deviation, torch.ones(())))
        return transform

    def _coordinates(self, x: Tensor) -> Tensor:
        y = x
        if self._has("log"):
            y = torch.where(
                self.get_buffer("log"), torch.where(self.get_buffer("log"), x, 1.0).log(), y
            )
        if self._has("periodic"):
            turn = x - self.cut
            period = self.get_buffer("period")
            y = torch.where(
                self.get_buffer("periodic"), turn - period * torch.floor(turn / period), y
            )
        low, high = self.get_buffer("low"), self.get_buffer("high")
        if self._has("walled"):
            share = MARGIN + (1 - 2 * MARGIN) * ((x - low) / (high - low)).clamp(0, 1)
            y = torch.where(self.get_buffer("walled"), torch.log(share / (1 - share)), y)
        for name, distance in (("floored", x - low), ("roofed", high - x)):
            if self._has(name):
                t = MARGIN + distance.clamp(min=0) / self.spread
                y = torch.where(self.get_buffer(name), t + torch.log(1 - torch.exp(-t)), y)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Return coordinates [n, d'] of rows [n, d]."""
        y = (self._coordinates(x) - self.shift) / self.scale
        return y if self.dims == len(self.columns) else y.index_select(1, self.varying)

    def inverse(self, y: Tensor) -> Tensor:
        """Return rows [n, d] of coordinates [n, d'], each inside its column's domain."""
        if self.dims != len(self.columns):
            y = y.index_select(1, self.get_buffer("slot"))
        y = y * self.scale + self.shift
        x = y
        low, high = self.get_buffer("low"), self.get_buffer("high")
        if self._has("log"):
            logs = torch.where(self.get_buffer("log"), y, 0.0).clamp(-87.0, 88.0)
            x = torch.where(self.get_buffer("log"), logs.exp(), x)
        if self._has("periodic"):
            period = self.get_buffer("period")
            turn = y + self.cut - low
            turn = turn - period * torch.floor(turn / period)
            turn = torch.where(turn < period, turn, torch.zeros_like(turn))
            x = torch.where(
                self.get_buffer("periodic"), torch.minimum(low + turn, self.get_buffer("last")), x
            )
        if self._has("walled"):
            share = ((torch.sigmoid(y) - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)
            x = torch.where(
                self.get_buffer("walled"), torch.minimum(low + (high - low) * share, high), x
            )
        for name, wall, sign in (("floored", low, 1.0), ("roofed", high, -1.0)):
            if self._has(name):
                softplus = y.clamp(min=0) + torch.log(1 + torch.exp(-y.abs()))
                x = torch.where(
                    self.get_buffer(name),
                    wall + sign * self.spread * (softplus - MARGIN).clamp(min=0),
                    x,
                )
        if self._has("rounded"):
            tens = self.get_buffer("tens")
            near = torch.round(x * tens) / tens if self._scaled else torch.round(x)
            near = torch.where(near == 0, torch.zeros_like(near), near)  # no -0
            x = torch.where(self.get_buffer("rounded"), near, x)
            x = torch.minimum(torch.maximum(x, self.get_buffer("bottom")), self.get_buffer("top"))
        if self._has("still"):
            x = torch.where(self.get_buffer("still"), self.constant, x)
        return x

    def dequantise(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Return rows [n, d] with uniform noise of one step on columns that have steps and take many values."""
        noise = torch.rand(values.shape, generator=generator) - 0.5
        steps = [0.0 if c.step is None or c.kind == "category" else c.step for c in self.columns]
        for j, step in enumerate(steps):
            if step and len(torch.unique(values[:, j])) <= DEQUANTISE_ABOVE:
                steps[j] = 0.0
        return values + noise * torch.tensor(steps)


def _emptiest(values: NDArray[np.float32], period: float, bins: int = 180) -> float:
    """Return where a periodic column is emptiest: the middle of the widest run of lowest smoothed counts."""
    counts, edges = np.histogram(np.mod(values, period), bins, (0.0, period))
    smooth = np.sum([np.roll(counts, k) for k in range(-2, 3)], axis=0)
    empty = np.flatnonzero(smooth == smooth.min())
    runs = np.split(empty, np.flatnonzero(np.diff(empty) > 1) + 1)
    if len(runs) > 1 and runs[0][0] == 0 and runs[-1][-1] == bins - 1:
        runs[0] = np.concatenate([runs.pop() - bins, runs[0]])
    widest = max(runs, key=len)
    return float(edges[1]) * (float(widest[0] + widest[-1] + 1) / 2)


def table_of(columns: tuple[Column, ...], rows: Tensor) -> Table:
    """Return rows [n, d] as a table."""
    return Table(columns, rows.detach().cpu().numpy().astype(np.float32))
