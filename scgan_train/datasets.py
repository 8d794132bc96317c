"""Where rows come from: files, memory and eight planes, functions of n rows and a generator.

    N is standard normal, U uniform on [0, 1), B a fair coin, every letter drawn anew

    eight_gaussians  (4 (cos a, sin a) + 0.5 N2) / sqrt 2, a = pi/8 + k pi/4, k uniform in 0..7
    checkerboard     2 (x, U - 2 B + floor(x) mod 2), x = 4 U - 2
    two_spirals      +-(-t cos t + U/2, t sin t + U/2) / 3 + 0.1 N2, t = 3 pi sqrt U
    abs              (x, |x| - 1 + e^-1.5 N), x = N
    sine_wave        (x, sin 5x + e^-1 N), x = N
    crescent_cubed   (0.2 t^3 + N, t), t = N
    sinewaved_cube   (x, 0.2 x^3 + sin 5x + e^-1 N), x = N
    four_circles     2 (cos a, sin a) + 0.1 N2 - (+-1, +-1), a uniform on the circle

The scale is that of the toy data of Durkan et al., "Neural spline flows", and Nielsen et al.,
"SurVAE flows". The paper names a "Sinewaved cube" and defines it nowhere: sine_wave,
crescent_cubed and sinewaved_cube are its three readings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scgan_infer.arguments import whole
from scgan_infer.columns import Column, Table, grown
from scgan_infer.errors import DataError, UsageError
from scgan_infer.rows.formats import read_table

if TYPE_CHECKING:
    from scgan_infer.judging.evaluation import Subject
    from scgan_infer.sampling.model import Model
    from scgan_train.config import Config

Plane = NDArray[np.float64]

SEED_TAG = 0x5C6A  # separates the data's random stream from others of the same seed
SEEDS = 2**63  # of trainings
BUILT_IN_ROWS = 52_632  # 5 % are held out, so 50,000 train


def _eight_gaussians(n: int, rng: Generator) -> Plane:
    angle = np.pi / 8 + np.pi / 4 * rng.integers(8, size=n).astype(np.float64)
    return (4 * _circle(angle) + 0.5 * rng.standard_normal((n, 2))) / 2**0.5


def _checkerboard(n: int, rng: Generator) -> Plane:
    x = 4 * rng.random(n) - 2
    y = rng.random(n) - 2 * rng.integers(2, size=n) + np.floor(x) % 2
    return 2 * np.column_stack([x, y])


def _two_spirals(n: int, rng: Generator) -> Plane:
    t = 3 * np.pi * np.sqrt(rng.random(n))
    arm = np.column_stack([-t * np.cos(t), t * np.sin(t)]) + rng.random((n, 2)) / 2
    return _signs((n, 1), rng) * arm / 3 + 0.1 * rng.standard_normal((n, 2))


def _abs(n: int, rng: Generator) -> Plane:
    x = rng.standard_normal(n)
    return np.column_stack([x, np.abs(x) - 1 + np.exp(-1.5) * rng.standard_normal(n)])


def _sine_wave(n: int, rng: Generator) -> Plane:
    x = rng.standard_normal(n)
    return np.column_stack([x, np.sin(5 * x) + np.exp(-1) * rng.standard_normal(n)])


def _crescent_cubed(n: int, rng: Generator) -> Plane:
    t = rng.standard_normal(n)
    return np.column_stack([0.2 * t**3 + rng.standard_normal(n), t])


def _sinewaved_cube(n: int, rng: Generator) -> Plane:
    x = rng.standard_normal(n)
    return np.column_stack([x, 0.2 * x**3 + np.sin(5 * x) + np.exp(-1) * rng.standard_normal(n)])


def _four_circles(n: int, rng: Generator) -> Plane:
    ring = 2 * _circle(2 * np.pi * rng.random(n)) + 0.1 * rng.standard_normal((n, 2))
    return ring - _signs((n, 2), rng)


def _circle(angle: NDArray[np.float64]) -> Plane:
    return np.column_stack([np.cos(angle), np.sin(angle)])


def _signs(shape: tuple[int, int], rng: Generator) -> NDArray[np.int64]:
    return 2 * rng.integers(2, size=shape) - 1


def draw(name: str, n: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw n rows of a built-in distribution, by column; other seeds give independent rows.

    Raises:
        UsageError: no distribution has this name, n is below 1 or the seed below 0.
    """
    if name not in DATASETS:
        raise UsageError(f"no built-in distribution is called {name!r}; choose from {NAMES}")
    n, seed = whole("n", n), whole("seed", seed)
    if n < 1:
        raise UsageError(f"can't draw {n} rows of {name}; ask for at least 1")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative; give 0 or more")
    rows = DATASETS[name](n, np.random.default_rng([seed, SEED_TAG])).astype(np.float32)
    return {"x": rows[:, 0], "y": rows[:, 1]}


