"""Where rows for training come from: a built-in distribution, a file, an array."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import ArrayLike

from scgan_infer.columns import Column, Table, quoted
from scgan_infer.errors import DataError, UsageError
from scgan_infer.kinds import BadCellError
from scgan_infer.rows.intake import Intake
from scgan_train.config import Config
from scgan_train.datasets import DATASETS, table

BUILT_IN_ROWS = 52_632  # 5 % are held out, so 50,000 train


def load(data: str | Path | ArrayLike, config: Config) -> tuple[str, Table]:
    """Return the source's name and its rows, at most `config.max_rows` of them, a uniform sample in their order.

    Files are read in pieces, and of an array only the rows that are kept: either may be larger than memory.

    Raises:
        DataError: data that can't be read.
        UsageError: columns chosen or described that are not there.
    """
    rng = np.random.default_rng([config.seed, 0x5A])
    if isinstance(data, str) and data in DATASETS:
        return data, chosen(table(data, BUILT_IN_ROWS, config.seed), config)
    if isinstance(data, (str, Path)):
        from scgan_infer.rows.formats import read_table

        path = Path(data)
        if isinstance(data, str) and not path.suffix and not path.exists():
            raise UsageError(
                f"{data!r} is neither a file nor a built-in distribution: {', '.join(DATASETS)}"
            )
        names = list(config.select) or None
        read = read_table(
            path, names=names, overrides=config.columns, max_rows=config.max_rows, generator=rng
        )
        return str(data), read
    values = np.asarray(data)
    if len(values.shape) == 2 and len(values) > config.max_rows:
        values = values[
            np.sort(rng.choice(len(values), config.max_rows, replace=False, shuffle=False))
        ]
    values = values.astype(np.float32)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise DataError(f"rows of shape {values.shape}: finite rows [n, d] are needed")
    return "rows", chosen(
        Table(tuple(Column(f"x{j}") for j in range(values.shape[1])), values), config
    )


def chosen(rows: Table, config: Config) -> Table:
    """Return the columns that the configuration selects, as it describes them.

    Raises:
        DataError: a value outside the domain that was described.
        UsageError: a column that is not there, or a description that does not fit.
    """
    for name in (*config.select, *config.columns):
        if name not in rows.names:
            raise UsageError(f"no column is called {name!r}; there are {', '.join(rows.names)}")
    kept = [j for j, name in enumerate(rows.names) if not config.select or name in config.select]
    try:
        columns = tuple(
            Column.from_dict(rows.columns[j].to_dict() | config.columns.get(rows.names[j], {}))
            for j in kept
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"columns: {error}") from error
    values = np.ascontiguousarray(rows.values[:, kept])
    for j, column in enumerate(columns):
        if column.name in config.columns:
            try:
                values[:, j] = Intake(column.name, column).take(values[:, j])
            except BadCellError as error:
                raise DataError(f"column {column.name!r}, row {error.row + 1}: {error}") from error
    return Table(columns, values)


def notes(rows: Table, config: Config) -> Iterator[str]:
    """Yield what the user should know of the columns: kinds that were guessed, and columns that never vary."""
    for j, column in enumerate(rows.columns):
        values = rows.values[:, j]
        if values.min() == values.max():
            yield f"note: column {column.name} is {values[0]:g} in every row; it is kept and written back"
        elif (column.kind != "real" or column.step) and column.name not in config.columns:
            walled = column.kind in ("bounded", "integer") and (column.low, column.high) != (
                None,
                None,
            )
            walls = f" from {column.low} to {column.high}" if walled else ""
            walls += f" with {column.decimals} decimals" if column.decimals is not None else ""
            undo = (
                f"setting {quote(f'columns.{quoted(column.name)}.kind=real')} says otherwise"
                if column.kind != "category"
                else "setting select names the columns to use"
            )
            yield f"note: column {column.name} looks {column.kind}{walls}; {undo}"
