"""The interface of a file format: a `Reader` of raw columns; a `Stream` or a conversion to write.

Reading: file -> Reader -> chunks of raw columns, numbers of any type or text, which
`scgan_infer.rows.intake` checks. Writing: float32 rows -> Stream: header, then each row's bytes,
then tail. A format that can't be written so takes its rows from a finished spool of them (see
`scgan_infer.rows.writers`).
"""

from __future__ import annotations

import importlib
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeAlias

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, install
from scgan_infer.kinds.base import Raw as Raw
from scgan_infer.kinds.base import Values
from scgan_infer.kinds.datetime import Datetime
from scgan_infer.rows.codecs.budget import Budget

Rows: TypeAlias = Values
Untyped: TypeAlias = Any  # an object of an optional package

LAST_POINT = 0x10FFFF  # of Unicode


class Reader(ABC):
    """One open file of rows; a context manager.

    Attributes:
        label: Its name in messages.
        names: The columns' names, in the file's order.
        named: Whether the names are the file's own (a plain array has none: x0, x1, ...).
        rows: How many rows the header claims; None where only reading tells.
        units: The units of the columns that have one.
        settings: Fields of `Column` by name that the source states; the user's override them.
        inside: Whether a file may hold several tables, of which `FILE:NAME` chooses.
        file: The open file, if any.
        budget: Limits on the cost of reading it.
        notes: Messages to the user on how it was read.
        has_header: Returns whether a text file's first line has names, from its cells and whether
            one is a number.
    """

    label: str = "rows"
    names: tuple[str, ...] = ()
    named: bool = True
    rows: int | None = None
    units: Mapping[str, str] = {}
    settings: Mapping[str, Mapping[str, Any]] = {}
    inside: bool = False
    file: Untyped = None
    notes: tuple[str, ...] = ()
    has_header: Callable[[Sequence[str], bool], bool] = staticmethod(lambda cells, numbers: True)

    def __init__(self, path: Path, inner: str) -> None:
        self.path = path
        self.inner = inner
        self.budget = Budget(str(path), path.stat().st_size)

    @abstractmethod
    def open(self) -> None:
        """Open the file and read its names; `file` is closed even after an error."""

    @abstractmethod
    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        """Yield up to `size` rows at a time, as one raw array per wanted column.

        Args:
            wanted: Positions in `names`.
            size: Most rows in a chunk.
            text: Positions whose cells stay text, however much they look like numbers.
        """

    def row_label(self, row: int) -> str:
        """Return a row's label in messages; rows count from 1, without the header."""
        return f"row {row}"

    @classmethod
    def failures(cls) -> tuple[type[BaseException], ...]:
        """Return the package's exceptions for a damaged file, besides Python's."""
        return ()

    def __enter__(self) -> Self:
        with ExitStack() as undone:
            undone.push(self)
            with self.budget.working():
                self.open()
                self.budget.columns(len(self.names))
            undone.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()


@dataclass(frozen=True)
class Stream:
    """A format that is written front to back.

    Attributes:
        header: From the number of rows; its length doesn't depend on it.
        encode: From float32 [k, d] and the index of the first row, by which ids are numbered.
        tail: From the number of rows.
    """

    header: Callable[[int], bytes]
    encode: Callable[[Rows, int], bytes | memoryview]
    tail: Callable[[int], bytes] = lambda rows: b""

    def file(self, values: Rows) -> bytes:
        """Return the whole file of rows [n, d]."""
        n = len(values)
        return b"".join((self.header(n), self.encode(values, 0), self.tail(n)))


Chunks: TypeAlias = Iterator[tuple[Rows, int]]  # rows, and the index of the first of them
Convert: TypeAlias = Callable[[Path, Sequence[Column], int, Chunks], None]


def raw_rows(columns: Sequence[Column]) -> Stream:
    """Return the stream of a spool: raw float32 rows and nothing else."""
    return Stream(lambda rows: b"", lambda values, first: as_bytes(values))


def as_bytes(values: Raw) -> memoryview:
    """Return an array's values, row after row, without a copy where they are contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def extra(module: str, name: str) -> Untyped:
    """Import an optional package.

    Raises:
        DataError: It isn't installed; the message has the command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise DataError(
            f"this format needs {package}, which is not here; {install(name)}"
        ) from error


def read_exactly(stream: IO[bytes], count: int, dtype: np.dtype[Any], where: str) -> Raw:
    """Return the next `count` items of a file.

    Raises:
        DataError: There are fewer.
    """
    data = stream.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise DataError(f"{where}: ended early: it is damaged, or changed while it was read")
    return np.frombuffer(data, dtype)


def checked(raw: Raw) -> Raw:
    """Return cells whose text can be written again.

    Raises:
        ValueError: Text that is not UTF-8, or holds code points that no text has.
    """
    if raw.dtype.kind == "S":
        return np.char.decode(raw, "utf-8")
    if raw.dtype.kind == "U":
        points = np.ascontiguousarray(raw).view(
            np.dtype(np.uint32).newbyteorder(raw.dtype.byteorder)
        )
        if points.max(initial=0) > LAST_POINT:
            raise ValueError(f"text holds {points.max():#x}, which is no character")
    if raw.dtype.kind in "OU":
        for text in {cell for cell in raw.tolist() if isinstance(cell, str)}:
            text.encode()
    return raw


def cells(values: Rows, columns: Sequence[Column], first: int = 0) -> list[Raw]:
    """Return each column of rows [n, d] in its `storage` type: numbers or str objects.

    A missing number is NaN, a missing name the empty text.
    """
    return [_stored(values[:, j], column, first) for j, column in enumerate(columns)]


def _stored(values: Rows, column: Column, first: int) -> Raw:
    if column.is_id:
        return column.rules.cells(np.arange(first, first + len(values)), column)
    if column.storage == "float32":
        return values
    if not column.missing:
        return column.rules.cells(values, column)
    present = ~np.isnan(values)
    missing, dtype = ("", object) if column.storage == "text" else (np.nan, column.storage)
    out = np.full(len(values), missing, dtype)
    out[present] = column.rules.cells(values[present], column)
    return out


def typed(values: Rows, columns: Sequence[Column], first: int = 0) -> list[Raw]:
    """Return each column of rows [n, d] as `cells`, but dates as datetime64, in UTC if zoned."""
    stored = cells(values, columns, first)
    for j, column in enumerate(columns):
        if isinstance(column.rules, Datetime):
            stored[j] = column.rules.instants(values[:, j], column)
    return stored


def coded(values: Rows, columns: Sequence[Column], first: int) -> Raw:
    """Return rows [n, d] for a format of numbers alone, with a number for each name."""
    if not any(column.rules.named or column.is_wide for column in columns):
        return values
    out = values.astype(coded_type(columns))
    for j, column in enumerate(columns):
        if column.is_id:
            out[:, j] = column.rules.numbers(np.arange(first, first + len(values)), column)
            continue
        present = ~np.isnan(values[:, j])
        out[present, j] = column.rules.numbers(values[present, j], column)
    return out


def coded_type(columns: Sequence[Column]) -> np.dtype[Any]:
    """Return the type of rows in a format of numbers alone: float64 where a column needs it."""
    return np.dtype("<f8" if any(column.is_wide for column in columns) else "<f4")


def number(cell: object) -> float | None:
    """Return the number that a cell is or spells, else None; digit groups (1_000) are no number."""
    if isinstance(cell, str):
        try:
            return float(cell) if cell.isascii() and "_" not in cell else None
        except ValueError:
            return None
    return float(cell) if isinstance(cell, numbers.Real) else None
