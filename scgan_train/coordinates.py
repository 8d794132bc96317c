"""Between rows in the user's units and the space that networks see, in both directions.

Each varying column becomes one standardised coordinate y = (f(x) - shift) / scale, with f the form of its kind
(`scgan_infer.kinds`). Columns of one form are computed together, as a block; coordinates lie in the order of blocks.
Columns whose values are steps apart are rounded on the way back. A column that never varies has no coordinate; it is
written back as it was.

Everything here is computed twice: in numpy, and as a part of the exported graphs, whose networks end in an affine map
that scale and shift are folded into: the rows of y are graph_rows(scale y + shift).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column, Table
from scgan_infer.kinds import Form
from scgan_infer.kinds.base import Parameters
from scgan_infer.kinds.walls import MARGIN
from scgan_train.graph import Var, const, op

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]

JITTER_ABOVE = 16  # distinct values of a column with steps; fewer are told apart without noise
LARGE = 3e38


@dataclass(frozen=True)
class Block:
    """Columns that are computed together.

    Attributes:
        form: Of all of them.
        index: Where they are among the columns, [k].
        place: Where they are among the coordinates.
        p: The form's parameters.
        steps: Values to a unit [k], least and greatest value [k]; none where any number may stand.
    """

    form: Form
    index: NDArray[np.int64]
    place: slice
    p: Parameters
    steps: tuple[Singles, Singles, Singles] | None

    def rows(self, f: Floats) -> Floats:
        """Return values [n, k] of f(x) [n, k]."""
        x: Floats = self.form.inverse(f, self.p)
        if self.steps is None:
            return x
        tens, least, greatest = self.steps
        with np.errstate(over="ignore"):
            x = np.rint(x * tens) / tens
        return np.asarray(np.clip(x + 0.0, least, greatest))  # -0 + 0 is 0

    def graph_forward(self, x: Var) -> Var:
        """Return f(x) [k, n] of values [k, n], as a graph."""
        return GRAPHS[self.form.name][0](x, {name: _upright(row) for name, row in self.p.items()})

    def graph_rows(self, f: Var) -> Var:
        """Return values [k, n] of f(x) [k, n], as a graph; see `rows`."""
        x = GRAPHS[self.form.name][1](f, {name: _upright(row) for name, row in self.p.items()})
        if self.steps is None:
            return x
        tens, least, greatest = map(_upright, self.steps)
        scaled = (tens != 1).any()
        x = op.round(op.mul(x, const(tens)) if scaled else x)
        x = op.div(x, const(tens)) if scaled else x
        x = op.where(op.equal(x, const(0)), const(0), x)  # no -0
        return op.min([op.max([x, const(least)]), const(greatest)])


class Coordinates:
    """The map of one data set: `forward` to standardised coordinates, `inverse` back, in the precision they get.

    Attributes:
        columns: The d columns.
        dims: Number d' of coordinates; never 0.
        index: The column of each coordinate, int64 [d'].
        shift: float32 [d'].
        scale: float32 [d'].
        constant: A row, float32 [d], for the columns that have no coordinate.
    """

    def __init__(self, columns: Sequence[Column], state: Mapping[str, NDArray[Any]]) -> None:
        self.columns = tuple(columns)
        self.index: NDArray[np.int64] = state["index"]
        self.fitted, self.shift, self.scale, self.constant = (
            np.asarray(state[name], np.float32) for name in ("fitted", "shift", "scale", "constant")
        )
        self.dims = len(self.index)
        self.slot = np.zeros(len(self.columns), np.int64)
        self.slot[self.index] = np.arange(self.dims)
        self.still = ~np.isin(np.arange(len(self.columns)), self.index)
        groups = groupby(range(self.dims), lambda k: _group(self.columns[self.index[k]]))
        self.blocks = [self._block(list(places)) for _, places in groups]

    def _block(self, places: list[int]) -> Block:
        place = slice(places[0], places[-1] + 1)
        columns = [self.columns[j] for j in self.index[place]]
        form, steps = columns[0].rules.form(columns[0]), None
        if columns[0].step is not None:
            tens = np.array([10.0 ** (column.decimals or 0) for column in columns], np.float32)
            ends = np.array([column.rules.ends(column) for column in columns])
            least, greatest = np.clip(ends, -LARGE, LARGE).astype(np.float32).T
            steps = tens, least, greatest
        return Block(
            form, self.index[place], place, form.parameters(columns, self.fitted[place]), steps
        )

    @classmethod
    def fit(cls, table: Table) -> Coordinates:
        """Return the coordinates of a table: what forms need, means and standard deviations from its rows."""
        values, columns = table.values, table.columns
        varying = np.flatnonzero(values.min(0) < values.max(0)).tolist() or [0]
        groups = {_group(columns[j]): None for j in varying}
        index = [j for group in groups for j in varying if _group(columns[j]) == group]
        fitted = [columns[j].rules.form(columns[j]).fit(columns[j], values[:, j]) for j in index]
        state = {"index": np.array(index), "fitted": np.array(fitted), "constant": values[0]}
        nothing = {"shift": np.zeros(len(index)), "scale": np.ones(len(index))}
        raw = cls(columns, state | nothing)._raw(values.astype(np.float64))
        deviation = raw.std(0)
        scale = np.where(deviation > 0, deviation, 1.0)
        return cls(columns, state | {"shift": raw.mean(0), "scale": scale})

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that, with the columns, make it again."""
        return {
            "index": self.index,
            "fitted": self.fitted,
            "shift": self.shift,
            "scale": self.scale,
            "constant": self.constant,
        }

    @classmethod
    def load(cls, columns: Sequence[Column], state: Mapping[str, NDArray[Any]]) -> Coordinates:
        """Inverse of `state`."""
        return cls(columns, state)

    def _raw(self, x: Floats) -> Floats:
        parts = [block.form.coordinate(x[:, block.index], block.p) for block in self.blocks]
        return np.concatenate(parts, axis=1)

    def forward(self, x: Floats) -> Floats:
        """Return coordinates [n, d'] of rows [n, d]."""
        y: Floats = (self._raw(x) - self.shift) / self.scale
        return y

    def inverse(self, y: Floats) -> Floats:
        """Return rows [n, d] of coordinates [n, d'], each inside its column's domain."""
        f = y * self.scale + self.shift
        x = np.empty((len(y), len(self.columns)), y.dtype)
        x[:] = self.constant
        for block in self.blocks:
            x[:, block.index] = block.rows(f[:, block.place])
        return x

    def dequantise(self, values: Singles, rng: np.random.Generator) -> Singles:
        """Return rows [n, d] with uniform noise of one step on columns that have steps and take many values."""
        out = values.copy()
        for j, column in enumerate(self.columns):
            if column.step is not None and column.rules.jitters:
                noise = rng.random(len(values), np.float32) - np.float32(0.5)
                if len(np.unique(values[:, j])) > JITTER_ABOVE:
                    out[:, j] += noise * np.float32(column.step)
        return out

    def graph_forward(self, x: Var) -> Var:
        """See `forward`."""
        x = op.gather(op.transpose(x), const(self.index, np.int64), axis=0)
        raw = op.concat([block.graph_forward(_part(x, block)) for block in self.blocks], axis=0)
        y = op.div(op.sub(raw, const(_upright(self.shift))), const(_upright(self.scale)))
        return op.transpose(y)

    def graph_rows(self, f: Var) -> Var:
        """Return rows [n, d] of coordinates that are not standardised, f(x) = y scale + shift [n, d'].

        Columns lie along axis 0 meanwhile: along a short last axis, broadcasting is ten times slower.
        """
        in_order = np.array_equal(self.index, np.arange(len(self.columns)))
        if in_order and all(block.form.name == "line" and not block.steps for block in self.blocks):
            return f
        f = op.transpose(f)
        x = op.concat([block.graph_rows(_part(f, block)) for block in self.blocks], axis=0)
        if not in_order:
            x = op.gather(x, const(self.slot, np.int64), axis=0)
        if self.still.any():
            still, constant = _upright(self.still), _upright(self.constant)
            x = op.where(const(still, np.bool_), const(constant), x)
        return op.transpose(x)


def _group(column: Column) -> tuple[str, bool]:
    """Return what the columns of a block have in common."""
    return column.rules.form(column).name, column.step is not None


def _upright(row: NDArray[Any]) -> NDArray[Any]:
    """Return [k] as [k, 1], one number a column where columns lie along axis 0."""
    return row[:, None]


def _part(y: Var, block: Block) -> Var:
    """Return the coordinates [k, n] of a block."""
    return op.gather(y, const(np.arange(block.place.start, block.place.stop), np.int64), axis=0)


def _line(x: Var, p: Parameters) -> Var:
    return x


def _log(x: Var, p: Parameters) -> Var:
    return op.log(x)


def _exp(f: Var, p: Parameters) -> Var:
    return op.exp(op.clip(f, const(-87.0), const(88.0)))


def _within(turn: Var, p: Parameters) -> Var:
    period = const(p["period"])
    return op.sub(turn, op.mul(period, op.floor(op.div(turn, period))))


def _turn(x: Var, p: Parameters) -> Var:
    return _within(op.sub(x, const(p["cut"])), p)


def _turn_back(f: Var, p: Parameters) -> Var:
    turn = _within(op.sub(op.add(f, const(p["cut"])), const(p["low"])), p)
    turn = op.where(op.less(turn, const(p["period"])), turn, const(0))
    return op.min([op.add(const(p["low"]), turn), const(p["last"])])


def _between(x: Var, p: Parameters) -> Var:
    share = op.clip(op.div(op.sub(x, const(p["low"])), const(p["range"])), const(0), const(1))
    share = op.add(const(MARGIN), op.mul(const(1 - 2 * MARGIN), share))
    return op.log(op.div(share, op.sub(const(1), share)))


def _between_back(f: Var, p: Parameters) -> Var:
    share = op.div(op.sub(op.sigmoid(f), const(MARGIN)), const(1 - 2 * MARGIN))
    share = op.clip(share, const(0), const(1))
    x = op.add(const(p["low"]), op.mul(const(p["range"]), share))
    return op.min([x, const(p["high"])])


def _beyond(x: Var, p: Parameters) -> Var:
    distance = op.div(op.sub(x, const(p["wall"])), const(p["spread"]))
    t = op.add(const(MARGIN), op.max([distance, const(0)]))
    return op.add(t, op.log(op.sub(const(1), op.exp(op.neg(t)))))


def _beyond_back(f: Var, p: Parameters) -> Var:
    tail = op.log(op.add(const(1), op.exp(op.neg(op.abs(f)))))
    softplus = op.add(op.max([f, const(0)]), tail)
    t = op.max([op.sub(softplus, const(MARGIN)), const(0)])
    return op.add(const(p["wall"]), op.mul(const(p["spread"]), t))


# The graph of every form, x to f(x) and back; see `Form` for the mathematics.
GRAPHS: dict[str, tuple[Callable[[Var, Parameters], Var], Callable[[Var, Parameters], Var]]] = {
    "line": (_line, _line),
    "log": (_log, _exp),
    "turn": (_turn, _turn_back),
    "between": (_between, _between_back),
    "above": (_beyond, _beyond_back),
    "below": (_beyond, _beyond_back),
}
