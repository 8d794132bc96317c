"""The paper's Table 1 and Figures 2 and 3: four latent models on every plane, all else equal.

    cell = (maps, plane, latent model, seed)

`maps` is `default`, or `paper`: the preset of that name, the paper's own, in which the latent model
acts on reconstructions, as critics look at generations. What a cell does not change, training gives
to the same bits in each: stage 1 for all of the same maps; clusters for all but one Gaussian; under
the default maps the decoder. A finished cell is a JSON file, so any run of this can be resumed; a
cell's run folder can be exported like any other.

    DIR/cells/MAPS-PLANE-LATENTS-SEED.json, .npz     figures, rows for the pictures
    DIR/runs/MAPS-PLANE-LATENTS-SEED/                run folders
    DIR/table.csv, table.md, figure2-MAPS.png, .pdf, figure3-MAPS.png, .pdf
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scgan_infer.columns import Table
from scgan_infer.errors import ScganError, UsageError
from scgan_infer.files import write_bytes
from scgan_infer.judging.cuts import Figure
from scgan_infer.judging.figures import FIGURES, evaluate
from scgan_infer.judging.layout import formatted
from scgan_infer.names import LATENTS, Size
from scgan_infer.sampling.sessions import cores
from scgan_train import config as configs
from scgan_train.config import Config
from scgan_train.datasets import BUILT_IN_ROWS, DATASETS, fresh, table
from scgan_train.exporting.parts import Parts
from scgan_train.fitting.loop import generator_for
from scgan_train.run_folder import Run
from scgan_train.training.stages import train
from scgan_train.watch import Watch

Floats = NDArray[np.float32]

MAPS: dict[str, dict[str, Any]] = {"default": {}, "paper": configs.PRESETS["paper"]}
CUBE = (0.062, 0.023, 0.024, 0.021)
PAPER: dict[str, tuple[float, float, float, float]] = {  # its Table 1, in the order of LATENTS
    "eight_gaussians": (2.339, 0.053, 0.065, 0.016),
    "checkerboard": (0.337, 0.034, 0.015, 0.009),
    "two_spirals": (1.771, 0.058, 0.062, 0.011),
    "abs": (0.133, 0.021, 0.029, 0.019),
    "sine_wave": CUBE,
    "crescent_cubed": CUBE,
    "sinewaved_cube": CUBE,
    "four_circles": (0.031, 0.034, 0.044, 0.035),
}
JUDGED = ("c2st", "off", "missed", "sliced_wasserstein")
COMPARED = 5_000
SHOWN = 4_000

Line = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to reproduce.

    Attributes:
        out: folder of everything.
        seeds: 0 .. seeds - 1.
        preset: of the trainings.
        settings: what wins over preset and maps.
        planes: names of built-in distributions.
        rows: of each plane, training and held out of training.
        compared: generated rows compared at a time with as many real ones.
    """

    out: Path
    seeds: int = 1
    preset: Size = "standard"
    settings: Mapping[str, Any] | None = None
    planes: tuple[str, ...] = tuple(DATASETS)
    rows: int = BUILT_IN_ROWS
    compared: int = COMPARED

    def config(self, cell: Cell) -> Config:
        """Return the configuration of a cell's training."""
        overrides = {"seed": cell.seed, "latents": cell.latents, "device": "cpu"}
        layers = (configs.PRESETS[self.preset], MAPS[cell.maps], self.settings or {}, overrides)
        return configs.from_dict(configs.merge(*layers))

    def cells(self) -> list[Cell]:
        """Return all cells."""
        combinations = product(range(self.seeds), self.planes, MAPS, LATENTS)
        return [Cell(maps, plane, latents, seed) for seed, plane, maps, latents in combinations]


@dataclass(frozen=True)
class Cell:
    """One training and its figures."""

    maps: str
    plane: str
    latents: str
    seed: int

    @property
    def name(self) -> str:
        """The stem of its files."""
        return f"{self.maps}-{self.plane}-{self.latents}-{self.seed}"

    def result(self, out: Path) -> Path:
        """Return the path of its figures; it exists once the cell is finished."""
        return out / "cells" / f"{self.name}.json"


