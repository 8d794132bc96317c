"""Read rows from files, by suffix, and from memory, whole, sampled or in pieces; write files.

A row's number in a message counts from 1 below the header; the first row at fault is named, and in
it the first column.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgan_infer.arguments import whole
from scgan_infer.columns import Column, Table, quoted
from scgan_infer.errors import DataError, UsageError
from scgan_infer.kinds import BadCellError
from scgan_infer.names import Missing
from scgan_infer.rows.codecs.base import Raw, Reader, Rows, Untyped, checked
from scgan_infer.rows.codecs.text import csv_stream
from scgan_infer.rows.opening import Format, format_of, opened, reading, suffix_of
from scgan_infer.rows.writers import FileWriter, PipeWriter, Writer, writing
from scgan_infer.text import visible

if TYPE_CHECKING:
    from scgan_infer.rows.intake import Intake

CHUNK = 1 << 16
SURROGATE = re.compile("[\ud800-\udfff]")
CELL = 16  # bytes that a raw cell takes on its way, about


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
    """Read rows, or a uniform sample of them in their order; every row is read and checked.

    Args:
        data: A file, `FILE:INNER`, or `-` for text from standard input; or rows in memory: a 2-D or
            structured array, a mapping of names to 1-D arrays, or a DataFrame.
        names: Take these columns only, in this order.
        columns: The columns that the rows must have, in any order and among others, but for ids;
            where they have no names, exactly these. None: kinds are guessed where safe. They win
            over `names` and `overrides`.
        overrides: Fields of `Column` by column name that win over guesses.
        max_rows: Most rows to keep; memory doesn't grow beyond.
        generator: Draws the sample; by default one of seed 0.
        missing: What becomes of missing cells where no `columns` are given: "keep" them as NaN,
            "drop" their rows (of those that were kept), or "refuse" them.
        header: Whether the first line of a text file has the names; inferred with `columns`.
        grow: Whether `columns` take new names, behind their own, and missing cells.

    Raises:
        DataError: No rows, or rows that can't be taken: names file, column and first row at fault.
        UsageError: Unknown names, or settings that don't fit.
    """
    max_rows = None if max_rows is None else whole("max_rows", max_rows)
    with opened(data, columns, header) as reader:
        intakes, wanted = _intakes(reader, names, columns, overrides or {}, missing != "refuse")
        for intake in intakes if grow else []:
            intake.grow()
        kept = _Sample(max_rows, generator or np.random.default_rng(0))
        for values in _values(reader, wanted, intakes, CHUNK):
            kept.add(values)
    values, notes = kept.rows(), [*reader.notes]
    if missing == "drop" and columns is None:
        absent = np.isnan(values)
        counts, lost = absent.sum(0), absent.any(1)
        if lost.any():
            worst = intakes[counts.argmax()].name
            note = f"{lost.sum()} of {len(values)} rows are dropped for a missing cell"
            note += f", {counts.max()} of them for one of column {worst}"
            notes.append(f"{note}; columns.{quoted(worst)}.kind=drop leaves that out")
        values = values[~lost]
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
    notes += [note for intake in intakes for note in intake.notes]
    return Table(tuple(settled), values.astype(np.float32, copy=False), tuple(notes))


def iter_values(data: Untyped, columns: Sequence[Column], chunk: int = CHUNK) -> Iterator[Rows]:
    """Yield rows, float32 [<= chunk, d], in flat memory; arguments and errors of `read_table`."""
    with opened(data, columns) as reader:
        intakes, wanted = _intakes(reader, None, columns, {})
        yield from _values(reader, wanted, intakes, whole("chunk", chunk))


def read_raw(
    data: Untyped, columns: Sequence[Column], others: Sequence[str] = ()
) -> dict[str, Raw]:
    """Return whole columns by name, unconverted: text from a text file, else the file's types.

    Data and columns are as in `read_table`, but standard input is not read; `others` names more
    of its columns.

    Raises:
        DataError: A file that can't be read, or a column that it has not.
    """
    with opened(data, columns) as reader:
        _, wanted = _intakes(reader, None, columns, {})
        for name in others:
            if not reader.named or name not in reader.names:
                raise DataError(
                    f"{reader.label}: has no column {name!r} to keep; "
                    f"it has {_listed(reader.names, 12)}"
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
        rows: The number of rows; None if it isn't known yet.
        resume: Continue an interrupted file after its `done` rows.
        job: Identifies the rows (bundle, seed, start): only a file of the same job is resumed.
        start: Index of the first row, by which ids are numbered.

    Raises:
        DataError: A folder or disk that can't be written; or a name that the format can't hold.
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
    chosen = format_of(suffix_of(path), f"{path}: ")
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


def _rehearse(writer: FileWriter, chosen: Format) -> None:
    """Write one row and read its names: what can't be held fails before a billion rows are made."""
    from tempfile import TemporaryDirectory

    names = tuple(column.name for column in writer.columns)
    row = np.zeros((1, len(names)), np.float32)
    with ExitStack() as stack:
        with writing(writer.path):
            folder = stack.enter_context(TemporaryDirectory(prefix=".", dir=writer.path.parent))
            rehearsal = Path(folder) / f"row{suffix_of(writer.path)}"
            if writer.convert:
                writer.convert(rehearsal, writer.columns, 1, iter([(row, 0)]))
            else:
                rehearsal.write_bytes(writer.stream.file(row))
        with reading(str(writer.path), chosen.reader), chosen.reader(rehearsal, "") as reader:
            if reader.names != names:
                raise DataError(
                    f"{writer.path}: can't hold the column names {', '.join(names)}; rename them"
                )


