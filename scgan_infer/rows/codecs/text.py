"""UTF-8 text (.csv, .tsv, .csv.gz, and piped in); its first lines tell how cells are separated.

Reading goes a chunk of lines at a time through `numpy.loadtxt`; a chunk that it refuses is read
again cell by cell, so that the error can name the cell. A column is text if its first cell is.
Empty lines are errors, except at the end. It is read once, front to back, so it may be piped.

Writing gives each float32 the fewest of 6 to 9 digits that bring back its bits (9 always do),
integers without a point, and categories by name.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.kinds.datetime import are_dates
from scgan_infer.rows.codecs.base import Chunks, Raw, Reader, Rows, Stream, cells, number
from scgan_infer.rows.codecs.budget import PIECE, Budget
from scgan_infer.rows.codecs.dialect import (
    COMMENT,
    INDEX,
    are_spaced,
    grouped,
    has_decimal_commas,
    header_at,
    is_index,
    separator_of,
    split,
)

LONGEST_LINE = 1 << 22
CODE = re.compile(r"0\d+")
MOST_QUOTED = 1 << 16  # texts that are kept as they are written
SAMPLE = 1 << 18  # characters, about
UTF_8, ESCAPED = "utf-8-sig", "surrogateescape"
UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")  # how it begins, read as UTF-8


class CsvReader(Reader):
    """Rows of a text file."""

    def open(self) -> None:
        self.file = self._stream()
        lines = self._lines()
        sample = _sample(lines)
        header = header_at(sample)
        plain = [line for line in sample[header + 1 :] if line[0] != COMMENT]
        self.separator = separator_of(sample[header : header + 1] + plain)
        first, *below = split(sample[header : header + 1] + plain, self.separator) or [[]]
        if not first or "\0" in sample[header]:
            raise DataError(f"{self.path}: has no line of column names")
        first = [cell.strip() for cell in first]
        if sample[header][0] == COMMENT != first[0]:
            first[0] = first[0].removeprefix(COMMENT).strip()
        mark = "," if self.separator != "," else "."
        numbers = [number(cell.replace(mark, ".")) is not None for cell in first]
        self.named = self.has_header(first, any(numbers))
        if self.named and all(numbers):
            raise DataError(
                f"{self.path}: its first line is numbers; put a line of column names above it, "
                "or train with header=false"
            )
        self.names = tuple(first if self.named else (f"x{j}" for j in range(len(first))))
        self.wide, self.above, self.one_line_each = len(first), header + self.named, True
        self.rest = chain(sample[self.above :], lines)
        self.decimal = "."
        rows = below if self.named else [first, *below]
        if self.wide == 1 and are_spaced(rows):
            new = f"{quote(self.path.name.partition('.')[0])}-commas.csv"
            raise DataError(
                f"{self.path}: spaces separate its cells; write commas: "
                f"tr -s ' ' ',' < {quote(str(self.path))} > {new}"
            )
        if self.separator != "," and has_decimal_commas(rows):
            self.decimal = ","
            if self.wide == 1:  # more likely a name too few
                raise DataError(
                    f"{self.path}: names one column, {self.names[0]!r}, above cells like "
                    f"{rows[0][0]!r}: name every column, or write decimals with a point"
                )
            self.notes = ("numbers have decimal commas: 1,234 is taken as 1.234",)
        self._leave_out_index(below)
        fractions = [
            cell for cell, numeric in zip(first, numbers, strict=True) if numeric and mark in cell
        ]
        likely = [*fractions, *(cell for cell in first if are_dates([cell]))]
        if self.named and likely:
            doubt = f"the first line is taken for names, but {likely[0]!r} looks like a cell"
            self.notes = (*self.notes, f"{doubt}; header=false if it is a row")
        self.codes = {j for row in rows for j, cell in enumerate(row) if CODE.fullmatch(cell)}
        self.leading = re.compile(rf'(?m)(?:^|{re.escape(self.separator)})"?0[0-9]')

    def _stream(self) -> IO[str]:
        """Open the file; bytes that are not UTF-8 come as lone surrogates."""
        if self.path.suffix.lower() == ".gz":
            import gzip

            return gzip.open(self.path, "rt", encoding=UTF_8, errors=ESCAPED, newline="")
        return self.path.open(encoding=UTF_8, errors=ESCAPED, newline="")

    def _lines(self) -> Iterator[str]:
        for at, line in enumerate(iter(partial(self.file.readline, LONGEST_LINE), ""), 1):
            if len(line) == LONGEST_LINE:
                raise DataError(f"{self.path}: line {at} is longer than {LONGEST_LINE} characters")
            escaped = None if line.isascii() else re.search("[\udc80-\udcff]", line)
            if escaped:
                byte = escaped[0].encode(errors=ESCAPED)
                raise DataError(
                    f"{self.path}: line {at} is not UTF-8: byte {byte.hex()}, in latin-1 "
                    f"{byte.decode('latin-1')!r}; save it as UTF-8, or convert it: "
                    + _conversion(self.path, "utf-16" if line[:2] in UTF_16 else "latin1")
                )
            yield line

    def _leave_out_index(self, rows: Sequence[Sequence[str]]) -> None:
        """Leave out a first column that labels the rows."""
        labels = [row[0].strip() for row in rows if row]
        self.skip = int(self.wide > 1 and is_index(self.names[0], labels))
        if self.skip:
            self.names = self.names[1:]
            self.notes = (*self.notes, INDEX)

    def row_label(self, row: int) -> str:
        """See `Reader.row_label`; adds the line while every row has taken one."""
        return f"row {row} (line {row + self.above})" if self.one_line_each else f"row {row}"

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        is_text: NDArray[np.bool_] | None = None
        done, empty = 0, ""
        while True:
            lines, closed = self._whole_rows(size)
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
                yield [columns[j + self.skip] for j in wanted]
            if problem:
                raise DataError(problem)
            done += rows

    def _whole_rows(self, size: int) -> tuple[list[str], bool]:
        """Take `size` lines, up to twice that while a quoted cell is open; and whether it closed.

        A line that begins with # is passed over, unless it has the cells of a row.
        """
        lines: list[str] = []
        is_open, room = False, PIECE
        for line in self.rest:
            if line[0] == COMMENT and not is_open and self._is_comment(line):
                self.one_line_each = False
                continue
            if '"' in line:
                is_open ^= line.count('"') % 2 == 1
            lines.append(line)
            room -= len(line)
            if len(lines) < size and room > 0:
                continue
            if not is_open or len(lines) >= 2 * size or room < -PIECE:
                break
        self.budget.decode(PIECE - room)
        return lines, not is_open

    def _is_comment(self, line: str) -> bool:
        return self.wide == 1 or len(split([line], self.separator)[0]) != self.wide

    def _types(self, lines: list[str], text: frozenset[int]) -> NDArray[np.bool_]:
        """Return from the first row whether each column is text, [d]."""
        cells = next(csv.reader(lines, delimiter=self.separator), [])
        is_text = np.zeros(self.wide, bool)
        for j, cell in enumerate(cells[: self.wide]):
            is_text[j] = (
                j in self.codes
                or j - self.skip in text
                or (bool(cell) and not self._is_number(cell))
            )
        return is_text

    def _is_number(self, cell: str) -> bool:
        return number(self._dotted(cell)) is not None or grouped(cell, self.decimal)

    def _dotted(self, cell: str) -> str:
        """Return a cell with a point for a decimal comma; a point that is there stays wrong."""
        return cell.replace(".", "_").replace(",", ".") if self.decimal == "," else cell

    def _fast(self, lines: list[str], is_text: NDArray[np.bool_]) -> list[Raw] | None:
        if "\n" in lines or "\r\n" in lines or "\r" in lines:
            return None
        if not self.codes and self.leading.search("".join(lines)):
            return None
        if self.decimal == ",":
            if is_text.any() or any("." in line for line in lines):
                return None
            lines = [line.replace(",", ".") for line in lines]
        dtype = np.dtype(
            [(f"f{j}", object if text else np.float64) for j, text in enumerate(is_text)]
        )
        try:
            table = np.loadtxt(
                lines, dtype, comments=None, delimiter=self.separator, quotechar='"', ndmin=1
            )
        except ValueError:
            return None
        return [table[name] for name in dtype.names or ()]

    def _careful(
        self, lines: list[str], is_text: NDArray[np.bool_], done: int
    ) -> tuple[list[Raw], str, str]:
        """Return the columns up to the first malformed row, and its error message.

        Empty lines that may be the file's last are the third result: wrong if anything follows.
        """
        rows: list[list[str]] = []
        try:
            for row in csv.reader(lines, delimiter=self.separator, strict=True):
                rows.append(row)  # those before the error are counted
        except csv.Error as error:
            why = 'a quotation mark (") is never closed' if "end of" in str(error) else error
            where = self.row_label(done + len(rows) + 1)
            raise DataError(f"{self.path}: {where}: {why}; mend or remove the row") from error
        good = next((k for k, row in enumerate(rows) if len(row) != self.wide), len(rows))
        cells = list(zip(*rows[:good], strict=True)) or [()] * self.wide
        columns = [
            self._column(column, bool(text)) for column, text in zip(cells, is_text, strict=True)
        ]
        faults = [
            (cells[j].index(cell), j)
            for j, column in enumerate(columns)
            if column.dtype == object and not is_text[j]
            for cell in set(cells[j])
            if grouped(cell, self.decimal)
        ]
        if faults:
            k, j = min(faults)
            problem = (
                f"{self.path}: column {self.names[j - self.skip]!r}, "
                f"{self.row_label(done + k + 1)}: "
                f"{cells[j][k]!r} separates thousands; write all numbers without"
            )
            return [column[:k] for column in columns], problem, ""
        if good == len(rows):
            return columns, "", ""
        held = f"has {len(rows[good])} cells" if rows[good] else "is empty"
        first = "the header names" if self.named else "the first row has"
        problem = (
            f"{self.path}: {self.row_label(done + good + 1)} {held}, "
            f"but {first} {self.wide} columns; "
            + (
                f"write {len(rows[0])} names there"
                if done + good == 0
                else "mend or remove the row"
            )
        )
        return (columns, problem, "") if any(rows[good:]) else (columns, "", problem)

    def _column(self, cells: tuple[str, ...], is_text: bool) -> Raw:
        is_text = is_text or any(map(CODE.fullmatch, cells))
        numbers = [None if is_text else number(self._dotted(cell)) for cell in cells]
        if is_text or None in numbers:
            spelt = (
                cell if value is None else self._dotted(cell)
                for cell, value in zip(cells, numbers, strict=True)
            )
            return np.array([*spelt, None], dtype=object)[:-1]
        return np.array(numbers, np.float64)


class StandardInput(CsvReader):
    """Rows that are piped in, in a text format."""

    def __init__(self) -> None:
        self.path, self.label = Path("standard input"), "standard input"
        self.budget = Budget(self.label, None)

    def _stream(self) -> IO[str]:
        if sys.stdin is None:  # closed when Python began; its number may be another file's by now
            raise DataError(f"{self.label}: is closed; pipe rows in, or name a file")
        return open(0, encoding=UTF_8, errors=ESCAPED, newline="", closefd=False)


def _conversion(path: Path, encoding: str) -> str:
    """Return a shell command that writes a file anew in UTF-8."""
    new = f"{quote(path.name.partition('.')[0])}-utf8.csv"
    if path.suffix.lower() == ".gz":
        return f"gzip -dc {quote(str(path))} | iconv -f {encoding} -t utf-8 > {new}"
    return f"iconv -f {encoding} -t utf-8 {quote(str(path))} > {new}"


def _sample(lines: Iterator[str]) -> list[str]:
    """Return the first lines, at least three, from which the file's dialect is inferred."""
    taken: list[str] = []
    room = SAMPLE
    for line in lines:
        taken.append(line)
        room -= 100 + len(line)
        if room < 0 and len(taken) > 2:
            break
    return taken


