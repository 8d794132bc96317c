"""Wide tables: scgan beside Gaussian mixtures and a coupling flow that train on the same rows.

    python benchmarks/wide.py                          all cases and models, three seeds: hours on one core
    python benchmarks/wide.py digits 20000x64 --seeds 1 --models scgan

Cases are those of `scale.py`, pendigits without `class` (../shared/data), both whole numbers and 60 % trained on, and
`zeros`: 256 columns of amounts with eight common causes, of which 59 % of the cells are 0.

- *scgan*: the default preset, sampled from the exported bundle.
- *mixture*, *scored mixture*: scikit-learn's Gaussian mixtures with full covariances on standardised rows and behind
  normal scores (equal numbers in random order), of 10, 20 and 30 components the one that the judge tells worst, which
  flatters them. Whole numbers are rounded, and all are clipped to what was seen.
- *coupling flow*: zuko's NSF with coupling (4 transforms, 8 bins, 128 x 128, batches of 256, Adam 1e-3) behind scgan's
  coordinates, for as much processor time as scgan took.

C2ST is that of `scgan evaluate` against rows not trained on. Seconds are of processor time on one thread. Results go
to wide.json; what is there is not measured again; `tables.py` lays them out.
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
from scale import pieces
from scipy.special import ndtr, ndtri
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

import scgan_infer
import scgan_train
from scgan_infer.columns import Table
from scgan_infer.judging.figures import evaluate
from scgan_train import config as configs
from scgan_train import datasets
from scgan_train.coordinates.transform import Coordinates

Floats = NDArray[np.float32]
Sample = Callable[[int], Floats]

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared" / "data"
CASES = ("20000x16", "20000x32", "20000x64", "20000x128", "digits", "pendigits", "zeros")
MODELS = ("scgan", "mixture", "scored mixture", "coupling flow")
COMPONENTS = (10, 20, 30)
CAUSES, SPARSE_ROWS, SPARSE_COLUMNS = 8, 10_000, 256
RATED = 65_536  # rows sampled for the rate


def amounts(rows: int, seed: int) -> Floats:
    """Return rows of amounts, 0 where a sum of eight causes and noise does not exceed its column's bound."""
    shape, rng = np.random.default_rng(SPARSE_COLUMNS), np.random.default_rng([seed, 1])
    weights = shape.standard_normal((CAUSES, SPARSE_COLUMNS)) / CAUSES**0.5
    bound = 0.3 + 0.6 * shape.standard_normal(SPARSE_COLUMNS)
    height = rng.standard_normal((rows, CAUSES)) @ weights
    height += 0.5 * rng.standard_normal(height.shape)
    return np.expm1(np.maximum(height - bound, 0.0)).astype(np.float32)


def rows_of(case: str, seed: int) -> tuple[Floats, Floats]:
    """Return rows to train on and rows to judge by."""
    if case == "zeros":
        return amounts(SPARSE_ROWS, 1 + seed), amounts(SPARSE_ROWS, 0)
    if case in ("digits", "pendigits"):
        if case == "digits":
            rows = load_digits().data
        else:
            rows = np.loadtxt(DATA / "pendigits.csv", delimiter=",", skiprows=1)[:, :16]
        rows = np.random.default_rng(seed).permutation(rows.astype(np.float32))
        return rows[: int(0.6 * len(rows))], rows[int(0.6 * len(rows)) :]
    n, columns = map(int, case.split("x"))
    return pieces(n, columns, 1 + seed), pieces(n, columns, 0)


def table(rows: Floats) -> Table:
    """Return rows with the columns that scgan takes them for."""
    return datasets.load(rows, configs.from_dict({"device": "cpu"}))[1]


def ours(rows: Floats, seed: int, folder: Path) -> tuple[Sample, dict[str, Any]]:
    """Train and export scgan."""
    began = time.process_time()
    run = scgan_train.train(rows, {"device": "cpu", "seed": seed}, folder / "run")
    trained = time.process_time()
    bundle = scgan_train.export(run, folder / "bundle")
    exported = time.process_time()
    model = scgan_infer.load(bundle, device="cpu")
    model.sample(4096)
    started = time.process_time()
    model.sample(RATED)
    rate = RATED / (time.process_time() - started)
    return model.sample, {
        "seconds": trained - began,
        "export": exported - trained,
        "rate": rate,
        "sizes": dict(model.manifest.sizes),
    }


