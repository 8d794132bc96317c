"""The one door: rows come in from files, by suffix, and from memory, whole, sampled or in pieces; and go out to files.

A row's number in a message counts from 1 below the header; the first row at fault is named, and in it the
first column. `FILE.root:TREE` looks inside a file that holds more than one table. The packages behind
.parquet, .h5, .root and .fits are imported when they are used.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgan_infer.arguments import whole
from scgan_infer.columns import Column, Table
from scgan_infer.errors import DataError, UsageError
from scgan_infer.kinds import BadCellError
from scgan_infer.names import Missing
from scgan_infer.rows.codecs.arrays import NpyReader, NpzReader, npy_stream, write_npz
from scgan_infer.rows.codecs.base import (
    Convert,
    Raw,
    Reader,
    Rows,
    Stream,
    Untyped,
    checked,
    raw_rows,
)
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
from scgan_infer.rows.writers import FileWriter, PipeWriter, Writer, writing
from scgan_infer.text import visible

if TYPE_CHECKING:
    from scgan_infer.rows.intake import Intake

CHUNK = 1 << 16
BY_PANDAS = (".json", ".jsonl", ".feather", ".dta", ".sav", ".sas7bdat", ".orc", ".xml", ".html")
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
SURROGATE = re.compile("[\ud800-\udfff]")
CELL = 16  # bytes that a raw cell takes on its way, about

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


def read_table(
    data: Untyped,
    *,
    names: Sequence[str] | None = None,
    columns: Sequence[Column] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    max_rows: int | None = None,
    generator: np.random.Generator | None = None,
    missing: Missing = "keep",
    header: bool = True,
    grow: bool = False,
) -> Table:
    """Read rows, or a uniform sample of them in their order; every row is read and judged.

    Args:
        data: A file, `FILE:INNER`, or `-` for text from standard input; or rows in memory: a 2-D or
            structured array, a mapping of names to 1-D arrays, or a DataFrame.
        names: Take these columns only, in this order.
        columns: The columns that the rows must have, in any order and among others; where they have no names,
            exactly these. None: kinds are guessed where safe. They win over `names` and `overrides`.
        overrides: Fields of `Column` by column name that win over guesses.
        max_rows: Most rows to keep; memory doesn't grow beyond.
        generator: Draws the sample; by default one of seed 0.
        missing: What becomes of missing cells where no `columns` are given: "keep" them as NaN, "drop" their rows
            (of those that were kept), or "refuse" them.
        header: Whether the first line of a text file has the names; with `columns`, that is inferred from it.
        grow: Whether `columns` take names that they don't have, as more behind their own, and missing cells.

    Raises:
        DataError: No rows, or rows that can't be taken: names file, column and first row at fault.
        UsageError: Unknown names, or settings that don't fit.
    """
    max_rows = None if max_rows is None else whole("max_rows", max_rows)
    with _opened(data, columns, header) as reader:
        intakes, wanted = _intakes(reader, names, columns, overrides or {}, missing != "refuse")
        for intake in intakes if grow else []:
            intake.grow()
        kept = _Sample(max_rows, generator or np.random.default_rng(0))
        for values in _values(reader, wanted, intakes, CHUNK):
            kept.add(values)
    values = kept.rows()
    if missing == "drop" and columns is None:
        values = values[~np.isnan(values).any(1)]
        if not len(values):
            raise DataError(f"{reader.label}: a cell is missing in every row")
        for intake in intakes:
            intake.missing = False
    settled, faults = [], []
    for j, intake in enumerate(intakes):
        try:
            column, values[:, j] = intake.settle(values[:, j])
            settled.append(column)
        except BadCellError as error:
            faults.append((intake, error))
    for intake, fault in faults[:1]:
        more = [repr(other.name) for other, _ in faults[1:]]
        also = f"; nor can columns be taken as they are: {_listed(more, 12)}" if more else ""
        with _blaming(reader, intake):
            raise BadCellError(fault.row, f"{fault}{also}")
    notes = (*reader.notes, *(note for intake in intakes for note in intake.notes))
    return Table(tuple(settled), values.astype(np.float32, copy=False), notes)


def iter_values(data: Untyped, columns: Sequence[Column], chunk: int = CHUNK) -> Iterator[Rows]:
    """Yield rows, float32 [<= chunk, d], in flat memory.

    Args:
        data: As in `read_table`.
        columns: As in `read_table`.
        chunk: Most rows at a time.

    Raises:
        DataError: As `read_table`, when iteration comes to it.
    """
    with _opened(data, columns) as reader:
        intakes, wanted = _intakes(reader, None, columns, {})
        yield from _values(reader, wanted, intakes, whole("chunk", chunk))


def read_raw(
    data: Untyped, columns: Sequence[Column], others: Sequence[str] = ()
) -> dict[str, Raw]:
    """Return whole columns by name as they are: the text of a text file, what else the file's own types hold.

    Args:
        data: As in `read_table`, but standard input.
        columns: Those that the rows have, found as `read_table` finds them.
        others: Names of more of its columns.

    Raises:
        DataError: A file that can't be read, or a column that it has not.
    """
    with _opened(data, columns) as reader:
        _, wanted = _intakes(reader, None, columns, {})
        for name in others:
            if not reader.named or name not in reader.names:
                raise DataError(
                    f"{reader.label}: has no column {name!r} to keep; it has {_listed(reader.names, 12)}"
                )
            wanted.append(reader.names.index(name))
        size = reader.budget.rows(CHUNK, CELL * len(reader.names))
        chunks = [*_chunks(reader, wanted, size, frozenset(wanted))]
    names = [*(column.name for column in columns), *others]
    return {name: np.concatenate([chunk[k] for chunk in chunks]) for k, name in enumerate(names)}


def open_writer(
    path: str | Path,
    columns: Sequence[Column],
    rows: int | None = None,
    *,
    resume: bool = False,
    job: str = "",
    start: int = 0,
) -> Writer:
    """Return a context manager that writes rows to a file, which appears when it is complete.

    Args:
        path: The file; `-` is CSV on standard output, names made visible where that is a terminal.
        columns: Its columns.
        rows: How many rows will come, None if only their end tells.
        resume: Go on with what an interrupted writer left, after its `done` rows.
        job: What the rows are (bundle, seed, start), so that only its own beginning is gone on with.
        start: Index of the first row, by which ids are numbered.

    Raises:
        DataError: A folder or disk that can't be written; a name that the format can't hold.
        UsageError: An unknown suffix.
    """
    rows = None if rows is None else whole("rows", rows)
    if str(path) == "-":
        if resume:
            raise UsageError("what went to standard output can't be gone on with; name a file")
        if sys.stdout.isatty():
            columns = tuple(map(_visible, columns))
        return PipeWriter(columns, csv_stream(columns), start)
    path = Path(path)
    chosen = format_of(_suffix(path), f"{path}: ")
    writer = FileWriter(
        path,
        columns,
        rows,
        chosen.stream(columns),
        chosen.convert,
        resume=resume,
        job=job,
        start=start,
    )
    if chosen.extra:
        _rehearse(writer, chosen)
    return writer


def format_of(suffix: str, where: str = "") -> Format:
    """Return what is written under a suffix; a UsageError says `where` there is none."""
    if suffix not in FORMATS:
        raise UsageError(f"{where}{_no_format(suffix)}")
    return FORMATS[suffix]


def _rehearse(writer: FileWriter, chosen: Format) -> None:
    """Write one row and read its names: what a format can't hold fails before a billion rows are made."""
    from tempfile import TemporaryDirectory

    names = tuple(column.name for column in writer.columns)
    row = np.zeros((1, len(names)), np.float32)
    with ExitStack() as stack:
        with writing(writer.path):
            folder = stack.enter_context(TemporaryDirectory(prefix=".", dir=writer.path.parent))
            rehearsal = Path(folder) / f"row{_suffix(writer.path)}"
            if writer.convert:
                writer.convert(rehearsal, writer.columns, 1, iter([(row, 0)]))
            else:
                rehearsal.write_bytes(writer.stream.file(row))
        with _reading(str(writer.path), chosen.reader), chosen.reader(rehearsal, "") as reader:
            if reader.names != names:
                raise DataError(
                    f"{writer.path}: can't hold the column names {', '.join(names)}; rename them"
                )