def table(name: str, n: int, seed: int) -> Table:
    """Draw n rows as `draw`, and guess the kinds of columns."""
    return read_table(draw(name, n, seed))


def fresh(name: str, n: int, seed: int) -> Table:
    """Draw n rows that no training draws, whatever its seed; raises as `draw`."""
    return table(name, n, SEEDS + whole("seed", seed))


def source_of(data: Any, n: int, seed: int) -> Any:
    """Return what `read_table` takes: n rows where `data` is a built-in distribution, else `data`.

    Raises:
        UsageError: a text that is neither a file nor a built-in distribution.
    """
    if isinstance(data, str) and data in DATASETS:
        return draw(data, n, seed)
    if isinstance(data, str) and data != "-" and not Path(data).suffix and not Path(data).exists():
        raise UsageError(f"{data!r} is neither a file nor a built-in distribution: {NAMES}")
    return data


def load(data: Any, config: Config) -> tuple[str, Table]:
    """Return the source's name and its rows: at most `config.max_rows`, a uniform sample in order.

    Args:
        data: a built-in distribution, a file, or what else `read_table` takes.
        config: chooses and describes columns.

    Raises:
        DataError: data that can't be read.
        UsageError: columns chosen or described that do not exist.
    """
    from scgan_train.coordinates.given import unwalled

    guessed = read_table(
        source_of(data, BUILT_IN_ROWS, config.seed),
        names=list(config.select) or None,
        overrides=config.columns,
        max_rows=config.max_rows,
        generator=np.random.default_rng([config.seed, 0x5A]),
        missing=config.missing,
        header=config.header,
    )
    table = unwalled(guessed, config)
    return str(data) if isinstance(data, str | Path) and str(data) != "-" else "rows", table


def judges(
    data: str, columns: Sequence[Column] | None, n: int, seed: int, grow: bool = False
) -> Table:
    """Return n rows to judge by: a uniform sample of a file, or rows that no training has seen.

    Rows beyond a wall, which the model can't make, are left out; the table's notes say how many.

    Args:
        data: a built-in distribution or a file.
        columns: those expected; None to guess them.
        n: how many at most.
        seed: of a built-in distribution's rows.
        grow: whether columns accept new names; see `read_table`.

    Raises:
        DataError: rows that can't be read, or that have other columns.
        UsageError: neither a file nor a built-in distribution.
    """
    seed = SEEDS + whole("seed", seed)
    source = source_of(data, n, seed)
    if columns is None:
        return read_table(source, max_rows=n)
    loose = [column.unwalled for column in columns]
    table = read_table(source, columns=loose, max_rows=n, grow=grow)
    columns = grown(columns, table)
    values, notes = table.values, []
    inside = np.ones(len(values), bool)
    for j, column in enumerate(columns):
        beyond = column.rules.beyond(values[:, j], column)
        if beyond.any():
            notes.append(f"{column.name} in {beyond.sum()}")
        inside &= ~beyond
    if notes:
        out = f"{len(values) - inside.sum()} of {len(values)} rows of {data} are left out"
        notes = [f"{out}: beyond the model's walls lies {', '.join(notes[:5])}"]
    if not inside.any():
        raise DataError(f"{data}: {notes[0]}; give rows like those that were trained on")
    values = values[inside]
    for j, column in enumerate(columns):
        if column.unwalled is not column:
            cells = values[there := ~np.isnan(values[:, j]), j]
            values[there, j] = column.rules.hold(cells, cells, column)
    return Table(columns, values, (*table.notes, *notes))


def subject(
    data: str, model: Model | None, samples: Path | None, train: Path | None, n: int, seed: int
) -> Subject:
    """Return samples, or else a model, to evaluate against the rows of DATA; errors as `judges`.

    At most n generated rows are compared at a time; the seed is theirs and a built-in plane's.
    """
    from scgan_infer.judging import evaluation

    columns = None if model is None else model.manifest.whole
    real = judges(data, columns, evaluation.MOST_REAL, seed, grow=True)
    if columns is not None and (new := evaluation.news(columns, real)):
        missed = "cells that the model doesn't know, and its rows miss"
        real = replace(real, notes=(*real.notes, f"{missed}: {new}"))
    trained = None
    if train is not None:
        known = evaluation.training_rows(train, real.columns)
        real, trained = replace(real, columns=grown(real.columns, known)), known.values
    if samples is not None:
        return evaluation.from_file(real, samples, n, model, trained)
    assert model is not None
    return evaluation.from_model(real, model, n, seed, trained)


DATASETS: dict[str, Callable[[int, Generator], Plane]] = {
    "eight_gaussians": _eight_gaussians,
    "checkerboard": _checkerboard,
    "two_spirals": _two_spirals,
    "abs": _abs,
    "sine_wave": _sine_wave,
    "crescent_cubed": _crescent_cubed,
    "sinewaved_cube": _sinewaved_cube,
    "four_circles": _four_circles,
}

NAMES = ", ".join(DATASETS)
