"""Engines that compute the same rows: this process's threads or a Dask cluster's workers.

An engine turns a `Job` into arrays of rows, in order, a bounded number of them at a time, so that
whoever writes them holds back whoever computes them. A Dask worker gets the path and hash of the
bundle, loads it once and keeps it; a piece of a worker that died is computed again by another, to
the same bytes.

Whoever reaches a scheduler of Dask can run code there. A local cluster therefore speaks TLS, with
a certificate made for it that never leaves its processes; one whose address is given is as safe as
it was set up to be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from scgan_infer.errors import ScganError, UsageError, install
from scgan_infer.sampling.draw import Draw, Floats, cut
from scgan_infer.sampling.given import Given
from scgan_infer.sampling.noise import BLOCK, TOGETHER

if TYPE_CHECKING:
    from concurrent.futures import Future

    from scgan_infer.sampling.model import Model

T = TypeVar("T")
# a part of a job: samples and their conditions [n, g], or whole rows [k, d + g] and the samples
# whose decoder noise they take
Task: TypeAlias = tuple[Draw | None, Floats | None]

OPERATIONS = ("sample", "reconstruct", "encode", "log_prob")
PIECE_BYTES = 2**19
TASK_BYTES = 256 * 2**20
TASK_ROWS = 2**20
CHUNK_BYTES = 8 * 2**20
CONNECT_SECONDS = 10
LOCAL = "127.0.0.1:0"
CRITICAL = 50  # of logging, whose import takes a hundredth of a start
RETRIES = 3
SETTINGS: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@dataclass(frozen=True)
class Job:
    """A request to a model.

    Attributes:
        model: computes the rows; other processes load it again from its path.
        op: "sample" (rows [k, d]), "reconstruct" (whole rows [k, d + g]), "encode" (rows as
            `encoded` has them) or "log_prob" ([k, 1]).
        draw: the samples; or those whose decoder noise `reconstruct` takes for the source's rows,
            from the first on, instead of none.
        source: the file, the columns or the whole rows [n, d + g] to reconstruct or encode.
        given: the samples' conditions, where columns are given.
        scheduler: address of a Dask scheduler; None starts one on this machine, with a process for
            each of the model's threads.

    Raises:
        UsageError: an unknown operation, or one that this model can't do.
    """

    model: Model
    op: str = "sample"
    draw: Draw | None = None
    source: str | Path | Floats | Mapping[str, Floats] = ""
    scheduler: str | None = None
    given: Given | None = None

    def __post_init__(self) -> None:
        if self.op not in OPERATIONS:
            raise UsageError(f"operation {self.op!r} is not one of {', '.join(OPERATIONS)}")
        if self.draw is not None:
            self.model.check_draw(self.draw)
            if self.op == "sample":
                self.model.check_given(self.given)
            if self.op == "reconstruct":
                self.model.check_noise()

    def tasks(self, size: int) -> Iterator[Task]:
        """Yield the job in parts of up to `size` rows."""
        draw, source = self.draw, self.source
        if self.op == "sample":
            assert draw is not None
            for low, high in cut(draw.start, draw.start + draw.n, size):
                given = self.given
                yield draw.part(low, high), None if given is None else given.rows(low, high)
            return
        parts: Iterator[Floats]
        if isinstance(source, np.ndarray):
            parts = (source[low:high] for low, high in cut(0, len(source), size))
        else:
            from scgan_infer.rows.formats import iter_values

            parts = iter_values(source, self.model.manifest.whole, size)
        row = draw.start if draw else 0
        for values in parts:
            yield draw and draw.part(row, row + len(values)), values
            row += len(values)


def local(job: Job) -> Iterator[Floats]:
    """Compute with the model's threads; the caller does the first part and makes all sessions."""
    model = job.model
    columns = len(model.manifest.whole)
    width = columns if job.op != "encode" else model.manifest.sizes["e"] + 1
    tasks = job.tasks(min(rows_of(PIECE_BYTES, width), TOGETHER * BLOCK))
    for task in islice(tasks, 1):
        yield model.compute(job.op, *task)
    second = list(islice(tasks, 1))
    if not second:
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(model.threads) as pool:
        yield from in_order(
            lambda task: pool.submit(model.compute, job.op, *task),
            chain(second, tasks),
            model.threads + 2,
        )


def dask(job: Job) -> Iterator[Floats]:
    """Compute with one thread in each worker of a Dask cluster.

    Raises:
        UsageError: dask is not installed, or no scheduler answers.
        ScganError: a piece killed one worker after another.
    """
    opener, sample = job.model.opener(), job.op == "sample"
    size = rows_of(TASK_BYTES if sample else CHUNK_BYTES, len(job.model.manifest.whole))
    with _client(job) as client:

        def submit(task: Task) -> Future[Floats]:
            future: Future[Floats] = client.submit(
                _compute, opener, job.op, *task, pure=False, retries=RETRIES
            )
            return future

        workers = max(1, sum(client.nthreads().values()))
        yield from in_order(submit, job.tasks(min(size, TASK_ROWS)), 2 * workers + 2)


def _compute(
    opener: Callable[[], Model], op: str, draw: Draw | None, values: Floats | None
) -> Floats:
    return opener().compute(op, draw, values)


@contextmanager
def _client(job: Job) -> Iterator[Any]:
    """Connect to the job's scheduler, or to a local cluster that ends with it."""
    try:
        config: Any = import_module("dask.config")
        distributed: Any = import_module("distributed")
        security = None if job.scheduler else distributed.Security.temporary()
    except ImportError:  # of cryptography too
        raise UsageError(f"the dask engine needs Dask: {install('dask')}") from None
    options = {"n_workers": job.model.threads, "threads_per_worker": 1, "dashboard_address": LOCAL}
    with ExitStack() as stack:
        address, direct = job.scheduler, None
        if address is None:
            # Dask polls its workers a hundred times a second, which costs a seventh of their speed
            with config.set(SETTINGS):
                address = distributed.LocalCluster(
                    **options, security=security, silence_logs=CRITICAL
                )
            stack.enter_context(address)
            direct = True
        try:
            client = distributed.Client(
                address, set_as_default=False, timeout=CONNECT_SECONDS, direct_to_workers=direct
            )
        except (OSError, ValueError) as error:
            raise UsageError(f"no Dask scheduler answers at {address!r}: {error}") from None
        stack.enter_context(client)
        try:
            yield client
        except distributed.KilledWorker as error:
            raise ScganError(
                f"a piece of work killed one worker after another (out of memory?): {error}"
            ) from None


def rows_of(size: int, d: int) -> int:
    """Return how many rows of d columns take at most `size` bytes: a block times a power of two.

    So pieces and blocks whose noise is made together cut each other evenly, and the buffers for
    noise keep one size.
    """
    return BLOCK << (max(1, size // (4 * BLOCK * d)).bit_length() - 1)


def in_order(submit: Callable[[Any], Future[T]], tasks: Iterable[Any], window: int) -> Iterator[T]:
    """Yield the tasks' results in order; at most `window` are submitted and not yet yielded."""
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


ENGINES: dict[str, Callable[[Job], Iterator[Floats]]] = {"local": local, "dask": dask}
