"""Interface of a column kind: all that kinds differ in, from cells to coordinates and pictures.

A column's values are float32 [n], in the user's units and counted from its anchor, if it has one. A
*form* f turns them into unbounded numbers and back:

    y = (f(x) - shift) / scale        `scgan_train.coordinates.transform` standardises

Each form is written twice: in numpy here, and as a graph beside the coordinates; tests hold them
equal.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scgan_infer.columns import Column
    from scgan_infer.kinds.guessing import Evidence

MOST_DECIMALS = 6
EXACT = 2**24  # up to which float32 holds every whole number
CERTAIN = 20.0  # nats of evidence that something is not chance
SMALL, NEAR = 1e-30, 1e-6  # beside 0, and below a power of ten
FARTHEST = 0.001  # share of rows at each end that a picture may draw on its edge
TAIL = 2.0  # spans of the others that their tails may take before it does

Raw: TypeAlias = NDArray[Any]
Values: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float64]
Storage: TypeAlias = Literal["float32", "int32", "float64", "int64", "text"]
Parameters: TypeAlias = Mapping[str, NDArray[np.float32]]


class BadCellError(Exception):
    """A cell that can't be converted, and its row; the caller adds where that is to the message."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


class Form:
    """The identity, and base of other forms f; parameters are float32 [k], one a column of a block.

    Attributes:
        name: By which `scgan_train.coordinates.forms.GRAPHS` knows it.
    """

    name: ClassVar[str] = "line"

    def fit(self, column: Column, values: Values) -> float:
        """Return the one number of f that comes from a column's values, float32 [n]."""
        return 0.0

    def parameters(self, columns: Sequence[Column], fitted: Values) -> Parameters:
        """Return f's parameters for columns whose `fit` gave `fitted` [k]."""
        return {}

    def coordinate(self, x: Raw, p: Parameters) -> Raw:
        """Return f(x) [n, k], in the precision of x."""
        return x

    def inverse(self, y: Raw, p: Parameters) -> Raw:
        """Return x [n, k] inside its domain, whatever y is."""
        return y

    def log_slope(self, x: Raw, p: Parameters) -> Raw:
        """Return log |f'(x)| [n, k]; minus infinity outside the domain."""
        return np.asarray(0 * x)


LINE = Form()


