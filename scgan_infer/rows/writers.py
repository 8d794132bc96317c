"""Write rows to a file that appears complete or not at all; an interrupted one can be resumed.

Rows go to `.NAME.part` in the same folder, by the format's `Stream` or, where a format can't be
written front to back, as raw float32 rows that are converted at the end, a chunk at a time, to
`.NAME.new`. Then fsync and rename. Every few seconds a checkpoint makes the rows so far safe and
notes in `.NAME.state` how many they are, how many bytes and their SHA-256; resuming truncates the
part there, verifies it and continues, to the same bytes. After an interruption the part is kept if
it has a checkpoint; after an error only if resuming was asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, ModelError
from scgan_infer.files import check_target, lock, open_own, sync_folder, write_bytes
from scgan_infer.rows.codecs.base import Chunks, Convert, Rows, Stream

CHECKPOINT_SECONDS = 5.0
WRITE_BACK = 8 << 20  # bytes after which the system may write, so that nobody waits at the end
CHUNK_BYTES = 16 << 20


class Writer(ABC):
    """Takes rows; a context manager, whose end without an error makes the output appear.

    Attributes:
        done: How many rows are written; when resuming, those that already were.
    """

    done: int = 0

    @abstractmethod
    def write(self, values: Rows) -> None:
        """Add rows, float32 [k, d].

        Raises:
            ModelError: A value isn't finite.
            DataError: The disk or folder doesn't take them.
            BrokenPipeError: Nobody reads stdout any more.
        """

    def _start(self) -> None:
        """Start or resume."""
        self.done = 0

    @abstractmethod
    def _finish(self) -> None:
        """Make the output appear."""

    @abstractmethod
    def _clean(self, error: BaseException) -> None:
        """Remove files that are useless after an error."""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as late:
            self._clean(late)
            raise
        if error is not None:
            self._clean(error)


class PipeWriter(Writer):
    """Writes to standard output; the header only with the first rows, so that it has some."""

    def __init__(self, columns: Sequence[Column], stream: Stream, start: int) -> None:
        self.columns, self.stream, self.header = tuple(columns), stream, stream.header(0)
        self.start = start

    def write(self, values: Rows) -> None:
        rows = self.stream.encode(_sound(values, self.columns), self.start + self.done)
        sys.stdout.buffer.write(self.header)
        sys.stdout.buffer.write(rows)
        self.header, self.done = b"", self.done + len(values)

    def _finish(self) -> None:
        sys.stdout.buffer.write(self.header)
        sys.stdout.buffer.flush()

    def _clean(self, error: BaseException) -> None:
        self.header = b""


class FileWriter(Writer):
    """Writes one file; arguments as those of `open_writer`.

    Args:
        stream: How rows are written, or spooled if `convert` is given.
        convert: Converts the spool to the file.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[Column],
        rows: int | None,
        stream: Stream,
        convert: Convert | None,
        *,
        resume: bool,
        job: str,
        start: int,
    ) -> None:
        self.path, self.columns, self.rows = path, tuple(columns), rows
        self.start = start
        self.stream, self.convert, self.resume = stream, convert, resume
        self.job = {"job": job, "rows": rows, "columns": [column.to_dict() for column in columns]}
        self.part, self.new, self.state = (
            path.with_name(f".{path.name}.{end}") for end in ("part", "new", "state")
        )
        self.sent = 0

    def _start(self) -> None:
        if os.path.isdir(self.path):
            raise DataError(
                f"{self.path}: is a folder; name a file, or end it with / for a folder of files"
            )
        if not os.path.isdir(self.path.parent):
            raise DataError(f"{self.path}: there is no folder {self.path.parent}")
        check_target(self.path)
        previous = None
        if self.resume and os.path.isfile(self.state) and os.path.isfile(self.part):
            previous = read_state(self.state, self.job, self.part)
        with writing(self.path):
            self.file = open_own(self.part, create=True)
        if not lock(self.file, self.part):
            self.file.close()
            raise DataError(f"{self.path}: another process is writing it")
        self.checkpointed, self.saved = previous is not None, time.monotonic()
        try:
            self._begin(previous)
        except BaseException as error:
            self._clean(error)
            raise

    def _begin(self, previous: Mapping[str, Any] | None) -> None:
        self.done, size = (previous["done"], previous["bytes"]) if previous else (0, 0)
        if os.fstat(self.file.fileno()).st_size < size:
            raise DataError(f"{self.part}: is shorter than {self.state} says; remove both")
        with writing(self.path):
            self.file.truncate(size)
            self.digest = hashlib.file_digest(self.file, "sha256")
            if previous is None:
                self.state.unlink(missing_ok=True)
                self._put(self.stream.header(self.rows or 0))
            elif previous.get("sha256") != self.digest.hexdigest():
                raise DataError(f"{self.part}: has changed; remove it and {self.state}")

    def write(self, values: Rows) -> None:
        with writing(self.path):
            sound = _sound(values, self.columns)
            self._put(self.stream.encode(sound, self.start + self.done))
            if hasattr(os, "posix_fadvise") and self.file.tell() - self.sent > WRITE_BACK:
                self.sent = self.file.tell()
                os.posix_fadvise(self.file.fileno(), 0, self.sent, os.POSIX_FADV_DONTNEED)
        self.done += len(values)
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.checkpoint()

    def _put(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.digest.update(data)

    def checkpoint(self) -> None:
        """Make the rows so far safe: after an interruption, a successor can go on behind them."""
        with writing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            progress = {"bytes": self.file.tell(), "sha256": self.digest.hexdigest()}
            write_json(self.state, {**self.job, "done": self.done, **progress})
        self.checkpointed, self.saved = True, time.monotonic()

    def _finish(self) -> None:
        if self.rows not in (None, self.done):
            raise DataError(f"{self.path}: {self.done} rows came where {self.rows} were announced")
        with writing(self.path):
            self.file.write(self.stream.tail(self.done))
            if self.rows is None:
                self.file.seek(0)
                self.file.write(self.stream.header(self.done))
            self.file.flush()
            os.fsync(self.file.fileno())
            if self.convert:
                self.new.unlink(missing_ok=True)
                self.new.touch(exist_ok=False)
                self.convert(self.new, self.columns, self.done, self._spooled())
                with self.new.open("rb") as made:
                    os.fsync(made.fileno())
            self.file.close()
            if self.convert:
                self.new.replace(self.path)
                self.part.unlink()
            else:
                self.part.replace(self.path)
            sync_folder(self.path.parent)
            self.state.unlink(missing_ok=True)

    def _spooled(self) -> Chunks:
        """Read the spool back in chunks that don't depend on how it was written."""
        width = len(self.columns)
        chunk = min(max(CHUNK_BYTES // (4 * width), 4096), 1 << 18)
        with self.part.open("rb") as spool:
            for first in range(0, self.done, chunk):
                count = min(chunk, self.done - first)
                values = np.frombuffer(spool.read(4 * width * count), np.float32)
                yield values.reshape(count, width), self.start + first

    def _clean(self, error: BaseException) -> None:
        with suppress(OSError):
            self.file.close()
        keep = self.checkpointed and (self.resume or not isinstance(error, Exception))
        for path in (self.new,) if keep else (self.new, self.part, self.state):
            with suppress(OSError):
                path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the system or a format's package on writing into a DataError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"{path}: can't be written: {why[:200]}") from error


def _sound(values: Rows, columns: Sequence[Column]) -> Rows:
    values = np.asarray(values, np.float32)
    if values.ndim != 2 or values.shape[1] != len(columns):
        raise ValueError(f"rows of shape {values.shape} for {len(columns)} columns")
    if not np.isfinite(values).all():
        may_miss = np.array([column.missing for column in columns])
        bad = ~np.isfinite(values) & ~(may_miss & np.isnan(values))
        if not bad.any():
            return values
        row, j = np.argwhere(bad)[0]
        raise ModelError(
            f"column {columns[j].name!r}: the model gave {values[row, j]}; nothing is written"
        )
    return values


def read_state(state: Path, job: Mapping[str, Any], part: Path) -> dict[str, Any]:
    """Return the state of an interrupted writer.

    Raises:
        DataError: It can't be read, or is of another job.
    """
    try:
        with open_own(state) as file:
            content: dict[str, Any] = json.loads(file.read())
        other = any(content[key] != value for key, value in job.items())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{state}: can't be read ({error}); remove it to start again") from error
    if other:
        raise DataError(
            f"{part}: is the beginning of other rows "
            "(other model, seed, conditions, columns or number); remove it, or begin again"
        )
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON; the file changes whole or not at all."""
    data = (json.dumps(content, indent=1) + "\n").encode()
    write_bytes(path, data, new=path.with_name(f"{path.name}.new"))
