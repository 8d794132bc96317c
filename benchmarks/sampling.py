"""Figures of the sampling engine, each a ratio in one run: python benchmarks/sampling.py [--quick] [--out JSON].

1. `scgan sample` to .npy, start-up taken off, against onnxruntime alone on decoder.onnx in its best batch, and against
   zuko's spline flow sampling in torch on all cores.
2. Two threads against one.   3. Peak memory at 3x10^7 rows against 10^6.   4. Start-up.   5. Dask against local.
6. What 10^12 rows on 1,000 cores would take at these rates.

Rounds of what is compared are interleaved, and the best time of each counts, also over the batches of what we are
compared with. Run it on two otherwise idle cores; all of it takes some twelve minutes there.
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

from scgan_infer.sampling.sessions import cores, session

ROOT = Path(__file__).parents[1]
SCGAN = str(Path(sys.executable).parent / "scgan")
DECODER_BATCHES = (512, 1024, 2048, 4096, 8192, 16384)
FLOW_BATCHES = (4096, 16384, 65536)


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


def decoder_rates(bundle: Path, seconds: float) -> dict[int, float]:
    """Rows per second, by batch, of onnxruntime on decoder.onnx alone, a session a core."""
    sizes = json.loads((bundle / "bundle.json").read_text())["sizes"]
    graph = (bundle / "decoder.onnx").read_bytes()
    rng = np.random.default_rng(0)
    sessions = [session(graph, "cpu") for _ in range(cores())]
    rates = {}
    for batch in DECODER_BATCHES:
        feed = {
            "latent": rng.standard_normal((batch, sizes["e"]), np.float32),
            "z": rng.standard_normal((batch, sizes["q"]), np.float32),
        }
        began = time.perf_counter()

        def run(own: object, feed: dict[str, np.ndarray] = feed, began: float = began) -> int:
            calls = 0
            while time.perf_counter() - began < seconds:
                own.run(None, feed)  # type: ignore[attr-defined]
                calls += 1
            return calls

        with ThreadPoolExecutor(len(sessions)) as pool:
            calls = sum(pool.map(run, sessions))
        rates[batch] = calls * batch / (time.perf_counter() - began)
    return rates


def flow_rates(seconds: float) -> dict[int, float]:
    """Rows per second, by batch, of zuko's spline flow (4 transforms, 16 bins, 64x64) in torch on all cores."""
    import torch
    import zuko

    torch.set_num_threads(cores())
    flow = zuko.flows.NSF(2, transforms=4, bins=16, hidden_features=(64, 64))
    rates = {}
    with torch.inference_mode():
        for batch in FLOW_BATCHES:
            flow().sample((batch,))
            began, rows = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                flow().sample((batch,))
                rows += batch
            rates[batch] = rows / (time.perf_counter() - began)
    return rates


def show(figures: dict[str, float], text: str, **more: float) -> None:
    """Print a line and keep its numbers."""
    figures |= {name: float(f"{value:.4g}") for name, value in more.items()}
    print(text.format(**more), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "exported" / "checkerboard")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, no Dask")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON, too")
    options = parser.parse_args()
    scale, rounds, seconds = (10, 2, 0.5) if options.quick else (1, 3, 1.0)
    bundle, n, figures = options.bundle, 2 * 10**7 // scale, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # first of all, while this process is small: a child begins with its parent's peak
        most = 3 * 10**7 // scale
        small, large = (timed(sampling(bundle, rows, folder))[1] for rows in (10**6, most))
        show(
            figures,
            f"3. peak memory: {{memory_large:.0f}} MiB at {most} rows, "
            "{memory_small:.0f} at 10^6: {memory_ratio:.2f}",
            memory_large=large, memory_small=small, memory_ratio=large / small,
        )  # fmt: skip
        times: list[list[float]] = []
        decoders: list[dict[int, float]] = []
        flows: list[dict[int, float]] = []
        for _ in range(rounds):
            times.append(
                [
                    timed(sampling(bundle, rows, folder, "--threads", str(threads)))[0]
                    for rows, threads in ((1, 2), (n, 2), (1, 1), (n, 1))
                ]
            )
            decoders.append(decoder_rates(bundle, seconds))
            flows.append(flow_rates(2 * seconds))
        start, two, start_one, one = np.min(times, axis=0).tolist()
        rate, rate_one = n / (two - start), n / (one - start_one)
        (decoder, batch), (flow, flow_batch) = (
            max((rate, size) for rates in some for size, rate in rates.items())
            for some in (decoders, flows)
        )
        show(
            figures,
            f"1. M rows/s: scgan sample {{sample:.2f}}, decoder alone {{decoder:.2f}} (batch {batch}), "
            f"flow {{flow:.3f}} (batch {flow_batch})",
            sample=rate / 1e6, decoder=decoder / 1e6, flow=flow / 1e6,
        )  # fmt: skip
        show(
            figures,
            "   share of the decoder-only rate: {share:.1%}; times the spline flow: {times_flow:.1f}",
            share=rate / decoder, times_flow=rate / flow,
        )  # fmt: skip
        show(figures, "2. two threads: {two_threads:.2f} times one", two_threads=rate / rate_one)
        imports = [sys.executable, "-c", "import onnxruntime, numpy"]
        some, bare, help_ = best(12, sampling(bundle, 10_000, folder), imports, [SCGAN, "--help"])
        show(
            figures,
            "4. 10,000 rows: {start_up:.2f} s, {start_up_ratio:.2f} times importing both libraries; "
            "--help {help:.2f} s",
            start_up=some, start_up_ratio=some / bare, help=help_,
        )  # fmt: skip
        if not options.quick:
            n = 10**8
            dask = ("--engine", "dask", "--threads")
            local, dask_two, dask_one = best(
                2, sampling(bundle, n, folder), sampling(bundle, n, folder, *dask, "2"),
                sampling(bundle, n, folder, *dask, "1"),
            )  # fmt: skip
            show(
                figures,
                "5. dask, {n:.0e} rows: two workers {dask_two_workers:.2f} times one; "
                "overhead over local {dask_overhead:.1%}",
                n=n, dask_two_workers=dask_one / dask_two, dask_overhead=dask_two / local - 1,
            )  # fmt: skip
        show(
            figures,
            "6. 10^12 rows on 1,000 cores: {trillion_minutes:.0f} minutes, 8 TB as .npy, {trillion_writing:.1f} GB/s",
            trillion_minutes=1e12 / (1000 * rate_one) / 60, trillion_writing=8e3 / (1e12 / (1000 * rate_one)),
        )  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
