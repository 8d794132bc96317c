"""Comma-separated text (.csv), in UTF-8, its first line the columns' names.

Reading goes a chunk of lines at a time through `numpy.loadtxt`; a chunk that it refuses is read again cell by
cell, so that the error can name the cell. A column is text if its first cell is. Empty lines are errors,
except at the end.

Writing gives each float32 the fewest of 6 to 9 digits that bring back its bits (9 always do), integers
without a point, and categories by name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.codecs.base import Raw, Reader, Rows, Stream, cells, number

LONGEST_LINE = 1 << 22


class CsvReader(Reader):
    """Rows of a CSV file."""

    def open(self) -> None:
        path = self.path
        with self._open() as file:
            first = file.readline(LONGEST_LINE)
        cells = next(csv.reader([first]), [])
        if not cells or len(first) == LONGEST_LINE or "\0" in first:
            raise DataError(f"{path}: has no line of column names")
        self.names = tuple(cell.strip() for cell in cells)
        if all(number(cell) is not None for cell in cells):
            raise DataError(
                f"{path}: its first line is numbers; put a line of column names above it"
            )
        if len(cells) == 1 and any(mark in first for mark in ";\t"):
            raise DataError(
                f"{path}: its first line {first.strip()[:60]!r} is not separated by commas"
            )
        self.one_line_each = True

    def _open(self) -> io.TextIOWrapper:
        return self.path.open(encoding="utf-8-sig", newline="")

    def place(self, row: int) -> str:
        """See `Reader.place`; adds the line while every row has taken one."""
        return f"row {row} (line {row + 1})" if self.one_line_each else f"row {row}"

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        is_text: NDArray[np.bool_] | None = None
        done, empty = 0, ""
        with self._open() as file:
            file.readline()
            while True:
                lines, closed = _whole_rows(file, size)
                if empty and any(line.strip() for line in lines):
                    raise DataError(empty)
                if not lines:
                    return
                if is_text is None:
                    is_text = self._types(lines, text)
                columns, problem = self._fast(lines, is_text) if closed else None, ""
                if columns is None:
                    columns, problem, empty = self._careful(lines, is_text, done)
                rows = len(columns[0])
                self.one_line_each = self.one_line_each and (
                    rows == len(lines) or bool(problem or empty)
                )
                if rows:
                    yield [columns[j] for j in wanted]
                if problem:
                    raise DataError(problem)
                done += rows

    def _types(self, lines: list[str], text: frozenset[int]) -> NDArray[np.bool_]:
        """Tell from the first row which columns are text."""
        cells = next(csv.reader(lines), [])
        is_text = np.zeros(len(self.names), bool)
        for j, cell in enumerate(cells[: len(self.names)]):
            is_text[j] = j in text or (bool(cell) and number(cell) is None)
        return is_text

    def _fast(self, lines: list[str], is_text: NDArray[np.bool_]) -> list[Raw] | None:
        if "\n" in lines or "\r\n" in lines or "\r" in lines:
            return None
        dtype = np.dtype(
            [(f"f{j}", object if text else np.float64) for j, text in enumerate(is_text)]
        )
        try:
            table = np.loadtxt(lines, dtype, comments=None, delimiter=",", quotechar='"', ndmin=1)
        except ValueError:
            return None
        return [table[name] for name in dtype.names or ()]

    def _careful(
        self, lines: list[str], is_text: NDArray[np.bool_], done: int
    ) -> tuple[list[Raw], str, str]:
        """Return the columns up to the first row with another number of cells, and what is wrong there.

        Empty lines that may be the file's last are the third result: wrong if anything follows.
        """
        rows = list(csv.reader(lines, strict=True))
        wide = len(self.names)
        good = next((k for k, row in enumerate(rows) if len(row) != wide), len(rows))
        cells = list(zip(*rows[:good], strict=True)) or [()] * wide
        columns = [_column(column, bool(text)) for column, text in zip(cells, is_text, strict=True)]
        if good == len(rows):
            return columns, "", ""
        held = f"has {len(rows[good])} cells" if rows[good] else "is empty"
        problem = (
            f"{self.path}: {self.place(done + good + 1)} {held}, but the header names {wide} columns; "
            "mend or remove the row"
        )
        return (columns, problem, "") if any(rows[good:]) else (columns, "", problem)


def _whole_rows(file: io.TextIOWrapper, size: int) -> tuple[list[str], bool]:
    """Take `size` lines, and up to as many again while a quoted cell is open; say whether it was closed."""
    lines = list(islice(file, size))
    closed = sum(line.count('"') for line in lines) % 2 == 0
    for _ in range(len(lines)):
        following = "" if closed else file.readline()
        if not following:
            break
        lines.append(following)
        closed = following.count('"') % 2 == 1
    return lines, closed


def _column(cells: tuple[str, ...], is_text: bool) -> Raw:
    numbers = None if is_text else [number(cell) for cell in cells]
    if numbers is None or None in numbers:
        return np.array([*cells, None], dtype=object)[:-1]
    return np.array(numbers, np.float64)


_POWERS = 10.0 ** np.arange(-60, 61)


def digits(values: Rows) -> NDArray[np.int64]:
    """Return how many digits, 6 to 9, bring each float32 back exactly; almost always the fewest."""
    size = np.abs(values)
    exact = size.astype(np.float64)
    nearest = 0.4999 * (exact - np.nextafter(size, np.float32(0)))
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log10(exact))
    exponent[exact == 0] = 0
    out = np.full(values.shape, 9)
    for count in (8, 7, 6):
        scale = _POWERS[(count + 59 - exponent).astype(np.intp)]
        out[np.abs(np.rint(exact * scale) / scale - exact) <= nearest] = count
    return out


@lru_cache(maxsize=4)
def _template(row: str, rows: int) -> str:
    return row * rows


def _line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def csv_stream(columns: Sequence[Column]) -> Stream:
    """Write a header line and a line for each row."""
    marks = {"text": "%s", "int32": "%d", "float32": "%.*g"}
    row = ",".join(marks[column.rules.storage] for column in columns) + "\n"
    quote = cache(lambda name: _line([name])[:-1])

    def encode(values: Rows) -> bytes:
        arguments: list[list[Any]] = []
        for column, stored in zip(columns, cells(values, columns), strict=True):
            if column.rules.storage == "float32":
                arguments.append(digits(stored).tolist())
            listed = stored.tolist()
            arguments.append([*map(quote, listed)] if column.rules.storage == "text" else listed)
        flat: list[Any] = [None] * (len(values) * len(arguments))
        for k, argument in enumerate(arguments):
            flat[k :: len(arguments)] = argument
        return (_template(row, len(values)) % tuple(flat)).encode()

    header = _line([column.name for column in columns]).encode()
    return Stream(lambda rows: header, encode, lambda rows: b"")
