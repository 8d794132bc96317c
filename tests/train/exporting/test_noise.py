"""A bundle whose latent has fewer dimensions than its rows: noise at the decoder's output restores the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import lossy_table
from scipy.stats import ks_2samp

import scgan_infer
from scgan_infer.judging.evaluation import noise_picture
from scgan_infer.sampling.model import Model
from scgan_infer.sampling.verify import verify


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
