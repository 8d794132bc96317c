"""From a run to a bundle: graphs, checked against the trained networks, then the folder.

A graph is exported only if onnxruntime computes the same numbers from it as the networks do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch

from scgan_infer import bundle
from scgan_infer.bundle import FORMAT, Manifest
from scgan_infer.bundle.interfaces import interfaces
from scgan_infer.bundle.manifest import GivenColumn, Outcomes
from scgan_infer.bundle.rules import check
from scgan_infer.columns import Column
from scgan_infer.errors import ModelError, ParityError
from scgan_infer.sampling.sessions import session
from scgan_infer.sampling.verify import FLIPS, TOLERANCE, differences
from scgan_infer.text import visible
from scgan_train.config import Config
from scgan_train.exporting.card import card
from scgan_train.exporting.parts import Array, Arrays, Parts
from scgan_train.fitting.guards import quality_warnings, share_warnings
from scgan_train.fitting.loop import generator_for
from scgan_train.graph import model
from scgan_train.run_folder import Run

BATCHES = (1, 2, 7, 4096)
BETWEEN = 0.618  # interpolation weight: halfway between numbers on a grid, rounding is ambiguous
DENSITY = "density.onnx"
THINNED = 8  # the density is checked on every so many rows: it inverts every cluster's map
# a graph may differ by so many times the network's rounding error, which steep maps magnify
ROUNDING = 4
STORED = 8  # rows in the manifest for `scgan verify`


def export(run: Run, path: Path) -> Path:
    """Write a finished run as a bundle; an older bundle there is replaced.

    Raises:
        ModelError: the run is not finished or is damaged.
        ParityError: a graph differs from its network; nothing is written.
        DataError: the folder can't be written.
    """
    if not run.finished("figures"):
        raise ModelError(
            f"{run.path} is not finished; go on: scgan train --resume --out {quote(str(run.path))}"
        )
    from scgan_infer.judging.plots import preview

    parts, rows = Parts.of(run), run.load_held_out()
    graphs = {name: model(inputs, outputs) for name, inputs, outputs in parts.graphs()}
    flaw = parts.flaw
    if DENSITY in graphs:
        try:
            check(DENSITY, graphs[DENSITY], interfaces(FORMAT, parts.sizes)[DENSITY])
        except ModelError as error:  # a graph with too many clusters for readers
            flaw = str(error)
            del graphs[DENSITY]
    errors = parities(parts, graphs, rows, generator_for(run.config.seed, "parity"))
    feeds: Arrays = {"seed": np.zeros(1, np.int64), "index": np.arange(len(rows), dtype=np.int64)}
    feeds |= {name: value for name, value in parts.divided(rows).items() if name == "c"}
    generated = session(graphs["sampler.onnx"], "cpu").run(None, feeds)[0]
    whole = parts.together(generated, feeds.get("c"))
    stored = {name: value[:STORED] for name, value in (*feeds.items(), ("x", generated))}
    manifest = _manifest(run, parts, errors, stored, share_warnings(parts.outcomes(rows, whole)))
    if flaw:
        manifest.provenance["no_density"] = flaw
    extras = {
        "preview.png": preview(rows, whole, run.columns, run.path.name),
        "card.md": card(manifest).encode(),
    }
    return bundle.save(path, manifest, graphs, extras)


def _manifest(
    run: Run, parts: Parts, errors: dict[str, float], stored: Arrays, warnings: list[str]
) -> Manifest:
    """Return the manifest: `errors` of parity, `stored` rows and their inputs, share `warnings`."""
    figures = run.facts["figures"]
    notes = [*run.facts.get("notes", []), *quality_warnings(figures), *warnings]
    learned = {one.column for one in parts.coordinates.constraints if one.learned}
    return Manifest(
        name=run.path.name,
        columns=parts.columns,
        sizes=parts.sizes,
        latents=run.config.latents,
        mapper=run.facts.get("map", ""),
        thresholds=tuple(parts.latents.thresholds.tolist()),
        steps=tuple(
            Outcomes(step.column, tuple(_listed(step.values)), step.rest, step.column in learned)
            for step in parts.coordinates.steps
        ),
        provenance=_provenance(run),
        metrics={**figures, "notes": notes} if notes else figures,
        parity={
            "errors": errors,
            "seed": 0,
            "index": stored["index"].tolist(),
            **{key: [_listed(row) for row in stored[key]] for key in ("x", "c") if key in stored},
        },
        given=_given(run),
    )


def _listed(values: Array) -> list[float | None]:
    """Return numbers as JSON has them, None for a missing cell."""
    return [None if np.isnan(value) else float(value) for value in values]


def _given(run: Run) -> tuple[GivenColumn, ...]:
    """Return the given columns of the manifest."""
    columns, loaded = [], run.load_given()
    for k, index in enumerate(run.given):
        assert loaded is not None
        column = run.columns[index]
        low, high = (None, None) if column.rules.named else loaded.seen[:, k].tolist()
        columns.append(GivenColumn(column, index, low, high))
    return tuple(columns)


def _provenance(run: Run) -> dict[str, Any]:
    return {
        "scgan": version("scgan"),
        "torch": str(torch.__version__),
        "source": visible(Path(run.source).name),
        "rows": run.facts["rows"],
        "sha256": run.facts["sha256"],
        "clusters": run.facts["clusters"],
        "decoder_width": run.facts["width"],
        "config": noted(run.config),
    }


def parities(
    parts: Parts, graphs: Mapping[str, bytes], rows: Array, generator: torch.Generator
) -> dict[str, float]:
    """Return each graph's largest difference from its network; raises as `parity`."""
    inputs, errors = _inputs(parts, rows, generator), {}
    for name, (takes, gives) in interfaces(FORMAT, parts.sizes).items():
        if name in graphs and name != "sampler.onnx":
            thinned = slice(None, None, THINNED if name == DENSITY else None)
            feeds = {key: inputs[key][thinned] for key in takes}
            columns = parts.columns if "x" in gives else ()
            compute = partial(parts.compute, name)
            errors[name] = parity(name, compute, graphs[name], feeds, columns, parts.looked_up)
    return errors


