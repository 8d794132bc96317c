"""A bundle at work: sessions over its checked bytes, fed with counter-based noise, a whole block at a time.

    sample i = generator(u, w, z of index i), computed with the 4096 samples of its block, i div 4096

Networks and noise give a row the same bits wherever its block is computed, and a block is always whole, so
any range, order of calls, number of threads or process gives the same rows. Graphs see 4096 rows a call:
activations stay in the cache. A call runs in the thread that makes it; threads share sessions, which have no
state.

"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from operator import index
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgan_infer import bundle as bundles
from scgan_infer.bundle import GRID, Bundle, Manifest
from scgan_infer.columns import Column
from scgan_infer.errors import ChecksumError, DataError, DeviceError, ModelError, UsageError
from scgan_infer.sampling.noise import BLOCK, DECODER, block_noise, normals
from scgan_infer.sampling.sessions import CALLS, Session, cores, failures, first_line, session

DEVICES = ("auto", "cpu", "cuda")
END = 2**63
PIECE_BYTES = 2**19
TOGETHER = 4  # blocks whose noise is made at a time

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
T = TypeVar("T")


def load(path: str | Path, device: str = "auto", threads: int | None = None) -> Model:
    """Load a bundle.

    Args:
        path: the bundle's folder.
        device: "cpu"; "cuda", which never falls back to the CPU; "auto", CUDA where it works, else the CPU.
        threads: worker threads for calls of many blocks; None for one a core.

    Raises:
        ModelError: not a bundle, or one that breaks a rule of the format.
        ChecksumError: a file is not the one that the manifest names.
        DeviceError: CUDA was asked for and does not work.
        UsageError: an unknown device, no threads, or onnxruntime is not installed.
    """
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    return Model(bundles.load(path), device, threads or cores())


@dataclass(frozen=True)
class Draw:
    """What is asked of a sample besides its index; intervals as in `within`, None for all clusters."""

    seed: int
    temperature: float
    intervals: Integers | None


class Model:
    """A loaded bundle; see `load`.

    Attributes:
        bundle: what was loaded.
        device: "cpu" or "cuda", what the graphs run on.
        threads: worker threads for calls of many blocks.
    """

    def __init__(self, bundle: Bundle, device: str, threads: int) -> None:
        self.bundle = bundle
        self.threads = threads
        self._sessions: dict[tuple[int, str], Session] = {}
        self._turns: dict[int, BoundedSemaphore] = {}
        self.device = device if device == "cpu" else "cuda"
        if device != "cpu":
            try:
                self._session("generator.onnx")
            except DeviceError:
                if device == "cuda":
                    raise
                self.device = "cpu"

    @property
    def manifest(self) -> Manifest:
        """What `bundle.json` says."""
        return self.bundle.manifest

    @property
    def columns(self) -> tuple[Column, ...]:
        """The d columns of a row."""
        return self.manifest.columns

    def sample(
        self,
        n: int,
        seed: int = 0,
        start: int = 0,
        *,
        cluster: int | Sequence[int] | None = None,
        temperature: float = 1.0,
    ) -> Floats:
        """Return samples start .. start + n - 1 of the stream that the seed names.

        Args:
            n: number of rows, 0 or more.
            seed: 0 .. 2^63 - 1.
            start: index of the first, 0 .. 2^63 - n.
            cluster: draw from this cluster, or from these by their weights, without rejection.
            temperature: multiplies the noise w and z; below 1 rows crowd together.

        Returns:
            float32 [n, d], in the user's units.

        Raises:
            UsageError: an argument out of its range.
            ModelError: the bundle's generator fails, or gives something else than n finite rows.
        """
        draw = self.draw(n, seed, start, cluster, temperature)
        d = self.manifest.sizes["d"]
        return self._fill(
            lambda low, high: self._span(draw, low, high), start, n, d, TOGETHER * BLOCK
        )

    def blocks(
        self,
        n: int,
        seed: int = 0,
        start: int = 0,
        *,
        cluster: int | Sequence[int] | None = None,
        temperature: float = 1.0,
    ) -> Iterator[Floats]:
        """Yield the rows of `sample` piece by piece, in order, in memory that does not grow with n."""
        return self._stream(self.draw(n, seed, start, cluster, temperature), start, start + n)

    def reconstruct(self, rows: ArrayLike, *, seed: int | None = None, start: int = 0) -> Floats:
        """Return each row encoded and decoded again.

        Args:
            rows: [n, d], in the user's units.
            seed: None for z = 0, else the decoder noise is that of this seed's samples from `start` on.
            start: as in `sample`.

        Returns:
            float32 [n, d].

        Raises:
            DataError: rows that don't fit the columns.
            UsageError: noise is asked for of a bundle that has none.
        """
        values = self._rows(rows)
        q = self.manifest.sizes["q"]
        if seed is not None:
            self.draw(len(values), seed, start, None, 1.0)
            self.check_noise()

        def decode(low: int, high: int) -> Floats:
            latent, _ = self.run("encoder.onnx", x=_padded(values[low:high]))
            z = np.zeros((BLOCK, q), np.float32)
            if seed is not None:
                z[: high - low] = normals(seed, start + low, high - low, DECODER, q)
            return self.run("decoder.onnx", latent=latent, z=z)[0][: high - low]

        return self._fill(decode, 0, len(values), self.manifest.sizes["d"])

    def encode(self, rows: ArrayLike) -> tuple[Floats, Integers]:
        """Return each row's latent [n, e] and cluster [n].

        Raises:
            DataError: rows that don't fit the columns.
        """
        values = self._rows(rows)
        clusters = np.empty(len(values), np.int64)

        def encode(low: int, high: int) -> Floats:
            latent, cluster = self.run("encoder.onnx", x=_padded(values[low:high]))
            clusters[low:high] = cluster[: high - low]
            return latent[: high - low]

        return self._fill(encode, 0, len(values), self.manifest.sizes["e"]), clusters

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[str, str, str, int]]:
        """Travel to another process as path and hash; the bundle is read and checked anew there."""
        return reopen, (
            str(self.bundle.path.resolve()),
            self.bundle.sha256,
            self.device,
            self.threads,
        )

    def draw(
        self, n: int, seed: int, start: int, cluster: int | Sequence[int] | None, temperature: float
    ) -> Draw:
        """Check the arguments of `sample`, and return what they ask."""
        if index(n) < 0:
            raise UsageError(f"n must be 0 or more, not {n}")
        if not 0 <= index(seed) < END:
            raise UsageError(f"seed must be in 0 .. 2^63 - 1, not {seed}")
        if index(start) < 0 or start + n > END:
            raise UsageError(f"start must be in 0 .. 2^63 - n, not {start}")
        if not 0 <= temperature < float("inf"):
            raise UsageError(f"temperature must be 0 or more and finite, not {temperature}")
        return Draw(
            int(seed), float(temperature), None if cluster is None else self._intervals(cluster)
        )

    def _intervals(self, cluster: int | Sequence[int]) -> Integers:
        """Return [clusters, 2]: the k in low .. high - 1 whose u = k / 2^24 select each cluster."""
        chosen = sorted(set(cluster)) if isinstance(cluster, Sequence) else [index(cluster)]
        clusters = self.manifest.sizes["K"]
        if not chosen or not all(0 <= i < clusters for i in chosen):
            raise UsageError(f"cluster must be in 0 .. {clusters - 1}, not {cluster}")
        ends = np.array((0, *self.manifest.thresholds), np.int64)
        intervals = np.stack([ends[chosen], ends[np.array(chosen) + 1]], axis=1)
        if (intervals[:, 0] == intervals[:, 1]).all():
            raise UsageError(f"cluster {cluster} has weight 0: no sample comes from it")
        return intervals

    def _blocks(self, draw: Draw, blocks: range) -> Iterator[Floats]:
        """Yield the 4096 samples of each block, maybe not finite; their noise is made together."""
        u, w, z = self.noise(draw.seed, blocks)
        if draw.intervals is not None:
            u = within(u, draw.intervals)
        if draw.temperature != 1:
            w *= np.float32(draw.temperature)
            z *= np.float32(draw.temperature)
        for first in range(0, len(u), BLOCK):
            own = slice(first, first + BLOCK)
            yield self._run("generator.onnx", u=u[own], w=w[own], z=z[own])[0]

    def noise(self, seed: int, blocks: range) -> tuple[Floats, Floats, Floats]:
        """Return u, w and z of up to `TOGETHER` blocks, cut by multiples of it, when it is this thread's turn."""
        m, q = self.manifest.sizes["m"], self.manifest.sizes["q"]
        with self._turn():
            return block_noise(seed, blocks.start, m, q, len(blocks))

    def _turn(self) -> BoundedSemaphore:
        """Return what lets few of this process's threads make noise at a time.

        Noise is a hundred short calls of numpy, each of which gives the interpreter's lock away: threads that make it
        side by side spend most of their time waking each other.
        """
        return self._turns.setdefault(os.getpid(), BoundedSemaphore(-(-self.threads // 8)))

    def check_noise(self) -> None:
        """Raise a UsageError where the decoder has no noise."""
        if not self.manifest.sizes["q"]:
            raise UsageError(
                f"{self.bundle.path}: this bundle has no decoder noise (its decoder was trained without)"
            )

    def _span(self, draw: Draw, low: int, high: int) -> Floats:
        """Return samples low .. high - 1, cut out of whole blocks."""
        out = np.empty((high - low, self.manifest.sizes["d"]), np.float32)
        for first, last in cut(low, high, TOGETHER * BLOCK):
            blocks = range(first // BLOCK, (last - 1) // BLOCK + 1)
            for block, rows in zip(blocks, self._blocks(draw, blocks), strict=True):
                begin, end = max(first, block * BLOCK), min(last, (block + 1) * BLOCK)
                out[begin - low : end - low] = rows[begin - block * BLOCK : end - block * BLOCK]
        self._check_finite("generator.onnx", out)
        return out

    def _stream(self, draw: Draw, low: int, high: int) -> Iterator[Floats]:
        self._session("generator.onnx")
        spans = cut(low, high, pieces(self, PIECE_BYTES))
        with ThreadPoolExecutor(self.threads) as pool:
            yield from in_order(
                lambda span: pool.submit(self._span, draw, *span), spans, self.threads + 2
            )

    def _fill(
        self,
        compute: Callable[[int, int], Floats],
        start: int,
        n: int,
        width: int,
        size: int = BLOCK,
    ) -> Floats:
        """Return [n, width]: what `compute(low, high)` gives for each piece of the range, on all threads."""
        out = np.empty((n, width), np.float32)
        spans = list(cut(start, start + n, size))

        def fill(span: tuple[int, int]) -> None:
            out[span[0] - start : span[1] - start] = compute(*span)

        for span in spans[:1] if self.threads > 1 else spans:
            fill(span)
        if self.threads > 1 and len(spans) > 1:
            with ThreadPoolExecutor(self.threads) as pool:
                for _ in in_order(
                    lambda span: pool.submit(fill, span), spans[1:], 4 * self.threads
                ):
                    pass
        return out

    def _rows(self, rows: ArrayLike) -> Floats:
        """Return rows as float32 [n, d], or say which one does not fit."""
        values = np.asarray(rows)
        d = len(self.columns)
        if values.dtype.kind not in "fiub" or values.ndim != 2 or values.shape[1] != d:
            raise DataError(
                f"rows must be numbers [n, {d}], not {values.dtype} {list(values.shape)}"
            )
        out = np.empty(values.shape, np.float32)
        for place, column in enumerate(self.columns):
            out[:, place] = _taken(values[:, place], column)
        return out

    def run(self, name: str, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Return a graph's outputs for a whole block of 4096 rows, checked to be what the interface says.

        Args:
            name: the graph's file name.
            inputs: by name; those that this bundle's graph does not have are left out.

        Raises:
            ModelError: onnxruntime can't take the graph, it fails, or it gives something else.
        """
        outputs = self._run(name, **inputs)
        self._check_finite(name, *outputs)
        return outputs

    def _run(self, name: str, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Return outputs of the right shapes, maybe not finite."""
        takes, gives = self.manifest.interfaces[name]
        feeds = {key: inputs[key] for key in takes}
        try:
            with CALLS:
                outputs = self._session(name).run(None, feeds)
        except failures() as error:
            raise ModelError(f"{self.bundle.path}: {name} failed: {first_line(error)}") from None
        for output, (key, (_, (_, *sizes))) in zip(outputs, gives.items(), strict=True):
            if output.shape != (shape := (BLOCK, *sizes)):
                raise ModelError(
                    f"{self.bundle.path}: {name} gives {key} of another shape than {shape}"
                )
        return outputs

    def _check_finite(self, name: str, *outputs: NDArray[Any]) -> None:
        for output, key in zip(outputs, self.manifest.interfaces[name][1], strict=True):
            if not np.isfinite(output).all():
                raise ModelError(
                    f"{self.bundle.path}: {name} gives numbers in {key} that are not finite"
                )

    def _session(self, name: str) -> Session:
        """Return this process's session of a graph; one made before a fork is left alone."""
        key = os.getpid(), name
        if key not in self._sessions:
            try:
                self._sessions[key] = session(self.bundle.graphs[name], self.device)
            except failures() as error:
                raise ModelError(
                    f"{self.bundle.path}: {name} can't be used: {first_line(error)}"
                ) from None
        return self._sessions[key]


@cache
def reopen(path: str, sha256: str, device: str, threads: int = 1) -> Model:
    """Load a bundle that another process has loaded, once in this process.

    Raises:
        ChecksumError: another bundle is there now.
    """
    model = load(path, device, threads)
    if model.bundle.sha256 != sha256:
        raise ChecksumError(
            f"{path} is not the bundle that this work began with: put that one back, or start anew"
        )
    return model


def pieces(model: Model, size: int) -> int:
    """Return a number of rows that takes at most `size` bytes: a block or a power of two of them.

    So pieces and `TOGETHER` blocks cut each other evenly, and the buffers for noise keep one size.
    """
    blocks = max(1, size // (4 * BLOCK * model.manifest.sizes["d"]))
    return BLOCK << (blocks.bit_length() - 1)


def within(u: Floats, intervals: Integers) -> Floats:
    """Map u = k / 2^24, exactly and monotonically, onto the grid points of these intervals.

    Args:
        u: [n] in [0, 1).
        intervals: [j, 2] of low and high: the points low .. high - 1, each as likely as the other.

    Returns:
        float32 [n]; with one interval low + floor(k (high - low) / 2^24), over 2^24.
    """
    high = intervals[:, 1]
    ends = np.cumsum(high - intervals[:, 0])
    place = ((u * GRID).astype(np.int64) * ends[-1]) // GRID
    interval = np.searchsorted(ends, place, side="right")
    points: Floats = ((high[interval] - ends[interval] + place) / GRID).astype(np.float32)
    return points


def cut(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield low and high of the pieces of start .. end - 1 that multiples of `size` cut."""
    while start < end:
        stop = min(end, (start // size + 1) * size)
        yield start, stop
        start = stop


def in_order(submit: Callable[[Any], Future[T]], tasks: Iterable[Any], window: int) -> Iterator[T]:
    """Yield the tasks' results in their order; at most `window` are submitted and not yet yielded."""
    pending: deque[Future[T]] = deque()
    try:
        for task in tasks:
            pending.append(submit(task))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _taken(cells: NDArray[Any], column: Column) -> Floats:
    """Return a column's cells as float32, a category as its index; or name the first that does not fit."""
    from scgan_infer.rows.intake import BadCellError, Intake

    if column.kind == "category":
        strange = ~np.isin(cells, np.arange(len(column.categories)))
        if strange.any():
            row = int(strange.argmax())
            raise DataError(
                f"row {row + 1}, column {column.name!r}: {cells[row]} is not a category's index"
            )
        return cells.astype(np.float32)
    intake = Intake(column.name, column)
    try:
        values = intake.take(cells)
        intake.finish()
    except BadCellError as error:
        raise DataError(f"row {error.row + 1}, column {column.name!r}: {error}") from None
    return values


def _padded(rows: Floats) -> Floats:
    """Return a whole block: the rows, and the last of them repeated."""
    return (
        rows if len(rows) == BLOCK else np.pad(rows, ((0, BLOCK - len(rows)), (0, 0)), mode="edge")
    )
