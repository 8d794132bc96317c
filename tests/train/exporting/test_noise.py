"""A bundle whose latent has fewer dimensions than its rows: noise at the decoder's output restores the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import lossy_table, settings
from scipy.stats import ks_2samp

import scgan_infer
from scgan_infer.columns import Column, Table
from scgan_infer.judging.evaluation import noise_picture
from scgan_infer.sampling.model import Model
from scgan_infer.sampling.verify import verify
from scgan_train.exporting.parts import Parts
from scgan_train.training.stages import train


@pytest.fixture(scope="module")
def model(lossy_bundle: Path) -> Model:
    return scgan_infer.load(lossy_bundle, device="cpu", threads=1)


def test_heavy_tails_and_rounded_columns_keep_their_marginals(
    lossy_bundle: Path, model: Model
) -> None:
    assert [model.manifest.sizes[name] for name in "eq"] == [1, 3]
    made, real = model.sample(10_000), lossy_table(10_000, 1).values
    for j, column in enumerate(model.columns):
        assert ks_2samp(made[:, j], real[:, j]).statistic < 0.06, column.name
    assert np.array_equal(made[:, 3], np.round(made[:, 3], 1).astype(np.float32))
    assert verify(lossy_bundle).worst < 1e-4


def test_random_noise_spreads_reconstructions_as_rows_are(model: Model) -> None:
    real = lossy_table(4000, 2).values
    still, moved = model.reconstruct(real), model.reconstruct(real, seed=1)
    assert np.array_equal(still, model.reconstruct(real))
    for again, lost in ((still, True), (moved, False)):
        spreads = np.subtract(*np.quantile(again, [0.9, 0.1], 0)) / np.subtract(
            *np.quantile(real, [0.9, 0.1], 0)
        )
        assert (spreads[:1] > 0.9).all()
        assert (spreads.min() < 0.5) == lost
        assert lost or (spreads > 0.9).all()


def test_a_picture_says_what_each_dimension_of_the_noise_moves(model: Model) -> None:
    image = noise_picture(model).axes[0].images[0]
    moves = np.asarray(image.get_array())
    assert moves.shape == (3, 4)
    assert moves[:, 2:].max(0).min() > 2
    assert moves[:, :2].max() < 1


def test_a_decoder_that_learns_few_rows_by_heart_has_noise_as_wide_as_others_lose(
    tmp_path: Path,
) -> None:
    """The last of seven columns is lost; residuals of the rows that train are narrower than those of others."""
    rows = np.random.default_rng(0).standard_normal((3000, 7)).astype(np.float32)
    rows[:, 6] *= 0.9
    table = Table(tuple(Column(f"x{j}") for j in range(7)), rows[:400])
    config = settings(
        latents="gaussian",
        encoder={"latent_dim": 6, "steps": "auto"},
        decoder={"steps": 0, "widths": [64], "warm_steps": 300, "batch": 128},
    )
    parts = Parts.of(train(table, config, tmp_path / "run", "few"))
    y = torch.from_numpy(parts.coordinates.forward(rows))
    with torch.no_grad():
        latent = parts.encoder(y)
        z = torch.randn(len(y), 1, generator=torch.Generator().manual_seed(0))
        still = parts.decode(latent)
        added, lost = parts.decode(latent, z) - still, y - still
    assert lost[:400, 6].std() < 0.75 * lost[400:, 6].std()
    assert 0.95 < float(added[:, 6].std() / lost[400:, 6].std()) < 1.2
