"""Rows per second on this machine, and what share of the decoder's rate the whole reaches.

Each stage is driven alone by all worker threads: noise (numpy), mapper and decoder (their graphs,
one block a call), the whole (`Model.blocks`), and the file writer. Rounds are interleaved and the
best one counts, since a busy machine only ever makes a stage look slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from scgan_infer.sampling.draw import Floats
from scgan_infer.sampling.given import Given
from scgan_infer.sampling.model import Model
from scgan_infer.sampling.noise import BLOCK, TOGETHER

ROUNDS = 3


@dataclass(frozen=True)
class Rates:
    """Rows per second of each stage, all threads together; `share` is whole / decoder."""

    threads: int
    device: str
    noise: float
    mapper: float
    decoder: float
    whole: float
    write: float

    @property
    def share(self) -> float:
        return self.whole / self.decoder


def rates(model: Model, seconds: float = 1.0) -> Rates:
    """Measure a model's stages, with its threads, for about so many seconds each in each round."""
    u, w, z = model.noise(0, range(1))
    c, n = model.example(BLOCK), 64 * BLOCK
    latent, choice = model.run("mappers.onnx", u=u, w=w, c=c)
    samples = model.sample(n, given=Given(model.example(1), 0) if model.given else None)

    def noise(i: int) -> object:
        return model.noise(0, range(TOGETHER * i, TOGETHER * (i + 1)))

    def threads(work: Callable[[int], object], blocks: int = 1) -> Callable[[], float]:
        return lambda: _threads(model.threads, seconds, work, blocks)

    with TemporaryDirectory() as folder:
        stages: dict[str, Callable[[], float]] = {
            "noise": threads(noise, TOGETHER),
            "mapper": threads(lambda _: model.run("mappers.onnx", u=u, w=w, c=c)),
            "decoder": threads(
                lambda _: model.run("decoder.onnx", latent=latent, choice=choice, z=z)
            ),
            "whole": lambda: _whole(model, seconds),
            "write": lambda: _write(model, samples, Path(folder) / "rows.npy", seconds),
        }
        best = dict.fromkeys(stages, 0.0)
        for _ in range(ROUNDS):
            for name, stage in stages.items():
                best[name] = max(best[name], stage())
    return Rates(model.threads, model.device, **best)


def _threads(threads: int, seconds: float, work: Callable[[int], object], blocks: int) -> float:
    """Return rows per second of `work` on so many blocks, repeated by all threads for the time."""
    began = time.perf_counter()

    def repeat(thread: int) -> int:
        calls = 0
        while time.perf_counter() - began < seconds:
            work(thread * 2**20 + calls)
            calls += 1
        return calls

    with ThreadPoolExecutor(threads) as pool:
        calls = sum(pool.map(repeat, range(threads)))
    return calls * blocks * BLOCK / (time.perf_counter() - began)


def _whole(model: Model, seconds: float) -> float:
    """Return rows per second, counted from the first piece on; before it, all threads are busy."""
    given = Given(model.example(1), 0) if model.given else None
    pieces = model.blocks(2**40, given=given)
    next(pieces)
    began, rows, spent = time.perf_counter(), 0, 0.0
    while spent < seconds:
        rows += len(next(pieces))
        spent = time.perf_counter() - began
    return rows / spent


def _write(model: Model, rows: Floats, path: Path, seconds: float) -> float:
    from scgan_infer.rows.formats import open_writer

    began, written = time.perf_counter(), 0
    with open_writer(path, model.columns) as writer:
        while time.perf_counter() - began < seconds and written < 2**25:
            writer.write(rows)
            written += len(rows)
    return written / (time.perf_counter() - began)
