"""Limits on the cost of reading one file, from its size on disk; codecs ask before they allocate.

    bytes decoded in all   <= max(64 MiB, 200 x size)     real rows compress less
    bytes held at once     <= 512 MiB                     one chunk, page or basket of each column
    columns                <= 32,768
    seconds of computing   <= 20 + size / 64 KiB          waiting for a disk is not counted

A cell counts 4 bytes at least, which it takes as float32.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from scgan_infer.errors import DataError

LARGE = 64 << 20
DENSEST = 200
HELD = 512 << 20
PIECE = 64 << 20
MOST_COLUMNS = 1 << 15
SECONDS = 20.0
BYTES_A_SECOND = 1 << 16


class Budget:
    """The limits for one file, and what it has used.

    Args:
        label: The file's name in messages.
        size: Its bytes on disk; None where they are not known, which leaves only columns bounded.
    """

    def __init__(self, label: str, size: int | None) -> None:
        self.label, self.size = label, size
        self.decoded, self.seconds = 0, 0.0

    def decode(self, count: int) -> None:
        """Charge bytes that are about to be decoded.

        Raises:
            DataError: They are more than rows in so small a file can be.
        """
        self.decoded += count
        self._bound(self.decoded)

    def cells(self, rows: int, columns: int) -> None:
        """Refuse more cells than so small a file can hold; raises as `decode`."""
        self._bound(4 * rows * columns)

    def _bound(self, count: int) -> None:
        if self.size is not None and count > max(LARGE, DENSEST * self.size):
            raise DataError(
                f"{self.label}: claims {count} bytes of rows in a file of {self.size}: "
                "a compression bomb; not read"
            )

    def hold(self, count: int, what: str) -> None:
        """Refuse a piece that can only be decoded whole.

        Raises:
            DataError: It is larger than 512 MiB.
        """
        if count > HELD:
            raise DataError(
                f"{self.label}: {what} must be decoded at once, {count} bytes; "
                f"at most {HELD} are read: write it again in smaller pieces"
            )

    def columns(self, count: int, most: int = MOST_COLUMNS) -> None:
        """Refuse too many columns.

        Raises:
            DataError: There are more than `most`.
        """
        if count > most:
            raise DataError(f"{self.label}: has {count} columns; at most {most} are read")

    def rows(self, most: int, row_bytes: int) -> int:
        """Return how many rows, at most `most`, to take at a time."""
        return max(1, min(most, PIECE // max(row_bytes, 1)))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time that this thread computes inside.

        Raises:
            DataError: It adds up to more than the file's share.
        """
        start = time.thread_time()
        yield
        self.seconds += time.thread_time() - start
        if self.size is not None and self.seconds > SECONDS + self.size / BYTES_A_SECOND:
            raise DataError(
                f"{self.label}: took {self.seconds:.0f} s to read, "
                f"too long for its {self.size} bytes"
            )