def _visible(column: Column) -> Column:
    names = tuple(map(visible, column.categories))
    return replace(column, name=visible(column.name), categories=names)


def _chunks(
    reader: Reader, wanted: Sequence[int], size: int, text: frozenset[int]
) -> Iterator[list[Raw]]:
    """Yield chunks; an error while one is read becomes a DataError of the file."""
    once = [*dict.fromkeys(wanted)]
    chunks = reader.chunks(once, size, text)
    while True:
        with reading(reader.label, type(reader)), reader.budget.working():
            chunk = next(chunks, None)
            if chunk is None:
                return
            chunk = [checked(raw) for raw in chunk]
        if len({len(column) for column in chunk}) > 1:
            raise DataError(f"{reader.label}: its columns differ in length")
        yield [chunk[once.index(j)] for j in wanted]


@contextmanager
def _blaming(reader: Reader, intake: Intake) -> Iterator[None]:
    """Name the row of a bad cell."""
    try:
        yield
    except BadCellError as error:
        where = f"{reader.label}: column {intake.name!r}, {reader.row_label(error.row + 1)}"
        raise DataError(f"{where}: {error}") from error


def _intakes(
    reader: Reader,
    names: Sequence[str] | None,
    columns: Sequence[Column] | None,
    overrides: Mapping[str, Mapping[str, Any]],
    may_miss: bool = True,
) -> tuple[list[Intake], list[int]]:
    """Return an intake for each wanted column, and its index in the file."""
    from scgan_infer.rows.intake import Intake

    garbled = next((name for name in reader.names if SURROGATE.search(name)), None)
    if garbled is not None:
        raise DataError(f"{reader.label}: the column name {garbled!r} is not UTF-8; rename it")
    if columns is not None:
        known = [Intake(column.name, column) for column in columns]
        return known, _indices_of(reader, columns)
    chosen = reader.names if names is None else names
    usable = set(reader.names) & set(chosen)
    unknown = next((name for name in (*chosen, *overrides) if name not in usable), None)
    if unknown is not None:
        from difflib import get_close_matches

        held, close = _listed(reader.names, 12), get_close_matches(unknown, reader.names, 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(f"{reader.label}: has no column {unknown!r} to use; {meant}it has {held}")
    index = _index_by_name(reader, chosen)
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
    return intakes, [index[name] for name in kept]


def _indices_of(reader: Reader, columns: Sequence[Column]) -> list[int]:
    """Return the indices of a model's columns: by name, or in order in a file without names.

    A missing id, whose cells are not read, gets the index of another column.
    """
    needed = [column.name for column in columns]
    if not reader.named:
        if len(needed) != len(reader.names):
            raise DataError(
                f"{reader.label}: has {len(reader.names)} columns without names "
                f"where {len(needed)} are needed: {', '.join(needed)}"
            )
        return list(range(len(needed)))
    available = set(reader.names)
    present = [name for name in needed if name in available]
    ids = {column.name for column in columns if column.is_id and present}
    missing = next((name for name in needed if name not in available | ids), None)
    if missing is not None:
        raise DataError(
            f"{reader.label}: has no column {missing!r}, which the model needs; "
            f"it has {_listed(reader.names, 12)}"
        )
    index = _index_by_name(reader, present)
    return [index[name if name in available else present[0]] for name in needed]


def _index_by_name(reader: Reader, chosen: Sequence[str]) -> dict[str, int]:
    """Return each name's index; refuse chosen columns whose names are empty or repeated."""
    index = {name: j for j, name in enumerate(reader.names)}
    counts, again = Counter(reader.names), Counter(chosen)
    for name in chosen:
        if max(counts[name], again[name]) > 1:
            raise DataError(
                f"{reader.label}: has two columns called {name!r} "
                "(spaces around a name don't count); rename one"
            )
        if not name:
            others = _listed([other for other in reader.names if other], 8)
            raise DataError(
                f"{reader.label}: its column {index[name] + 1} has no name; "
                f"name it, or choose the others: {others}"
            )
    return index


def _listed(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _values(
    reader: Reader, wanted: Sequence[int], intakes: Sequence[Intake], chunk: int
) -> Iterator[Rows]:
    """Yield all rows, checked."""
    text = frozenset(j for j, intake in zip(wanted, intakes, strict=True) if intake.text)
    rows, budget = 0, reader.budget
    if reader.rows is not None:
        budget.cells(reader.rows, len(wanted))
    for raw in _chunks(reader, wanted, budget.rows(chunk, CELL * len(reader.names)), text):
        columns: list[Untyped] = []
        faults: list[tuple[int, int, BadCellError]] = []
        for j, intake in enumerate(intakes):
            try:
                columns.append(intake.take(raw[j]))
            except BadCellError as error:
                faults.append((error.row, j, error))
        if faults:
            _, j, first = min(faults, key=lambda fault: fault[:2])
            with _blaming(reader, intakes[j]):
                raise first
        values = np.empty((len(raw[0]), len(raw)), np.result_type(np.float32, *columns))
        for j, cells in enumerate(columns):
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
