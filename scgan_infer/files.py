"""Whole files or none: written under an unpredictable name beside the target, then renamed.

    write -> fsync -> rename -> fsync of the folder

An exclusive creation never follows a link, so nobody who shares the folder can lead the bytes
elsewhere. What stands at the target's name and is no plain file, which the renaming would remove,
is left there and refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

from scgan_infer.errors import DataError, UsageError

# never follow a link, and don't block on a pipe; Windows has neither
CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def atomic(path: str | Path, new: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends, and nothing if it fails.

    Args:
        path: The file to appear.
        new: The temporary name, where a lock keeps other writers away; what a killed one left there
            is removed.

    Raises:
        DataError: The system refuses, or a link, pipe or device has the name; `path` is as it was.
    """
    path = Path(path)
    check_target(path)
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
            finally:
                new.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"can't write {path}: {why}; free space, or choose another place") from None


def check_target(path: Path) -> None:
    """Raise a DataError if what is neither file nor folder has the name of a file to appear."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # it doesn't exist, or writing will raise the error
        return
    if stat.S_ISLNK(mode):
        raise DataError(f"{path}: is a link to {os.readlink(path)}; name that, or remove the link")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a pipe or device; name a file, or write to - and redirect it")


def open_own(path: Path, *, create: bool = False) -> BufferedRandom:
    """Open one's own file at a name that others may know, to read and write; `create` if missing.

    Raises:
        DataError: It is a link, pipe or device, has another name too, or is another user's.
        OSError: The system refuses.
    """
    flags = os.O_RDWR | CAREFUL | getattr(os, "O_BINARY", 0)
    try:
        if create:
            return os.fdopen(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), "r+b")
    except FileExistsError:
        pass
    check_target(path)
    descriptor = os.open(path, flags)
    status = os.fstat(descriptor)
    plain = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1
    if not plain or (hasattr(os, "geteuid") and status.st_uid != os.geteuid()):
        os.close(descriptor)
        raise DataError(
            f"{path}: is not a file that you alone have; remove it, or choose another place"
        )
    return os.fdopen(descriptor, "r+b")


def lock(file: BinaryIO, path: Path) -> bool:
    """Lock a file exclusively until it is closed, which the end of a process does, too.

    Returns:
        False if another process holds it, or `path` names another file by now; True where the
        system has no locks.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return is_at(file, path)
    except ImportError:
        return True
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)


def is_at(file: BinaryIO, path: Path) -> bool:
    """Return whether a path still names an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def write_bytes(path: str | Path, data: bytes, new: Path | None = None) -> None:
    """Write a file; arguments and errors as `atomic`."""
    with atomic(path, new) as file:
        file.write(data)


def write_folder(path: Path, contents: Mapping[str, bytes], mark: str, what: str) -> None:
    """Build a folder beside its target, then swap it in; the next call repairs an interrupted one.

    Args:
        path: The folder to appear, complete or not at all.
        contents: The files' bytes by name; a name may lead into folders: "a/b".
        mark: The file by which an older folder of this kind is known.
        what: Such a folder in a word: "bundle".

    Raises:
        UsageError: Something else is at `path`.
        DataError: The system refuses.
    """
    new, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    try:
        if old.exists() and not path.exists():
            old.rename(path)
        empty = path.is_dir() and not any(path.iterdir())
        if path.is_symlink() or (path.exists() and not empty and not (path / mark).is_file()):
            raise UsageError(f"{path} exists and is not a {what}: choose another folder")
        for folder in (new, old):
            if folder.exists():
                shutil.rmtree(folder)
        new.mkdir(parents=True)
        for name, data in contents.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(new / name, data)
        if path.exists():
            path.rename(old)
        new.rename(path)
        sync_folder(path.parent)
        if old.exists():
            shutil.rmtree(old)
    except (OSError, DataError) as error:
        why = getattr(error, "strerror", None) or str(error).rpartition(": ")[2]
        raise DataError(f"can't write the {what} {path}: {why}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


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
