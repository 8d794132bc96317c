"""Apache Parquet (.parquet), with pyarrow: flat columns of numbers, booleans, dates or text.

Row groups are read one by one: pyarrow keeps what it has read of all the groups that it was asked
for. Text stays in its dictionary, so that a long text in many rows is counted before it is copied.

A column's unit is its field's metadata `unit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.kinds.datetime import zone_of
from scgan_infer.rows.codecs.base import (
    Chunks,
    Raw,
    Reader,
    Untyped,
    extra,
    typed,
)
from scgan_infer.rows.codecs.pages import decoded_sizes


class ParquetReader(Reader):
    """Rows of a Parquet file."""

    def open(self) -> None:
        self.pa = extra("pyarrow", "parquet")
        self.compute = extra("pyarrow.compute", "parquet")
        parquet = extra("pyarrow.parquet", "parquet")
        about = parquet.read_metadata(self.path)
        self.budget.columns(about.num_columns)
        leaves = [about.schema.column(j).path for j in range(about.num_columns)]
        self.file = parquet.ParquetFile(self.path, metadata=about, read_dictionary=leaves)
        schema = self.file.schema_arrow
        self.names, self.rows = tuple(schema.names), self.file.metadata.num_rows
        metadata = {field.name: field.metadata or {} for field in schema}
        self.units = {
            name: data[b"unit"].decode() for name, data in metadata.items() if b"unit" in data
        }

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        names = [self.names[j] for j in wanted]
        for name in names:
            self._check(name)
        for group in range(self.file.num_row_groups):
            self._charge(group, set(names))
            for batch in self.file.iter_batches(size, row_groups=[group], columns=names):
                yield [self._numpy(batch.column(name)) for name in names]

    def _check(self, name: str) -> None:
        types, kind = self.pa.types, self.file.schema_arrow.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        numbers = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
        others = (types.is_string, types.is_large_string, types.is_date, types.is_timestamp)
        if not any(holds(kind) for holds in (*numbers, *others)):
            raise DataError(
                f"{self.path}: column {name!r} holds {kind}, "
                "neither numbers, dates nor text; leave it out"
            )

    def _charge(self, group: int, names: set[str]) -> None:
        """Charge the pages of a row group's columns as their own headers have them."""
        about = self.file.metadata.row_group(group)
        with self.path.open("rb") as file:
            for column in map(about.column, range(about.num_columns)):
                name = column.path_in_schema
                if name in names:
                    offsets = (column.dictionary_page_offset, column.data_page_offset)
                    start = min(offset for offset in offsets if offset)
                    for size in decoded_sizes(file, start, column.total_compressed_size):
                        self.budget.hold(size, f"a page of column {name!r}")
                        self.budget.decode(size)

    def _numpy(self, column: Untyped) -> Raw:
        types = self.pa.types
        if types.is_dictionary(column.type):
            kind = column.type.value_type
            if types.is_string(kind) or types.is_large_string(kind):
                return self._texts(column)
            column = column.dictionary_decode()
        if types.is_boolean(column.type):
            column = column.cast(self.pa.uint8())
        if types.is_decimal(column.type):
            column = column.cast(self.pa.float64())
        values = np.asarray(column.to_numpy(zero_copy_only=False))
        if types.is_timestamp(column.type) and column.type.tz:
            texts = values.astype(str).astype(object) + "Z"
            texts[np.isnat(values)] = None
            return np.asarray(texts)
        return values

    def _texts(self, column: Untyped) -> Raw:
        """Return a dictionary column's texts, one object each, None where missing."""
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        used, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        texts = column.dictionary.take(self.pa.array(used, mask=used < 0))
        sizes = self.compute.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False)
        self.budget.decode(int(sizes.astype(np.int64) @ counts))
        return np.array([*texts.to_pylist(), None], dtype=object)[inverse]


def write_parquet(target: Path, columns: Sequence[Column], rows: int, chunks: Chunks) -> None:
    """Write columns of numbers, dates and dictionaries, one row group for each chunk."""
    pa, parquet = extra("pyarrow", "parquet"), extra("pyarrow.parquet", "parquet")
    fields = [
        pa.field(c.name, _arrow(pa, c), metadata={"unit": c.unit} if c.unit else None)
        for c in columns
    ]
    schema = pa.schema(fields)
    with parquet.ParquetWriter(target, schema) as writer:
        for values, first in chunks:
            stored = [
                pa.array(column, field.type, mask=missing)
                for column, field, missing in zip(
                    typed(values, columns, first), fields, np.isnan(values).T, strict=True
                )
            ]
            batch = pa.Table.from_arrays(stored, schema=schema)
            writer.write_table(batch, row_group_size=len(values))


def _arrow(pa: Untyped, column: Column) -> Untyped:
    """Return the type of a column: dates without a time are days, others at least to the second."""
    pattern = column.pattern
    if not column.resolution:
        if column.storage == "text":
            return pa.dictionary(pa.int32(), pa.string())
        return pa.from_numpy_dtype(np.dtype(column.storage))
    if "hh" not in pattern:
        return pa.date32()
    unit = "us" if pattern.count("f") > 3 else "ms"
    return pa.timestamp(unit, "UTC" if zone_of(pattern) else None)