@contextmanager
def _opened(
    data: Untyped, columns: Sequence[Column] | None, header: bool = True
) -> Iterator[Reader]:
    """Yield the reader of a file, of standard input or of rows in memory."""
    known = {column.name for column in columns or ()}

    def has_header(cells: Sequence[str], numbers: bool) -> bool:
        return header if columns is None else not numbers or not known.isdisjoint(cells)

    if isinstance(data, str | Path) and str(data) == "-":
        with ExitStack() as stack:
            with _reading("standard input", StandardInput):
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
    suffix = _suffix(file)
    if suffix not in FORMATS:
        raise DataError(f"{data}: {_no_format(suffix)}{_otherwise(suffix)}")
    kind = FORMATS[suffix].reader
    if inner and not kind.inside:
        raise DataError(f"{data}: a {suffix} file holds one table; leave out {':' + inner!r}")
    with ExitStack() as stack:
        with _reading(str(data), kind):
            before = _state(file)
            if not file.is_file():
                raise DataError(f"{data}: is not a file of rows")
            with file.open("rb"):
                reader = kind(file, inner)
            reader.has_header = has_header
            stack.enter_context(reader)
        reader.label = str(data)
        yield reader
    with _reading(reader.label, kind):
        after = _state(file)
    if after != before:
        raise DataError(
            f"{data}: changed while it was read; read it again when nobody writes to it"
        )


