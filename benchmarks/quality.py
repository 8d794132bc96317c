"""How good generated rows are, on planes, curves, real sets, and with and without critics, beside a spline flow.

    python benchmarks/quality.py planes curves real --seeds 3 --jobs 16
    python benchmarks/quality.py ablation --seeds 1
    python benchmarks/tables.py                                    between the marks in benchmarks/README.md

Ours is the default preset, sampled from the exported bundle; its seconds are those of training. The peer is
zuko's NSF (4 transforms, 16 bins, 64 x 64, 8,000 steps of 512, Adam 2e-3 one-cycle) on the same rows behind
the same coordinates, so that logarithms and cuts of circles favour neither. Figures are those of `scgan
evaluate`, against rows that neither has seen: 200,000 fresh ones of a plane, 40 % of a real set. Results go to
KIND.json in --out; what is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from cases import Case, Floats, Settings, ablation, curves, planes, real
from tables import JUDGE

import scgan_infer
from scgan_infer.files import write_bytes
from scgan_infer.judging.figures import CUTS, MOST_ROWS, evaluate
from scgan_train import config as configs
from scgan_train.coordinates.transform import Coordinates
from scgan_train.exporting.exporter import export
from scgan_train.training.stages import train

REAL_CUTS = 10  # of the few rows of a real set


@dataclass(frozen=True)
class Fitted:
    """A trained generator.

    Attributes:
        seconds: of training.
        sample: number of rows to rows, with the seconds that it took left out.
        reconstruct: rows to rows, where it can.
        facts: what else is worth keeping.
    """

    seconds: float
    sample: Callable[[int], Floats]
    reconstruct: Callable[[Floats], Floats] | None = None
    facts: Settings = field(default_factory=dict)


def ours(case: Case, seed: int, scale: float, settings: Settings) -> Fitted:
    """Train the default preset and export it; `scale` shortens it for trials."""
    config = configs.from_dict(
        configs.merge(shortened(scale), {"seed": seed}, case.settings, settings)
    )
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = train(case.known, config, Path(folder) / case.name, case.name)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        model = scgan_infer.load(export(run, Path(folder) / "bundle"), device="cpu")
        facts = {
            "stages": run.seconds,
            "export": round(time.perf_counter() - began, 2),
            "clusters": run.facts["clusters"],
            "map": run.facts.get("map", ""),
            "sizes": dict(model.manifest.sizes),
        }
    return Fitted(seconds, lambda n: model.sample(n, seed=seed), model.reconstruct, facts)


def shortened(scale: float) -> Settings:
    """Return step counts at a share of the defaults; nothing at 1, so that defaults stay what they are."""
    if scale == 1:
        return {}
    steps = {"encoder": ("steps", 500), "mapper": ("steps", 800), "decoder": ("warm_steps", 1500)}
    return {stage: {name: max(2, int(scale * n))} for stage, (name, n) in steps.items()}


def spline_flow(case: Case, seed: int, scale: float, settings: Settings) -> Fitted:
    """Train zuko's neural spline flow on the same rows behind the same coordinates."""
    import zuko

    steps, batch = max(2, int(scale * 8000)), 512
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        began = time.perf_counter()
        coordinates = Coordinates.fit(case.known)
        rng = np.random.default_rng(seed)
        y = torch.from_numpy(coordinates.forward(case.known.values, rng, jitter=True))
        generator = torch.Generator().manual_seed(seed)
        flow = zuko.flows.NSF(y.shape[1], transforms=4, bins=16, hidden_features=(64, 64))
        optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
        for _ in range(steps):
            loss = -flow().log_prob(y[torch.randint(len(y), (batch,), generator=generator)]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds = time.perf_counter() - began

    @torch.no_grad()
    def sample(n: int) -> Floats:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return coordinates.inverse(flow().sample((n,)).numpy()).astype(np.float32)

    return Fitted(seconds, sample, facts={"steps": steps})


def judged(case: Case, fitted: Fitted, seed: int, cuts: int) -> Settings:
    """Return a generator's figures and the expert's checks."""
    real, columns = case.judges.values, case.judges.columns
    began = time.perf_counter()
    made = fitted.sample(cuts * min(len(real) // 2, MOST_ROWS))
    rate = len(made) / (time.perf_counter() - began)
    figures = evaluate(
        real,
        made,
        columns=columns,
        train=case.known.values,
        reconstructed=(real, fitted.reconstruct(real)) if fitted.reconstruct else None,
        cuts=cuts,
        seed=seed,
    )
    return {
        "seconds": round(fitted.seconds, 2),
        "rows_per_second": round(rate),
        "rows": figures.rows,
        "figures": {name: figure._asdict() for name, figure in figures.overall.items()},
        "checks": case.checks(made),
        "checks_real": case.checks(real),
        "facts": fitted.facts,
    }


Model = Callable[[Case, int, float, Settings], Fitted]


@dataclass(frozen=True)
class Kind:
    """Sets, what is trained on each, and how many cuts of its rows judge it."""

    cases: Callable[[int, list[str]], Iterator[Case]]
    models: dict[str, tuple[Model, Settings]]
    cuts: int = CUTS


BOTH: dict[str, tuple[Model, Settings]] = {
    "spline flow": (spline_flow, {}),
    "scgan": (ours, {}),
}
PERCEPTRON: Settings = {"encoder": {"kind": "mlp"}}
CRITICS: dict[str, tuple[Model, Settings]] = {
    "noise by likelihood": (ours, {}),
    "noise by likelihood + critics": (ours, {"decoder": {"steps": 600}}),
    "perceptron": (ours, PERCEPTRON),
    "perceptron + noise by critics": (ours, PERCEPTRON | {"decoder": {"steps": 600}}),
    "perceptron + noise by critics without orthogonality": (
        ours,
        PERCEPTRON | {"decoder": {"steps": 600, "orthogonality": 0.0}},
    ),
}
KINDS = {  # the longest trainings first
    "real": Kind(real, BOTH, REAL_CUTS),
    "planes": Kind(planes, BOTH),
    "curves": Kind(curves, BOTH),
    "ablation": Kind(ablation, CRITICS, REAL_CUTS),
}


def measure(kinds: list[str], arguments: argparse.Namespace) -> None:
    """Train and judge what is not there yet, in processes of one thread, writing it after each."""
    only, wanted = (
        [name for name in text.split(",") if name] for text in (arguments.only, arguments.models)
    )
    scale, files, todo = arguments.scale, {}, []
    for kind in (kind for kind in KINDS if kind in kinds):
        files[kind] = opened(arguments.out / f"{kind}.json", scale, arguments.jobs)
        have = {
            tuple(row[key] for key in ("set", "model", "seed")) for row in files[kind]["results"]
        }
        todo += [
            (kind, case.name, model, seed)
            for model in KINDS[kind].models
            if not wanted or model in wanted
            for seed in range(arguments.seeds)
            for case in KINDS[kind].cases(seed, only)
            if (case.name, model, seed) not in have
        ]
    todo.sort(key=lambda task: task[2] != "spline flow")
    began = time.perf_counter()
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        tasks = {pool.submit(one, *task, scale): task[0] for task in todo}
        for done in as_completed(tasks):
            kind, row = tasks[done], done.result()
            files[kind]["results"].append(row)
            text = json.dumps(files[kind], indent=1)
            write_bytes(arguments.out / f"{kind}.json", text.encode())
            c2st = row["figures"]["c2st"]
            print(
                f"{time.perf_counter() - began:.0f} s: {row['set']}, {row['model']}, seed {row['seed']}: "
                f"C2ST {c2st['value']:.3f} (real {c2st['floor']:.3f}), {row['seconds']:.0f} s",
                flush=True,
            )


def opened(path: Path, scale: float, jobs: int) -> Settings:
    """Return what a file of results holds, or an empty one."""
    head = {"judge": JUDGE, "scale": scale, "jobs": jobs, "machine": machine(), "results": []}
    if not path.exists():
        return head
    old: Settings = json.loads(path.read_text("utf-8"))
    if (old.get("judge"), old["scale"]) != (JUDGE, scale):
        raise SystemExit(
            f"{path} was measured by judge {old.get('judge', 1)} at scale {old['scale']}, not by judge "
            f"{JUDGE} at {scale}; remove it, or choose another --out"
        )
    return old


def one(kind: str, name: str, model: str, seed: int, scale: float) -> Settings:
    """Train and judge one model on one set."""
    torch.set_num_threads(1)
    (case,) = KINDS[kind].cases(seed, [name])
    fit, settings = KINDS[kind].models[model]
    fitted = fit(case, seed, scale, settings)
    row = judged(case, fitted, seed, KINDS[kind].cuts)
    return {"set": name, "model": model, "seed": seed, **row}


def machine() -> Settings:
    """Return what the seconds were taken on."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "scgan": version("scgan"),
    }


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="+", choices=KINDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", default="", help="comma-separated sets")
    parser.add_argument("--models", default="", help="comma-separated models")
    parser.add_argument("--scale", type=float, default=1.0, help="share of all steps, for trials")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one thread each")
    arguments = parser.parse_args()
    measure(arguments.kinds, arguments)


if __name__ == "__main__":
    main()
