"""The formats of files by suffix, and how one is opened: its parser's errors become a DataError.

`FILE.root:TREE` looks inside a file that holds more than one table. The packages behind .parquet,
.h5, .root and .fits are imported when they are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, UsageError
from scgan_infer.rows.codecs.arrays import NpyReader, NpzReader, npy_stream, write_npz
from scgan_infer.rows.codecs.base import Convert, Reader, Stream, Untyped, raw_rows
from scgan_infer.rows.codecs.fits import FitsReader, fits_stream
from scgan_infer.rows.codecs.hdf5 import Hdf5Reader, write_hdf5
from scgan_infer.rows.codecs.memory import MemoryReader
from scgan_infer.rows.codecs.parquet import ParquetReader, write_parquet
from scgan_infer.rows.codecs.root import RootReader, write_root
from scgan_infer.rows.codecs.text import (
    CsvReader,
    StandardInput,
    csv_stream,
    tsv_stream,
    write_gzip,
)

BY_PANDAS = (".json", ".jsonl", ".feather", ".dta", ".sav", ".sas7bdat", ".orc", ".xml", ".html")
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")

# What a parser may raise on a file that isn't what its name says; see `_unreadable`.
PYTHON = (OSError, EOFError, MemoryError, ValueError, TypeError, LookupError, ArithmeticError)
DEEPER = (RuntimeError, AssertionError, AttributeError, NameError, SyntaxError, BufferError)


@dataclass(frozen=True)
class Format:
    """How files of one suffix are read and written.

    Attributes:
        reader: Opens a file.
        stream: Writes one front to back; else, spools the rows for `convert`.
        convert: Makes the file from the spooled rows.
        extra: The extra of scgan that installs the package behind it.
    """

    reader: type[Reader]
    stream: Callable[[Sequence[Column]], Stream] = raw_rows
    convert: Convert | None = None
    extra: str = ""


FORMATS: dict[str, Format] = {
    ".npy": Format(NpyReader, npy_stream),
    ".npz": Format(NpzReader, convert=write_npz),
    ".csv": Format(CsvReader, csv_stream),
    ".tsv": Format(CsvReader, tsv_stream),
    ".csv.gz": Format(CsvReader, convert=write_gzip),
    ".parquet": Format(ParquetReader, convert=write_parquet, extra="parquet"),
    ".h5": Format(Hdf5Reader, convert=write_hdf5, extra="hdf5"),
    ".root": Format(RootReader, convert=write_root, extra="root"),
    ".fits": Format(FitsReader, fits_stream, extra="fits"),
}


def format_of(suffix: str, where: str = "") -> Format:
    """Return the format of a suffix; a UsageError for an unknown one begins with `where`."""
    if suffix not in FORMATS:
        raise UsageError(f"{where}{_no_format(suffix)}")
    return FORMATS[suffix]


@contextmanager
def opened(
    data: Untyped, columns: Sequence[Column] | None, header: bool = True
) -> Iterator[Reader]:
    """Yield the reader of a file, of standard input or of rows in memory."""
    known = {column.name for column in columns or ()}

    def has_header(cells: Sequence[str], numbers: bool) -> bool:
        return header if columns is None else not numbers or not known.isdisjoint(cells)

    if isinstance(data, str | Path) and str(data) == "-":
        with ExitStack() as stack:
            with reading("standard input", StandardInput):
                piped = StandardInput()
                piped.has_header = has_header
                stack.enter_context(piped)
            yield piped
        return
    if not isinstance(data, str | Path):
        with MemoryReader(data) as memory:
            yield memory
        return
    file, inner = _split(data)
    if os.path.isdir(file):
        raise DataError(f"{data}: is a folder; name a file of rows")
    suffix = suffix_of(file)
    if suffix not in FORMATS:
        raise DataError(f"{data}: {_no_format(suffix)}{_otherwise(suffix)}")
    kind = FORMATS[suffix].reader
    if inner and not kind.inside:
        raise DataError(f"{data}: a {suffix} file holds one table; leave out {':' + inner!r}")
    with ExitStack() as stack:
        with reading(str(data), kind):
            before = _state(file)
            if not file.is_file():
                raise DataError(f"{data}: is not a file of rows")
            with file.open("rb"):
                reader = kind(file, inner)
            reader.has_header = has_header
            stack.enter_context(reader)
        reader.label = str(data)
        yield reader
    with reading(reader.label, kind):
        after = _state(file)
    if after != before:
        raise DataError(
            f"{data}: changed while it was read; read it again when nobody writes to it"
        )


def suffix_of(path: Path) -> str:
    """Return the suffix of a format, of two parts if need be, or what there is instead."""
    name = path.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), path.suffix.lower())


def _no_format(suffix: str) -> str:
    return f"no format has the suffix {suffix!r}; there are {', '.join(FORMATS)}"


def _otherwise(suffix: str) -> str:
    """Return advice on how to read a file that has none of these formats."""
    if suffix in SHEETS:
        return "; save the sheet as CSV UTF-8"
    if suffix in BY_PANDAS:
        return "; read it with pandas, and write it with to_csv or give scgan_train.train the frame"
    return ""


def _state(file: Path) -> tuple[int, int, int]:
    """Return inode, size and modification time of a file, which tell whether it changed."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _split(path: str | Path) -> tuple[Path, str]:
    """Split `FILE:INNER`."""
    before, colon, inner = str(path).rpartition(":")
    if colon and suffix_of(Path(before)) in FORMATS and not os.path.exists(path):
        return Path(before), inner
    return Path(path), ""


@contextmanager
def reading(label: str, reader: type[Reader]) -> Iterator[None]:
    """Turn a parser's errors into a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{label}: there is no such file; check its name and folder") from error
    except _unreadable(reader) as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DataError(f"{label}: can't be read: {' '.join(str(why).split())[:200]}") from error


def _unreadable(reader: type[Reader]) -> tuple[type[BaseException], ...]:
    """Return the errors of this parser and of Python's own: writing does not import those."""
    import csv
    import struct
    import tokenize
    import zipfile
    import zlib

    parsers = (struct.error, zlib.error, csv.Error, zipfile.BadZipFile, tokenize.TokenError)
    return (*PYTHON, *DEEPER, *parsers, *reader.failures())
