"""ROOT (.root), with uproot: the flat branches of a TTree or RNTuple, numbers or strings.

`FILE.root:TREE` names the tree; without it the file's first is read. Written is a TTree called
`events`. ROOT stamps a file with the time and an identity: so that the same rows give the same
bytes, the time is ROOT's first second, and the identity is made from the first rows.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.codecs.base import Chunks, Raw, Reader, Untyped, cells, extra
from scgan_infer.rows.codecs.budget import Budget

TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")
BLOCK_HEADER = 9  # bytes: two that name the codec, one of its own, then the sizes, packed and not
CODECS = {b"ZL": "zlib", b"XZ": "xz", b"ZS": "zstd"}  # LZ4 stops where a block's header says
SMALL = (
    1 << 14
)  # packed bytes of a block, which hold less than 512 MiB: zstd packs 2^15 : 1 at most
FIRST_SECOND = 1 << 22 | 1 << 17  # 1995-01-01 00:00:00
_timeless_now = threading.Lock()
_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)  # of who reads now


class RootReader(Reader):
    """Rows of a ROOT tree."""

    inside = True

    def open(self) -> None:
        path, inner = self.path, self.inner
        uproot = extra("uproot", "root")
        uproot.compression.decompress.hook_before_block = _check_block
        with self._reading():
            self.file = uproot.open({str(path): None})
            kinds = self.file.classnames(recursive=True)
        trees = [name for name, kind in kinds.items() if kind in TREES]
        chosen = [name for name in trees if inner in ("", name, name.partition(";")[0])]
        if not chosen:
            raise DataError(
                f"{path}: has no tree {inner or 'at all'}; it has {', '.join(kinds) or 'nothing'}"
            )
        with self._reading():
            self.tree = self.file[chosen[0]]
            self.names = tuple(self.tree.keys(recursive=False))
            self.rows = int(self.tree.num_entries)

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
        with self._reading():
            self._charge([branches[name] for name in names])
        batches = self.tree.iterate(
            filter_name=lambda name: name in names,
            step_size=size,
            library="np",
            entry_stop=self.rows,
        )
        while True:
            with self._reading():
                chunk = next(batches, None)
            if chunk is None:
                return
            yield [np.asarray(chunk[name]) for name in names]

    def _charge(self, branches: Sequence[Untyped]) -> None:
        """Charge what is stored as it is, however often named; `_check_block` charges the rest."""
        for branch in branches:
            for k in range(getattr(branch, "num_baskets", 0)):
                size = branch.basket_uncompressed_bytes(k)
                self.budget.hold(size, f"a basket of branch {branch.name!r}")
                if branch.basket_compressed_bytes(k) == size:
                    self.budget.decode(size)
        if hasattr(self.tree, "page_link_list"):
            for cluster in self.tree.page_link_list:
                for column, parts in zip(self.tree.column_records, cluster, strict=False):
                    sizes = [-(-page.num_elements * column.nbits // 8) for page in parts.pages]
                    self.budget.hold(sum(sizes), "a column of a cluster")
                    pages = zip(parts.pages, sizes, strict=True)
                    self.budget.decode(sum(n for p, n in pages if p.locator.num_bytes >= n))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Have what uproot decompresses inside charged, and its warnings dropped."""
        token = _budget.set(self.budget)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            _budget.reset(token)


def _check_block(
    *,
    chunk: Untyped,
    cursor: Untyped,
    context: Any,
    uncompressed_bytes: int,
    num_blocks: int,
    **_: Any,
) -> None:
    """Charge what uproot will decompress, and refuse a block that holds more than its header says.

    uproot compares the two only when it has all of it in memory.
    """
    budget = _budget.get()
    if budget is None:
        return
    if num_blocks == 0:
        budget.hold(uncompressed_bytes, "a compressed piece")
        budget.decode(uncompressed_bytes)
    ahead = cursor.copy()
    header = bytes(ahead.bytes(chunk, BLOCK_HEADER, context))
    packed, room = (int.from_bytes(header[at : at + 3], "little") for at in (3, 6))
    if header[:2] in CODECS and packed > SMALL:
        cramjam, into = extra("cramjam", "root"), np.empty(room, np.uint8)
        try:
            getattr(cramjam, CODECS[header[:2]]).decompress_into(
                ahead.bytes(chunk, packed, context), into
            )
        except cramjam.DecompressionError as error:
            raise DataError(
                f"{budget.label}: a compressed block is damaged, or a compression bomb"
            ) from error


def write_root(target: Path, columns: Sequence[Column], rows: int, chunks: Chunks) -> None:
    """Write a TTree `events`: branches of numbers and strings, a basket of each for each chunk."""
    uproot = extra("uproot", "root")
    names = [column.name for column in columns]
    types = [column.storage.replace("text", "string") for column in columns]
    head = list(itertools.islice(chunks, 1))
    digest = hashlib.sha256(
        repr((rows, columns)).encode() + b"".join(values.tobytes() for values, _ in head)
    )
    identity = uuid.UUID(bytes=digest.digest()[:16], version=4)
    with (
        _timeless(uproot._util),
        target.open("w+b") as out,
        uproot.recreate(out, uuid_function=lambda: identity) as file,
    ):
        tree = file.mktree("events", dict(zip(names, types, strict=True)))
        for values, first in itertools.chain(head, chunks):
            tree.extend(dict(zip(names, cells(values, columns, first), strict=True)))


@contextmanager
def _timeless(util: Any) -> Iterator[None]:
    """Let uproot write the first second: it reads the clock in many functions, with no option."""
    with _timeless_now:
        kept = util.datetime_to_code
        util.datetime_to_code = lambda _: FIRST_SECOND
        try:
            yield
        finally:
            util.datetime_to_code = kept
