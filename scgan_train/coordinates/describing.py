"""What coordinates there are: of which columns, in which form, and learned as which remainder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column, Table
from scgan_infer.kinds.bend import BEND, bend_of
from scgan_train.coordinates import constraints, discrete
from scgan_train.coordinates.constraints import Constraint
from scgan_train.coordinates.discrete import Step
from scgan_train.coordinates.forms import CELLS, SCORES, quantiles

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]

JITTER_ABOVE = 16  # distinct values of a column with steps; fewer are distinguished without noise
MOST_SCORED = 1000  # distinct values of a column that has scores
REPEATED = 4  # times, on average, that each of them occurs
SMOOTH = (
    2  # notes, of a score, that numbers may stand between those that were seen; 1 that they may not
)


def continuous(table: Table, steps: Sequence[Step]) -> list[int]:
    """Return the columns with a coordinate; if none, a drawn one (of noise), or the first."""
    drawn = {step.column for step in steps if not step.rest}
    values = table.values
    varying = np.flatnonzero(values.min(0) < values.max(0)).tolist()
    varying += [step.column for step in steps if step.rest and step.column not in varying]
    return sorted(set(varying) - drawn) or sorted(drawn)[:1] or [0]


def describe(
    table: Table, values: Singles, steps: Sequence[Step], tails: bool, given: bool
) -> dict[str, NDArray[Any]]:
    """Return the arrays of `Coordinates.state` for each coordinate, from training rows [n, d]."""
    columns, stepped = table.columns, {step.column for step in steps}
    varying, present = continuous(table, steps), present_cells(values, steps)
    cells = {j: values[present[:, j], j] for j in varying}
    scores, bends = {}, {}
    for j in [] if given else varying:
        spiked = j not in stepped and discrete.is_spiked(columns[j], table.values[:, j])
        if is_scored(columns[j], cells[j]) or spiked:
            few = is_scored(columns[j], cells[j]) or discrete.is_few(table.values[:, j])
            scores[j] = 1 if few else SMOOTH
        elif bend := _bend(columns[j], cells[j], tails):
            bends[j] = bend
    kinds = {j: group(columns[j], scores.get(j, 0), j in bends) for j in varying}
    index = [j for group in dict.fromkeys(kinds.values()) for j in varying if kinds[j] == group]
    fitted = [
        columns[j].rules.form(columns[j]).fit(columns[j], cells[j]) if len(cells[j]) else 0.0
        for j in index
    ]
    ends = np.array(
        [(cells[j].min(), cells[j].max()) if len(cells[j]) else (0, 0) for j in index]
    ).T
    described = {
        "ends": np.full(ends.shape, np.nan) if tails else ends,
        "index": np.array(index),
        "fitted": np.array(fitted),
        "constant": values[0],
        "scored": np.array([scores.get(j, 0) for j in index], np.uint8),
        "tables": np.array(
            [quantiles(cells[j], smooth=scores[j] == SMOOTH) for j in index if j in scores]
        ).reshape(-1, CELLS),
    }
    if bends:
        described["bends"] = np.array([bends.get(j, (np.nan, np.nan)) for j in index]).T
    return described


def find_constraints(table: Table, tails: bool = False) -> tuple[Constraint, ...]:
    """Return constraints between a table's columns; with tails, numbers may leave their range."""
    steps = discrete.find(table)
    drawn = {step.column for step in steps if not step.rest}
    heavy = {step.column for step in steps if len(step.numbers)}
    free = []
    for j, column in enumerate(table.columns):
        present = table.values[~np.isnan(table.values[:, j]), j]
        scored = column.step is None and is_scored(column, present)
        scored |= discrete.is_spiked(column, present)
        free += [j] if j not in drawn | heavy and not scored else []
    matches = constraints.find(table, free, drawn)
    return tuple(replace(c, ends=(-np.inf, np.inf)) if tails and c.side else c for c in matches)


def learned(table: Table, matches: Sequence[Constraint]) -> Table:
    """Return the table of what is learned where constraints hold."""
    values = constraints.forward(table.values, matches)
    return Table(constraints.inner(table.columns, matches), values, table.notes)


def is_scored(column: Column, present: Singles) -> bool:
    """Return whether a column's coordinate is a score: few numbers on any grid, repeated often."""
    distinct = len(np.unique(present))
    return len(present) >= REPEATED * distinct and JITTER_ABOVE < distinct <= MOST_SCORED


def _bend(column: Column, present: Singles, tails: bool) -> tuple[float, float] | None:
    """Return a long-tailed column's bend; it can't hold what may leave its range to a wall."""
    form = column.rules.form(column)
    closed = form.name in ("turn", "between")
    if BEND not in column.rules.forms or closed or (tails and form.name != "line"):
        return None
    if len(present) < 2:
        return None
    parameters = form.parameters([column], np.array([form.fit(column, present)], np.float32))
    coordinates = form.coordinate(present[:, None].astype(np.float64), parameters)
    return bend_of(present, coordinates[:, 0])


def present_cells(x: Floats, steps: Sequence[Step]) -> NDArray[np.bool_]:
    """Return which cells [n, d] have a coordinate."""
    present = np.ones(x.shape, np.bool_)
    for step in steps:
        present[:, step.column] = step.choose(x[:, step.column]) == len(step.values)
    return present


def group(column: Column, scores: int, bent: bool) -> tuple[str, bool, bool]:
    """Return what the columns of a block have in common."""
    if scores and scores != SMOOTH:
        return SCORES.name, False, False
    name = BEND.name if bent else column.rules.form(column).name
    name = f"smooth {SCORES.name}" if scores else name
    return name, column.step is not None, column.digits is not None
