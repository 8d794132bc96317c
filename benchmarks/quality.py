"""How good generated rows are, on planes, on real sets, and with and without critics, beside a spline flow.

    python benchmarks/quality.py planes --seeds 3 --out benchmarks/planes.json
    python benchmarks/quality.py real --seeds 3 --out benchmarks/real.json
    python benchmarks/quality.py ablation --seeds 3 --out benchmarks/ablation.json
    python benchmarks/quality.py markdown benchmarks/*.json        between the marks in benchmarks/README.md

Ours is the default preset, sampled from the exported bundle; its seconds are those of training. The peer is
zuko's NSF (4 transforms, 16 bins, 64 x 64, 8,000 steps of 512, Adam 2e-3 one-cycle) on the same rows behind
the same column transforms, so that logarithms and cuts of circles favour neither. Figures are those of
`scgan evaluate`, against rows that neither has seen: fresh ones of a plane, 40 % of a real set. An --out that
is there already is gone on with.
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
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import scgan_infer
from scgan_infer.columns import Column, Table
from scgan_infer.evaluation import write
from scgan_infer.formats import read_table
from scgan_infer.metrics import CUTS, MOST_ROWS, evaluate
from scgan_train import config as configs
from scgan_train.datasets import fresh, table
from scgan_train.exporter import export
from scgan_train.sources import BUILT_IN_ROWS
from scgan_train.stages import train
from scgan_train.transforms import Transform

Floats = NDArray[np.float32]
Settings = dict[str, Any]

SHARED = Path(__file__).parents[2] / "shared" / "data"
README = Path(__file__).with_name("README.md")
PLANES = ("eight_gaussians", "checkerboard", "two_spirals", "abs", "sinewaved_cube", "four_circles")
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
MUON_MASS = 0.10566  # GeV
SKY = ("ra", "dec", "u", "g", "r", "i", "z")
BANDS = ((0.65, 1.13), (3.5, 3.9), (9.0, 9.7), (60.0, 120.0))  # of the invariant mass, GeV


@dataclass(frozen=True)
class Case:
    """A set cut in two, and what an expert would check.

    Attributes:
        known: rows to train on.
        judges: rows to judge by.
        checks: rows to named numbers.
    """

    name: str
    known: Table
    judges: Table
    settings: Settings = field(default_factory=dict)
    checks: Callable[[Floats], dict[str, float]] = lambda rows: {}


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
    config = configs.from_dict(configs.merge(shortened(scale), {"seed": seed}, case.settings, settings))
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
        transform = Transform.fit(case.known)
        generator = torch.Generator().manual_seed(seed)
        y = transform(transform.dequantise(torch.from_numpy(case.known.values), generator)).detach()
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
            rows: Floats = transform.inverse(flow().sample((n,))).numpy()
        return rows

    return Fitted(seconds, sample, facts={"steps": steps})


def judged(case: Case, fitted: Fitted, seed: int) -> Settings:
    """Return a generator's figures, its copies of training rows, and the expert's checks."""
    real, columns = case.judges.values, case.judges.columns
    n = min(len(real) // 2, MOST_ROWS)
    began = time.perf_counter()
    made = fitted.sample(CUTS * n)
    rate = len(made) / (time.perf_counter() - began)
    back = None if fitted.reconstruct is None else (real, fitted.reconstruct(real))
    found = evaluate(real, made, columns=columns, reconstructed=back, seed=seed).overall
    half = max(20, n // 2)
    copies = evaluate(
        real[: 2 * half], made[:half], columns=columns, train=case.known.values, seed=seed
    ).overall
    return {
        "seconds": round(fitted.seconds, 2),
        "rows_per_second": round(rate),
        "compared": n,
        "figures": {
            **{name: found[name]._asdict() for name in FIGURES if name in found},
            **{name: copies[name]._asdict() for name in COPIES},
        },
        "checks": case.checks(made),
        "checks_real": case.checks(real),
        "facts": fitted.facts,
    }


def planes(seed: int, only: list[str]) -> Iterator[Case]:
    """Yield the six planes: 50,000 rows to train on (and 5 % held out), 20,000 fresh ones to judge by."""
    for name in only or PLANES:
        yield Case(name, table(name, BUILT_IN_ROWS, seed), fresh(name, 2 * MOST_ROWS, seed))


def real(seed: int, only: list[str]) -> Iterator[Case]:
    """Yield the real sets that are there, 60 % of the rows to train on."""
    degrees = {"kind": "periodic", "period": 360.0}
    circle = {"kind": "periodic", "period": 2 * np.pi, "low": -np.pi}
    log = {"kind": "log"}
    sets: dict[str, tuple[str, dict[str, Settings], Callable[[Floats], dict[str, float]]]] = {
        "torsions": (
            "torsion_trp.csv",
            {
                "phi": degrees | {"low": -180.0},
                "psi": degrees | {"low": -180.0},
                "chi1": degrees | {"low": 0.0},
                "chi2": degrees | {"low": 0.0},
            },
            torsion_checks,
        ),
        "dimuon": (
            "cms_dimuon_10k_dev.csv",
            {
                "pt1": log,
                "eta1": {},
                "phi1": circle,
                "pt2": log,
                "eta2": {},
                "phi2": circle,
                "M": log,
            },
            dimuon_checks,
        ),
        "sdss": ("sdss_dr14_10k.csv", {name: {} for name in (*SKY, "redshift")}, sdss_checks),
    }
    for name, (file, described, checks) in sets.items():
        if (SHARED / file).exists() and name in (only or sets):
            overrides = {column: fields for column, fields in described.items() if fields}
            rows = read_table(SHARED / file, names=list(described), overrides=overrides)
            yield Case(name, *cut(rows, seed), checks=checks)


def cut(rows: Table, seed: int) -> tuple[Table, Table]:
    """Return 60 % of the rows, and the rest."""
    order = np.random.default_rng([seed, 0x60]).permutation(len(rows))
    at = int(0.6 * len(rows))
    return Table(rows.columns, rows.values[order[:at]]), Table(rows.columns, rows.values[order[at:]])


def torsion_checks(rows: Floats) -> dict[str, float]:
    """Return the share of Ramachandran outliers, and of rows in each third of chi1 (p, t, m)."""
    density = np.load(SHARED / "ramagrid_general-noGPIVpreP.npy", allow_pickle=False)
    phi, psi = (np.floor((rows[:, j] + 180) % 360 / 2).astype(int) % 180 for j in (0, 1))
    thirds = np.bincount((rows[:, 2] % 360 // 120).astype(int), minlength=3) / len(rows)
    shares = {f"chi1 {name}": float(share) for name, share in zip("ptm", thirds, strict=True)}
    return {"outliers": float(np.mean(density[phi, psi] < 5e-4)), **shares}


def dimuon_checks(rows: Floats) -> dict[str, float]:
    """Return shares of masses outside the bands, given and computed, and how far the two are apart."""
    pt1, eta1, phi1, pt2, eta2, phi2, mass = rows.astype(np.float64).T
    energy = sum(np.sqrt((pt * np.cosh(eta)) ** 2 + MUON_MASS**2) for pt, eta in ((pt1, eta1), (pt2, eta2)))
    px = pt1 * np.cos(phi1) + pt2 * np.cos(phi2)
    py = pt1 * np.sin(phi1) + pt2 * np.sin(phi2)
    pz = pt1 * np.sinh(eta1) + pt2 * np.sinh(eta2)
    computed = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))

    def outside(values: NDArray[np.float64]) -> float:
        return float(1 - np.mean(np.any([(low <= values) & (values <= high) for low, high in BANDS], axis=0)))

    low, high = BANDS[2]
    return {
        "M outside": outside(mass),
        "computed M outside": outside(computed),
        "mass error": float(np.median(np.abs(computed - mass) / mass)),
        "third band": float(np.mean((low <= mass) & (mass <= high))),
    }


def sdss_checks(rows: Floats) -> dict[str, float]:
    """Return shares of stars, quasars and negative redshifts, by redshift, and of rows beyond the end of u."""
    u, redshift = rows[:, SKY.index("u")], rows[:, -1]
    return {
        "stars": float(np.mean(np.abs(redshift) < 0.002)),
        "quasars": float(np.mean(redshift > 0.5)),
        "z < -0.01": float(np.mean(redshift < -0.01)),
        "u > 19.6": float(np.mean(u > np.float32(19.6))),
    }


def ablation(seed: int, only: list[str]) -> Iterator[Case]:
    """Yield sets whose latent has fewer dimensions than the data: digits at 16, dimuon at 5."""
    from sklearn.datasets import load_digits

    if not only or "digits" in only:
        values = load_digits().data.astype(np.float32)
        columns = tuple(Column(f"p{j:02}", "integer") for j in range(values.shape[1]))
        yield Case("digits", *cut(Table(columns, values), seed), settings={"encoder": {"latent_dim": 16}})
    for case in real(seed, ["dimuon"]):
        if not only or case.name in only:
            yield replace(case, settings={"encoder": {"latent_dim": 5}})


Model = Callable[[Case, int, float, Settings], Fitted]
KINDS: dict[str, tuple[Callable[[int, list[str]], Iterator[Case]], dict[str, tuple[Model, Settings]]]] = {
    "planes": (planes, {"scgan": (ours, {}), "spline flow": (spline_flow, {})}),
    "real": (real, {"scgan": (ours, {}), "spline flow": (spline_flow, {})}),
    "ablation": (
        ablation,
        {
            "neither": (ours, {"decoder": {"steps": 0}}),
            "critic on reconstructions": (ours, {"decoder": {"steps": 1200, "lambda_x": 0.0}}),
            "both critics and noise": (ours, {"decoder": {"steps": 1200}}),
        },
    ),
}


def measure(
    kind: str, seeds: int, out: Path, scale: float, only: list[str], wanted: list[str], jobs: int
) -> None:
    """Train and judge what is not in `out` yet, in processes of one thread, writing it after each."""
    head = {"kind": kind, "scale": scale, "jobs": jobs, "machine": machine()}
    results: list[Settings] = []
    if out.exists():
        old = json.loads(out.read_text("utf-8"))
        if (old["kind"], old["scale"]) != (kind, scale):
            raise SystemExit(f"{out} holds {old['kind']} at scale {old['scale']}; choose another --out")
        results = old["results"]
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
        for done in as_completed([pool.submit(one, kind, *task, scale) for task in todo]):
            results.append(done.result())
            write(out, json.dumps(head | {"results": results}, indent=1))
            last = results[-1]
            c2st = last["figures"]["c2st"]
            print(
                f"{last['set']}, {last['model']}, seed {last['seed']}: C2ST {c2st['value']:.3f} "
                f"(real {c2st['floor']:.3f}), {last['seconds']:.0f} s",
                flush=True,
            )


def one(kind: str, name: str, model: str, seed: int, scale: float) -> Settings:
    """Train and judge one model on one set."""
    torch.set_num_threads(1)
    cases, models = KINDS[kind]
    (case,) = cases(seed, [name])
    fit, settings = models[model]
    return {"set": name, "model": model, "seed": seed, **judged(case, fit(case, seed, scale, settings), seed)}


TITLES = {
    "planes": "Planes: fresh rows",
    "real": "Real sets: the 40 % of the rows that were not trained on",
    "ablation": "What the critics and the decoder's noise add where the latent has fewer dimensions than the data",
}
HEADS: dict[str, tuple[str, str]] = {
    "c2st": ("C2ST", ".3f"),
    "off": ("off", ".2%"),
    "missed": ("missed", ".2%"),
    "sliced_wasserstein": ("sliced W2", ".3f"),
    "mse_raw": ("MSE", ".1e"),
    "reconstruction_c2st": ("C2ST of reconstructions", ".3f"),
    "nearest_ratio": ("nearest row, ratio", ".2f"),
    "nearest_close": ("near-copies", ".2%"),
}
MARKS = ("<!-- quality.py begins -->", "<!-- quality.py ends -->")


def lay_out(files: list[Path]) -> None:
    """Write tables of results between the marks in README.md, or at its end."""
    found = [json.loads(file.read_text("utf-8")) for file in files]
    parts = [
        section(result, file)
        for file, result in zip(files, found, strict=True)
        if result.get("kind") in TITLES
    ]
    body = "\n".join([MARKS[0], *parts, MARKS[1]]) + "\n"
    old = README.read_text("utf-8") if README.exists() else "# Benchmarks\n\n"
    before, begins, rest = old.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2].removeprefix("\n") if begins else ""
    write(README, before.rstrip("\n") + "\n\n" + body + after)


def section(result: Settings, file: Path) -> str:
    """Return a table a set, or one of all planes: medians over seeds, the largest in brackets, and real rows."""
    rows = result["results"]
    kind, sets = result["kind"], list(dict.fromkeys(row["set"] for row in rows))
    of = {name: len({row["seed"] for row in rows if row["set"] == name}) for name in sets}
    seeds = min(of.values())
    more = "".join(f"; {name}: {count}" for name, count in of.items() if count > seeds)
    groups = [sets] if kind == "planes" else [[name] for name in sets]
    where = f"{result['machine']['cores']} cores, torch {result['machine']['torch']}"
    trial = "" if result["scale"] == 1 else f" **A trial at {result['scale']:g} of all steps.**"
    return "\n".join(
        [
            f"### {TITLES[kind]}\n",
            f"`python benchmarks/quality.py {kind} --seeds {seeds}` wrote `{file.name}` "
            f"({where}; {result['jobs']} training(s) at a time, of one thread each). "
            f'Medians over {seeds} seed(s){more}, in brackets the largest. "Real rows" is what other real rows score '
            f"in place of generated ones.{trial}\n",
            *(grid(rows, group) for group in groups),
        ]
    )


def grid(rows: list[Settings], sets: list[str]) -> str:
    """Return the table of these sets."""
    rows = [row for row in rows if row["set"] in sets]
    checks = list(dict.fromkeys(name for row in rows for name in row["checks"]))
    shown = [name for name in HEADS if any(name in row["figures"] for row in rows)]
    head = ["set", "model", *(HEADS[name][0] for name in shown), *checks, "training s"]
    lines = [head, ["---"] * len(head)]

    def line(name: str, model: str, own: list[Settings], part: str, tests: str, seconds: list[float]) -> None:
        figures = ([row["figures"].get(key, {}).get(part) for row in own] for key in shown)
        found = ([row[tests].get(check) for row in own] for check in checks)
        lines.append(
            [name, model]
            + [cell(values, HEADS[key][1]) for key, values in zip(shown, figures, strict=True)]
            + [cell(values, ".2g") for values in found]
            + [cell(seconds, ".0f")]
        )

    for name in sets:
        own = [row for row in rows if row["set"] == name]
        line(name, "real rows", own, "floor", "checks_real", [])
        for model in dict.fromkeys(row["model"] for row in own):
            same = [row for row in own if row["model"] == model]
            line(name, model, same, "value", "checks", [row["seconds"] for row in same])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def cell(values: list[float | None], shape: str) -> str:
    """Print a median, and the largest value where there are several."""
    numbers = list(dict.fromkeys(value for value in values if value is not None))
    if not numbers:
        return ""
    most = f" ({max(numbers):{shape}})" if len(numbers) > 1 else ""
    return f"{np.median(numbers):{shape}}{most}"


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
    parser.add_argument("--scale", type=float, default=1.0, help="share of all step counts, for trials")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one thread each")
    given = parser.parse_args()
    if given.kind == "markdown":
        lay_out(given.files)
        return
    out = given.out or Path(__file__).with_name(f"{given.kind}.json")
    only, wanted = ([name for name in text.split(",") if name] for text in (given.only, given.models))
    measure(given.kind, given.seeds, out, given.scale, only, wanted, given.jobs)


if __name__ == "__main__":
    main()
