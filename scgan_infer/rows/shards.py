"""Write rows to a folder of files: each appears complete, and a manifest last."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scgan_infer.arguments import whole
from scgan_infer.columns import Column
from scgan_infer.errors import DataError, UsageError
from scgan_infer.files import sha256
from scgan_infer.rows.codecs.base import Rows
from scgan_infer.rows.formats import open_writer
from scgan_infer.rows.opening import format_of
from scgan_infer.rows.writers import Writer, read_state, write_json, writing


class ShardWriter(Writer):
    """Writes a folder: part-000000.SUFFIX ..., then manifest.json with their rows and SHA-256.

    The manifest is written last: a folder with one is complete. Resuming reads every file again and
    continues from the first missing one; a changed file is an error.

    The folder is made if need be, and otherwise has no manifest; other arguments are as those of
    `open_writer`.

    Raises:
        UsageError: An unknown suffix; less than one row a file.
    """

    MANIFEST = "manifest.json"

    def __init__(
        self,
        folder: str | Path,
        columns: Sequence[Column],
        rows: int | None,
        rows_per_file: int,
        *,
        suffix: str = ".npy",
        start: int = 0,
        resume: bool = False,
        job: str = "",
    ) -> None:
        format_of(suffix)
        self.rows_per_file = whole("rows_per_file", rows_per_file)
        if self.rows_per_file < 1:
            raise UsageError(f"{rows_per_file} rows a file; at least 1 is needed")
        self.folder, self.columns, self.suffix, self.resume = Path(folder), columns, suffix, resume
        self.rows = None if rows is None else whole("rows", rows)
        self.notes: dict[str, Any] = {
            "job": job,
            "columns": [column.to_dict() for column in columns],
            "start": whole("start", start),
            "rows_per_file": self.rows_per_file,
        }
        self.files: list[dict[str, Any]] = []
        self.part: Writer | None = None
        self.state = self.folder / f".{self.MANIFEST}.state"

    def _start(self) -> None:
        self.made = not self.folder.exists()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        resumable = self.state.is_file()
        if any(self.folder.iterdir()) and not (self.resume and resumable):
            status = "complete" if (self.folder / self.MANIFEST).exists() else "not empty"
            raise DataError(f"{self.folder}: is {status}; name another folder")
        if resumable:
            self.files = self._intact(read_state(self.state, self.notes, self.folder))
        self.done = sum(file["rows"] for file in self.files)
        write_json(self.state, {**self.notes, "files": self.files})
        if resumable and self.done != self.rows:
            self._next()

    def _intact(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the noted files that are there, up to the first that is gone.

        Raises:
            DataError: One has changed, or can't be read; or the state can't.
        """
        files: list[dict[str, Any]] = []
        try:
            for file in state["files"]:
                path = self._part_path(len(files))
                if not os.path.lexists(path):
                    for later in self.folder.glob(".part-*.state"):
                        later.unlink()
                    break
                if path.is_symlink() or sha256(path) != file["sha256"]:
                    raise DataError(
                        f"{path}: has changed; remove it, and resume=true makes it anew"
                    )
                files.append({key: file[key] for key in ("name", "start", "rows", "sha256")})
        except OSError as error:
            raise DataError(f"{path}: can't be read: {error.strerror}; remove it") from error
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.state}: can't be read ({error}); begin again") from error
        return files

    def _part_path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}{self.suffix}"

    def _next(self) -> None:
        rows = None if self.rows is None else min(self.rows_per_file, self.rows - self.done)
        self.path = self._part_path(len(self.files))
        first, job = self.notes["start"] + self.done, f"{self.notes['job']} {self.path.name}"
        part = open_writer(self.path, self.columns, rows, resume=self.resume, job=job, start=first)
        self.part = part.__enter__()
        self.done += self.part.done

    def write(self, values: Rows) -> None:
        while len(values):
            if self.part is None:
                self._next()
            assert self.part is not None
            room = self.rows_per_file - self.part.done
            self.part.write(values[:room])
            self.done += len(values[:room])
            values = values[room:]
            if self.part.done == self.rows_per_file:
                self._close()

    def _close(self) -> None:
        part, self.part = self.part, None
        if part is None:
            return
        part.__exit__(None, None, None)
        with writing(self.folder):
            digest = sha256(self.path)
            first = self.notes["start"] + self.done - part.done
            self.files.append(
                {"name": self.path.name, "start": first, "rows": part.done, "sha256": digest}
            )
            write_json(self.state, {**self.notes, "files": self.files})

    def _finish(self) -> None:
        if self.rows not in (None, self.done):
            raise DataError(
                f"{self.folder}: {self.done} rows came where {self.rows} were announced"
            )
        self._close()
        with writing(self.folder):
            write_json(self.folder / self.MANIFEST, {**self.notes, "files": self.files})
            self.state.unlink(missing_ok=True)

    def _clean(self, error: BaseException) -> None:
        if self.part is not None:
            self.part.__exit__(type(error), error, None)
        begun = bool(self.files) or any(self.folder.glob(".part-*.state"))
        if begun and (self.resume or not isinstance(error, Exception)):
            return
        for name in [file["name"] for file in self.files]:
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.state.unlink(missing_ok=True)
            if self.made:
                self.folder.rmdir()
