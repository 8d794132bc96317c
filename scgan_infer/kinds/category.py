"""One of a few names; a value is its name's index. Guessed from text: `scgan_infer.rows.intake`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.errors import DataError
from scgan_infer.kinds.base import LINE, Floats, Form, Kind, Raw, Values, refuse

if TYPE_CHECKING:
    from scgan_infer.columns import Column


HOT = 128


class Category(Kind):
    """f(x) = x, rounded on the way back."""

    fields = frozenset({"categories"})
    marks = ("categories",)
    named = True
    whole = True
    jitters = False
    storage = "text"

    def check(self, column: Column) -> str:
        names = column.categories
        if not names or not all(isinstance(name, str) and name for name in names):
            return "a category column needs the names of its categories"
        return "two of its categories have the same name" if len(set(names)) < len(names) else ""

    def step(self, column: Column) -> float:
        return 1.0

    def ends(self, column: Column) -> tuple[float, float]:
        return 0.0, len(column.categories) - 1.0

    def waits(self, settings: Mapping[str, Any]) -> bool:
        return not settings.get("categories")

    def hold(self, raw: Raw, values: Values, column: Column | None) -> Values:
        """Take numbers for the categories that they stand for."""
        assert column is not None
        known = codes(column)
        order = np.argsort(known)
        index = order[np.clip(np.searchsorted(known, values, sorter=order), 0, len(known) - 1)]
        listed = f"{known.min():g} to {known.max():g}"
        why = f"stands for none of its {len(known)} categories ({listed})"
        refuse(known[index] != values, raw, why)
        return index.astype(np.float32)

    def features(self, values: Floats, column: Column) -> Floats:
        """One-hot; beyond `HOT` names, those with equal index modulo `HOT` share a feature."""
        count = len(column.categories)
        known = np.isin(values, np.arange(count))
        hot = values[:, None] % HOT == np.arange(min(count, HOT))
        return np.where(known[:, None], hot, np.nan)

    def transport(self, a: Floats, b: Floats, centre: Floats, spread: float) -> float:
        """Return the total variation, in shares."""
        return float(np.abs(a.mean(axis=0) - b.mean(axis=0)).sum() / 2 * spread)

    def cells(self, values: Raw, column: Column) -> Raw:
        return np.array([*column.categories, None], object)[_index(values, column)]

    def numbers(self, values: Raw, column: Column) -> Raw:
        return codes(column)[_index(values, column)]

    def spell(self, value: float, column: Column) -> str:
        return column.categories[int(value)]

    def longest(self, column: Column) -> int:
        return max(len(name.encode()) for name in column.categories)

    def edges(self, column: Column, values: Floats, bins: int) -> Floats:
        return np.arange(len(column.categories) + 1, dtype=np.float64) - 0.5

    def form(self, column: Column) -> Form:
        return LINE


def codes(column: Column) -> Values:
    """Return the number of each category: its name if all names are numbers, else its index."""
    index = np.arange(len(column.categories), dtype=np.float32)
    try:
        numbers = np.array([float(name) for name in column.categories], np.float32)
    except ValueError:
        return index
    distinct = len(np.unique(numbers)) == len(numbers) and bool(np.isfinite(numbers).all())
    return numbers if distinct else index


def _index(values: Values, column: Column) -> NDArray[np.intp]:
    index = np.rint(values).astype(np.intp)
    last = len(column.categories) - 1
    if len(index) and not 0 <= index.min() <= index.max() <= last:
        raise DataError(f"column {column.name!r}: an index is outside 0..{last}")
    return index
