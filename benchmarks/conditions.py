"""Columns given columns of real tables: how well rows at conditions pass for real ones, beside zuko's spline flow.

    python benchmarks/conditions.py                    torsions and dimuon, a seed
    python benchmarks/tables.py                        between the marks in benchmarks/README.md

Of torsions the side chain's angles are generated given the backbone's, of dimuon the second muon and the mass given
the first. Both train on the same 60 % of the rows with what networks see of conditions, one thread; the others judge,
by the C2ST of whole rows at their own conditions, no condition on both sides. zuko's flow (4 transforms, 16 bins,
64 x 64, Adam 1e-3, batches of 512) takes the weights that were best on a tenth that is kept back, looked at every 200
steps, and ends after five looks without a better one. `rate` is rows a second in one thread, `free` that of a bundle of
the same columns without given ones, in the same process.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from cases import Case, real
from numpy.typing import NDArray
from results import Results, options

import scgan_infer
from scgan_infer.judging.figures import paired_c2st
from scgan_train import config as configs
from scgan_train.coordinates.given import Given, divide, part, unwalled
from scgan_train.coordinates.transform import Coordinates
from scgan_train.exporting.exporter import export
from scgan_train.training.stages import train

HERE = Path(__file__).parent
GIVEN = {"torsions": ("phi", "psi"), "dimuon": ("pt1", "eta1", "phi1")}
LOOK, LOOKS, MOST = 200, 5, 8000  # steps
RATED = 500_000  # rows whose rate is measured

Floats = NDArray[np.float32]


def ours(case: Case, seed: int) -> dict[str, Any]:
    """Train the default preset with and without given columns, and judge the former."""
    given = GIVEN[case.name]
    config = configs.from_dict({"seed": seed, "given": list(given), "device": "cpu"})
    with TemporaryDirectory() as folder:
        busy = time.process_time()
        run = train(unwalled(case.known, config), config, Path(folder) / "run", case.name)
        used = time.process_time() - busy
        model: Any = scgan_infer.load(export(run, Path(folder) / "bundle"), "cpu", 1)
        free_config = configs.from_dict({"seed": seed, "device": "cpu"})
        free_run = train(case.known, free_config, Path(folder) / "free", case.name)
        free: Any = scgan_infer.load(export(free_run, Path(folder) / "unconditional"), "cpu", 1)
    rows = case.judges.values
    c = model.divided(rows)[1]
    made = model.together(model.sample(given=c, seed=seed), c)
    each = -(-RATED // len(c))
    return {
        "model": "scgan",
        "c2st": paired_c2st(rows, made, case.judges.columns),
        "processor": round(used, 1),
        "rate": round(rate(lambda: model.sample(given=c, each=each, seed=seed))),
        "free": round(rate(lambda: free.sample(len(c) * each, seed=seed))),
        "sizes": dict(model.manifest.sizes),
    }


def rate(sample: Any) -> float:
    """Return the rows a second of the second of two calls."""
    sample()
    began = time.perf_counter()
    return len(sample()) / (time.perf_counter() - began)


def spline_flow(case: Case, seed: int) -> dict[str, Any]:
    """Train zuko's neural spline flow with context on the same rows behind the same coordinates, and judge it."""
    import zuko

    made_places, given_places = divide(case.known.columns, GIVEN[case.name])
    known, asked = (part(case.known, places) for places in (made_places, given_places))
    coordinates, given = Coordinates.fit(known), Given.fit(asked)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    y = torch.from_numpy(coordinates.forward(coordinates.dequantise(known.values, rng)))
    h = torch.from_numpy(given.forward(asked.values))
    order = torch.randperm(len(y), generator=generator)
    back, used = order[: len(y) // 10], order[len(y) // 10 :]
    busy, best, stale = time.process_time(), (np.inf, {}), 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = zuko.flows.NSF(
            y.shape[1], h.shape[1], transforms=4, bins=16, hidden_features=(64, 64)
        )
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
        for step in range(MOST):
            own = used[torch.randint(len(used), (512,), generator=generator)]
            loss = -flow(h[own]).log_prob(y[own]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % LOOK == LOOK - 1:
                with torch.no_grad():
                    now = float(-flow(h[back]).log_prob(y[back]).mean())
                stale = 0 if now < best[0] else stale + 1
                best = (now, copy.deepcopy(flow.state_dict())) if now < best[0] else best
                if stale == LOOKS:
                    break
        flow.load_state_dict(best[1])
        used_seconds = time.process_time() - busy
        rows = case.judges.values
        with torch.no_grad():
            conditions = torch.from_numpy(given.forward(rows[:, given_places]))
            drawn = coordinates.inverse(flow(conditions).sample().numpy()).astype(np.float32)
    whole = rows.copy()
    whole[:, made_places] = drawn
    figure = paired_c2st(rows, whole, case.judges.columns)
    return {"model": "spline flow", "c2st": figure, "processor": round(used_seconds, 1)}


def main() -> None:
    """Measure what is not in the file yet."""
    asked = options(__doc__, HERE / "conditions.json", "sets", GIVEN, 1).parse_args()
    torch.set_num_threads(1)
    results = Results(asked.out)
    for seed in range(asked.seeds):
        for case in real(seed, asked.sets or list(GIVEN)):
            for name, fit in (("scgan", ours), ("spline flow", spline_flow)):
                if results.have(set=case.name, seed=seed, model=name):
                    continue
                row = {"set": case.name, "seed": seed, **fit(case, seed)}
                results.add(row)
                print(row, flush=True)


if __name__ == "__main__":
    main()
