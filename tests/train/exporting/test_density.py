"""The density of rows: it integrates to one, and the sampler's rows have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cases import settings
from onnx.reference import ReferenceEvaluator

import scgan_infer
from scgan_infer.columns import Column, Table
from scgan_infer.errors import DataError, ModelError, UsageError
from scgan_infer.sampling.model import Model
from scgan_infer.sampling.noise import BLOCK
from scgan_infer.sampling.verify import verify
from scgan_train import datasets
from scgan_train.config import MapperConfig
from scgan_train.encoder import Encoder
from scgan_train.exporting import exporter
from scgan_train.exporting.exporter import export
from scgan_train.exporting.parts import Parts
from scgan_train.latents import chain_stage
from scgan_train.latents.head import GRID, RealLatents
from scgan_train.maps import latent_model, resolved
from scgan_train.run_folder import Run
from scgan_train.training.stages import train

QUICK = {"encoder": {"steps": 20}, "decoder": {"steps": 0}, "mapper": {"kind": "flow", "steps": 40}}
N = 200_000


def model_of(table: Table, folder: Path, **more: object) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain_stage, "BURSTS", (100,))  # any head has a density
        run = train(table, settings(**QUICK, **more), folder / "run")
    return scgan_infer.load(export(run, folder / "bundle"), device="cpu", threads=1)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """One whose sampler reflects nothing."""
    table = datasets.table("two_spirals", 3000, 0)
    return model_of(table, tmp_path_factory.mktemp("plane"), tails=True)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A category, a number on a logarithmic scale, and one between walls that is missing at times."""
    rng = np.random.default_rng(0)
    species = rng.integers(3, size=3000)
    share = np.where(rng.random(3000) < 0.1, np.nan, rng.beta(2 + species, 3))
    columns = (
        Column("pt", "log"),
        Column("species", "category", categories=("a", "b", "c")),
        Column("share", "bounded", low=0.0, high=1.0, missing=True),
    )
    values = np.column_stack([np.exp(species + 0.3 * rng.normal(size=3000)), species, share])
    return model_of(Table(columns, values.astype(np.float32)), tmp_path_factory.mktemp("mixed"))


def on_grid(model: Model, x: np.ndarray, y: np.ndarray, *more: float) -> np.ndarray:
    """Return the density [len(x), len(y)] at middles of cells."""
    columns = [np.repeat(x, len(y)), np.tile(y, len(x))]
    rows = np.column_stack([*columns, *(np.full(len(columns[0]), value) for value in more)])
    return np.exp(model.log_prob(rows).astype(float)).reshape(len(x), len(y))


def cells(low: float, high: float, n: int) -> tuple[np.ndarray, float]:
    width = (high - low) / n
    return low + width * (np.arange(n) + 0.5), width


def test_a_plane_s_density_integrates_to_one_and_is_that_of_its_samples(plane: Model) -> None:
    middles, width = cells(-6, 6, 400)
    mass = on_grid(plane, middles, middles) * width**2
    assert mass.sum() == pytest.approx(1, abs=1e-4)
    rows = plane.sample(N, seed=1)
    counts = np.histogram2d(*rows.T, bins=40, range=[(-6, 6)] * 2)[0]
    expected = N * mass.reshape(40, 10, 40, 10).sum((1, 3))
    full = expected > 50
    pull = (counts - expected)[full] / np.sqrt(expected[full])
    assert full.sum() > 200
    assert np.sqrt((pull**2).mean()) < 1.2  # 1.09 with this decoder, .96 with the encoder's inverse


def test_discrete_values_count_with_their_probabilities(mixed: Model) -> None:
    rows = mixed.sample(N, seed=2)
    logs, width = cells(-2, 4, 500)
    shares, high = cells(0, 1, 500)
    for species in range(3):
        pt, share = np.repeat(np.exp(logs), 500), np.tile(shares, 500)
        grid = np.column_stack([pt, np.full(len(pt), species), share])
        mass = np.exp(mixed.log_prob(grid).astype(float)) * pt * width * high
        drawn = (rows[:, 1] == species) & ~np.isnan(rows[:, 2])
        assert mass.sum() == pytest.approx(drawn.mean(), abs=0.005)
        low = drawn & (rows[:, 2] < 0.5)
        assert mass[share < 0.5].sum() == pytest.approx(low.mean(), abs=0.01)


def test_rows_outside_the_support_have_no_mass(plane: Model, mixed: Model) -> None:
    inside = [2.0, 1.0, 0.5]
    outside = [[0.0, 1.0, 0.5], [-1.0, 1.0, 0.5], [2.0, 1.0, 1.5], [2.0, 1.0, -0.1]]
    logs = mixed.log_prob([inside, *outside])
    assert np.isfinite(logs[0])
    assert np.isneginf(logs[1:]).all()
    far = np.resize(np.array([[1e6, 0.0], [3e38, -3e38]], np.float32), (BLOCK, 2))
    assert (plane.run("density.onnx", x=far)[0] < -1e4).all()


def test_names_and_indices_mean_the_same_and_rows_are_told_apart(mixed: Model) -> None:
    named = {"pt": [2.0, 9.0], "species": ["b", "c"], "share": [0.5, 0.25]}
    rows = np.array([[2.0, 1, 0.5], [9.0, 2, 0.25]])
    assert np.array_equal(mixed.log_prob(named), mixed.log_prob(rows))
    assert np.array_equal(
        mixed.log_prob(np.repeat(rows, 5000, 0)), mixed.log_prob(rows).repeat(5000)
    )
    assert mixed.log_prob(np.empty((0, 3))).shape == (0,)


