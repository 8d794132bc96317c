"""The sets that `quality.py` judges on, each cut in two, and what an expert would check of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column, Table
from scgan_infer.rows.formats import read_table
from scgan_train.datasets import BUILT_IN_ROWS, fresh, table

Floats = NDArray[np.float32]
Settings = dict[str, Any]

SHARED = Path(__file__).parents[2] / "shared" / "data"
PLANES = ("eight_gaussians", "checkerboard", "two_spirals", "abs", "sinewaved_cube", "four_circles")
FRESH = 200_000  # rows to judge by, where they can be drawn
CURVES, CURVE_ROWS, CURVE_NOISE = 20, 14_000, 0.003
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


def planes(seed: int, only: list[str]) -> Iterator[Case]:
    """Yield the six planes: 50,000 rows to train on (and 5 % held out), 200,000 fresh ones to judge by."""
    for name in (name for name in PLANES if not only or name in only):
        yield Case(name, table(name, BUILT_IN_ROWS, seed), fresh(name, FRESH, seed))


def curves(seed: int, only: list[str]) -> Iterator[Case]:
    """Yield twenty smooth thin curves in the unit square: 14,000 rows to train on, 200,000 to judge by."""
    if not only or "curves" in only:
        columns = (Column("x"), Column("y"))
        known, judges = (
            Table(columns, curve_rows(n, np.random.default_rng([seed, n])))
            for n in (CURVE_ROWS, FRESH)
        )
        yield Case("curves", known, judges, checks=curve_checks)


def curve_points(which: NDArray[np.int64], turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points [n, 2]: c + sum over k = 1, 2, 3 of a_k cos(2 pi k t + phi_k), half of the curves open.

    Args:
        which: curve of each point, [n]; the same twenty for every seed.
        turn: t of each point, 0 to 1, [n].
    """
    rng = np.random.default_rng(0xC0)
    centre = rng.uniform(0.15, 0.85, (CURVES, 1, 2))
    size = rng.normal(0, 0.08, (CURVES, 3, 2)) / np.arange(1, 4)[:, None] ** 1.5
    phase = rng.uniform(0, 2 * np.pi, (CURVES, 3, 2))
    t = np.where(which % 2, turn, 0.4 * turn)[:, None, None]
    waves = np.cos(2 * np.pi * np.arange(1, 4)[:, None] * t + phase[which])
    return np.asarray(centre[which, 0] + (size[which] * waves).sum(axis=1))


def curve_rows(n: int, rng: np.random.Generator) -> Floats:
    """Draw rows [n, 2], each curve as often, with a normal distance of .003 from it in both directions."""
    points = curve_points(rng.integers(CURVES, size=n), rng.random(n))
    return (points + CURVE_NOISE * rng.standard_normal((n, 2))).astype(np.float32)


def curve_checks(rows: Floats) -> dict[str, float]:
    """Return the share of rows more than four standard deviations of the noise from every curve."""
    from scipy.spatial import cKDTree

    which, turn = np.repeat(np.arange(CURVES), 5000), np.tile(np.linspace(0, 1, 5000), CURVES)
    distance = cKDTree(curve_points(which, turn)).query(rows)[0]
    return {"off the curves": float(np.mean(distance > 4 * CURVE_NOISE))}


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
    return Table(rows.columns, rows.values[order[:at]]), Table(
        rows.columns, rows.values[order[at:]]
    )


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
    energy = sum(
        np.sqrt((pt * np.cosh(eta)) ** 2 + MUON_MASS**2) for pt, eta in ((pt1, eta1), (pt2, eta2))
    )
    px = pt1 * np.cos(phi1) + pt2 * np.cos(phi2)
    py = pt1 * np.sin(phi1) + pt2 * np.sin(phi2)
    pz = pt1 * np.sinh(eta1) + pt2 * np.sinh(eta2)
    computed = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))

    def outside(values: NDArray[np.float64]) -> float:
        return float(
            1 - np.mean(np.any([(low <= values) & (values <= high) for low, high in BANDS], axis=0))
        )

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
    """Yield the set whose latent has fewer dimensions than the data: dimuon at 5 of 7."""
    for case in real(seed, ["dimuon"]):
        if not only or case.name in only:
            yield replace(case, settings={"encoder": {"latent_dim": 5}})
