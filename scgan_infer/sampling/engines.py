"""Who computes the rows: the threads of this process or the workers of a Dask cluster; the rows are the same.

An engine turns a `Job` into arrays of rows, in order, a bounded number of them at a time, so that whoever
writes them holds back whoever computes them. A Dask worker is told where the bundle lies and what its hash
is, loads it once and keeps it; a piece of a worker that died is computed again by another, to the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from scgan_infer.errors import ScganError, UsageError
from scgan_infer.sampling.model import Floats, Model, cut, in_order, pieces, reopen

OPERATIONS = ("sample", "reconstruct", "encode")
TASK_ROWS = 2**20
TASK_BYTES = 256 * 2**20  # so that tasks have `TASK_ROWS` up to 64 columns
CHUNK_BYTES = 8 * 2**20
CONNECT_SECONDS = 10
LOCAL = "127.0.0.1:0"
RETRIES = 3
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
}


@dataclass(frozen=True)
class Job:
    """What is wanted from a model.

    Attributes:
        model: who computes; other processes load it anew from where it lies.
        op: "sample", "reconstruct" (rows [k, d]) or "encode" (rows [k, e + 1]: the latent, then the cluster).
        n, seed, start, cluster, temperature: as in `Model.sample`.
        source: the file to reconstruct or encode.
        noise: reconstruct with the decoder noise of `seed` from `start` on, instead of none.
        scheduler: address of a Dask scheduler; None starts one on this machine, with a process for each of the
            model's threads.
    """

    model: Model
    op: str = "sample"
    n: int = 0
    seed: int = 0
    start: int = 0
    cluster: int | tuple[int, ...] | None = None
    temperature: float = 1.0
    source: str | Path = ""
    noise: bool = False
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.op not in OPERATIONS:
            raise UsageError(f"operation {self.op!r} is not one of {', '.join(OPERATIONS)}")
        self.model.draw(self.n, self.seed, self.start, self.cluster, self.temperature)

    def piece(self, low: int, high: int) -> dict[str, Any]:
        """Return the arguments of `Model.sample` for samples low .. high - 1."""
        asked = {"seed": self.seed, "cluster": self.cluster, "temperature": self.temperature}
        return {"n": high - low, "start": low, **asked}

    def chunks(self, size: int) -> Iterator[tuple[Floats, int | None, int]]:
        """Yield the source's rows, up to `size` at a time, with the seed and start of their noise."""
        from scgan_infer.rows.formats import iter_values

        row = 0
        for values in iter_values(self.source, self.model.columns, size):
            yield values, self.seed if self.noise else None, self.start + row
            row += len(values)


def local(job: Job) -> Iterator[Floats]:
    """Compute with the model's threads."""
    if job.op == "sample":
        return job.model.blocks(**job.piece(job.start, job.start + job.n))
    size = pieces(job.model, CHUNK_BYTES) * job.model.threads
    return (answer(job.model, job.op, *chunk) for chunk in job.chunks(size))


def dask(job: Job) -> Iterator[Floats]:
    """Compute with one thread in each worker of a Dask cluster.

    Raises:
        UsageError: dask is not installed, or no scheduler answers.
        ScganError: a piece killed one worker after another.
    """
    model = job.model
    where = (str(model.bundle.path.resolve()), model.bundle.sha256, model.device)
    with _client(job) as client:
        workers = max(1, sum(client.nthreads().values()))

        def submit(task: tuple[Any, ...]) -> Future[Floats]:
            future: Future[Floats] = client.submit(*task, pure=False, retries=RETRIES)
            return future

        tasks: Iterator[tuple[Any, ...]]
        if job.op == "sample":
            size = min(TASK_ROWS, pieces(model, TASK_BYTES))
            spans = cut(job.start, job.start + job.n, size)
            tasks = ((_sample, where, job.piece(*span)) for span in spans)
        else:
            tasks = (
                (_answer, where, job.op, *chunk) for chunk in job.chunks(pieces(model, CHUNK_BYTES))
            )
        yield from in_order(submit, tasks, 2 * workers + 2)


def answer(model: Model, op: str, rows: Floats, seed: int | None, start: int) -> Floats:
    """Return what `op` makes of rows; see `Job`."""
    if op == "reconstruct":
        return model.reconstruct(rows, seed=seed, start=start)
    latent, cluster = model.encode(rows)
    return np.column_stack([latent, cluster.astype(np.float32)])


def _sample(where: tuple[str, str, str], piece: dict[str, Any]) -> Floats:
    return reopen(*where).sample(**piece)


def _answer(
    where: tuple[str, str, str], op: str, rows: Floats, seed: int | None, start: int
) -> Floats:
    return answer(reopen(*where), op, rows, seed, start)


@contextmanager
def _client(job: Job) -> Iterator[Any]:
    """Connect to the job's scheduler, or to a cluster of its own that ends with it."""
    try:
        config: Any = import_module("dask.config")
        distributed: Any = import_module("distributed")
    except ImportError:
        raise UsageError("the dask engine needs Dask: pip install 'scgan[dask]'") from None
    try:
        if job.scheduler is None:
            # Dask looks at its workers a hundred times a second, which costs them a seventh of their speed
            with config.set(QUIET):
                cluster = distributed.LocalCluster(
                    n_workers=job.model.threads,
                    threads_per_worker=1,
                    dashboard_address=LOCAL,
                    silence_logs=logging.CRITICAL,
                )
            with (
                cluster,
                distributed.Client(cluster, set_as_default=False, direct_to_workers=True) as client,
            ):
                yield client
        else:
            try:
                client = distributed.Client(
                    job.scheduler, set_as_default=False, timeout=CONNECT_SECONDS
                )
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"no Dask scheduler answers at {job.scheduler!r}: {error}"
                ) from None
            with client:
                yield client
    except distributed.KilledWorker as error:
        raise ScganError(
            f"a piece of work killed one worker after another (out of memory?): {error}"
        ) from None


ENGINES: dict[str, Callable[[Job], Iterator[Floats]]] = {"local": local, "dask": dask}