_POWERS = 10.0 ** np.arange(-60, 61)


def digits(values: Rows) -> NDArray[np.int64]:
    """Return how many digits, 6 to 9, read each float32 back exactly; almost always the fewest."""
    size = np.abs(values)
    exact = size.astype(np.float64)
    nearest = 0.4999999 * (exact - np.nextafter(size, np.float32(0)))
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


def _line(cells: Sequence[str], separator: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerow(cells)
    return out.getvalue()


def csv_stream(columns: Sequence[Column], separator: str = ",") -> Stream:
    """Write a header line and a line for each row."""
    marks = {"text": "%s", "int32": "%d", "int64": "%d", "float32": "%.*g", "float64": "%r"}
    forms = ["%s" if column.missing else marks[column.storage] for column in columns]
    row = separator.join(forms) + "\n"
    quote = lru_cache(MOST_QUOTED)(lambda name: _line([name], separator)[:-1] if name else "")

    def encode(values: Rows, first: int) -> bytes:
        arguments: list[list[Any]] = []
        for column, stored in zip(columns, cells(values, columns, first), strict=True):
            if column.missing and column.storage == "float32":
                missing = np.isnan(stored)
                numbers = zip(
                    digits(np.where(missing, 0, stored)).tolist(), stored.tolist(), strict=True
                )
                spelt = ["" if value != value else f"{value:.{count}g}" for count, value in numbers]
                arguments.append(spelt)
                continue
            if column.missing and column.storage == "float64":
                wide = stored.tolist()
                arguments.append(["" if value != value else repr(value) for value in wide])
                continue
            if column.storage == "float32":
                count = column.digits
                arguments.append(
                    digits(stored).tolist() if count is None else [count] * len(stored)
                )
            listed = stored.tolist()
            arguments.append([*map(quote, listed)] if column.storage == "text" else listed)
        flat: list[Any] = [None] * (len(values) * len(arguments))
        for k, argument in enumerate(arguments):
            flat[k :: len(arguments)] = argument
        return (_template(row, len(values)) % tuple(flat)).encode()

    header = _line([column.name for column in columns], separator).encode()
    return Stream(lambda rows: header, encode)


def tsv_stream(columns: Sequence[Column]) -> Stream:
    """Write as `csv_stream`, with tabs."""
    return csv_stream(columns, "\t")


def write_gzip(target: Path, columns: Sequence[Column], rows: int, chunks: Chunks) -> None:
    """Write CSV through gzip; the same rows give the same bytes."""
    stream = csv_stream(columns)
    import gzip

    with target.open("wb") as file, gzip.GzipFile("", "wb", 6, file, 0) as out:
        out.write(stream.header(rows))
        for values, first in chunks:
            out.write(stream.encode(values, first))
