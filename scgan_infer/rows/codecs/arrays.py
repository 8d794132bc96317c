"""numpy's own files: .npy, one array, and .npz, a zip of them.

A 2-D array of numbers has columns x0, x1, ...; a 1-D array is one column; a structured array's
fields are its columns. In .npz a 2-D array may have its names in a second array `names` (what is
written here), or every column is a 1-D array. Rows are read in pieces, never mapped: a file that
shrinks while it is read gives an error, not a signal. Nothing pickled is read. Format:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.codecs.base import (
    Chunks,
    Raw,
    Reader,
    Rows,
    Stream,
    as_bytes,
    checked,
    coded,
    coded_type,
    read_exactly,
)
from scgan_infer.rows.codecs.budget import Budget

if TYPE_CHECKING:
    import zipfile

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Array:
    """A .npy stream: its header, checked against its size, and its rows."""

    def __init__(
        self, where: str, start: Callable[[], IO[bytes]], size: int, budget: Budget
    ) -> None:
        self.where, self.start, self.budget = where, start, budget
        with start() as stream:
            version = np.lib.format.read_magic(stream)
            if version not in HEADERS:
                raise DataError(
                    f"{where}: .npy version {version} (names outside latin-1) is not read"
                )
            self.shape, self.fortran, self.dtype = HEADERS[version](stream)
            self.offset = stream.tell()
        if self.dtype.hasobject:
            raise DataError(
                f"{where}: holds pickled objects, which are refused; save an array of numbers"
            )
        if not 1 <= len(self.shape) <= 2 or (self.dtype.names and len(self.shape) != 1):
            raise DataError(f"{where}: has shape {self.shape}; rows by columns are needed")
        self.rows = self.shape[0]
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        if min(self.shape) < 0 or row_bytes == 0:
            raise DataError(f"{where}: has shape {self.shape} of type {self.dtype}: no columns")
        holds = (size - self.offset) // row_bytes
        if self.rows > holds:
            raise DataError(
                f"{where}: its header claims {self.rows} rows, but it holds {holds}; "
                "copy or save it again"
            )
        self.row_items = row_bytes // self.dtype.itemsize
        budget.columns(self.row_items)
        self.names = self.dtype.names or tuple(f"x{j}" for j in range(self.row_items))

    def chunks(self, wanted: Sequence[int], size: int) -> Iterator[list[Raw]]:
        size = self.budget.rows(size, 4 * self.row_items * self.dtype.itemsize)
        if self.fortran and len(self.shape) == 2:
            yield from zip_columns([self._column(j, size) for j in wanted])
            return
        with self.start() as stream:
            stream.seek(self.offset)
            for first in range(0, self.rows, size):
                count = min(size, self.rows - first) * self.row_items
                block = read_exactly(stream, count, self.dtype, self.where)
                if self.dtype.names:
                    yield [block[self.dtype.names[j]] for j in wanted]
                else:
                    yield [block.reshape(-1, self.row_items)[:, j] for j in wanted]

    def _column(self, j: int, size: int) -> Iterator[Raw]:
        item = self.dtype.itemsize
        with self.start() as stream:
            stream.seek(self.offset + j * self.rows * item)
            for first in range(0, self.rows, size):
                count = min(size, self.rows - first)
                yield read_exactly(stream, count, self.dtype, self.where)


def zip_columns(columns: Sequence[Iterator[Raw]]) -> Iterator[list[Raw]]:
    """Yield the chunks of columns that are read side by side."""
    try:
        for chunk in zip(*columns, strict=True):
            yield list(chunk)
    finally:
        for column in columns:
            column.close()  # type: ignore[attr-defined]


class NpyReader(Reader):
    """Rows of a .npy file."""

    def open(self) -> None:
        path = self.path
        self.array = _Array(str(path), lambda: path.open("rb"), path.stat().st_size, self.budget)
        self.names, self.rows = self.array.names, self.array.rows
        self.named = bool(self.array.dtype.names)

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        return self.array.chunks(wanted, size)


class NpzReader(Reader):
    """Rows of a .npz file: its table, or its 1-D arrays as columns; `FILE.npz:NAME` chooses one."""

    inside = True

    def open(self) -> None:
        import zipfile

        path, inner = self.path, self.inner
        self.file = zipfile.ZipFile(path)
        self.budget.columns(len(self.file.infolist()))
        members = {i.filename.removesuffix(".npy"): i for i in self.file.infolist()}
        if inner and inner not in members:
            raise DataError(f"{path}: has no array {inner!r}; it has {', '.join(members)}")
        arrays = {name: self._array(info) for name, info in members.items() if name != "names"}
        tables = [name for name, a in arrays.items() if len(a.shape) == 2 or a.dtype.names]
        tables = [inner] if inner else tables
        if not tables and arrays and len({array.rows for array in arrays.values()}) == 1:
            self.arrays, self.names = list(arrays.values()), tuple(arrays)
        elif len(tables) == 1:
            self.arrays = [arrays[tables[0]]]
            self.names, self.named = self.arrays[0].names, bool(self.arrays[0].dtype.names)
            if "names" in members:
                self.names, self.named = self._names(members["names"], len(self.names)), True
        else:
            listed = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise DataError(
                f"{path}: holds no single table but {listed or 'nothing'}; choose with {path}:NAME"
            )
        self.rows = self.arrays[0].rows

    def _array(self, info: zipfile.ZipInfo) -> _Array:
        import zipfile

        where = f"{self.path}:{info.filename.removesuffix('.npy')}"
        known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not known or info.flag_bits & 1:
            raise DataError(f"{where}: is encrypted, or compressed in a way that numpy doesn't use")
        self.budget.decode(info.file_size)
        return _Array(where, lambda: self.file.open(info), info.file_size, self.budget)

    def _names(self, info: zipfile.ZipInfo, count: int) -> tuple[str, ...]:
        array = self._array(info)
        if array.dtype.kind != "U" or array.shape != (count,):
            raise DataError(
                f"{self.path}:names: {array.shape} of {array.dtype} doesn't name {count} columns"
            )
        names: Raw = np.concatenate([chunk[0] for chunk in array.chunks([0], count)])
        return tuple(checked(names).tolist())

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        first = self.arrays[0]
        if first.fortran and len(first.shape) == 2:  # each column is come to from the beginning
            self.budget.decode(sum(wanted) * first.rows * first.dtype.itemsize)
        if len(self.arrays) == 1:
            return self.arrays[0].chunks(wanted, size)
        columns = [(chunk[0] for chunk in self.arrays[j].chunks([0], size)) for j in wanted]
        return zip_columns(columns)


def npy_stream(columns: Sequence[Column]) -> Stream:
    """Write numbers [rows, d], categories as codes, dates as counts of a resolution since 1970."""

    def header(rows: int) -> bytes:
        out = io.BytesIO()
        about = {
            "descr": coded_type(columns).str,
            "fortran_order": False,
            "shape": (rows, len(columns)),
        }
        np.lib.format.write_array_header_1_0(out, about)
        return out.getvalue()

    def encode(values: Rows, first: int) -> memoryview:
        return as_bytes(coded(values, columns, first))

    return Stream(header, encode)


def write_npz(target: Path, columns: Sequence[Column], rows: int, chunks: Chunks) -> None:
    """Write `x`, numbers [rows, d], and `names`; the same rows give the same bytes."""
    import zipfile

    stream = npy_stream(columns)
    names = io.BytesIO()
    np.save(names, np.array([column.name for column in columns], dtype=np.str_), allow_pickle=False)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("names.npy"), names.getvalue())
        with archive.open(zipfile.ZipInfo("x.npy"), "w", force_zip64=True) as out:
            out.write(stream.header(rows))
            for values, first in chunks:
                out.write(stream.encode(values, first))
