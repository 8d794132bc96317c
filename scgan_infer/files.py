"""Files that appear whole or not at all: written under an unpredictable name beside the target, then renamed.

    write -> fsync -> rename -> fsync of the folder

An exclusive creation never follows a link, so nobody who shares the folder can lead the bytes elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from scgan_infer.errors import DataError


@contextmanager
def atomic(path: str | Path, new: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends, and nothing if it fails.

    Args:
        path: The file to appear.
        new: The temporary name, where a lock keeps other writers away; what a killed one left there is removed.

    Raises:
        DataError: The system refuses; `path` is as it was.
    """
    path = Path(path)
    try:
        if new is None:
            new = path.with_name(f".{path.name}.{os.urandom(8).hex()}.new")
        else:
            new.unlink(missing_ok=True)
        with new.open("xb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                new.replace(path)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"can't write {path}: {why}; free space, or choose another place") from None


def write_bytes(path: str | Path, data: bytes, new: Path | None = None) -> None:
    """Write a file; arguments and errors as `atomic`."""
    with atomic(path, new) as file:
        file.write(data)


def sync_folder(path: Path) -> None:
    """Make a folder's names outlast a loss of power, where the system can."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
