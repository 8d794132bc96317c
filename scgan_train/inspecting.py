"""The detected properties of a table, before anything is trained: `scgan inspect`.

One finding per column: its kind, range and distinct values, which values the head draws directly
and how often, missing cells, and suggested changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tomli_w

from scgan_infer.columns import Column, Table, quoted
from scgan_train.config import Config, differing, merge, to_dict
from scgan_train.coordinates import discrete
from scgan_train.coordinates.constraints import Constraint
from scgan_train.coordinates.discrete import Step
from scgan_train.coordinates.given import divide
from scgan_train.resolving import constraints_of, resolve

CIRCLES = {"radians": 2 * math.pi, "degrees": 360.0}
COVERED = 0.98  # share of a circle from which a range looks like one
SENTINELS = (-9999.0, -999.0, -99.0, 999.0, 9999.0)
GUESSED = ("bounded", "integer")
MOST_SHOWN = 3  # values, or names
WIDEST = 36  # letters of a cell in the table shown
UNITS = {"M": "months", "D": "days", "h": "hours", "m": "minutes", "s": "seconds"}


@dataclass(frozen=True)
class Finding:
    """Detected properties of one column.

    Attributes:
        column: Its kind and domain.
        low: Least number; nan if there is none.
        high: Greatest number.
        distinct: How many different values there are.
        missing: How many cells are missing.
        drawn: Values that the head draws directly, "" for a missing cell, with their shares, most
            frequent first; empty for a column that is computed from others and a residual.
        rest: Whether the column also has other numbers.
        hints: Suggested changes, a sentence each.
    """

    column: Column
    low: float
    high: float
    distinct: int
    missing: int
    drawn: tuple[tuple[str, float], ...]
    rest: bool
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """Detected properties of a table.

    Attributes:
        rows: How many there are.
        repeated: How many of them equal an earlier one.
        findings: One per column.
        guessed: Names of the number columns whose kind was not set and is not real.
        seconds: About how long a training takes on one core; 0 where no bundle could hold it.
        notes: Messages from reading them.
        asked: The settings that differ from the defaults.
        constraints: Relations between columns that hold in all rows, and will in generated ones.
    """

    rows: int
    repeated: int
    findings: tuple[Finding, ...]
    guessed: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...]
    asked: Mapping[str, Any]
    constraints: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield notes and a table for people, and the hints below it."""
        for note in self.notes:
            yield f"note: {note}"
        head = ("column", "kind", "values", "drawn outright", "missing")
        cells = [head, *(_cells(finding) for finding in self.findings)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(head) - 1)]
        about = "can't be trained as it is"
        if self.seconds:
            about = f"about {_rounded(self.seconds)} s to train on one core"
        yield f"{self.rows} rows, {self.repeated} repeated; {about}"
        for row in cells:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            yield "  ".join([*padded, row[-1]]).rstrip()
        for finding in self.findings:
            for hint in finding.hints:
                yield f"note: column {finding.column.name} {hint}"
        if self.constraints:
            yield (
                f"note: kept in generated rows: {'; '.join(self.constraints)} "
                "(constraints=false: not)"
            )
        if self.guessed:
            setting = f"columns.{quoted(self.guessed[0])}.kind=real"
            yield f"note: kinds were guessed where none were set; {setting} says otherwise"

    def settings(self) -> str:
        """Return the settings asked for and detected columns as TOML for `scgan train --config`."""
        columns = {one.column.name: one.column.to_dict() for one in self.findings}
        for fields in columns.values():
            for key in {"name", "categories", "missing"} & fields.keys():
                del fields[key]
        return tomli_w.dumps(merge(self.asked, {"columns": columns}))


def inspect(
    table: Table, config: Config, constraints: Sequence[Constraint] | None = None
) -> Inspection:
    """Return the detected properties of a table, and the cost of a training with these settings.

    `constraints` are `constraints_of` the table, if already known.
    """
    made, given = divide(table.columns, config.given)
    columns = [table.columns[j] for j in made]
    kept = constraints_of(config, table) if constraints is None else constraints
    steps = {step.column: step for step in discrete.find(table)}
    derived = {made[constraint.column] for constraint in kept if constraint.learned}
    findings = tuple(
        _finding(column, table.values[:, j], None if j in derived else steps.get(j))
        for j, column in enumerate(table.columns)
    )
    guessed = tuple(
        column.name
        for column in table.columns
        if column.kind in GUESSED and column.name not in config.columns
    )
    drawn = [step for j, step in steps.items() if j not in {*derived, *given}]
    flaw = discrete.too_many(drawn, table.columns, len(steps.keys() & set(given)))
    seconds = 0.0 if flaw else _cost(resolve(config, table, kept), len(steps))
    return Inspection(
        rows=len(table),
        repeated=_repeated(table.values),
        findings=findings,
        guessed=guessed,
        seconds=seconds,
        notes=(*table.notes, flaw) if flaw else table.notes,
        asked=differing(to_dict(config), to_dict(Config())),
        constraints=tuple(constraint.shown(columns) for constraint in kept),
    )


