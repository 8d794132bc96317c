"""Training time and quality of the default preset on the six planes: python benchmarks/training.py [--seeds 3].

For each plane the median over seeds of: seconds of `scgan train --preset standard` on 50,000 rows (all stages, as the
run folder has them), mean squared reconstruction error over coordinates, and C2ST, off and missed on fresh rows, beside
the C2ST of fresh rows against fresh rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import scgan_infer
from scgan_infer.metrics import evaluate
from scgan_train.datasets import fresh

SCGAN = str(Path(sys.executable).parent / "scgan")
PLANES = ("eight_gaussians", "checkerboard", "two_spirals", "abs", "sinewaved_cube", "four_circles")


def scgan(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([SCGAN, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def measured(plane: str, seed: int) -> dict[str, float]:
    with TemporaryDirectory() as name:
        run, bundle = f"{name}/run", f"{name}/bundle"
        scgan("train", plane, "--seed", str(seed), "--out", run)
        scgan("export", run, "--out", bundle)
        seconds = sum(json.loads(Path(run, "run.json").read_text())["seconds"].values())
        model = scgan_infer.load(bundle, device="cpu")
        real = fresh(plane, 20_000, seed).values
        figures = evaluate(real, model.sample(10_000, seed), columns=model.columns, seed=seed)
        mse = float(np.mean((model.reconstruct(real) - real) ** 2))
    overall = figures.overall
    return {
        "seconds": seconds,
        "mse": mse,
        "c2st": overall["c2st"].value,
        "floor": overall["c2st"].floor or 0.0,
        "off": overall["off"].value,
        "missed": overall["missed"].value,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    print("| plane | training, s | MSE | C2ST | C2ST, fresh rows | off | missed |\n|" + 7 * " --- |")
    for plane in PLANES:
        runs = [measured(plane, seed) for seed in range(seeds)]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(
            f"| {plane} | {middle['seconds']:.1f} | {middle['mse']:.1e} | {middle['c2st']:.3f} | "
            f"{middle['floor']:.3f} | {middle['off']:.2%} | {middle['missed']:.2%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