class Kind(ABC):
    """One kind of column; the defaults are those of plain numbers.

    Attributes:
        fields: Those of `Column` that it uses, beside name, kind and unit.
        marks: Fields that mean this kind when the user sets them and no kind.
        forms: All that `form` may return, and a bend where long tails may have one.
        named: Whether cells are names, however much they look like numbers.
        whole: Whether values are whole numbers, so that pictures show a cell for each.
        learns_rounding: Whether how it is rounded comes from the rows where the user chose the
            kind.
        jitters: Whether training adds noise of one step where values take many steps.
        storage: How typed formats hold a cell of a column without an anchor.
        axis: Its scale in pictures.
    """

    fields: ClassVar[frozenset[str]] = frozenset()
    marks: ClassVar[tuple[str, ...]] = ()
    forms: ClassVar[tuple[Form, ...]] = (LINE,)
    named: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    learns_rounding: ClassVar[bool] = False
    jitters: ClassVar[bool] = True
    storage: ClassVar[Storage] = "float32"
    axis: ClassVar[Literal["linear", "log"]] = "linear"

    def check(self, column: Column) -> str:
        """Return why the fields describe no domain; empty if they do."""
        return ""

    def step(self, column: Column) -> float | None:
        """Return the distance of neighbouring values; None where any number may stand."""
        if column.grid is not None:
            return column.grid
        return None if column.decimals is None else 10.0**-column.decimals

    def ends(self, column: Column) -> tuple[float, float]:
        """Return least and greatest value, infinite if none; with steps a multiple of the step."""
        low, high = column.walls
        low = -math.inf if low is None else low
        high = math.inf if high is None else high
        if self.step(column) is None:
            return low, high
        p, q, r = column.lattice
        least = low if math.isinf(low) else (math.ceil(round((low * q - r) / p, 6)) * p + r) / q
        if not math.isinf(high):
            high = (math.floor(round((high * q - r) / p, 6)) * p + r) / q
        return least, high

    def guess(self, evidence: Evidence) -> dict[str, Any] | None:
        """Return the fields of a column of this kind if the evidence is for it, else None."""
        return None

    def waits(self, settings: Mapping[str, Any]) -> bool:
        """Return whether omitted settings are inferred from all values of the column."""
        return False

    def complete(self, settings: Mapping[str, Any], low: float, high: float) -> dict[str, Any]:
        """Return the fields that `waits` left open, from the least and the greatest value."""
        return {}

    def hold(self, raw: Raw, values: Values, column: Column | None) -> Values:
        """Return finite cells inside the domain, [n].

        Args:
            raw: The cells.
            values: The same as float32.
            column: None while its fields are not known yet.

        Raises:
            BadCellError: The first that is outside.
        """
        return values

    def beyond(self, values: Values, column: Column) -> NDArray[np.bool_]:
        """Return whether each value [n] lies beyond a wall."""
        return np.zeros(len(values), bool)

    def features(self, values: Floats, column: Column) -> Floats:
        """Return features [n, f] in which judges compare rows, not finite outside the domain."""
        return values[:, None]

    def transport(self, a: Floats, b: Floats, centre: Floats, spread: float) -> float:
        """Return the Wasserstein-1 distance in spreads of standardised features, [n, f] each."""
        return float(np.abs(np.sort(a[:, 0]) - np.sort(b[:, 0])).mean())

    def difference(self, a: Floats, b: Floats, column: Column) -> Floats:
        """Return a - b, the shortest way."""
        return a - b

    def cells(self, values: Raw, column: Column) -> Raw:
        """Return values as the column's `storage` holds them: numbers, or str objects."""
        return self.numbers(values, column)

    def numbers(self, values: Raw, column: Column) -> Raw:
        """Return values for a format of numbers alone; float64 where there is an anchor."""
        if column.anchor is None:
            return values
        exact = values.astype(np.float64) + column.anchor
        return exact if column.decimals is None else np.round(exact, column.decimals)

    def spell(self, value: float, column: Column) -> str:
        """Return one value as text."""
        if column.anchor is not None:
            return f"{value + column.anchor:.15g}"
        return f"{float(str(np.float32(value))):.9g}"

    def longest(self, column: Column) -> int:
        """Return the bytes of UTF-8 in the longest cell of text."""
        return 1

    def edges(self, column: Column, values: Floats, bins: int) -> Floats:
        """Return the edges of cells over what `reach` gives, and a margin."""
        low, high = reach(values)
        margin = 0.05 * (high - low) or 0.5
        low = max(low - margin, float(values.min()) - margin / 5)
        high = min(high + margin, float(values.max()) + margin / 5)
        return np.linspace(low, high, bins + 1)

    @abstractmethod
    def form(self, column: Column) -> Form:
        """Return the form of its coordinate."""


def significant(x: Raw, digits: Raw) -> Raw:
    """Return numbers [n, k] rounded to significant digits [k], in their own precision."""
    powers = 10.0 ** np.arange(39, dtype=x.dtype)
    exponent = np.floor(np.log10(np.maximum(np.abs(x), SMALL)) + NEAR)
    decimals = (digits - 1 - exponent).astype(np.int64)
    up, down = powers[np.clip(decimals, 0, 38)], powers[np.clip(-decimals, 0, 38)]
    return np.asarray(np.rint(x * up / down) * down / up)


def snapped(x: Raw, lattice: Sequence[Any] | Raw) -> Raw:
    """Return the nearest (p k + r) / q to each number, for whole k; see `Column.lattice`."""
    p, q, r = lattice
    return np.asarray((np.rint((x * q - r) / p) * p + r) / q)


def reach(values: Floats) -> tuple[float, float]:
    """Return the ends of values, less the farthest thousandth at an end that lies too far out."""
    low, high = np.quantile(values, [FARTHEST, 1 - FARTHEST])
    room = TAIL * (high - low)
    least, greatest = values.min(), values.max()
    return (
        float(least if least >= low - room else low),
        float(greatest if greatest <= high + room else high),
    )


def refuse(bad: NDArray[np.bool_], raw: Raw, why: str) -> None:
    """Refuse the first cell at fault, if any.

    Raises:
        BadCellError: Some are.
    """
    if bad.any():
        row = int(np.argmax(bad))
        raise BadCellError(row, f"{shown(raw[row])} {why}")


def shown(cell: object) -> str:
    """Show a cell, cut short."""
    text = repr(cell) if isinstance(cell, str) else "an empty cell" if cell is None else str(cell)
    text = text.removesuffix(".0")
    return text if len(text) <= 60 else text[:57] + "..."
