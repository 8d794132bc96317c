"""Figures of the sampling engine, each a ratio within one run: python benchmarks/sampling.py [--quick].

1. `scgan sample` to .npy, start-up taken off, against onnxruntime alone on decoder.onnx in its best batch, and against
   zuko's spline flow sampling in torch on all cores.
2. Two threads against one.   3. Peak memory at 3x10^7 rows against 10^6.   4. Start-up.   5. Dask against local.

Rounds of what is compared are interleaved and the best time of each counts. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from scgan_infer.sessions import session

ROOT = Path(__file__).parents[1]
SCGAN = str(Path(sys.executable).parent / "scgan")


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def sampling(bundle: Path, n: int, folder: Path, *more: str) -> list[str]:
    return [SCGAN, "sample", "-m", str(bundle), "-n", str(n), "-o", str(folder / "rows.npy"), *more]


def best(rounds: int, *commands: list[str]) -> list[float]:
    """Best seconds of each command, rounds interleaved."""
    times = [[timed(command)[0] for command in commands] for _ in range(rounds)]
    return np.min(times, axis=0).tolist()


def decoder_rate(bundle: Path, threads: int, seconds: float) -> float:
    """Rows per second of onnxruntime on decoder.onnx alone, best batch, a session a thread."""
    sizes = json.loads((bundle / "bundle.json").read_text())["sizes"]
    graph = (bundle / "decoder.onnx").read_bytes()
    rng = np.random.default_rng(0)
    rate = 0.0
    for batch in (1024, 2048, 4096, 8192, 16384):
        feed = {
            "latent": rng.standard_normal((batch, sizes["e"]), np.float32),
            "z": rng.standard_normal((batch, sizes["q"]), np.float32),
        }
        sessions = [session(graph, "cpu") for _ in range(threads)]
        began = time.perf_counter()

        def run(own: object, feed: dict[str, np.ndarray] = feed, began: float = began) -> int:
            calls = 0
            while time.perf_counter() - began < seconds:
                own.run(None, feed)  # type: ignore[attr-defined]
                calls += 1
            return calls

        with ThreadPoolExecutor(threads) as pool:
            calls = sum(pool.map(run, sessions))
        rate = max(rate, calls * batch / (time.perf_counter() - began))
    return rate


def flow_rate(n: int) -> float:
    """Rows per second of zuko's spline flow (4 transforms, 16 bins, 64x64) sampling in torch on all cores."""
    import torch
    import zuko

    flow = zuko.flows.NSF(2, transforms=4, bins=16, hidden_features=(64, 64))
    with torch.no_grad():
        flow().sample((4096,))
        began = time.perf_counter()
        for _ in range(n // 16384):
            flow().sample((16384,))
    return n // 16384 * 16384 / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "exported" / "checkerboard")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, no Dask")
    options = parser.parse_args()
    scale, rounds = (10, 2) if options.quick else (1, 3)
    bundle = options.bundle
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # first of all, while this process is small: a child begins with its parent's peak
        small = timed(sampling(bundle, 10**6, folder))[1]
        large = timed(sampling(bundle, 3 * 10**7 // scale, folder))[1]
        print(
            f"3. peak MiB: {large:.0f} at {3 * 10**7 // scale} rows, {small:.0f} at 10^6: {large / small:.2f}"
        )
        n = 2 * 10**7 // scale
        rates, decoders, flows = [], [], []
        for _ in range(rounds):
            start, _ = timed(sampling(bundle, 1, folder))
            whole, _ = timed(sampling(bundle, n, folder))
            rates.append(n / (whole - start))
            decoders.append(decoder_rate(bundle, 2, 1.0))
            flows.append(flow_rate(10**6 // scale))
        rate, decoder, flow = max(rates), max(decoders), max(flows)
        print(
            f"1. M rows/s: scgan sample {rate / 1e6:.2f}, decoder alone {decoder / 1e6:.2f}, flow {flow / 1e6:.3f}"
        )
        print(
            f"   share of the decoder-only rate: {rate / decoder:.0%}; times the spline flow: {rate / flow:.1f}"
        )
        one, two, start = best(
            rounds, sampling(bundle, n, folder, "--threads", "1"), sampling(bundle, n, folder, "--threads", "2"),
            sampling(bundle, 1, folder),
        )  # fmt: skip
        print(f"2. two threads: {(one - start) / (two - start):.2f} times one")
        imports = [sys.executable, "-c", "import onnxruntime, numpy"]
        some, bare, help_ = best(5, sampling(bundle, 10_000, folder), imports, [SCGAN, "--help"])
        print(
            f"4. 10,000 rows: {some:.2f} s, {some / bare:.2f} times importing both libraries; --help {help_:.2f} s"
        )
        if not options.quick:
            n = 10**8
            local = best(1, sampling(bundle, n, folder))[0]
            dask = [
                best(1, sampling(bundle, n, folder, "--engine", "dask", "--threads", str(t)))[0]
                for t in (1, 2)
            ]
            print(
                f"5. dask: two workers {dask[0] / dask[1]:.2f} times one; overhead over local {dask[1] / local - 1:.0%}"
            )


if __name__ == "__main__":
    main()