def test_a_row_without_a_density_is_named(mixed: Model) -> None:
    with pytest.raises(
        UsageError, match=r"^row 2 has no density: missing cells, .* 'share'; leave"
    ):
        mixed.log_prob([[2.0, 1, 0.5], [2.0, 1, np.nan]])
    with pytest.raises(DataError, match="row 1"):
        mixed.log_prob([[np.inf, 1, 0.5]])


def test_other_runtimes_compute_the_same(mixed: Model) -> None:
    rows = mixed.sample(500, seed=3)
    rows = np.concatenate([rows[~np.isnan(rows[:, 2])], [[-1, 0, 0.5]]]).astype(np.float32)
    evaluator = ReferenceEvaluator(onnx.load_from_string(mixed.bundle.graphs["density.onnx"]))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        (logs,) = evaluator.run(["log_density"], {"x": rows})
    np.testing.assert_allclose(logs, mixed.log_prob(rows), atol=1e-3)


def test_a_bundle_with_a_density_is_verified(mixed: Model) -> None:
    assert verify(mixed.bundle.path).worst < 1e-4


def test_a_bundle_says_why_it_has_no_density(mixed_bundle: Path, plane: Model) -> None:
    with pytest.raises(
        UsageError, match=r"no density: the numbers of column 'depth' are looked up"
    ):
        scgan_infer.load(mixed_bundle).log_prob([[0.0] * 8])
    run, seed = Run.load(plane.bundle.path.parent / "run"), torch.Generator()
    parts, (clusters, *_) = Parts.of(run), run.load_clusters()
    assert not parts.flaw
    config = resolved(MapperConfig(kind="ot"), 2, 3000)
    transport = replace(parts, latents=latent_model("mapper", clusters, config, seed))
    assert transport.flaw == "its map has no inverse; that of mapper.kind=flow has one"
    perceptron = Encoder(2, replace(run.config.encoder, kind="mlp"), seed)
    assert replace(parts, encoder=perceptron).flaw.startswith("its encoder can't be undone")
    points = RealLatents(torch.zeros(1, 2), torch.tensor([GRID]))
    assert replace(parts, latents=points).flaw == "the latents of training rows are points"


def test_one_gaussian_and_noisy_centres_have_densities(plane: Model) -> None:
    run = Run.load(plane.bundle.path.parent / "run")
    clusters, *_ = run.load_clusters()
    for kind in ("gaussian", "centers"):
        model = latent_model(kind, clusters, run.config.mapper, torch.Generator())
        assert not replace(Parts.of(run), latents=model).flaw


def test_discrete_values_alone_have_probabilities(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(2, size=800)
    columns = (Column("a", "category", categories=("x", "y")), Column("b", "integer"))
    second = np.where(rng.random(800) < 0.8, first, rng.integers(3, size=800))
    model = model_of(Table(columns, np.column_stack([first, second]).astype(np.float32)), tmp_path)
    rows = [[a, b] for a in range(2) for b in range(3)]
    shares = np.exp(model.log_prob(rows).astype(float))
    made = model.sample(N)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert shares == pytest.approx([(made == row).all(1).mean() for row in rows], abs=0.005)
    assert np.isneginf(model.log_prob([[0, 7]])).all()


def test_a_density_that_is_too_large_is_left_out(
    plane: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *_: object) -> None:
        raise ModelError(f"{name}: too much")

    monkeypatch.setattr(exporter, "check", refuse)
    path = exporter.export(Run.load(plane.bundle.path.parent / "run"), tmp_path / "bundle")
    with pytest.raises(UsageError, match=r"has no density: density\.onnx: too much"):
        scgan_infer.load(path).log_prob([[0.0, 0.0]])


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A number and a category, given a number and a category."""
    rng = np.random.default_rng(2)
    n = 3000
    energy, side, kind = rng.uniform(0, 4, n), rng.integers(2, size=n), rng.integers(3, size=n)
    kind = np.where(rng.random(n) < energy / 5, kind, 0)
    depth = energy * (1 - 2 * side) + 3.0 * kind + 0.3 * rng.normal(size=n)
    columns = (
        Column("energy"),
        Column("depth"),
        Column("side", "category", categories=("left", "right")),
        Column("kind", "category", categories=("a", "b", "c")),
    )
    table = Table(columns, np.column_stack([energy, depth, side, kind]).astype(np.float32))
    folder = tmp_path_factory.mktemp("given")
    return model_of(table, folder, given=["energy", "side"], tails=True)


def test_a_conditional_density_integrates_to_one_at_each_condition(given: Model) -> None:
    middles, width = cells(-15, 20, 700)
    for condition in ({"energy": 1.0, "side": "left"}, {"energy": 3.5, "side": "right"}):
        depth, kind = given.sample(50_000, given=condition).T
        total = 0.0
        for value in range(3):
            grid = np.column_stack([middles, np.full(700, value)])
            mass = np.exp(given.log_prob(grid, given=condition).astype(float)) * width
            counts = np.histogram(depth[kind == value], 700, (-15, 20))[0] / len(kind)
            assert np.abs(mass.reshape(-1, 20).sum(1) - counts.reshape(-1, 20).sum(1)).max() < 0.01
            total += mass.sum()
        assert total == pytest.approx(1, abs=1e-4)


def test_whole_rows_hold_their_conditions(given: Model) -> None:
    conditions = np.repeat([[1.0, 0], [2.0, 1], [4.0, 0]], 2, axis=0)
    made = given.sample(given=conditions)
    rows = np.column_stack([conditions[:, 0], made[:, 0], conditions[:, 1], made[:, 1]])
    assert np.array_equal(given.log_prob(made, given=conditions), given.log_prob(rows))
    with pytest.raises(UsageError, match="6 conditions for 2 rows"):
        given.log_prob(made[:2], given=conditions)
