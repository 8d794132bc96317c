"""A bundle of the first format, made once and never again: it loads, and gives the rows that it gave, for ever."""

from pathlib import Path

import numpy as np

from scgan_infer import load
from scgan_infer.sampling.verify import verify

FIRST = Path(__file__).parents[2] / "bundles" / "format-1"
SHA256 = "cb6f380b4dee0390124680b5b1c26052f557ddab8a804b16ea4a18c3f48f80dd"


def test_the_bundle_is_the_one_that_was_made():
    assert load(FIRST).bundle.sha256 == SHA256


def test_its_stored_rows_come_out_again():
    verdict = verify(FIRST)
    assert verdict.vectors == 8
    assert verdict.worst < 1e-4


def test_it_samples_encodes_and_reconstructs():
    model = load(FIRST)
    assert [column.kind for column in model.columns] == ["real", "periodic", "integer", "category"]
    rows = model.sample(5000, seed=1)
    assert np.isfinite(rows).all()
    assert set(rows[:, 3]) == {0, 1, 2}
    latent, cluster = model.encode(rows)
    assert latent.shape[0] == 5000
    assert set(cluster) == {0, 1, 2}
    assert np.abs(model.reconstruct(rows)[:, 0] - rows[:, 0]).mean() < 0.5
