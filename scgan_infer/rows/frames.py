"""Rows for people who work in pandas: a DataFrame where pandas is installed, else a dict of arrays.

| column                     | DataFrame                         | dict                      |
| -------------------------- | --------------------------------- | ------------------------- |
| numbers                    | float64 nearest to the decimal    | as a DataFrame            |
| whole numbers              | int64; Int64 where some miss      | int64; float64 with NaN   |
| names                      | str                               | str objects, None missing |
| dates                      | datetime64, in UTC with a zone    | as a DataFrame            |

What else typed formats hold otherwise (see `Column.storage`) is handed on as it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.kinds.base import significant, snapped
from scgan_infer.rows.codecs.base import Raw, Rows, Untyped, typed
from scgan_infer.rows.codecs.text import digits


def frame(values: Rows, columns: Sequence[Column], first: int = 0) -> Untyped:
    """Return rows [n, d] as a DataFrame, or a dict of arrays [n] where pandas is not installed."""
    arrays = {
        column.name: _typed(raw, column)
        for column, raw in zip(columns, typed(values, columns, first), strict=True)
    }
    if find_spec("pandas") is None:
        return arrays
    import pandas

    table = pandas.DataFrame(arrays)
    for column in columns:
        if column.missing and column.rules.storage == "int32":
            table[column.name] = table[column.name].astype("Int64")
    return table


def _typed(raw: Raw, column: Column) -> Raw:
    if raw.dtype == object:
        return np.array([*(cell or None for cell in raw), None], object)[:-1]
    if raw.dtype == np.int32:
        return raw.astype(np.int64)
    if raw.dtype != np.float32:
        return raw
    numbers = raw.astype(np.float64)
    if column.step is not None:
        return snapped(numbers, column.lattice)
    present = ~np.isnan(raw)
    count = digits(raw[present]) if column.digits is None else np.array(column.digits)
    numbers[present] = significant(numbers[present], count)
    return numbers