def reproduce(plan: Plan, *, jobs: int | None = None, resume: bool = False) -> list[Line]:
    """Run unfinished cells, in processes of one thread (a core each); write tables and figures.

    Returns:
        The table: for each maps, plane and latent model, medians over seeds.

    Raises:
        UsageError: the folder is taken, or was begun with other settings.
    """
    begin(plan, resume)
    todo = [cell for cell in plan.cells() if not cell.result(plan.out).exists()]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(
        max(1, min(jobs or cores(), len(todo))),
        multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        try:
            watched(plan, {pool.submit(work, plan, cell): cell for cell in todo})
        except (KeyboardInterrupt, ScganError):
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    lines = summary(plan)
    write_bytes(plan.out / "table.csv", as_csv(lines).encode())
    write_bytes(plan.out / "table.md", as_markdown(lines).encode())
    pictures(plan)
    return lines


def work(plan: Plan, cell: Cell) -> None:
    """Train and measure a cell."""
    torch.set_num_threads(1)
    rows, path = table(cell.plane, plan.rows, cell.seed), plan.out / "runs" / cell.name
    run = train(rows, plan.config(cell), path, cell.plane, resume=path.exists())
    scores, shown = measured(run, fresh(cell.plane, 2 * plan.compared, cell.seed), plan.compared)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **shown)
    write_bytes(cell.result(plan.out).with_suffix(".npz"), buffer.getvalue())
    facts = {"seconds": run.seconds, "note": run.facts["clusters"]}
    write_bytes(cell.result(plan.out), json.dumps(asdict(cell) | facts | scores, indent=1).encode())


def watched(plan: Plan, cells: Mapping[Future[None], Cell]) -> None:
    """Wait for cells and report each that is finished.

    Raises:
        ScganError: the training of a cell failed.
    """
    with Watch() as watch:
        count = len(plan.cells())
        watch.say(f"{count - len(cells)} of {count} cells are finished")
        watch.begin("reproduce", len(cells))
        for finished, future in enumerate(as_completed(cells), 1):
            future.result()
            cell = cells[future]
            result = json.loads(cell.result(plan.out).read_text("utf-8"))
            watch.say(
                f"{cell.plane}, {cell.maps} maps, {cell.latents}, seed {cell.seed}: "
                f"C2ST {result['c2st']['value']:.3f}, MSE {result['mse_raw']['value']:.2g} "
                f"({sum(result['seconds'].values()):.0f} s)"
            )
            watch.show(finished)


