"""A bundle at work: sessions over its checked bytes, fed with counter-based noise, block by block.

    sample i = generator(u, w, z of index i), computed with the 4096 of its block, i div 4096

Networks and noise give a row the same bits wherever its block is computed, and a block is always
whole, so any range, order of calls, number of threads or process gives the same rows. Graphs see
4096 rows a call: activations stay in the cache. A call runs in the thread that makes it; threads
share sessions, which have no state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgan_infer import bundle as bundles
from scgan_infer.arguments import whole
from scgan_infer.bundle import Bundle, Manifest
from scgan_infer.columns import Column
from scgan_infer.errors import ChecksumError, DeviceError, ModelError, UsageError
from scgan_infer.names import DEVICES
from scgan_infer.sampling import encoded
from scgan_infer.sampling.draw import Draw, Floats, Integers, cut, outcomes, within
from scgan_infer.sampling.engines import Job, local
from scgan_infer.sampling.given import Given, given_of, values_of
from scgan_infer.sampling.noise import (
    BLOCK,
    DECODER,
    NUMBER_BYTES,
    TOGETHER,
    WIDE,
    block_noise,
    normals,
    redrawn,
)
from scgan_infer.sampling.sessions import (
    CALLS,
    Session,
    cores,
    failures,
    first_line,
    offers,
    session,
)
from scgan_infer.text import visible

RAREST = 10_000  # 1 in so many draws must fit
MOST_REPEATS = (
    64 * BLOCK
)  # draws of a row until its choice fits; and of all that tell what is too rare
NOISE_BYTES = 2**30  # that wide noise may take in all threads


def load(
    path: str | Path, device: str = "auto", threads: int | None = None, *, lazy: bool = False
) -> Model:
    """Load a bundle.

    Args:
        path: the bundle's folder.
        device: "cpu"; "cuda", without fallback; "auto", CUDA where it works, else the CPU.
        threads: worker threads for calls of many blocks; None for one per core.
        lazy: whether a graph is checked when it is first used, for a quick start.

    Raises:
        ModelError: not a bundle, or one that breaks a rule of the format.
        ChecksumError: a file is not the one that the manifest names.
        DeviceError: CUDA was asked for and does not work.
        UsageError: an unknown device, no threads, or onnxruntime is not installed.
    """
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    threads = cores() if threads is None else whole("threads", threads)
    if threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    return Model(bundles.load(path, lazy=lazy), device, threads)


class Model:
    """A loaded bundle; see `load`.

    Attributes:
        bundle: the loaded bundle.
        device: "cpu" or "cuda", where the graphs run.
        threads: worker threads for calls of many blocks; fewer than asked for where noise is wide.
        searching: called by any of them, while rows that fit are searched, with how many more draws
            were looked at and how many more samples have one that fits.
    """

    searching: Callable[[int, int], None] | None = None

    def __init__(self, bundle: Bundle, device: str, threads: int) -> None:
        self.bundle = bundle
        numbers = sum(bundle.manifest.sizes[key] for key in "mqh")
        self._together, self.threads = TOGETHER, threads
        if numbers > WIDE:
            room = NOISE_BYTES // (NUMBER_BYTES * BLOCK * numbers)
            self._together, self.threads = 1, max(1, min(threads, room))
        self._sessions: dict[tuple[int, str], Session] = {}
        self._turns: dict[int, BoundedSemaphore] = {}
        if device == "auto" and not offers("cuda"):
            device = "cpu"
        self.device = device if device == "cpu" else "cuda"
        if device != "cpu":
            try:
                self._session("generator.onnx")
            except DeviceError:
                if device == "cuda":
                    raise
                self.device = "cpu"

    def __repr__(self) -> str:
        sizes = self.manifest.sizes
        of = f"{sizes['d']} columns, {sizes['K']} clusters"
        return f"<Model {self.manifest.name!r}: {of}, {self.device}>"

    @property
    def manifest(self) -> Manifest:
        """The contents of `bundle.json`."""
        return self.bundle.manifest

    @property
    def columns(self) -> tuple[Column, ...]:
        """The d columns that are generated."""
        return self.manifest.columns

    @property
    def given(self) -> tuple[Column, ...]:
        """The g columns that are inputs."""
        return tuple(one.column for one in self.manifest.given)

    def sample(
        self,
        n: int | None = None,
        seed: int = 0,
        start: int = 0,
        *,
        cluster: int | Sequence[int] | None = None,
        temperature: float = 1.0,
        where: Mapping[str, Any] | None = None,
        given: Any = None,
        each: int = 1,
    ) -> Floats:
        """Return samples start .. start + n - 1 of the seed's stream: [n, d], float32; see `Draw`.

        Columns with an anchor come as offsets from it, category columns as indices: see
        `sample_table`.

        Args:
            n: how many; with a table of conditions, as many as there are conditions for by default.
            seed: names the stream.
            start: index of the first.
            cluster: see `Draw`.
            temperature: see `Draw`.
            where: see `Draw`.
            given: the given columns' conditions, see `given_of`; sample i has condition i div each.
            each: how many samples have each condition.

        Raises:
            DataError: conditions that don't fit the given columns.
            UsageError: an argument out of its range.
            ModelError: the bundle's generator fails, or gives something else than n finite rows.
        """
        asked = {"cluster": cluster, "temperature": temperature, "where": where}
        job = self._job(n, seed, start, given, each, **asked)
        return _joined(local(job), job.draw.n if job.draw else 0, len(self.columns))

    def sample_table(
        self, n: int | None = None, seed: int = 0, start: int = 0, **asked: Any
    ) -> Any:
        """Return the rows of `sample`, arguments and all, by column, categories by name.

        Given columns are among them, where they were in training, their numbers as they came, or in
        float32 of a `Given`. See `scgan_infer.rows.frames.frame`.
        """
        from scgan_infer.rows.copies import all_copied
        from scgan_infer.rows.formats import read_raw
        from scgan_infer.rows.frames import frame

        table, each = asked.pop("given", None), asked.pop("each", 1)
        conditions = None if table is None else given_of(self.manifest, table, each)
        samples = self.sample(n, seed, start, given=conditions, **asked)
        if conditions is None:
            return frame(samples, self.columns, start)
        rows = self.together(samples, conditions.rows(start, start + len(samples)))
        if isinstance(table, Given):
            return frame(rows, self.manifest.whole, start)
        if not conditions.each:
            table = {name: [value] for name, value in table.items()}
        cells = read_raw(table, [column.loose for column in self.given])
        return frame(
            rows, all_copied(self.manifest.whole, cells, conditions.each, ".parquet"), start
        )

    def blocks(
        self, n: int | None = None, seed: int = 0, start: int = 0, **asked: Any
    ) -> Iterator[Floats]:
        """Yield the rows of `sample`, same arguments, in pieces: memory does not grow with n."""
        return local(self._job(n, seed, start, **asked))

    def _job(
        self,
        n: int | None,
        seed: int,
        start: int,
        given: Any = None,
        each: int = 1,
        **asked: Any,
    ) -> Job:
        conditions = None
        if given is not None:
            conditions = given_of(self.manifest, given, each)
            n = conditions.count(n, start)
        if n is None:
            raise UsageError("n is missing: say how many rows")
        return Job(self, draw=Draw(n, seed, start, **asked), given=conditions)

    def reconstruct(self, rows: ArrayLike, *, seed: int | None = None, start: int = 0) -> Floats:
        """Return each row encoded and decoded again.

        Args:
            rows: whole rows [n, d + g] in the order of training, as `sample` gives them, a category
                as its index; or what has names, and cells as files do.
            seed: None for z = 0, else the decoder noise is of this seed's samples from `start` on.
            start: as in `sample`.

        Returns:
            float32 [n, d + g]; given columns as they were.

        Raises:
            DataError: rows that don't fit the columns.
            UsageError: noise is asked for of a bundle that has none.
        """
        values = values_of(rows, self.manifest.whole)
        draw = None if seed is None else Draw(len(values), seed, start)
        return _joined(local(Job(self, "reconstruct", draw, values)), *values.shape)

    def encode(self, rows: ArrayLike) -> tuple[Floats, Integers]:
        """Return each whole row's latent [n, e] and cluster [n], rows as in `reconstruct`.

        Raises:
            DataError: rows that don't fit the columns.
        """
        values, e = values_of(rows, self.manifest.whole), self.manifest.sizes["e"]
        width = len(encoded.columns_of(self.manifest))
        joined = _joined(local(Job(self, "encode", source=values)), len(values), width)
        return joined[:, :e].copy(), joined[:, -1].astype(np.int64)

    def log_prob(self, rows: ArrayLike, given: Any = None) -> Floats:
        """Return each row's log-density, in the user's units: exponentials of all rows sum up to 1.

        With given columns it is that of the generated ones, given those.

        Discrete values count with their probabilities, rounded numbers with the density before they
        are rounded. It is that of the encoder's inverse of a generated latent, before the sampler
        reflects what lies beyond the range that was seen; see `scgan_train.exporting.parts`.

        Args:
            rows: as for `reconstruct`, but numbers may lie outside their column's walls.
            given: conditions as for `sample`, one for each row or for all; rows then hold the
                generated columns alone.

        Returns:
            float32 [n]; minus infinity outside of what the columns may hold.

        Raises:
            DataError: rows that don't fit the columns.
            UsageError: the bundle has no density; not as many conditions as rows; or a row has no
                density: a cell is missing, or heavy, that is a number in other rows.
        """
        if "density.onnx" not in self.bundle.graphs:
            reason = self.manifest.provenance.get("no_density", "it was exported without")
            raise UsageError(
                f"{self.bundle.path}: this bundle has no density: {visible(str(reason))}"
            )
        columns = self.manifest.whole if given is None else self.columns
        values = values_of(rows, tuple(map(_unwalled, columns)))
        if given is not None:
            conditions, n = given_of(self.manifest, given), len(values)
            if conditions.count(n if not conditions.each else None, 0) != n:
                raise UsageError(
                    f"{len(conditions.values)} conditions for {n} rows; give one for each"
                )
            values = self.together(values, conditions.rows(0, n))
        logs = _joined(local(Job(self, "log_prob", source=values)), len(values), 1)[:, 0]
        for row in np.flatnonzero(np.isnan(logs))[:1]:
            names = [self.columns[step.column].name for step in self.manifest.steps if step.rest]
            raise UsageError(
                f"row {row + 1} has no density: missing cells, and values that are drawn outright, "
                f"have none in {', '.join(map(repr, names))}; leave such rows out"
            )
        return logs

    def opener(self, threads: int = 1) -> Callable[[], Model]:
        """Return a function to load this model in another process, by path and hash, checked."""
        path = str(self.bundle.path.resolve())
        return partial(reopen, path, self.bundle.sha256, self.device, threads)

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[()]]:
        return self.opener(self.threads), ()

    def check_noise(self) -> None:
        """Raise a UsageError where the decoder has no noise."""
        if not self.manifest.sizes["q"]:
            raise UsageError(
                f"{self.bundle.path}: this bundle has no decoder noise "
                "(its decoder was trained without)"
            )

    def compute(self, op: str, draw: Draw | None, values: Floats | None) -> Floats:
        """Return the rows of a task of a `Job`, computed by the calling thread."""
        if op == "sample":
            assert draw is not None
            return self._samples(draw, values)
        assert values is not None
        q, parts = self.manifest.sizes["q"], []
        for low, high in cut(0, len(values), BLOCK):
            x, c = self.divided(_padded(values[low:high]))
            if op == "log_prob":
                part = self.run("density.onnx", x=x, c=c)[0][:, None]
            else:
                latent, choice = self.run("encoder.onnx", x=x, c=c)
            if op == "encode":
                part = encoded.rows_of(self.manifest, latent, choice)
            elif op == "reconstruct":
                z = np.zeros((BLOCK, q), np.float32)
                if draw:
                    z[: high - low] = normals(draw.seed, draw.start + low, high - low, DECODER, q)
                part = self.together(
                    self.run("decoder.onnx", latent=latent, choice=choice, z=z)[0], c
                )
            parts.append(part[: high - low])
        return np.concatenate(parts)

    def divided(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return generated columns [n, d] and given ones [n, g] of whole rows [n, d + g]."""
        order = np.array(self.manifest.order)
        generated = np.flatnonzero(order >= 0)
        return rows[:, generated], rows[:, np.flatnonzero(order < 0)]

    def together(self, x: Floats, c: Floats | None) -> Floats:
        """Return whole rows [n, d + g] of generated columns [n, d] and given ones [n, g]."""
        if c is None or not c.shape[1]:
            return x
        order = np.array(self.manifest.order)
        parts = [x, c[:, ::-1]]  # -1 - k counts from the end
        return np.concatenate(parts, axis=1)[:, order]

    def example(self, n: int) -> Floats:
        """Return conditions [n, g] to try the graphs with: the manifest's, again and again."""
        given = self.manifest.given
        stored = np.array(self.manifest.parity.get("c") or [], np.float32)
        if not len(stored):
            stored = np.array([[one.low or 0.0 for one in given]], np.float32)
        return np.resize(stored, (n, len(given)))

    def _samples(self, draw: Draw, given: Floats | None) -> Floats:
        """Return a draw's samples, cut out of blocks; some noise is made together; given [n, g]."""
        sizes, parts = self.manifest.sizes, []
        chained = sizes["h"] + sizes["g"] > 1
        intervals = None if chained else draw.intervals(self.manifest.thresholds)
        allowed = draw.allowed(self.manifest) if chained else None
        for first, last in cut(draw.start, draw.start + draw.n, self._together * BLOCK):
            blocks = range(first // BLOCK, -(-last // BLOCK))
            u, w, z = self.noise(draw.seed, blocks)
            if intervals is not None:
                u = within(u, intervals)
            before = first - blocks.start * BLOCK
            c = np.zeros((len(u), 0), np.float32)
            if given is not None:  # rows that are cut off have a neighbour's condition
                index = np.arange(len(u)) - before + first - draw.start
                c = given[index.clip(0, draw.n - 1)]
            if allowed is not None:  # what is cut off keeps its first draw
                for low, high in cut(first, last, BLOCK):
                    rows = slice(low - first + before, high - first + before)
                    u[rows] = self._redrawn(draw.seed, low, allowed, c[rows])
            if draw.temperature != 1:
                w *= np.float32(draw.temperature)
                z *= np.float32(draw.temperature)
            computed = [
                self.run("generator.onnx", u=u[rows], w=w[rows], z=z[rows], c=c[rows])[0]
                for rows in (slice(i, i + BLOCK) for i in range(0, len(u), BLOCK))
            ]
            parts.append(np.concatenate(computed)[before : before + last - first])
        return np.concatenate(parts)

    def _redrawn(
        self, seed: int, start: int, allowed: Sequence[NDArray[np.bool_]], c: Floats
    ) -> Floats:
        """Return the uniforms of samples from `start` on, each redrawn until its choice is allowed.

        Samples are at most a block, conditions [n, g]. Each run of the head looks at as many draws
        of every sample that is left as fit in.

        Raises:
            UsageError: no draw fits for some sample.
        """
        h, n = len(allowed), len(c)
        u, repeat, pending = np.empty((n, h), np.float32), 0, np.arange(n)
        draws = fitting = 0
        while len(pending):
            hopeless = draws >= MOST_REPEATS and fitting * RAREST < draws
            if repeat >= MOST_REPEATS or hopeless:
                raise UsageError(
                    f"what is asked for never came in {draws} draws; "
                    "ask for fewer values, or others"
                    if not fitting
                    else f"what is asked for came {fitting} times in {draws} draws, "
                    f"too rarely (1 in {RAREST} is needed); ask for fewer values, or others"
                )
            times = min(BLOCK // len(pending), MOST_REPEATS - repeat)
            rows = np.repeat(pending, times)
            repeats = np.tile(np.arange(repeat, repeat + times, dtype=np.uint64), len(pending))
            drawn = redrawn(seed, rows.astype(np.uint64) + np.uint64(start), repeats, h)
            again = np.resize(drawn, (BLOCK, h))
            (choice,) = self.run(
                "head.onnx", u=again[:, 0] if h == 1 else again, c=c[np.resize(rows, BLOCK)]
            )
            choice = choice.reshape(BLOCK, h)
            fits = np.logical_and.reduce([mask[choice[:, k]] for k, mask in enumerate(allowed)])
            fits = fits[: len(rows)].reshape(len(pending), times)
            draws, fitting = draws + fits.size, fitting + int(fits.sum())
            hit, first = fits.any(1), fits.argmax(1)
            u[pending[hit]] = drawn.reshape(len(pending), times, h)[hit, first[hit]]
            pending, repeat = pending[~hit], repeat + times
            if self.searching:
                self.searching(fits.size, int(hit.sum()))
        return u[:, 0] if h == 1 else u

    def check_draw(self, draw: Draw) -> None:
        """Raise a UsageError where a draw asks for what this bundle does not have."""
        sizes = self.manifest.sizes
        if sizes["h"] + sizes["g"] > 1:
            draw.allowed(self.manifest)
        elif draw.where:
            outcomes(self.manifest, *next(iter(draw.where.items())))
        else:
            draw.intervals(self.manifest.thresholds)

    def check_given(self, given: Given | None) -> None:
        """Raise a UsageError where there are no conditions for given columns."""
        if self.given and given is None:
            names = ", ".join(column.name for column in self.given)
            raise UsageError(
                f"{self.bundle.path}: rows are generated given {names}; give conditions"
            )

    def noise(self, seed: int, blocks: range) -> tuple[Floats, Floats, Floats]:
        """Return u, w, z of up to `TOGETHER` blocks, cut by multiples of it, in this thread's turn.

        Noise is a hundred short calls of numpy, each of which gives the interpreter's lock away:
        threads that make it side by side spend most of their time waking each other, so few of this
        process's threads do at a time.
        """
        sizes = self.manifest.sizes
        with self._turns.setdefault(os.getpid(), BoundedSemaphore(-(-self.threads // 8))):
            return block_noise(seed, blocks.start, sizes["m"], sizes["q"], len(blocks), sizes["h"])

    def run(self, name: str, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Return a graph's outputs for a whole block of 4096 rows, checked against the interface.

        Args:
            name: the graph's file name.
            inputs: by name; those that this bundle's graph does not have are left out.

        Raises:
            ModelError: onnxruntime can't take the graph, it fails, or it gives something else.
        """
        takes, gives = self.manifest.interfaces[name]
        feeds = {key: inputs[key] for key in takes}
        try:
            with CALLS:
                outputs: list[NDArray[Any]] = self._session(name).run(None, feeds)
        except failures() as error:
            raise self._error(f"{name} failed: {first_line(error)}") from None
        for output, (key, (_, (_, *sizes))) in zip(outputs, gives.items(), strict=True):
            if output.shape != (shape := (BLOCK, *sizes)):
                raise self._error(f"{name} gives {key} of another shape than {shape}")
            if key in ("choice", "cluster") and ((output < 0) | (output >= self._outcomes)).any():
                raise self._error(f"{name} gives a choice beyond those of the manifest")
            bad = ~np.isfinite(output)
            if key == "x" and bad.any():
                bad &= ~(np.isnan(output) & np.array([c.missing for c in self.columns]))
            if key == "log_density":  # minus infinity outside the domain, NaN where there is none
                bad = output == np.inf
            if bad.any():
                raise self._error(f"{name} gives numbers in {key} that are not finite")
        return outputs

    @cached_property
    def _outcomes(self) -> Integers:
        """How many outcomes each step of a choice has, [h]."""
        steps = [len(step.values) + step.rest for step in self.manifest.steps]
        return np.array([*steps, self.manifest.sizes["K"]], np.int64)

    def _session(self, name: str) -> Session:
        """Return this process's session of a graph; one made before a fork is left alone."""
        key = os.getpid(), name
        if key not in self._sessions:
            try:
                self._sessions[key] = session(self.bundle.graph(name), self.device)
            except failures() as error:
                raise self._error(f"{name} can't be used: {first_line(error)}") from None
        return self._sessions[key]

    def _error(self, message: str) -> ModelError:
        return ModelError(f"{self.bundle.path}: {message}")


@cache
def reopen(path: str, sha256: str, device: str, threads: int) -> Model:
    """Load a bundle that another process has loaded, once in this process.

    Raises:
        ChecksumError: another bundle is there now.
    """
    model = load(path, device, threads, lazy=True)
    if model.bundle.sha256 != sha256:
        raise ChecksumError(
            f"{path} is not the bundle that this work began with: put that one back, or start anew"
        )
    return model


def _joined(pieces: Iterable[Floats], n: int, width: int) -> Floats:
    """Return [n, width] of the pieces, one below the other.

    Raises:
        UsageError: memory has no room for them.
    """
    try:
        out, row = np.empty((n, width), np.float32), 0
    except (MemoryError, ValueError):
        raise UsageError(
            f"{n} rows don't fit into memory; take them a piece at a time, from `blocks`"
        ) from None
    for piece in pieces:
        out[row : row + len(piece)] = piece
        row += len(piece)
    return out


def _unwalled(column: Column) -> Column:
    """Return a column of any numbers for one whose kind has walls or steps, else the column."""
    if column.kind not in ("bounded", "integer", "log"):
        return column
    return Column(column.name, missing=column.missing, anchor=column.anchor)


def _padded(rows: Floats) -> Floats:
    """Return a whole block: the rows, and the last of them repeated."""
    return np.concatenate([rows, np.repeat(rows[-1:], BLOCK - len(rows), axis=0)])
