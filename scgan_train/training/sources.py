"""Where rows for training come from: a built-in distribution, a file, or memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from scgan_infer.columns import Column, Table, quoted
from scgan_infer.rows.formats import read_table
from scgan_train.config import Config
from scgan_train.datasets import source_of

BUILT_IN_ROWS = 52_632  # 5 % are held out, so 50,000 train


def load(data: Any, config: Config) -> tuple[str, Table]:
    """Return the source's name and its rows, at most `config.max_rows` of them, a uniform sample in their order.

    Args:
        data: a built-in distribution, a file, or what else `read_table` takes.
        config: chooses and describes columns.

    Raises:
        DataError: data that can't be read.
        UsageError: columns chosen or described that are not there.
    """
    table = read_table(
        source_of(data, BUILT_IN_ROWS, config.seed),
        names=list(config.select) or None,
        overrides=config.columns,
        max_rows=config.max_rows,
        generator=np.random.default_rng([config.seed, 0x5A]),
        missing=config.missing,
        header=config.header,
    )
    return str(data) if isinstance(data, str | Path) and str(data) != "-" else "rows", table


def notes(rows: Table, config: Config) -> Iterator[str]:
    """Yield what the user should know of the columns: kinds that were guessed, and columns that never vary."""
    yield from (f"note: {note}" for note in rows.notes)
    plain = Column("x")
    for column, values in zip(rows.columns, rows.values.T, strict=True):
        if np.nanmin(values) == np.nanmax(values) and not np.isnan(values).any():
            yield f"note: column {column.name} is {values[0]:g} in every row; it is kept and written back"
        elif column.name not in config.columns and (column.rules, column.step) != (
            plain.rules,
            None,
        ):
            yield f"note: column {column.name} looks {_looks(column)}"


def _looks(column: Column) -> str:
    """Return what a column was taken for, and how to say that it is something else."""
    walls = "" if column.low is column.high is None else f" from {column.low} to {column.high}"
    decimals = "" if column.decimals is None else f" with {column.decimals} decimals"
    undo = f"setting {quote(f'columns.{quoted(column.name)}.kind=real')} says otherwise"
    if column.rules.named:
        undo = "setting select names the columns to use"
    return f"{column.kind}{walls}{decimals}; {undo}"