def _visible(column: Column) -> Column:
    names = tuple(map(visible, column.categories))
    return replace(column, name=visible(column.name), categories=names)


def _suffix(path: Path) -> str:
    """Return the suffix of a format, of two parts if need be, or what there is instead."""
    name = path.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), path.suffix.lower())


def _no_format(suffix: str) -> str:
    return f"no format has the suffix {suffix!r}; there are {', '.join(FORMATS)}"


def _otherwise(suffix: str) -> str:
    """Return how rows can be read from a file that has none of these formats."""
    if suffix in SHEETS:
        return "; save the sheet as CSV UTF-8"
    if suffix in BY_PANDAS:
        return "; read it with pandas, and write it with to_csv or give scgan_train.train the frame"
    return ""


def _state(file: Path) -> tuple[int, int, int]:
    """Return what changes with a file: which it is, its size, and when it was last written."""
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _split(path: str | Path) -> tuple[Path, str]:
    """Split `FILE:INNER`."""
    before, colon, inner = str(path).rpartition(":")
    if colon and _suffix(Path(before)) in FORMATS and not os.path.exists(path):
        return Path(before), inner
    return Path(path), ""


@contextmanager
def _reading(label: str, reader: type[Reader]) -> Iterator[None]:
    """Turn what goes wrong in a parser into a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{label}: there is no such file") from error
    except _unreadable(reader) as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DataError(f"{label}: can't be read: {' '.join(str(why).split())[:200]}") from error


def _unreadable(reader: type[Reader]) -> tuple[type[BaseException], ...]:
    """Return the errors of a parser, and of those in Python's library: writing does not import them."""
    import csv
    import struct
    import tokenize
    import zipfile
    import zlib

    parsers = (struct.error, zlib.error, csv.Error, zipfile.BadZipFile, tokenize.TokenError)
    return (*PYTHON, *DEEPER, *parsers, *reader.failures())


def _chunks(
    reader: Reader, wanted: Sequence[int], size: int, text: frozenset[int]
) -> Iterator[list[Raw]]:
    """Pass chunks on; what goes wrong while one is made is the file's fault."""
    chunks = reader.chunks(wanted, size, text)
    while True:
        with _reading(reader.label, type(reader)), reader.budget.working():
            chunk = next(chunks, None)
            if chunk is None:
                return
            chunk = [checked(raw) for raw in chunk]
        if len({len(column) for column in chunk}) > 1:
            raise DataError(f"{reader.label}: its columns differ in length")
        yield chunk


@contextmanager
def _blaming(reader: Reader, intake: Intake) -> Iterator[None]:
    """Name the row of a bad cell."""
    try:
        yield
    except BadCellError as error:
        where = f"{reader.label}: column {intake.name!r}, {reader.place(error.row + 1)}"
        raise DataError(f"{where}: {error}") from error


def _intakes(
    reader: Reader,
    names: Sequence[str] | None,
    columns: Sequence[Column] | None,
    overrides: Mapping[str, Mapping[str, Any]],
    may_miss: bool = True,
) -> tuple[list[Intake], list[int]]:
    """Return an intake for each wanted column, and where it is in the file."""
    from scgan_infer.rows.intake import Intake

    garbled = next((name for name in reader.names if SURROGATE.search(name)), None)
    if garbled is not None:
        raise DataError(f"{reader.label}: the column name {garbled!r} is not UTF-8; rename it")
    if columns is not None:
        known = [Intake(column.name, column) for column in columns]
        return known, _places_of(reader, [column.name for column in columns])
    chosen = reader.names if names is None else names
    usable = set(reader.names) & set(chosen)
    unknown = next((name for name in (*chosen, *overrides) if name not in usable), None)
    if unknown is not None:
        held = _listed(reader.names, 12)
        raise UsageError(f"{reader.label}: has no column {unknown!r} to use; it has {held}")
    places = _places(reader, chosen)
    kept = [name for name in chosen if overrides.get(name, {}).get("kind") != "drop"]
    if not kept:
        raise DataError(f"{reader.label}: has no columns")
    intakes = [
        Intake(
            name,
            None,
            overrides.get(name) or reader.settings.get(name),
            reader.units.get(name, ""),
            may_miss,
            reader.named,
        )
        for name in kept
    ]
    return intakes, [places[name] for name in kept]