def mixture(
    rows: Floats, seed: int, components: int, *, scored: bool
) -> tuple[Sample, dict[str, Any]]:
    """Fit a Gaussian mixture."""
    rng, began = np.random.default_rng(seed), time.process_time()
    varying = np.flatnonzero(rows.std(0) > 0)
    x = rows[:, varying].astype(np.float64)
    whole, ranked = bool((x == np.rint(x)).all()), np.sort(x, 0)
    if scored:
        order = np.argsort(np.lexsort((rng.random(x.shape), x), axis=0), axis=0)
        y = ndtri((order + 0.5) / len(x))
    else:
        y = (x - x.mean(0)) / x.std(0)
    gaussians = GaussianMixture(components, max_iter=30, reg_covar=1e-4, random_state=seed).fit(y)
    seconds = time.process_time() - began

    def sample(n: int) -> Floats:
        drawn = rng.permutation(gaussians.sample(n)[0])
        if scored:
            place = np.minimum((ndtr(drawn) * len(x)).astype(np.int64), len(x) - 1)
            made = np.take_along_axis(ranked, place, 0)
        else:
            made = np.clip(drawn * x.std(0) + x.mean(0), ranked[0], ranked[-1])
        out = np.tile(rows[0], (n, 1))
        out[:, varying] = np.rint(made) if whole else made
        return out

    return sample, {"seconds": seconds, "components": components}


def coupling(rows: Floats, seed: int, seconds: float) -> tuple[Sample, dict[str, Any]]:
    """Train zuko's coupling flow for so many seconds."""
    import zuko

    torch.manual_seed(seed)
    known, rng = table(rows), np.random.default_rng(seed)
    coordinates = Coordinates.fit(known)
    scattered = coordinates.dequantise(known.values, rng)
    y = torch.from_numpy(coordinates.forward(scattered, rng)).float()
    flow = zuko.flows.NSF(y.shape[1], passes=2, transforms=4, bins=8, hidden_features=(128, 128))
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    began, steps = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds:
        for group in optimizer.param_groups:  # falls to 0 by a cosine
            group["lr"] = 1e-3 * 0.5 * (1 + np.cos(np.pi * spent / seconds))
        loss = -flow().log_prob(y[torch.randint(len(y), (256,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        steps += 1

    @torch.no_grad()
    def sample(n: int) -> Floats:
        parts = [flow().sample((min(4096, n - at),)) for at in range(0, n, 4096)]
        return coordinates.inverse(torch.cat(parts).numpy()).astype(np.float32)

    return sample, {"seconds": seconds, "steps": steps}


def judged(sample: Sample, judges: Floats) -> dict[str, Any]:
    """Return figures of half as many samples again as there are rows to judge by."""
    made = sample(3 * len(judges) // 2)
    figures = evaluate(judges, made, columns=table(judges).columns).overall
    zeros = {"zeros": float((made == 0).mean()), "zeros_real": float((judges == 0).mean())}
    return {name: figures[name]._asdict() for name in ("c2st", "off", "missed")} | zeros


def measure(case: str, model: str, seed: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Train a model on a case and judge it."""
    rows, judges = rows_of(case, seed)
    if model == "scgan":
        with TemporaryDirectory() as folder:
            sample, facts = ours(rows, seed, Path(folder))
            return facts | judged(sample, judges)
    if model == "coupling flow":
        known = [r for r in results if (r["case"], r["model"], r["seed"]) == (case, "scgan", seed)]
        if not known:
            raise SystemExit(f"{case}, seed {seed}: measure scgan first, whose time the flow gets")
        sample, facts = coupling(rows, seed, known[0]["seconds"])
        return facts | judged(sample, judges)
    found = []
    for components in COMPONENTS:
        sample, facts = mixture(rows, seed, components, scored=model == "scored mixture")
        found.append(facts | judged(sample, judges))
    return min(found, key=lambda figures: float(figures["c2st"]["value"]))


def main() -> None:
    """Measure what is asked for and not in the file yet."""
    parser = options(__doc__, HERE / "wide.json", "cases", CASES, 3)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(asked.out)
    for seed in range(asked.seeds):
        for case in asked.cases or CASES:
            for model in asked.models:
                key = {"case": case, "model": model, "seed": seed}
                if results.have(**key):
                    continue
                row = key | measure(case, model, seed, results.rows)
                results.add(row)
                print(row, flush=True)


if __name__ == "__main__":
    main()
