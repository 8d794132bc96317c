"""FITS (.fits), headers by astropy: the first binary table's scalar columns, numbers or text.

`FILE.fits:NAME` names the table's extension. Rows are big-endian, scaled by TSCAL and TZERO; TNULL
is a missing cell. Rows are read in pieces, never mapped. FITS standard 4.0, section 7.3:
https://fits.gsfc.nasa.gov/fits_standard.html
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.codecs.base import (
    Raw,
    Reader,
    Rows,
    Stream,
    as_bytes,
    cells,
    extra,
    read_exactly,
)

TYPES = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S"}
BYTES = dict(zip("LBAIJEKDCPMQ", (1, 1, 1, 2, 4, 4, 8, 8, 8, 8, 16, 16), strict=True))
BLOCK = 2880
LONGEST_NAME = 60
MOST_FIELDS = 999  # of the standard


class FitsReader(Reader):
    """Rows of a FITS binary table."""

    inside = True

    def open(self) -> None:
        path, inner = self.path, self.inner
        fits = extra("astropy.io.fits", "fits")
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if file.read(6) != b"SIMPLE":
                raise DataError(f"{path}: is not a FITS file")
            file.seek(0)
            with fits.open(file, lazy_load_hdus=True) as units:
                for unit in units:
                    header = unit.header
                    table = header.get("XTENSION", "").strip() == "BINTABLE"
                    named = inner in ("", header.get("EXTNAME"))
                    if table and named and "ZIMAGE" not in header:
                        self.header, self.start = header.copy(), int(unit.fileinfo()["datLoc"])
                        break
                else:
                    raise DataError(f"{path}: has no binary table {inner}".rstrip())
        self._layout()

    @classmethod
    def failures(cls) -> tuple[type[BaseException], ...]:
        return (extra("astropy.io.fits", "fits").VerifyError,)

    def _layout(self) -> None:
        self.rows, self.width = int(self.header["NAXIS2"]), int(self.header["NAXIS1"])
        fields = int(self.header["TFIELDS"])
        self.budget.columns(fields, MOST_FIELDS)
        numbers = range(1, fields + 1)
        self.names = tuple(str(self.header.get(f"TTYPE{i}", f"col{i}")).strip() for i in numbers)
        self.units = {
            self.names[i - 1]: str(self.header[f"TUNIT{i}"])
            for i in numbers
            if f"TUNIT{i}" in self.header
        }
        self.form: list[tuple[int, str, int]] = []
        offset = 0
        for i in numbers:
            match = re.match(r"\s*(\d*)([LXBIJKAEDCMPQ])", str(self.header[f"TFORM{i}"]))
            if not match:
                raise DataError(
                    f"{self.path}: column {i} has the format {self.header[f'TFORM{i}']!r}, unknown"
                )
            repeat, code = int(match[1] or 1), match[2]
            self.form.append((repeat, code, offset))
            offset += (repeat + 7) // 8 if code == "X" else repeat * BYTES[code]
        if offset > self.width or self.rows < 0:
            raise DataError(
                f"{self.path}: its header gives rows of {self.width} bytes for columns of {offset}"
            )
        holds = (self.path.stat().st_size - self.start) // max(self.width, 1)
        if self.rows > holds:
            raise DataError(
                f"{self.path}: its header claims {self.rows} rows, but it holds {max(holds, 0)}"
            )

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        formats, offsets = [], []
        for j in wanted:
            repeat, code, offset = self.form[j]
            if code not in TYPES or (repeat != 1 and code != "A"):
                raise DataError(
                    f"{self.path}: column {self.names[j]!r} has the format {repeat}{code}, "
                    "not one value a row; leave it out"
                )
            formats.append(f"S{repeat}" if code == "A" else TYPES[code])
            offsets.append(offset)
        layout: Any = {"names": [f"f{j}" for j in wanted], "formats": formats, "offsets": offsets}
        dtype: np.dtype[Any] = np.dtype(layout | {"itemsize": self.width})
        total = int(self.header["NAXIS2"])
        size = self.budget.rows(size, 4 * self.width)
        with self.path.open("rb") as file:
            file.seek(self.start)
            for first in range(0, total, size):
                count = min(size, total - first)
                block = read_exactly(file, count, dtype, str(self.path))
                yield [self._values(block[f"f{j}"], j) for j in wanted]

    def _values(self, raw: Raw, j: int) -> Raw:
        code = self.form[j][1]
        if code == "A":
            return np.char.rstrip(np.char.decode(raw, "utf-8"))
        if code == "L":
            return np.where(raw == ord("T"), 1.0, np.where(raw == ord("F"), 0.0, np.nan))
        keys = (f"{key}{j + 1}" for key in ("TSCAL", "TZERO", "TNULL"))
        scale, zero, null = (self.header.get(key) for key in keys)
        if scale in (None, 1) and zero in (None, 0) and null is None:
            return raw
        missing = raw == null if null is not None else np.zeros(len(raw), bool)
        if scale in (None, 1) and not missing.any() and isinstance(zero or 0, int) and code != "K":
            return raw.astype(np.int64) + (zero or 0)
        return np.where(missing, np.nan, raw * float(scale or 1) + float(zero or 0))


def fits_stream(columns: Sequence[Column]) -> Stream:
    """Write one binary table: numbers, or text in ASCII."""
    fits = extra("astropy.io.fits", "fits")
    forms = {"int32": ("J", ">i4"), "int64": ("K", ">i8")}
    forms |= {"float32": ("E", ">f4"), "float64": ("D", ">f8")}
    stored = []
    for column in columns:
        for name in column.categories:
            _ascii(name)
        longest = column.rules.longest(column)
        text = (f"{longest}A", f"S{longest}")
        stored.append(forms.get(column.storage, text))
        if len(_ascii(column.name)) > LONGEST_NAME:
            raise DataError(
                f"column {column.name!r}: FITS holds names of up to {LONGEST_NAME}; rename it"
            )
    dtype = np.dtype([(f"f{j}", form) for j, (_, form) in enumerate(stored)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fields = [
            fits.Column(column.name, form, unit=column.unit or None)
            for column, (form, _) in zip(columns, stored, strict=True)
        ]
        table = fits.BinTableHDU.from_columns(fields).header
    primary = fits.PrimaryHDU().header
    primary["EXTEND"] = True

    def header(rows: int) -> bytes:
        table["NAXIS2"] = rows
        return bytes((primary.tostring() + table.tostring()).encode("ascii"))

    def encode(values: Rows, first: int) -> memoryview:
        out = np.empty(len(values), dtype)
        for j, column in enumerate(cells(values, columns, first)):
            out[f"f{j}"] = column
        return as_bytes(out)

    return Stream(header, encode, lambda rows: bytes(-rows * dtype.itemsize % BLOCK))


def _ascii(name: str) -> bytes:
    try:
        return name.encode("ascii")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name!r} can't be written to FITS, which knows ASCII only; rename it"
        ) from error