def _places_of(reader: Reader, needed: Sequence[str]) -> list[int]:
    """Return where the columns that a model needs are: by name, or in order in a file without names."""
    if not reader.named:
        if len(needed) != len(reader.names):
            raise DataError(
                f"{reader.label}: has {len(reader.names)} columns without names "
                f"where {len(needed)} are needed: {', '.join(needed)}"
            )
        return list(range(len(needed)))
    held = set(reader.names)
    missing = next((name for name in needed if name not in held), None)
    if missing is not None:
        raise DataError(
            f"{reader.label}: has no column {missing!r}, which the model needs; "
            f"it has {_listed(reader.names, 12)}"
        )
    places = _places(reader, needed)
    return [places[name] for name in needed]


def _places(reader: Reader, chosen: Sequence[str]) -> dict[str, int]:
    """Return where each name is; refuse chosen columns that no name tells from the others."""
    places = {name: j for j, name in enumerate(reader.names)}
    counts, again = Counter(reader.names), Counter(chosen)
    for name in chosen:
        if max(counts[name], again[name]) > 1:
            raise DataError(f"{reader.label}: has two columns called {name!r}; rename one")
        if not name:
            others = _listed([other for other in reader.names if other], 8)
            raise DataError(
                f"{reader.label}: its column {places[name] + 1} has no name; "
                f"name it, or choose the others: {others}"
            )
    return places


def _listed(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _values(
    reader: Reader, wanted: Sequence[int], intakes: Sequence[Intake], chunk: int
) -> Iterator[Rows]:
    """Yield all rows, judged."""
    text = frozenset(j for j, intake in zip(wanted, intakes, strict=True) if intake.text)
    rows, budget = 0, reader.budget
    if reader.rows is not None:
        budget.cells(reader.rows, len(wanted))
    for raw in _chunks(reader, wanted, budget.rows(chunk, CELL * len(reader.names)), text):
        found: list[Untyped] = []
        faults: list[tuple[int, int, BadCellError]] = []
        for j, intake in enumerate(intakes):
            try:
                found.append(intake.take(raw[j]))
            except BadCellError as error:
                faults.append((error.row, j, error))
        if faults:
            _, j, first = min(faults, key=lambda fault: fault[:2])
            with _blaming(reader, intakes[j]):
                raise first
        values = np.empty((len(raw[0]), len(raw)), np.result_type(np.float32, *found))
        for j, cells in enumerate(found):
            values[:, j] = cells
        rows += len(values)
        yield values
    if not rows:
        raise DataError(f"{reader.label}: has no rows")
    if reader.rows not in (None, rows):
        raise DataError(
            f"{reader.label}: its header claims {reader.rows} rows, but it holds {rows}"
        )
    for intake in intakes:
        with _blaming(reader, intake):
            intake.finish()


class _Sample:
    """Rows to keep: all, or those with the smallest of random keys, which are a uniform sample."""

    def __init__(self, most: int | None, generator: np.random.Generator) -> None:
        self.most, self.generator = most, generator
        self.kept: list[Rows] = []
        self.keys: list[np.ndarray[Any, np.dtype[np.float64]]] = []

    def add(self, values: Rows) -> None:
        self.kept.append(values)
        if self.most is not None:
            self.keys.append(self.generator.random(len(values)))
            if sum(map(len, self.keys)) > 2 * self.most + CHUNK:
                self._thin(self.most)

    def _thin(self, most: int) -> None:
        keys, values = np.concatenate(self.keys), np.concatenate(self.kept)
        if len(keys) > most:
            stay = keys <= np.partition(keys, most - 1)[most - 1]
            keys, values = keys[stay], values[stay]
        self.keys, self.kept = [keys], [values]

    def rows(self) -> Rows:
        if self.most is not None:
            self._thin(self.most)
        return self.kept[0] if len(self.kept) == 1 else np.concatenate(self.kept)
