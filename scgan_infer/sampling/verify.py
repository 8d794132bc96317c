"""A bundle on trial: is it whole, is it allowed, is it its maker's, and does it compute here what it computed there?

    1. signature      `bundle.sig` is the key's signature of `bundle.json`            (only with a key)
    2. files, rules   all that `bundle.load` checks
    3. sessions       onnxruntime takes every graph
    4. replay         the rows stored in the manifest come out again, of `sampler.onnx` and of `Model.sample`
    5. composition    mappers, then decoder, is generator

Rows agree when they differ by at most 1e-4 of the column's spread plus the value's own size, as at the export.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.bundle import FILE, Bundle
from scgan_infer.columns import Column
from scgan_infer.errors import ChecksumError, ModelError, ParityError
from scgan_infer.sampling.model import Floats, load
from scgan_infer.sampling.noise import BLOCK, block_noise

TOLERANCE = 1e-4
FLIPS = (
    1e-3  # of rows, whose cluster or rounded value may be its neighbour, as a tie falls either way
)
STRAY = 1e-5
MAX_VECTORS = 64
END = 2**63


@dataclass(frozen=True)
class Verdict:
    """What was found to hold.

    Attributes:
        bundle: the bundle that passed.
        signed: whether its signature was checked.
        vectors: how many stored rows were replayed.
        worst: the largest difference seen, in units of a column's spread and the value's size.
    """

    bundle: Bundle
    signed: bool
    vectors: int
    worst: float


def verify(path: str | Path, key: str | Path | None = None) -> Verdict:
    """Check a bundle in full, on the CPU.

    Args:
        path: the bundle's folder.
        key: file of the maker's Ed25519 public key, PEM.

    Raises:
        ModelError: not a bundle, one that breaks a rule of the format, or that onnxruntime can't run.
        ChecksumError: a file is not the one that the manifest names, or the signature is missing or wrong.
        ParityError: other rows come out than those stored.
        UsageError: the key can't be read.
    """
    signed = None
    if key is not None:
        from scgan_infer.bundle import signing

        signed = hashlib.sha256(signing.check(path, signing.public_key(key))).hexdigest()
    model = load(path, "cpu")
    if signed not in (None, model.bundle.sha256):
        raise ChecksumError(f"{Path(path) / FILE} changed while it was read: verify it again")
    manifest = model.manifest
    seed, index, stored = _vectors(model.bundle)
    block = model.sample(BLOCK, seed)
    unit = block.std(0, dtype=np.float64)
    whole = np.resize(index if len(index) else np.arange(BLOCK), BLOCK)
    drawn = model.run("sampler.onnx", seed=np.array([seed], np.int64), index=whole)[0][: len(index)]
    sampled = [model.sample(1, seed, int(i)) for i in index]
    u, w, z = block_noise(seed, 0, manifest.sizes["m"], manifest.sizes["q"])
    latent, cluster = model.run("mappers.onnx", u=u, w=w)
    _check_clusters(model.bundle, u, cluster)
    model.run("encoder.onnx", x=block)
    worst = 0.0
    for name, ours, theirs in (
        (
            "mappers.onnx, then decoder.onnx",
            block,
            model.run("decoder.onnx", latent=latent, z=z)[0],
        ),
        ("sampler.onnx", stored, drawn),
        ("generator.onnx", stored, np.concatenate(sampled) if sampled else stored),
    ):
        worst = max(worst, _compare(model.bundle, name, ours, theirs, unit))
    return Verdict(model.bundle, signed is not None, len(index), float(f"{worst:.2g}"))


def _vectors(bundle: Bundle) -> tuple[int, NDArray[np.int64], Floats]:
    """Return seed, indices [k] and rows [k, d] that the manifest stores; none at all if it has no parity."""
    parity, d = bundle.manifest.parity, bundle.manifest.sizes["d"]
    if not parity.keys() & {"seed", "index", "x"}:
        return 0, np.empty(0, np.int64), np.empty((0, d), np.float32)
    seed, index, rows = (parity.get(name) for name in ("seed", "index", "x"))
    if (
        not (isinstance(index, list) and isinstance(rows, list) and isinstance(seed, int))
        or not len(index) == len(rows) <= MAX_VECTORS
        or not all(_is_index(number) for number in (seed, *index))
        or not all(
            isinstance(row, list) and len(row) == d and all(map(_is_number, row)) for row in rows
        )
    ):
        raise ModelError(
            f"{bundle.path}: {FILE}: parity is not a seed, up to {MAX_VECTORS} indices and as many rows of {d} numbers"
        )
    return seed, np.array(index, np.int64), np.array(rows, np.float32).reshape(-1, d)


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < END


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 3.4e38


def _check_clusters(bundle: Bundle, u: Floats, cluster: NDArray[Any]) -> None:
    """Hold the graph's choice of cluster to the manifest's thresholds, where equality is exact."""
    ends = np.array(bundle.manifest.thresholds)
    wanted = np.searchsorted(ends, (u * ends[-1]).astype(np.int64), side="right")
    if (wanted != cluster).any():
        row = int(np.argmax(wanted != cluster))
        raise ParityError(
            f"{bundle.path}: mappers.onnx draws cluster {cluster[row]} where the manifest's thresholds draw "
            f"{wanted[row]} (u = {u[row]:.8f}): do not use it"
        )


def _compare(
    bundle: Bundle, name: str, ours: Floats, theirs: Floats, unit: NDArray[np.float64]
) -> float:
    """Return the largest difference in units of the columns' spread, or say which row differs too much."""
    worst = 0.0
    for j, column in enumerate(bundle.manifest.columns):
        gap = apart(ours[:, j].astype(np.float64), theirs[:, j].astype(np.float64), unit[j], column)
        if len(gap) and not gap.max() <= TOLERANCE:
            row = int(np.argmax(gap))
            raise ParityError(
                f"{bundle.path}: {name} gives {theirs[row, j]:.7g} where {ours[row, j]:.7g} is due (row {row} of "
                f"those compared, column {column.name!r}): this onnxruntime computes other rows, or the bundle is wrong"
            )
        worst = max(worst, float(gap.max(initial=0.0)))
    return worst


def apart(
    a: NDArray[np.float64], b: NDArray[np.float64], spread: float, column: Column
) -> NDArray[np.float64]:
    """Return a column's differences [n] in units of spread plus size.

    Of values rounded to steps one in a thousand may be one step apart. Where steps are fine beside values, float32's
    own rounding, `STRAY` of a value at most, puts a share of 2 STRAY values / step on the other side of an edge.
    """
    gap = np.abs(a - b)
    if column.kind == "periodic":
        gap = np.minimum(gap, np.abs((column.period or math.inf) - gap))
    unit = spread + np.abs(a) + 1e-12
    relative: NDArray[np.float64] = gap / unit
    if column.step is not None:
        share = 2 * STRAY * float(np.mean(unit)) / column.step
        most = math.ceil(share * len(gap)) if share > FLIPS else int(FLIPS * len(gap))
        if (gap > 0).sum() <= most:
            relative[gap < 1.5 * column.step] = 0.0
    return relative
