"""Figures of speed, each a ratio in one run: python benchmarks/sampling.py [--quick] [--dask] [--out JSON].

Three sets: checkerboard (`exported/checkerboard`), a table of four columns and one of seven (torsions and
dimuon where `../shared/data` has them, else curved pieces of `scale.py`). For each

- `scgan sample` to .npy on all cores, start-up taken off, against zuko's spline flow in torch;
- 10,000 rows in a process of their own, against one that only imports numpy and onnxruntime.

And seconds of an export, of the training of a plane, two threads against one, peak memory at 3x10^7
rows against 10^6, and what 10^12 rows on 1,000 cores would take at these rates.

Rounds of what is compared are interleaved. The best time of each counts, also over the batches of what
we are compared with; of processes the median of the rounds' ratios, as a machine's speed may swing.
Run it on two otherwise idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scale import pieces

from scgan_infer.sampling.sessions import cores

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SCGAN = str(Path(sys.executable).parent / "scgan")
BATCHES = (4096, 16384, 65536)  # of the spline flow
TABLE_ROWS = 10_000
TORSIONS = ("phi", "psi", "chi1", "chi2")
DIMUON = ("pt1", "eta1", "phi1", "pt2", "eta2", "phi2", "M")
DEGREES = {"kind": "periodic", "period": 360.0}
CIRCLE = {"kind": "periodic", "period": 2 * np.pi, "low": -np.pi}
KINDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(TORSIONS, DEGREES),
    **dict.fromkeys(("phi1", "phi2"), CIRCLE),
    **{name: {"kind": "log"} for name in ("pt1", "pt2", "M")},
}
FILES = {4: ("torsion_trp.csv", TORSIONS), 7: ("cms_dimuon_10k_dev.csv", DIMUON)}
IMPORTS = [sys.executable, "-c", "import onnxruntime, numpy"]


def table(columns: int, path: Path) -> dict[str, Any]:
    """Write a table of so many columns and return the settings to train on it."""
    file, names = FILES.get(columns, ("", ()))
    if not (SHARED / file).is_file():
        names = tuple(f"x{j}" for j in range(columns))
        rows = pieces(TABLE_ROWS, columns, 0)
    else:
        header = (SHARED / file).read_text().split("\n", 1)[0].strip().split(",")
        places = [header.index(name) for name in names]
        rows = np.loadtxt(SHARED / file, np.float64, delimiter=",", skiprows=1, usecols=places)
    np.savetxt(path, rows, "%.9g", ",", header=",".join(names), comments="")
    return {"columns": {name: KINDS[name] for name in names if name in KINDS}}


def trained(data: str, settings: dict[str, Any], folder: Path) -> tuple[Path, float, float]:
    """Train and export; return the bundle and the seconds of both."""
    import scgan_train

    began = time.perf_counter()
    run = scgan_train.train(data, {"device": "cpu"} | settings, folder / "run")
    middle = time.perf_counter()
    bundle = scgan_train.export(run, folder / "bundle")
    return bundle, middle - began, time.perf_counter() - middle


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Return seconds and peak MiB of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def seconds(rounds: int, *commands: list[str]) -> NDArray[np.float64]:
    """Return the seconds of each command in each round, [rounds, commands]."""
    return np.array([[timed(command)[0] for command in commands] for _ in range(rounds)])


def sampling(bundle: Path, n: int, folder: Path, *more: str) -> list[str]:
    """Return the command that samples n rows."""
    out = str(folder / "rows.npy")
    return [SCGAN, "sample", "-m", str(bundle), "-n", str(n), "-o", out, "--force", *more]


def flow_rate(columns: int, seconds: float) -> float:
    """Return the rows per second of zuko's spline flow in its best batch, on all cores.

    It has 4 transforms, 16 bins and networks of 64x64, as in the tables of quality.
    """
    import torch
    import zuko

    torch.set_num_threads(cores())
    flow = zuko.flows.NSF(columns, transforms=4, bins=16, hidden_features=(64, 64))
    rates = []
    with torch.inference_mode():
        for batch in BATCHES:
            flow().sample((batch,))
            began, rows = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                flow().sample((batch,))
                rows += batch
            rates.append(rows / (time.perf_counter() - began))
    return max(rates)


def rates(bundle: Path, columns: int, n: int, folder: Path, quick: bool) -> dict[str, float]:
    """Return million rows/s of `scgan sample` and of the spline flow, and their ratio."""
    commands = [sampling(bundle, rows, folder) for rows in (1, n)]
    times, flows = [], []
    for _ in range(2 if quick else 3):
        times.append([timed(command)[0] for command in commands])
        flows.append(flow_rate(columns, 0.5 if quick else 2.0))
    start, all_rows = np.min(times, axis=0)
    rate, flow = n / (all_rows - start), max(flows)
    return {"sample": rate / 1e6, "flow": flow / 1e6, "times_flow": rate / flow}


def start_up(bundle: Path, folder: Path) -> dict[str, float]:
    """Return seconds of 10,000 rows as a whole process, and times importing both libraries."""
    some, bare = seconds(20, sampling(bundle, 10_000, folder), IMPORTS).T
    return {"start_up": float(some.min()), "start_up_ratio": float(np.median(some / bare))}


def memory(bundle: Path, most: int, folder: Path) -> dict[str, float]:
    """Return peak MiB at 10^6 and at most rows; a child begins with its parent's peak: ask early."""
    small, large = (timed(sampling(bundle, n, folder))[1] for n in (10**6, most))
    return {"memory_large": large, "memory_small": small, "memory_ratio": large / small}


