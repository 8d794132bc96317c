"""A bundle on trial: is it whole, allowed, its maker's, and does it compute as it did there?

    1. signature      `bundle.sig` is the key's signature of `bundle.json`         (only with a key)
    2. files, rules   all that `bundle.load` checks
    3. sessions       onnxruntime takes every graph
    4. replay         the stored rows come out again, of `sampler.onnx` and of `Model.sample`
    5. composition    mappers, then decoder, is generator; the head chooses as the mappers

Rows agree if they differ by at most 1e-4 of the column's spread, as at the export (`differences`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.bundle import FILE, GRID, Bundle
from scgan_infer.columns import Column
from scgan_infer.errors import ChecksumError, ModelError, ParityError
from scgan_infer.sampling.draw import END, Draw, Floats, Integers
from scgan_infer.sampling.given import Given
from scgan_infer.sampling.model import Model, load
from scgan_infer.sampling.noise import BLOCK

TOLERANCE = 1e-4
FLIPS = (
    1e-3  # of rows, whose choice or rounded value may be its neighbour, as a tie falls either way
)
ULPS = 8  # steps of float32 by which values may differ that are large beside their spread
STRAY = 1e-5  # of spread plus size, that values before rounding may differ by
MAX_VECTORS = 64
MAX_BLOCKS = 8  # that the stored rows may lie in: each is computed


@dataclass(frozen=True)
class Verdict:
    """The result of a verification.

    Attributes:
        bundle: the bundle that passed.
        signed: whether its signature was checked.
        vectors: how many stored rows were replayed.
        worst: the largest difference seen, in units of a column's spread.
    """

    bundle: Bundle
    signed: bool
    vectors: int
    worst: float


def verify(path: str | Path, key: str | Path | None = None) -> Verdict:
    """Check a bundle in full, on the CPU; with its maker's public key (PEM file), its signature.

    Raises:
        ModelError: not a bundle, one that breaks a rule of the format, or onnxruntime can't run it.
        ChecksumError: a file is not the manifest's, or the signature is missing or wrong.
        ParityError: other rows come out than those stored.
        UsageError: the key can't be read.
    """
    signed = None
    if key is not None:
        from scgan_infer.bundle import signing

        signed = hashlib.sha256(signing.check(path, signing.load_key(key, "public"))).hexdigest()
    model = load(path, "cpu")
    if signed not in (None, model.bundle.sha256):
        raise ChecksumError(f"{Path(path) / FILE} changed while it was read: verify it again")
    seed, index, stored = _vectors(model.bundle)
    first = model.sample(BLOCK, seed, given=_examples(model))
    spread = np.nanstd(first.astype(np.float64), 0)
    worst = max(
        _compare(model, name, ours, theirs, spread)
        for name, ours, theirs in (
            ("mappers.onnx, then decoder.onnx", first, _composed(model, seed)),
            ("sampler.onnx", stored, _by_sampler(model, seed, index)),
            ("generator.onnx", stored, _by_generator(model, seed, index)),
        )
    )
    return Verdict(model.bundle, signed is not None, len(index), float(f"{worst:.2g}"))


def _composed(model: Model, seed: int) -> Floats:
    """Return the first block's rows of mappers, then decoder; runs every graph but the sampler.

    Raises:
        ParityError: a graph draws other clusters than the manifest's thresholds; equality is exact.
    """
    ends = np.array(model.manifest.thresholds)
    u, w, z = model.noise(seed, range(1))
    c, exact = model.example(BLOCK), u.ndim == 1 and not model.given
    latent, chosen = model.run("mappers.onnx", u=u, w=w, c=c)
    expected = chosen
    if exact:
        expected = np.searchsorted(ends, (u * GRID).astype(np.int64), side="right")
    choices = {"mappers.onnx": chosen}
    if "head.onnx" in model.bundle.graphs:
        (choices["head.onnx"],) = model.run("head.onnx", u=u, c=c)
    for name, choice in choices.items():
        if not exact and (expected != choice).reshape(BLOCK, -1).any(1).mean() > FLIPS:
            raise ParityError(
                f"{model.bundle.path}: {name} and mappers.onnx draw other values: do not use it"
            )
        if exact and (expected != choice).any():
            row = int(np.argmax(expected != choice))
            raise ParityError(
                f"{model.bundle.path}: {name} draws cluster {choice[row]} where "
                f"the manifest's thresholds draw {expected[row]} (u = {u[row]:.8f}): do not use it"
            )
    (rows,) = model.run("decoder.onnx", latent=latent, choice=chosen, z=z)
    model.run("encoder.onnx", x=rows, c=c)
    if "density.onnx" in model.bundle.graphs:
        model.run("density.onnx", x=rows, c=c)
    return rows


def _examples(model: Model) -> Given | None:
    return Given(model.example(BLOCK)) if model.given else None


def _by_sampler(model: Model, seed: int, index: Integers) -> Floats:
    indices = np.resize(index if len(index) else np.arange(BLOCK), BLOCK)
    seeds, c = np.array([seed], np.int64), model.example(BLOCK)
    return model.run("sampler.onnx", seed=seeds, index=indices, c=c)[0][: len(index)]


def _by_generator(model: Model, seed: int, index: Integers) -> Floats:
    rows, c = np.empty((len(index), len(model.columns)), np.float32), model.example(len(index))
    for block in np.unique(index // BLOCK):
        inside, given = index // BLOCK == block, model.example(BLOCK)
        given[index[inside] % BLOCK] = c[inside]
        draw = Draw(BLOCK, seed, int(block) * BLOCK)
        rows[inside] = model.compute("sample", draw, given)[index[inside] % BLOCK]
    return rows


def _vectors(bundle: Bundle) -> tuple[int, NDArray[np.int64], Floats]:
    """Return the manifest's seed, indices [k] and rows [k, d]; none at all if it has no parity."""
    parity, d = bundle.manifest.parity, bundle.manifest.sizes["d"]
    if not parity.keys() & {"seed", "index", "x"}:
        return 0, np.empty(0, np.int64), np.empty((0, d), np.float32)
    seed, index, rows = (parity.get(name) for name in ("seed", "index", "x"))
    if (
        not (isinstance(index, list) and isinstance(rows, list) and isinstance(seed, int))
        or not len(index) == len(rows) <= MAX_VECTORS
        or not all(_is_index(number) for number in (seed, *index))
        or len({number // BLOCK for number in index}) > MAX_BLOCKS
        or not all(
            isinstance(row, list)
            and len(row) == d
            and all(cell is None or _is_number(cell) for cell in row)
            for row in rows
        )
    ):
        raise ModelError(
            f"{bundle.path}: {FILE}: parity is not a seed, up to {MAX_VECTORS} indices "
            f"of {MAX_BLOCKS} blocks and as many rows of {d} numbers"
        )
    return seed, np.array(index, np.int64), np.array(rows, np.float32).reshape(-1, d)


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < END


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 3.4e38


def _compare(
    model: Model, name: str, ours: Floats, theirs: Floats, spread: NDArray[np.float64]
) -> float:
    """Return the largest of `differences`, in a block's spreads; a ParityError names the worst."""
    if not len(ours):
        return 0.0
    gaps = differences(ours, theirs, model.columns, spread, _may_flip(model))
    worst = float(gaps.max(initial=0.0))
    if not worst <= TOLERANCE:
        row, j = np.unravel_index(np.argmax(gaps), gaps.shape)
        raise ParityError(
            f"{model.bundle.path}: {name} gives {theirs[row, j]:.7g} "
            f"where {ours[row, j]:.7g} is due "
            f"(row {row} of those compared, column {model.columns[j].name!r}): "
            "this onnxruntime computes other rows, or the bundle is wrong"
        )
    return worst


def _may_flip(model: Model) -> bool:
    """Return whether values are looked up or networks draw clusters: 1 in 1000 may then differ."""
    steps = (column.step for column in model.columns)
    looked_up = model.manifest.steps or model.given
    return bool(looked_up) or any(step is not None for step in steps)


def differences(
    ours: NDArray[Any],
    theirs: NDArray[Any],
    columns: Sequence[Column],
    spread: NDArray[Any],
    chained: bool = False,
) -> NDArray[np.float64]:
    """Return the differences of rows [n, d], in units of each column's spread [d].

    Values that are large beside their spread may differ by the rounding of float32, `ULPS` of its
    steps. Of values rounded to the column's steps one in a thousand may be another, as a tie falls
    either way; where those steps are fine, all whose values before rounding, which may differ by
    `STRAY` of the spread, lie near an edge. With values that are looked up (`chained`), one in a
    thousand may be another in every column.
    """
    gaps = np.empty(ours.shape, np.float64)
    for j, column in enumerate(columns):
        a, b = ours[:, j].astype(np.float64), theirs[:, j].astype(np.float64)
        missing = np.isnan(a) & np.isnan(b)
        gap = np.nan_to_num(
            np.where(missing, 0, np.abs(column.rules.difference(a, b, column))), nan=np.inf
        )
        rounding = ULPS * np.spacing(np.abs(np.nan_to_num(a)).astype(np.float32)).astype(np.float64)
        gaps[:, j] = np.where(gap <= rounding, 0.0, gap / (spread[j] + 1e-12))
        if column.step is not None:
            share = 2 * (STRAY * spread[j] + float(np.mean(rounding))) / column.step
            most = math.ceil(share * len(gap)) if share > FLIPS else int(FLIPS * len(gap))
            if (gap > 0).sum() <= most:
                gaps[gap < 1.5 * column.step, j] = 0.0
        if chained:
            largest = np.argsort(gaps[:, j])[len(gap) - int(FLIPS * len(gap)) :]
            gaps[largest, j] = 0.0
    return gaps