@torch.no_grad()
def measured(run: Run, judges: Table, n: int) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Return a run's figures on fresh rows, and latents and rows for the pictures.

    Only rows within the range of the training rows are reconstructed: others are clipped to its
    edge, and the farthest of them would dominate the error.
    """
    parts = Parts.of(run)
    (low, high), cells = parts.coordinates.ends, judges.values[:, parts.coordinates.index]
    within = judges.values[~((cells < low) | (cells > high)).any(1)]
    generator = generator_for(run.config.seed, "judged")
    latent = parts.latents.draw(3 * n, generator, torch.device("cpu")).numpy()
    z = torch.randn(3 * n, parts.sizes["q"], generator=generator).numpy()
    samples = parts.compute(
        "decoder.onnx", {"latent": latent, "z": z} if z.size else {"latent": latent}
    )["x"]
    true = parts.compute("encoder.onnx", {"x": within})["latent"]
    again = parts.compute("decoder.onnx", {"latent": true})["x"]
    figures = evaluate(
        judges.values,
        samples,
        columns=judges.columns,
        reconstructed=(within, again),
        seed=run.config.seed,
    )
    shown = {
        "true": true[:SHOWN],
        "latents": latent[:SHOWN],
        "rows": judges.values[:SHOWN],
        "samples": samples[:SHOWN],
    }
    return figures.to_dict(), shown


def summary(plan: Plan) -> list[Line]:
    """Return the cells' medians over seeds, the paper's number beside the reconstruction error."""
    lines = []
    for cell in (cell for cell in plan.cells() if cell.seed == 0):
        seeds = [replace(cell, seed=seed).result(plan.out) for seed in range(plan.seeds)]
        same = [json.loads(path.read_text("utf-8")) for path in seeds]
        line: Line = {"maps": cell.maps, "plane": cell.plane, "latents": cell.latents}
        line |= {"seeds": len(same), "mse": _median(same, "mse_raw", "value")}
        line["paper"] = PAPER[cell.plane][LATENTS.index(cell.latents)]
        for name in JUDGED:
            line[name] = _median(same, name, "value")
            line[f"{name}_floor"] = _median(same, name, "floor")
        lines.append(line)
    return sorted(lines, key=lambda line: list(MAPS).index(line["maps"]))


def _median(results: list[Line], name: str, part: str) -> float:
    return float(f"{np.median([result[name][part] for result in results]):.4g}")


def as_csv(lines: list[Line]) -> str:
    """Return the table as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_markdown(lines: list[Line]) -> str:
    """Return the table as Markdown: reconstruction as the paper lays it out, then generation."""
    parts = [
        f"Medians over {lines[0]['seeds']} seed(s). MSE is in the plane's units squared, the "
        "paper's number in brackets; the paper's "
        '"sinewaved cube" has three readings. Generation: the figure, and in brackets what real '
        "rows score in place of the generated ones.\n"
    ]
    for maps in MAPS:
        selected = [line for line in lines if line["maps"] == maps]
        parts.append(f"### {maps.capitalize()} maps\n\nReconstruction MSE\n")
        parts.append(_grid(selected, lambda line: (f"{line['mse']:.2g}", f"{line['paper']:g}")))
        for name in JUDGED:
            parts += [f"{FIGURES[name].title}\n", _grid(selected, partial(_with_floor, name))]
    return "\n".join(parts)


def _with_floor(name: str, line: Line) -> tuple[str, ...]:
    return formatted(name, Figure(line[name], line[f"{name}_floor"]))[:2]


def _grid(lines: list[Line], cell: Callable[[Line], tuple[str, ...]]) -> str:
    rows = [["plane", *LATENTS], ["---"] * (1 + len(LATENTS))]
    for plane in dict.fromkeys(line["plane"] for line in lines):
        cells = [cell(line) for line in lines if line["plane"] == plane]
        rows.append([plane, *(f"{value} ({other})" for value, other in cells)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def pictures(plan: Plan) -> None:
    """Write Figure 2, latent models against true latents, and Figure 3, generations, of seed 0."""
    from scgan_infer.judging.canvas import save
    from scgan_infer.judging.plots import planes

    for maps in MAPS:
        shown = {
            plane: {
                latents: np.load(Cell(maps, plane, latents, 0).result(plan.out).with_suffix(".npz"))
                for latents in LATENTS
            }
            for plane in plan.planes
        }
        for number, first, key in ((2, "true", "latents"), (3, "rows", "samples")):
            title = "latents" if number == 2 else "rows"
            grid = {
                plane: {f"real {title}": by_latents["real"][first]}
                | {latents: arrays[key] for latents, arrays in by_latents.items()}
                for plane, by_latents in shown.items()
            }
            figure = planes(grid, title=f"{title} of four latent models, {maps} maps")
            for suffix in ("png", "pdf"):
                save(figure, plan.out / f"figure{number}-{maps}.{suffix}")


def begin(plan: Plan, resume: bool) -> None:
    """Make the folder, or check that it is the plan's; raises as `reproduce`."""
    path = plan.out / "settings.json"
    settings = json.dumps(
        asdict(plan) | {"out": "", "seeds": 0, "maps": MAPS}, indent=1, sort_keys=True
    )
    if plan.seeds < 1:
        raise UsageError(f"seeds {plan.seeds}: at least 1 is needed")
    if plan.out.exists() and any(plan.out.iterdir()):
        if not resume:
            raise UsageError(f"{plan.out} exists; go on with resume=true, or choose another folder")
        if not path.exists() or path.read_text("utf-8") != settings:
            raise UsageError(f"{plan.out} was begun with other settings; choose another folder")
    (plan.out / "cells").mkdir(parents=True, exist_ok=True)
    write_bytes(path, settings.encode())