def threads(bundle: Path, n: int, folder: Path, rate: float) -> dict[str, float]:
    """Return two threads' gain over one, and 10^12 rows on 1,000 cores in minutes and GB/s."""
    commands = [sampling(bundle, rows, folder, "--threads", "1") for rows in (1, n)]
    start, one = seconds(2, *commands).min(axis=0)
    rate_one = float(n / (one - start))
    all_cores = 1e12 / (1000 * rate_one)
    return {
        "two_threads": rate / rate_one,
        "trillion_minutes": all_cores / 60,
        "trillion_writing": 8e3 / all_cores,
    }


def dask(bundle: Path, n: int, folder: Path) -> dict[str, float]:
    """Return what two workers gain over one, and the overhead over the local engine."""
    engine = ("--engine", "dask", "--threads")
    two, one = (sampling(bundle, n, folder, *engine, workers) for workers in ("2", "1"))
    commands = [sampling(bundle, n, folder), two, one]
    local, two_seconds, one_seconds = map(float, seconds(2, *commands).min(axis=0))
    gain, overhead = one_seconds / two_seconds, two_seconds / local - 1
    return {"n": n, "dask_two_workers": gain, "dask_overhead": overhead}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--dask", action="store_true", help="the Dask engine, too")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON, too")
    options = parser.parse_args()
    scale, figures = 10 if options.quick else 1, {}

    def keep(more: dict[str, float], suffix: str = "") -> None:
        rounded = {name + suffix: float(f"{value:.4g}") for name, value in more.items()}
        figures.update(rounded)
        print(rounded, flush=True)

    plane = ROOT / "exported" / "checkerboard"
    n = 2 * 10**7 // scale
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keep(memory(plane, 3 * 10**7 // scale, folder))
        keep(rates(plane, 2, n, folder, options.quick))
        keep(threads(plane, n, folder, 1e6 * figures["sample"]))
        keep(start_up(plane, folder))
        for columns in (4, 7):
            settings = table(columns, folder / "rows.csv")
            where = folder / f"{columns}"
            bundle, train, export = trained(str(folder / "rows.csv"), settings, where)
            keep({"train": train, "export": export}, f"_{columns}")
            keep(rates(bundle, columns, n // 10, folder, options.quick), f"_{columns}")
        keep(start_up(bundle, folder), "_7")
        _, train, export = trained("checkerboard", {}, folder / "2")
        keep({"train": train, "export": export}, "_2")
        settings = table(10, folder / "rows.csv")
        keep({"export_10": trained(str(folder / "rows.csv"), settings, folder / "10")[2]})
        if options.dask:
            keep(dask(plane, 10**8 // scale, folder))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
