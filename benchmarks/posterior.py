"""Parameters given data: how near conditional bundles come to exact posteriors of three tasks of the benchmark sbibm.

    python benchmarks/posterior.py                          all tasks, three seeds, about five minutes each
    python benchmarks/posterior.py two_moons --seeds 1
    python benchmarks/tables.py                             between the marks in benchmarks/README.md

Each training is the default preset on 10,000 rows (x, theta) with x given, in this process, one thread. Results go to
posterior.json; what is there is not trained again. The files of two tasks are in ../shared/data: rows, ten
observations, and samples of the exact posterior at each. Those of gaussian_mixture are drawn from its formula, 2,000
rows each of its posterior, which is the mixture cut at the prior's end.

- `c2st`: at each observation, as many rows as the reference has against the reference: accuracy of a perceptron with
  two hidden layers of 10 units a parameter, mean of five folds, rows standardised by the reference's. This is the
  judge of Lueckmann et al., "Benchmarking Simulation-Based Inference" (2021); .5 can't be told.
- `ranks`: of the true parameters of 1,000 fresh rows among 200 draws each, Kolmogorov-Smirnov's p for uniform ones, a
  parameter each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from results import Results, options

import scgan_infer
import scgan_train

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
FRESH, DRAWS = 1000, 200

Floats = NDArray[np.float64]


def two_moons(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return parameters [n, 2] of the prior and data [n, 2] of the simulator."""
    theta = rng.uniform(-1, 1, (n, 2))
    a, r = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
    crescent = np.column_stack([r * np.cos(a) + 0.25, r * np.sin(a)])
    shift = np.column_stack([-np.abs(theta.sum(1)), theta[:, 1] - theta[:, 0]]) / np.sqrt(2)
    return theta, crescent + shift


def gaussian_linear(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return parameters [n, 10] of the prior and data [n, 10] of the simulator."""
    theta, noise = rng.normal(0, np.sqrt(0.1), (2, n, 10))
    return theta, theta + noise


def gaussian_mixture(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return parameters [n, 2] of the prior and data [n, 2] of the simulator, spread by 1 or by .1."""
    theta = rng.uniform(-10, 10, (n, 2))
    return theta, theta + _spreads(n, rng) * rng.standard_normal((n, 2))


def _spreads(n: int, rng: np.random.Generator) -> Floats:
    return np.where(rng.random((n, 1)) < 0.5, 1.0, 0.1)


def exact_mixture(x: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Return n rows of gaussian_mixture's posterior at data x [2]: symmetric, so the noise around x in the prior."""
    drawn = x - _spreads(20 * n, rng) * rng.standard_normal((20 * n, 2))
    return drawn[(np.abs(drawn) <= 10).all(1)][:n]


TASKS: dict[str, Callable[[int, np.random.Generator], tuple[Floats, Floats]]] = {
    "two_moons": two_moons,
    "gaussian_linear": gaussian_linear,
    "gaussian_mixture": gaussian_mixture,
}
OBSERVATIONS, EXACT_ROWS = 10, 2000


def data(task: str) -> tuple[Any, list[str], Floats, Floats]:
    """Return rows to train on, names of the given columns, observations [10, g], and exact rows [10, n, d] at each."""
    if (SHARED / f"{task}.csv").exists():
        lines = (SHARED / f"{task}_observations.csv").read_text("utf-8").splitlines()
        reference = np.load(SHARED / f"{task}_reference.npz")["posterior"].astype(np.float64)
        observations = np.loadtxt(lines, delimiter=",", skiprows=1)
        return SHARED / f"{task}.csv", lines[0].split(","), observations, reference
    theta, x = TASKS[task](10_000, np.random.default_rng(0))
    names = [f"x{j}" for j in range(x.shape[1])]
    columns = [f"theta{j}" for j in range(theta.shape[1])] + names
    rng = np.random.default_rng(1)
    observations = TASKS[task](OBSERVATIONS, rng)[1]
    exact = np.stack([exact_mixture(own, EXACT_ROWS, rng) for own in observations])
    return dict(zip(columns, np.hstack([theta, x]).T, strict=True)), names, observations, exact


def c2st(made: Floats, reference: Floats) -> float:
    """Return the accuracy that rows [n, d] are told with from as many rows of the reference."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    mean, spread = reference.mean(0), reference.std(0)
    rows = np.concatenate([(part - mean) / spread for part in (made, reference)])
    label = np.repeat([0, 1], len(reference))
    units = 10 * rows.shape[1]
    judge = MLPClassifier((units, units), max_iter=10_000, random_state=1)
    folds = KFold(5, shuffle=True, random_state=1)
    return float(cross_val_score(judge, rows, label, cv=folds).mean())


def ranks(model: Any, theta: Floats, x: Floats, seed: int) -> list[float]:
    """Return p of a uniform distribution of the ranks of parameters [n, d] given data [n, g], for each column."""
    from scipy.stats import kstest

    drawn = model.sample(given=x, each=DRAWS, seed=seed).reshape(len(x), DRAWS, -1)
    below = (drawn < theta[:, None]).sum(1)
    share = (below + np.random.default_rng(seed).random(below.shape)) / (DRAWS + 1)
    return [float(kstest(column, "uniform").pvalue) for column in share.T]


def measured(task: str, seed: int) -> dict[str, Any]:
    """Train on a task's rows and judge the bundle."""
    torch.set_num_threads(1)
    rows, names, observations, reference = data(task)
    settings = {"seed": seed, "given": names, "device": "cpu"}
    with TemporaryDirectory() as folder:
        began, busy = time.perf_counter(), time.process_time()
        run = scgan_train.train(rows, settings, Path(folder) / "run")
        trained, used = time.perf_counter(), time.process_time() - busy
        bundle = scgan_train.export(run, Path(folder) / "bundle")
        exported = time.perf_counter()
        model: Any = scgan_infer.load(bundle, device="cpu", threads=1)
        made = model.sample(given=observations, each=reference.shape[1], seed=seed)
        theta, x = TASKS[task](FRESH, np.random.default_rng([seed, 0x52]))
        began_sampling = time.perf_counter()
        p = ranks(model, theta, x, seed)
        rate = FRESH * DRAWS / (time.perf_counter() - began_sampling)
    parts = zip(made.reshape(reference.shape), reference, strict=True)
    return {
        "set": task,
        "seed": seed,
        "seconds": round(trained - began, 1),
        "processor": round(used, 1),
        "export": round(exported - trained, 1),
        "rate": round(rate),
        "sizes": dict(model.manifest.sizes),
        "c2st": [round(c2st(part.astype(np.float64), exact), 4) for part, exact in parts],
        "ranks": [round(value, 4) for value in p],
    }


def main() -> None:
    """Measure what is not in posterior.json yet."""
    asked = options(__doc__, HERE / "posterior.json", "tasks", TASKS, 3).parse_args()
    results = Results(asked.out)
    for seed in range(asked.seeds):
        for task in asked.tasks or TASKS:
            if results.have(set=task, seed=seed):
                continue
            row = measured(task, seed)
            results.add(row)
            mean = np.mean(row["c2st"])
            print(
                f"{task}, seed {seed}: C2ST {mean:.3f} ({min(row['c2st']):.3f} to {max(row['c2st']):.3f}), "
                f"p of ranks {min(row['ranks']):.3f}, {row['seconds']:.0f} s, "
                f"{row['processor']:.0f} s of processor time",
                flush=True,
            )


if __name__ == "__main__":
    main()
