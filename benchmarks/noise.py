"""What the decoder's noise restores where the latent has fewer dimensions than the rows.

    python benchmarks/noise.py                      all sets, three seeds: an hour on one core
    python benchmarks/noise.py dimuon --seeds 1     one set, one seed
    python benchmarks/tables.py                     between the marks in benchmarks/README.md

`pieces` is 64 columns of `scale.py` (20,000 rows) with 16 latents, `dimuon` seven columns (60 % of the rows) with 5;
`critics` has 600 steps of critics after the likelihood. Each is the default preset otherwise, one thread. The trained
networks generate twice from the same latents, with noise z and with z = 0, and C2ST is that of `scgan evaluate` against
rows not trained on. `restored` has, for each coordinate of those rows, the standard deviation of what noise adds to
reconstructions over that of what reconstructions lose; those that lose less than a hundredth of their spread have none.
Seconds are of processor time.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from cases import Case, ablation
from results import Results, options
from scale import JUDGES, pieces

from scgan_infer.judging.figures import evaluate
from scgan_train import config as configs
from scgan_train import datasets
from scgan_train.exporting.parts import Parts
from scgan_train.fitting.loop import generator_for
from scgan_train.training.stages import train

HERE = Path(__file__).parent
SETS: dict[str, dict[str, Any]] = {
    "pieces": {"encoder": {"latent_dim": 16}},
    "pieces, critics": {"encoder": {"latent_dim": 16}, "decoder": {"steps": 600}},
    "dimuon": {"encoder": {"latent_dim": 5}},
    "dimuon, critics": {"encoder": {"latent_dim": 5}, "decoder": {"steps": 600}},
}
ROWS, COLUMNS = 20_000, 64
LEAST = 0.01  # of a coordinate's spread that reconstructions lose


def case_of(name: str, seed: int) -> Case:
    """Return rows to train on and rows to judge by."""
    if not name.startswith("pieces"):
        return next(ablation(seed, ["dimuon"]))
    rows = (pieces(ROWS, COLUMNS, 1 + seed), pieces(JUDGES, COLUMNS, 0))
    known, judges = (datasets.load(part, configs.from_dict({"device": "cpu"}))[1] for part in rows)
    return Case(name, known, judges)


def measure(name: str, seed: int) -> dict[str, Any]:
    """Train on a set and judge what noise restores."""
    case = case_of(name, seed)
    config = configs.from_dict(SETS[name] | {"seed": seed, "device": "cpu"})
    with TemporaryDirectory() as folder:
        busy = time.process_time()
        run = train(case.known, config, Path(folder) / "run", name)
        used = time.process_time() - busy
        parts = Parts.of(run)
    rows, generator = case.judges.values, generator_for(seed, "noise")
    inputs = parts.inputs(3 * len(rows) // 2, generator)
    found = {}
    for key, z in (("noise", inputs["z"]), ("without", np.zeros_like(inputs["z"]))):
        made = parts.compute("generator.onnx", inputs | {"z": z})["x"]
        figures = evaluate(rows, made, columns=case.judges.columns, seed=seed).overall
        found[key] = figures["c2st"]._asdict()
    return {
        **found,
        "restored": restored(parts, rows, generator),
        "width": parts.decode.width,
        "sizes": parts.sizes,
        "processor": round(used, 1),
        "stages": run.seconds,
    }


@torch.no_grad()
def restored(parts: Parts, rows: np.ndarray, generator: torch.Generator) -> list[float]:
    """Return what share of the lost spread noise restores, for each coordinate that loses some of it."""
    y = torch.from_numpy(parts.coordinates.forward(rows))
    latent = parts.encoder(y)
    z = torch.randn(len(y), parts.decode.noise, generator=generator)
    still = parts.decode(latent)
    lost, added = (y - still).std(0), (parts.decode(latent, z) - still).std(0)
    return [round(float(share), 4) for share in (added / lost)[lost > LEAST * y.std(0)]]


def main() -> None:
    """Measure what is not in the file yet."""
    asked = options(__doc__, HERE / "noise.json", "sets", SETS, 3).parse_args()
    torch.set_num_threads(1)
    results = Results(asked.out)
    for seed in range(asked.seeds):
        for name in asked.sets or SETS:
            if not results.have(set=name, seed=seed):
                row = {"set": name, "seed": seed, **measure(name, seed)}
                results.add(row)
                print(row, flush=True)


if __name__ == "__main__":
    main()
