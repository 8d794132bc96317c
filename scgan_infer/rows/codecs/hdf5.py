"""HDF5 (.h5), with h5py: a 1-D dataset for each column, or one 2-D dataset (columns x0, x1, ...).

`FILE.h5:GROUP` or `FILE.h5:DATASET` looks elsewhere than at the root. Links out of the file,
external storage and virtual datasets are refused: a file must not read other files. A column's unit
is its attribute `unit`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.codecs.base import (
    Chunks,
    Raw,
    Reader,
    Untyped,
    cells,
    extra,
)
from scgan_infer.rows.codecs.budget import HELD

INFLATION = 1032  # of DEFLATE, at most
LZF_INFLATION = 88  # a back-reference of 3 bytes gives up to 264
READ = (
    "gzip, lzf, shuffle and fletcher32"  # filters; others believe what the file says of their sizes
)
TEXTS = 1 << 28  # bytes of texts that one call may read, if each is as long as the file


class Hdf5Reader(Reader):
    """Rows of an HDF5 file."""

    inside = True

    def open(self) -> None:
        self.h5py, inner = extra("h5py", "hdf5"), self.inner
        self.file = self.h5py.File(self.path, "r", rdcc_nbytes=0)
        self._find(inner)
        cache = self._charge()
        self.file.close()  # a chunk in several pieces is decoded once, if the cache has room
        self.file = self.h5py.File(self.path, "r", rdcc_nbytes=cache)
        self._find(inner)

    def _find(self, inner: str) -> None:
        node = self._inside(self.file, inner) if inner else self.file
        if isinstance(node, self.h5py.Group):
            members = {name: self._inside(node, name) for name in node}
            datasets = {k: v for k, v in members.items() if isinstance(v, self.h5py.Dataset)}
        else:
            datasets, members = {inner.rpartition("/")[2]: node}, {}
        tables = [data for data in datasets.values() if data.ndim == 2 or data.dtype.names]
        if len(tables) == 1 and len(datasets) == 1:
            table = tables[0]
            self.parts = [table]
            self.names = table.dtype.names or tuple(f"x{j}" for j in range(table.shape[1]))
            self.named = bool(table.dtype.names)
        elif datasets and all(data.ndim == 1 for data in datasets.values()):
            self.parts, self.names = list(datasets.values()), tuple(datasets)
            if len({len(data) for data in self.parts}) > 1:
                lengths = ", ".join(f"{name} {len(data)}" for name, data in datasets.items())
                raise DataError(f"{self.path}: its datasets differ in length: {lengths}")
            units = {name: data.attrs.get("unit") for name, data in datasets.items()}
            self.units = {name: unit for name, unit in units.items() if isinstance(unit, str)}
        else:
            listed = ", ".join(f"{k} {getattr(v, 'shape', 'group')}" for k, v in members.items())
            raise DataError(
                f"{self.path}: holds no columns here but {listed or 'nothing'}; "
                f"choose with {self.path}:NAME"
            )
        self.rows = len(self.parts[0])

    def _charge(self) -> int:
        """Charge the chunks that the columns lie in; return each dataset's cache in bytes."""
        widest = 0
        for name, part in zip(self.names, self.parts, strict=False):
            chunk = part.chunks or part.shape
            each, item = zip(part.shape, chunk, strict=True), part.dtype.itemsize
            covered = [-(-n // max(c, 1)) * c for n, c in each]
            self.budget.decode(math.prod(covered) * item)
            if part.chunks:
                self.budget.hold(math.prod(chunk) * item, f"a chunk of dataset {name!r}")
                self._inflate(name, part)
                widest = max(widest, chunk[0] * math.prod(covered[1:]) * item)
        return min(widest, HELD // len(self.parts))

    def _inflate(self, name: str, part: Untyped) -> None:
        """Refuse chunks that inflate to more than one: HDF5 stops only with all of it in memory."""
        layout, z = part.id.get_create_plist(), self.h5py.h5z
        filters = [layout.get_filter(k)[0] for k in range(layout.get_nfilters())]
        packers = {z.FILTER_DEFLATE: INFLATION, z.FILTER_LZF: LZF_INFLATION}
        if not {*filters} <= {*packers, z.FILTER_SHUFFLE, z.FILTER_FLETCHER32}:
            raise DataError(
                f"{self.path}: dataset {name!r} is stored by another filter than {READ}; "
                "write it again: h5repack -f GZIP=4"
            )
        used = [packer for packer in filters if packer in packers]
        if len(used) > 1:
            raise DataError(f"{self.path}: dataset {name!r} is compressed twice; write it again")
        large: list[tuple[int, ...]] = []

        def note(chunk: Untyped) -> None:
            if chunk.size * packers[used[0]] > HELD:
                large.append(chunk.chunk_offset)

        if used:
            part.id.chunk_iter(note)
        if large and used[0] == z.FILTER_LZF:
            raise DataError(
                f"{self.path}: dataset {name!r} has packed chunks of more than "
                f"{HELD // LZF_INFLATION} bytes; write it again in smaller ones"
            )
        for offset in large:
            data, room = part.id.read_direct_chunk(offset)[1], math.prod(part.chunks)
            room, inflater = room * part.dtype.itemsize, zlib.decompressobj()
            while data and room >= 0:
                room -= len(inflater.decompress(data, 1 << 20))
                data = inflater.unconsumed_tail
            if room < 0:
                raise DataError(f"{self.path}: a chunk of dataset {name!r} is a compression bomb")

    def _inside(self, group: Untyped, name: str) -> Untyped:
        """Step down a path of hard links to something that keeps its values in this file."""
        for step in name.strip("/").split("/"):
            link = group.get(step, getlink=True) if isinstance(group, self.h5py.Group) else None
            if not isinstance(link, self.h5py.HardLink):
                listed = ", ".join(group) if isinstance(group, self.h5py.Group) else "values"
                raise DataError(f"{self.path}: {name!r} is not in it, or a link; it has {listed}")
            group = group[step]
        if isinstance(group, self.h5py.Dataset) and (group.external or group.is_virtual):
            raise DataError(
                f"{self.path}: dataset {name!r} keeps its values in other files; not read"
            )
        return group

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        total, first = len(self.parts[0]), self.parts[0]
        for j in wanted:
            self._check(j)
        width = sum(math.prod(part.shape[1:]) * part.dtype.itemsize for part in self.parts)
        size = self.budget.rows(size, 4 * width)
        for start in range(0, total, size):
            rows = slice(start, min(start + size, total))
            if first.dtype.names:
                block = first.fields([self.names[j] for j in wanted])[rows]
                yield [block[self.names[j]] for j in wanted]
            elif first.ndim == 2:
                block = first[rows]
                yield [block[:, j] for j in wanted]
            else:
                yield [self._values(self.parts[j], rows) for j in wanted]

    def _check(self, j: int) -> None:
        """Refuse lists, references, and variable text within a compound type."""
        fields = self.parts[0].dtype.fields
        dtype = fields[self.names[j]][0] if fields else self.parts[j % len(self.parts)].dtype
        if dtype.hasobject and (fields or self.h5py.check_string_dtype(dtype) is None):
            raise DataError(
                f"{self.path}: column {self.names[j]!r} holds values of variable length or "
                "references, not one number or text a row; leave it out"
            )

    def _values(self, data: Untyped, rows: slice) -> Raw:
        about = self.h5py.check_string_dtype(data.dtype)
        if about is None:
            return np.asarray(data[rows])
        texts: list[Raw] = []
        step = rows.stop - rows.start
        if about.length is None:  # any number of rows may share a text as long as the file
            step = max(16, TEXTS // self.path.stat().st_size)
        for first in range(rows.start, rows.stop, step):
            texts.append(data.asstr()[first : min(first + step, rows.stop)])
            if about.length is None:
                self.budget.decode(sum(map(len, texts[-1])))
        return np.concatenate(texts)


def write_hdf5(target: Path, columns: Sequence[Column], rows: int, chunks: Chunks) -> None:
    """Write a dataset for each column: numbers, or text in UTF-8."""
    h5py = extra("h5py", "hdf5")
    layout = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    layout.set_link_creation_order(h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED)
    layout.set_obj_track_times(False)  # before HDF5 2.0 an ordered root group has the time in it
    with h5py.File(h5py.h5f.create(bytes(target), h5py.h5f.ACC_TRUNC, layout)) as file:
        for column in columns:
            if "/" in column.name or column.name in ("", "."):
                raise DataError(
                    f"column {column.name!r} can't be the name of an HDF5 dataset; rename it"
                )
            text = h5py.string_dtype("utf-8", column.rules.longest(column))
            dtype = text if column.storage == "text" else np.dtype(column.storage)
            data = file.create_dataset(column.name, (rows,), dtype)
            if column.unit:
                data.attrs["unit"] = column.unit
        done = 0
        for values, first in chunks:
            for column, stored in zip(columns, cells(values, columns, first), strict=True):
                text = column.storage == "text"
                spelt = [name.encode() for name in stored] if text else stored
                file[column.name][done : done + len(values)] = spelt
            done += len(values)
