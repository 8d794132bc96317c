"""Decoded sizes of a Parquet column's pages, from their headers, before any is decoded.

A column's chunk is pages on end, each a header and its bytes. The header is a struct in Thrift's
compact form; its fields 2 and 3 are the sizes decoded and stored, the rest is skipped. Formats:
https://github.com/apache/parquet-format (parquet.thrift, PageHeader) and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

STOP, BYTE, WHOLE, DOUBLE, TEXT, LISTS, STRUCT = 0, (3,), (4, 5, 6), 7, 8, (9, 10), 12
TRUTH = (1, 2)
DEEPEST = 8


def decoded_sizes(file: IO[bytes], start: int, length: int) -> Iterator[int]:
    """Yield the decoded size of each page of the chunk that begins at `start`.

    Raises:
        ValueError: What stands there is no page.
    """
    offset = start
    while offset < start + length:
        file.seek(offset)
        sizes = _struct(file)
        if not {2, 3} <= sizes.keys() or min(sizes[2], sizes[3]) < 0:
            raise ValueError(f"no page begins at byte {offset}")
        yield sizes[2]
        offset = file.tell() + sizes[3]


def _struct(file: IO[bytes], depth: int = 0) -> dict[int, int]:
    """Pass over a struct; return its whole numbers by field."""
    numbers, field = {}, 0
    while (head := _byte(file)) != STOP:
        step, kind = head >> 4, head & 15
        field = field + step if step else _signed(file)
        if kind in WHOLE:
            numbers[field] = _signed(file)
        elif kind not in TRUTH:
            _skip(file, kind, depth)
    return numbers


def _skip(file: IO[bytes], kind: int, depth: int) -> None:
    if kind in WHOLE:
        _number(file)
    elif kind in BYTE or kind in TRUTH:
        _byte(file)
    elif kind in (DOUBLE, TEXT):
        file.seek(8 if kind == DOUBLE else _number(file), 1)
    elif kind == STRUCT and depth < DEEPEST:
        _struct(file, depth + 1)
    elif kind in LISTS and depth < DEEPEST:
        head = _byte(file)
        for _ in range(_number(file) if head >> 4 == 15 else head >> 4):
            _skip(file, head & 15, depth + 1)
    else:
        raise ValueError(f"no page header holds a field of type {kind}")


def _byte(file: IO[bytes]) -> int:
    return file.read(1)[0]


def _number(file: IO[bytes]) -> int:
    total = shift = 0
    while shift < 64:
        byte = _byte(file)
        total |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return total
    raise ValueError("a number of more than 64 bits in a page header")


def _signed(file: IO[bytes]) -> int:
    total = _number(file)
    return total >> 1 ^ -(total & 1)
