from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scgan_infer
from scgan_infer.bundle import load

EXPORTED = Path(__file__).parents[3] / "exported"
PLANES = ("eight_gaussians", "checkerboard", "two_spirals", "abs", "sinewaved_cube", "four_circles")


@pytest.mark.parametrize("plane", PLANES)
def test_each_bundle_loads_and_gives_rows_of_its_distribution(plane: str) -> None:
    model = scgan_infer.load(EXPORTED / plane, device="cpu")
    rows = model.sample(20_000, seed=5)
    assert rows.shape == (20_000, 2)
    assert far(plane, rows) < 0.015
    again = model.reconstruct(rows)
    assert np.mean((again - rows) ** 2) < 2e-3


def far(plane: str, rows: np.ndarray) -> float:
    """Share of rows outside of where the definition puts (nearly) all of its rows."""
    x, y = rows.T.astype(float)
    if plane == "eight_gaussians":
        turn = np.pi / 8 + np.pi / 4 * np.round((np.arctan2(y, x) - np.pi / 8) / (np.pi / 4))
        out = np.hypot(x - 8**0.5 * np.cos(turn), y - 8**0.5 * np.sin(turn)) > 4.5 * 0.5 / 2**0.5
    elif plane == "checkerboard":
        edge = np.minimum(np.abs(x / 2 - np.round(x / 2)), np.abs(y / 2 - np.round(y / 2)))
        white = (np.floor(x / 2) + np.floor(y / 2)) % 2 == 1
        out = (white | (np.maximum(abs(x), abs(y)) > 4)) & (edge > 0.02)
    elif plane == "two_spirals":
        t = 3 * np.pi * np.sqrt(np.random.default_rng(0).random(20_000))
        arm = np.column_stack([-np.cos(t) * t + 0.25, np.sin(t) * t + 0.25]) / 3
        from_arms = np.min(
            [
                np.min(np.hypot(*(rows[:, None] - s * arm[None, ::20]).transpose(2, 0, 1)), 1)
                for s in (1, -1)
            ],
            0,
        )
        out = from_arms > 0.65
    elif plane == "four_circles":
        radius = np.hypot(x[:, None] + [1, 1, -1, -1], y[:, None] + [1, -1, 1, -1])
        out = np.abs(radius - 2).min(1) > 0.45
    else:
        middle, noise = (
            (np.abs(x) - 1, np.exp(-1.5))
            if plane == "abs"
            else (0.2 * x**3 + np.sin(5 * x), np.exp(-1))
        )
        out = np.abs(y - middle) > 4.5 * noise
    return float(out.mean())


@pytest.mark.parametrize("plane", PLANES)
def test_each_bundle_is_small_and_says_how_good_it_is(plane: str) -> None:
    folder = EXPORTED / plane
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    manifest = load(folder).manifest
    assert manifest.name == plane
    assert manifest.metrics["c2st"] < 0.53
    assert manifest.format in (1, 2)
    assert {"card.md", "preview.png"} <= manifest.files.keys()
