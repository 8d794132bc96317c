"""How good generated rows are, on planes, on real sets, and with and without critics, beside a spline flow.

    python benchmarks/quality.py planes --seeds 3 --out benchmarks/planes.json
    python benchmarks/quality.py real --only torsions --seeds 12 --cuts 40 --out benchmarks/torsions.json
    python benchmarks/quality.py real --only dimuon,sdss --seeds 3 --out benchmarks/real.json
    python benchmarks/quality.py ablation --seeds 3 --out benchmarks/ablation.json
    python benchmarks/quality.py markdown benchmarks/*.json        between the marks in benchmarks/README.md

Ours is the default preset, sampled from the exported bundle; its seconds are those of training. The peer is
zuko's NSF (4 transforms, 16 bins, 64 x 64, 8,000 steps of 512, Adam 2e-3 one-cycle) on the same rows behind
the same column transforms, so that logarithms and cuts of circles favour neither. Figures are those of
`scgan evaluate`, against rows that neither has seen: fresh ones of a plane, 40 % of a real set. Its C2ST is a mean
over three cuts of these, which leaves about .005 of noise in torsions, 40 --cuts .0013. An --out that is there already
is gone on with.
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
from cases import Case, Floats, Settings, ablation, planes, real
from tables import lay_out

import scgan_infer
from scgan_infer.files import write_bytes
from scgan_infer.judging.distances import Space, c2st
from scgan_infer.judging.figures import CUTS, MOST_ROWS, Figure, evaluate
from scgan_train import config as configs
from scgan_train.coordinates import Coordinates
from scgan_train.exporting.exporter import export
from scgan_train.training.stages import train

FIGURES = (
    "c2st",
    "off",
    "missed",
    "sliced_wasserstein",
    "wasserstein",
    "mse",
    "mse_raw",
    "reconstruction_c2st",
)
COPIES = ("nearest_ratio", "nearest_close")


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
    base = configs.Config()
    return {
        "encoder": {"steps": max(2, int(scale * base.encoder.steps))},
        "mapper": {"steps": max(2, int(scale * 800))},
        "decoder": {"warm_steps": max(2, int(scale * base.decoder.warm_steps))},
    }


def spline_flow(case: Case, seed: int, scale: float, settings: Settings) -> Fitted:
    """Train zuko's neural spline flow on the same rows behind the same transform."""
    import zuko

    steps, batch = max(2, int(scale * 8000)), 512
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        began = time.perf_counter()
        coordinates = Coordinates.fit(case.known)
        generator = torch.Generator().manual_seed(seed)
        rows = coordinates.dequantise(case.known.values, np.random.default_rng(seed))
        y = torch.from_numpy(coordinates.forward(rows))
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
            return coordinates.inverse(flow().sample((n,)).numpy())

    return Fitted(seconds, sample, facts={"steps": steps})


