"""Given columns: inputs of a conditional bundle, which are never generated.

    c [n, g]  ->  h [n, p], standardised numbers, s [n, r], outcomes of categories and missing cells

Numbers have their kind's coordinate, without a step's noise; periodic ones cosine and sine: no way
back is needed. What leaves the seen range by over `REACH` standard deviations is clipped to that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scgan_infer.columns import Column, Table
from scgan_infer.errors import UsageError
from scgan_train.config import Config
from scgan_train.coordinates.transform import Coordinates
from scgan_train.graph import Var, const, op

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]

REACH = 1.0


class Conditions(NamedTuple):
    """What networks see of given columns: numbers h [n, p], outcomes s [n, r]; p or r may be 0."""

    h: Tensor
    s: Tensor


@dataclass(frozen=True)
class ConditionVars:
    """`Conditions` in a graph: h [n, p], None where p is 0, and the outcomes [n] of each step."""

    h: Var | None
    s: Sequence[Var]


class Given:
    """The map of one data set's given columns to what networks see of them.

    Attributes:
        coordinates: Of the columns, one by one; those not in `straight` or `turned` are unused.
        straight: Which coordinates are taken as they are.
        turned: Which are angles.
        bounds: Between which each number is held, [2, p].
        seen: Least and greatest cell of each column, [2, g].
    """

    def __init__(self, columns: Sequence[Column], state: Mapping[str, NDArray[Any]]) -> None:
        self.coordinates = Coordinates(columns, state)
        positions = np.asarray(state["places"], np.int64)
        used = [self.coordinates.columns[j] for j in self.coordinates.index[positions]]
        angles = np.array([column.period is not None for column in used], np.bool_)
        self.positions = positions
        self.straight, self.turned = positions[~angles], positions[angles]
        periods = np.array([column.period for column in used if column.period is not None])
        affine = self.coordinates.scale[self.turned], self.coordinates.shift[self.turned]
        self.rate, self.start = (part * (2 * np.pi / periods) for part in affine)
        self.bounds, self.seen = (np.asarray(state[key], np.float32) for key in ("bounds", "seen"))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The g columns."""
        return self.coordinates.columns

    @property
    def dims(self) -> int:
        """How many numbers there are, p."""
        return len(self.straight) + 2 * len(self.turned)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many outcomes each step has, [r]."""
        return tuple(step.size for step in self.coordinates.steps)

    @classmethod
    def fit(cls, table: Table, kept: NDArray[np.int64] | slice = slice(None)) -> Given:
        """Return the map of a table of given columns; `kept` are the rows that train."""
        coordinates = Coordinates.fit(table, kept, given=True)
        values = table.values[kept]
        y = coordinates.forward(values)
        state = coordinates.state() | {"places": np.flatnonzero(y.std(0) > 0)}
        state["bounds"] = np.zeros((2, 0))
        state["seen"] = np.stack([np.nanmin(table.values, 0), np.nanmax(table.values, 0)])
        bare = cls(table.columns, state)
        h = bare._numbers(y)
        state["bounds"] = np.stack([h.min(0, initial=0) - REACH, h.max(0, initial=0) + REACH])
        return cls(table.columns, state)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that, with the columns, make it again."""
        return self.coordinates.state() | {
            "places": self.positions,
            "bounds": self.bounds,
            "seen": self.seen,
        }

    def _numbers(self, y: Floats) -> Floats:
        angle = y[:, self.turned] * self.rate + self.start
        parts = (y[:, self.straight], np.sqrt(2) * np.cos(angle), np.sqrt(2) * np.sin(angle))
        return np.concatenate(parts, axis=1).astype(y.dtype)

    def forward(self, c: Floats, rng: np.random.Generator | None = None) -> Floats:
        """Return numbers [n, p] of rows [n, g]; missing cells are drawn normal by `rng`, else 0."""
        h = self._numbers(self.coordinates.forward(c, rng))
        return np.clip(h, *self.bounds).astype(h.dtype)

    def choose(self, c: Floats) -> Labels:
        """Return the outcome of every step [n, r] of rows [n, g]."""
        return self.coordinates.choose(c)

    def graph(self, c: Var) -> ConditionVars:
        """Return `forward` and `choose` of rows [n, g] as graphs."""
        s = self.coordinates.graph_choose(c)
        if not self.dims:
            return ConditionVars(None, s)
        y = self.coordinates.graph_forward(c)
        parts = [y]
        if not np.array_equal(self.straight, np.arange(self.coordinates.dims)):
            parts = [op.gather(y, const(self.straight, np.int64), axis=1)]
        if len(self.turned):
            angle = op.gather(y, const(self.turned, np.int64), axis=1)
            angle = op.add(op.mul(angle, const(self.rate)), const(self.start))
            parts += [op.mul(turn(angle), const(np.sqrt(2))) for turn in (op.cos, op.sin)]
            parts = parts if len(self.straight) else parts[1:]
        h = parts[0] if len(parts) == 1 else op.concat(parts, axis=1)
        low, high = map(const, self.bounds)
        return ConditionVars(op.min([op.max([h, low]), high]), s)


def divide(columns: Sequence[Column], names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the indices of the columns that are generated, and of those that are given.

    Raises:
        UsageError: A name that no column has or that comes twice, or nothing is left to generate.
    """
    held = [column.name for column in columns]
    for name in names:
        if name not in held:
            raise UsageError(
                f"given column {name}: there is no such column; there are {', '.join(held)}"
            )
        if list(names).count(name) > 1:
            raise UsageError(f"given names {name} twice; name it once")
    made = [j for j, name in enumerate(held) if name not in names]
    if not made:
        raise UsageError("all columns are given: leave one that is generated")
    return made, [j for j, name in enumerate(held) if name in names]


def part(table: Table, indices: Sequence[int]) -> Table:
    """Return some columns of a table."""
    columns = tuple(table.columns[j] for j in indices)
    return Table(columns, np.ascontiguousarray(table.values[:, indices]), table.notes)


def unwalled(table: Table, config: Config) -> Table:
    """Return a table whose generated columns have no two guessed walls, where others are given.

    Given the others, numbers seldom reach all rows' walls; on the way to logits, what moves on a
    line would bend. Rows still stay in the range that was seen.
    """
    if not config.given:
        return table
    columns = []
    for column in table.columns:
        configured = {"kind", "low", "high"} & config.columns.get(column.name, {}).keys()
        guessed = column.kind == "bounded" and column.slack > 0 and None not in column.walls
        if guessed and not configured and column.name not in config.given:
            column = replace(column, kind="real", low=None, high=None, slack=0.0)
        columns.append(column)
    return replace(table, columns=tuple(columns))
