"""ROOT (.root), with uproot: the flat branches of a TTree or RNTuple, numbers or strings.

`FILE.root:TREE` names the tree; without it the file's first is read. Written is a TTree called `events`. ROOT
stamps a file with the time and an identity: so that the same rows give the same bytes, the time is ROOT's first
second, and the identity is made from the first rows.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.codecs.base import Chunks, Raw, Reader, Untyped, cells, extra

TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")
FIRST_SECOND = 1 << 22 | 1 << 17  # 1995-01-01 00:00:00
_timeless_now = threading.Lock()


class RootReader(Reader):
    """Rows of a ROOT tree."""

    inside = True

    def open(self) -> None:
        path, inner = self.path, self.inner
        uproot = extra("uproot", "root")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.file = uproot.open({str(path): None})
        kinds = self.file.classnames(recursive=True)
        trees = [name for name, kind in kinds.items() if kind in TREES]
        chosen = [name for name in trees if inner in ("", name, name.partition(";")[0])]
        if not chosen:
            raise DataError(
                f"{path}: has no tree {inner or 'at all'}; it has {', '.join(kinds) or 'nothing'}"
            )
        self.tree = self.file[chosen[0]]
        self.names, self.rows = tuple(self.tree.keys(recursive=False)), int(self.tree.num_entries)

    @classmethod
    def failures(cls) -> tuple[type[BaseException], ...]:
        bad, broken = extra("uproot", "root"), extra("cramjam", "root")
        return bad.DeserializationError, broken.DecompressionError

    def chunks(self, wanted: Sequence[int], size: int, text: frozenset[int]) -> Iterator[list[Raw]]:
        names = [self.names[j] for j in wanted]
        branches = dict(zip(self.names, self.tree.values(recursive=False), strict=True))
        for name in names:
            kind = str(getattr(branches[name], "typename", ""))
            if "[" in kind or "<" in kind or getattr(branches[name], "branches", False):
                raise DataError(
                    f"{self.path}: branch {name!r} is {kind or 'a group'}, not one value a row; "
                    "choose flat branches"
                )
            self._charge(branches[name])
        found = self.tree.iterate(
            filter_name=lambda name: name in names,
            step_size=size,
            library="np",
            entry_stop=self.rows,
        )
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                chunk = next(found, None)
            if chunk is None:
                return
            yield [np.asarray(chunk[name]) for name in names]

    def _charge(self, branch: Untyped) -> None:
        """Charge a branch's baskets as their own headers have them; fields of an RNTuple have none."""
        for k in range(getattr(branch, "num_baskets", 0)):
            size = branch.basket_uncompressed_bytes(k)
            self.budget.hold(size, f"a basket of branch {branch.name!r}")
            self.budget.decode(size)


def write_root(target: Path, columns: Sequence[Column], rows: int, chunks: Chunks) -> None:
    """Write a TTree `events`: branches of numbers and strings, one basket of each for each chunk."""
    uproot = extra("uproot", "root")
    names = [column.name for column in columns]
    types = [column.storage.replace("text", "string") for column in columns]
    begun = list(itertools.islice(chunks, 1))
    digest = hashlib.sha256(
        repr((rows, columns)).encode() + b"".join(values.tobytes() for values, _ in begun)
    )
    identity = uuid.UUID(bytes=digest.digest()[:16], version=4)
    with (
        _timeless(uproot._util),
        target.open("w+b") as out,
        uproot.recreate(out, uuid_function=lambda: identity) as file,
    ):
        tree = file.mktree("events", dict(zip(names, types, strict=True)))
        for values, first in itertools.chain(begun, chunks):
            tree.extend(dict(zip(names, cells(values, columns, first), strict=True)))


@contextmanager
def _timeless(util: Any) -> Iterator[None]:
    """Let uproot, which asks the clock in many places and takes no time from outside, write the first second."""
    with _timeless_now:
        kept = util.datetime_to_code
        util.datetime_to_code = lambda _: FIRST_SECOND
        try:
            yield
        finally:
            util.datetime_to_code = kept