def judged(case: Case, fitted: Fitted, seed: int, cuts: int) -> Settings:
    """Return a generator's figures, its copies of training rows, and the expert's checks."""
    real, columns = case.judges.values, case.judges.columns
    n = min(len(real) // 2, MOST_ROWS)
    began = time.perf_counter()
    made = fitted.sample(cuts * n)
    rate = len(made) / (time.perf_counter() - began)
    back = None if fitted.reconstruct is None else (real, fitted.reconstruct(real))
    found = evaluate(real, made, columns=columns, reconstructed=back, seed=seed).overall
    if cuts > CUTS:
        found = found | {"c2st": finely(case, made, n, seed, cuts)}
    half = max(20, n // 2)
    copies = evaluate(
        real[: 2 * half], made[:half], columns=columns, train=case.known.values, seed=seed
    ).overall
    return {
        "seconds": round(fitted.seconds, 2),
        "rows_per_second": round(rate),
        "compared": n,
        "cuts": cuts,
        "figures": {
            **{name: found[name]._asdict() for name in FIGURES if name in found},
            **{name: copies[name]._asdict() for name in COPIES},
        },
        "checks": case.checks(made),
        "checks_real": case.checks(real),
        "facts": fitted.facts,
    }


def finely(case: Case, made: Floats, n: int, seed: int, cuts: int) -> Figure:
    """Return the C2ST of `evaluate` as a mean over more cuts of the real rows, each beside n rows of its own."""
    space = Space.fit(case.judges.values.astype(np.float64), case.judges.columns)
    real, fake = (space.place(rows.astype(np.float64)) for rows in (case.judges.values, made))
    rng = np.random.default_rng([seed, 0xF1E])
    areas = []
    for cut in range(cuts):
        order = rng.permutation(len(real))
        first, other = real[order[:n]], real[order[-n:]]
        areas.append((c2st(fake[cut * n : (cut + 1) * n], first, cut), c2st(other, first, cut)))
    return Figure(*np.mean(areas, axis=0).tolist())


Model = Callable[[Case, int, float, Settings], Fitted]
KINDS: dict[
    str, tuple[Callable[[int, list[str]], Iterator[Case]], dict[str, tuple[Model, Settings]]]
] = {
    "planes": (planes, {"scgan": (ours, {}), "spline flow": (spline_flow, {})}),
    "real": (real, {"scgan": (ours, {}), "spline flow": (spline_flow, {})}),
    "ablation": (
        ablation,
        {
            "neither": (ours, {"clusters": {"fits": 1}, "decoder": {"steps": 0}}),
            "critic on reconstructions": (
                ours,
                {"clusters": {"fits": 1}, "decoder": {"steps": 1200, "lambda_x": 0.0}},
            ),
            "both critics and noise": (ours, {"clusters": {"fits": 1}, "decoder": {"steps": 1200}}),
        },
    ),
}


def measure(
    kind: str,
    seeds: int,
    out: Path,
    scale: float,
    only: list[str],
    wanted: list[str],
    jobs: int,
    cuts: int,
) -> None:
    """Train and judge what is not in `out` yet, in processes of one thread, writing it after each."""
    head = {"kind": kind, "scale": scale, "jobs": jobs, "machine": machine()}
    results: list[Settings] = []
    if out.exists():
        old = json.loads(out.read_text("utf-8"))
        if (old["kind"], old["scale"]) != (kind, scale):
            raise SystemExit(
                f"{out} holds {old['kind']} at scale {old['scale']}; choose another --out"
            )
        results = old["results"]
        if any(result.get("cuts", CUTS) != cuts for result in results):
            raise SystemExit(f"{out} was judged by other --cuts than {cuts}; choose another --out")
    have = {(result["set"], result["model"], result["seed"]) for result in results}
    cases, models = KINDS[kind]
    todo = [
        (case.name, model, seed)
        for seed in range(seeds)
        for case in cases(seed, only)
        for model in wanted or models
        if (case.name, model, seed) not in have
    ]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(one, kind, *task, scale, cuts) for task in todo]):
            results.append(done.result())
            write_bytes(out, json.dumps(head | {"results": results}, indent=1).encode())
            last = results[-1]
            c2st = last["figures"]["c2st"]
            print(
                f"{last['set']}, {last['model']}, seed {last['seed']}: C2ST {c2st['value']:.3f} "
                f"(real {c2st['floor']:.3f}), {last['seconds']:.0f} s",
                flush=True,
            )


def one(kind: str, name: str, model: str, seed: int, scale: float, cuts: int) -> Settings:
    """Train and judge one model on one set."""
    torch.set_num_threads(1)
    cases, models = KINDS[kind]
    (case,) = cases(seed, [name])
    fit, settings = models[model]
    fitted = fit(case, seed, scale, settings)
    return {"set": name, "model": model, "seed": seed, **judged(case, fitted, seed, cuts)}


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
    parser.add_argument("kind", choices=[*KINDS, "markdown"])
    parser.add_argument("files", nargs="*", type=Path, help="results to lay out, for markdown")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="comma-separated sets")
    parser.add_argument("--models", default="", help="comma-separated models")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of all step counts, for trials"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one thread each")
    parser.add_argument(
        "--cuts", type=int, default=CUTS, help="of the real rows, that the C2ST is a mean over"
    )
    given = parser.parse_args()
    if given.cuts < CUTS:
        parser.error(f"--cuts {given.cuts}: {CUTS} or more are needed")
    if given.kind == "markdown":
        lay_out(given.files)
        return
    out = given.out or Path(__file__).with_name(f"{given.kind}.json")
    only, wanted = (
        [name for name in text.split(",") if name] for text in (given.only, given.models)
    )
    measure(given.kind, given.seeds, out, given.scale, only, wanted, given.jobs, given.cuts)


if __name__ == "__main__":
    main()