def _repeated(values: Any) -> int:
    """Return how many rows [n, d] equal an earlier one, by 64-bit hashes."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32).astype(np.uint64)
    factors = np.random.default_rng(0).integers(2**63, size=bits.shape[1], dtype=np.uint64) | 1
    return len(values) - len(np.unique((bits * factors).sum(1, dtype=np.uint64)))


def _finding(column: Column, values: Any, step: Step | None) -> Finding:
    missing = np.isnan(values)
    present = values[~missing]
    distinct, counts = np.unique(present, return_counts=True)
    drawn: list[tuple[str, float]] = []
    for value in () if step is None else step.values:
        share = missing.mean() if np.isnan(value) else counts[distinct == value].sum() / len(values)
        drawn.append((_name(column, value), float(share)))
    low, high = (float(present.min()), float(present.max())) if len(present) else (np.nan, np.nan)
    return Finding(
        column,
        low,
        high,
        len(distinct),
        int(missing.sum()),
        tuple(sorted(drawn, key=lambda pair: -pair[1])),
        step is None or step.rest,
        tuple(_hints(column, present, distinct)),
    )


def _hints(column: Column, present: Any, distinct: Any) -> Iterator[str]:
    """Yield suggested changes."""
    if column.is_id:
        setting = f"columns.{quoted(column.name)}.kind=drop"
        yield f"names rows: it is numbered anew where rows are written, or left out with {setting}"
    elif len(distinct) == 1:
        yield "is the same in every row; it is kept and written back"
    if column.rules.named or column.pattern or len(distinct) < 2:
        return
    low, high = float(distinct[0]), float(distinct[-1])
    for unit, period in CIRCLES.items():
        start = 0.0 if low >= 0 else -period / 2
        inside = start <= low and high <= start + period * (1 + 1e-6)
        if inside and high - low >= COVERED * period and not column.period:
            setting = f"columns.{quoted(column.name)}.period={period:.9g}"
            yield f"looks like an angle in {unit}; {setting} makes it one"
    if column.step == 1 and len(distinct) == len(present) == high - low + 1:
        setting = f"columns.{quoted(column.name)}.kind=id"
        yield f"has each number once: if it names the rows, {setting} numbers them anew"
    for value in SENTINELS:
        inner = distinct[np.abs(distinct) < abs(value)]
        edge = value in (low, high) and len(inner) == len(distinct) - 1
        if edge and (present == value).sum() > 1 and abs(value) > 3 * np.abs(inner).max():
            yield f"{value:g} looks like a mark for missing cells; empty them"


def _name(column: Column, value: float) -> str:
    return "" if np.isnan(value) else column.rules.spell(float(value), column)


def _cells(finding: Finding) -> tuple[str, ...]:
    """Return one row of the table."""
    column, drawn = finding.column, finding.drawn
    values = f"{finding.distinct} names" if column.categories else _range(finding)
    if column.is_id:
        values = f"from {column.rules.spell(0, column)} on"
    named = ", ".join(f"{name or 'missing'} {share:.1%}" for name, share in drawn[:MOST_SHOWN])
    shown = named + (f", {len(drawn) - MOST_SHOWN} more" if len(drawn) > MOST_SHOWN else "")
    if drawn and not finding.rest and len(drawn) > MOST_SHOWN:
        shown = f"all {len(drawn)}"
    missing = str(finding.missing) if finding.missing else ""
    return (_short(column.name), column.kind, values, _short(shown), missing)


def _range(finding: Finding) -> str:
    decimals = finding.column.decimals
    rounded = "" if decimals is None else f", {decimals} decimals"
    if finding.column.grid is not None:
        resolution = finding.column.resolution
        rounded = (
            f", steps of {finding.column.grid:.6g} {UNITS.get(resolution, resolution)}".rstrip()
        )
    if finding.column.digits is not None:
        rounded = f", {finding.column.digits} digits"
    ends = [f"{end:g}" for end in (finding.low, finding.high)]
    if finding.column.anchor is not None:
        ends = [_name(finding.column, end) for end in (finding.low, finding.high)]
    return f"{' to '.join(ends)}, {finding.distinct} distinct{rounded}"


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _cost(config: Config, steps: int) -> float:
    """Return a training's approximate seconds on one core, measured on 2 to 15 columns."""
    mapper, e = config.mapper, int(config.encoder.latent_dim)
    head = 2.7 * (steps + 1) if steps else 0.0
    if config.latents != "mapper":
        return head + 5
    step = 0.003 + 0.0005 * e * int(mapper.layers) if mapper.kind == "flow" else 0.004
    return head + 5 + int(mapper.steps) * step


def _rounded(seconds: float) -> int:
    return int(5 * max(1, round(seconds / 5)))