def parity(
    name: str,
    compute: Callable[[Arrays], Arrays],
    graph: bytes,
    inputs: Arrays,
    columns: tuple[Column, ...] = (),
    chained: bool = False,
) -> float:
    """Return the largest difference of a graph from its network, in the outputs' spreads.

    Clusters may differ in one row of a thousand, where rounding breaks a tie.

    Args:
        name: the graph's file name.
        compute: the network, in the precision of its inputs.
        graph: its bytes.
        inputs: 4096 rows of each input.
        columns: those of the output, if it is rows.
        chained: whether there are discrete values, of which one in a thousand may be another.

    Raises:
        ModelError: the network gives numbers that are not finite.
        ParityError: a difference exceeds `TOLERANCE` and `ROUNDING` times the difference of the
            network from itself in double precision.
    """
    wanted, worst = compute(inputs), 0.0
    if not all(_sound(ours, columns) for ours in wanted.values() if ours.ndim > 1):
        raise ModelError(f"{name}: the trained network gives infinite numbers; train again")
    run = session(graph, "cpu").run
    for batch in BATCHES:
        outputs = run(None, {key: value[-batch:] for key, value in inputs.items()})
        for (output, ours), theirs in zip(wanted.items(), outputs, strict=True):
            spread = np.ones(()) if ours.ndim == 1 else np.nanstd(ours, 0)
            error = difference(ours[-batch:], theirs, columns, spread, chained)
            if not error <= TOLERANCE:
                wide = {
                    key: value if value.dtype.kind == "i" else value.astype(np.float64)
                    for key, value in inputs.items()
                }
                exact = compute(wide)[output]
                if not error <= ROUNDING * difference(exact, ours, columns, spread, chained):
                    raise ParityError(
                        f"{name}, batch {batch}: {output} differs from torch by {error:.2g} of "
                        f"its spread (at most {TOLERANCE:g} is allowed); nothing was written; "
                        "train again with another seed and report it"
                    )
            worst = max(worst, error)
    return float(f"{worst:.3g}")


def difference(
    ours: Array, theirs: Array, columns: tuple[Column, ...], spread: Array, chained: bool = False
) -> float:
    """Return the largest difference of two outputs, [n] or [n, d], in spreads [d].

    Those of log-densities [n] are relative to one more than their size.

    >>> difference(np.zeros((4, 1)), np.zeros((4, 1)), (), np.ones(1))
    0.0
    """
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.dtype.kind == "i":
        return 0.0 if (ours != theirs).mean() <= FLIPS else 1.0
    if ours.ndim == 1:  # log-densities, of which some are not finite
        with np.errstate(invalid="ignore"):
            gap = np.nan_to_num(np.abs(ours - theirs) / (1 + np.abs(ours)), nan=np.inf)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        return float(np.where(same, 0, gap).max())
    if not _sound(theirs, columns):
        return float("inf")
    columns = columns or (Column("latent"),) * ours.shape[1]
    return float(differences(ours, theirs, columns, spread, chained).max())


def _sound(values: Array, columns: tuple[Column, ...]) -> bool:
    """Return whether outputs are finite, or NaN in a column that may have missing cells."""
    may_miss = np.array([column.missing for column in columns] or False)
    return bool((np.isfinite(values) | (np.isnan(values) & may_miss)).all())


def _inputs(parts: Parts, rows: Array, generator: torch.Generator) -> Arrays:
    """Return 4096 rows of every graph input: half real, half random or between two real ones."""
    n = max(BATCHES)
    divided = parts.divided(rows[np.arange(n // 2) % len(rows)])
    real, given = divided["x"], divided.get("c")
    shuffled = torch.randperm(len(real), generator=generator).numpy()
    y, choice = parts.coordinates.forward(real), parts.coordinates.choose(real)
    encoded = parts.compute("encoder.onnx", divided)
    latents = encoded["latent"]
    mixed = latents + np.float32(BETWEEN) * (latents[shuffled] - latents)
    return {
        "x": np.concatenate([real, parts.coordinates.inverse(y[shuffled], choice[shuffled])]),
        "latent": np.concatenate([latents, mixed]),
        "choice": np.concatenate([encoded["choice"], encoded["choice"][shuffled]]),
        **parts.inputs(n, generator),
        **({} if given is None else {"c": np.concatenate([given, given[shuffled]])}),
    }


def noted(config: Config) -> dict[str, Any]:
    """Return the settings for a manifest, in JSON's types: given columns only if there are any."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    if not config.given:
        del settings["given"]
    return settings
