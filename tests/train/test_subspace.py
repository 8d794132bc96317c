"""What noise takes from residuals."""

from __future__ import annotations

import copy

import numpy as np
import torch

from scgan_train.subspace import Residual


def fitted(residuals: np.ndarray, back: np.ndarray, latent: torch.Tensor) -> Residual:
    """Noise that depends on the latent [n, 1], of residuals [n, d], and of some kept back."""
    generator = torch.Generator().manual_seed(0)
    noise = Residual(1, residuals.shape[1], residuals.shape[1], generator)
    noise.start(torch.from_numpy(residuals.astype(np.float32)))
    for weight in noise.moved:
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    noise.calibrate(latent, torch.from_numpy(back.astype(np.float32)))
    return noise.requires_grad_(False)


def test_a_row_beyond_all_others_does_not_widen_the_noise() -> None:
    for seed in range(12):
        rows = np.random.default_rng(seed).standard_normal((2750, 1))
        noise = fitted(rows[:2500], rows[2500:], torch.zeros(2500, 1))
        assert 0.9 < float(noise.importance[0]) < 1.15, seed


def test_float32_rounds_heavy_tails_by_little_and_they_keep_their_quantiles() -> None:
    """The tails of t(2) are steep in normal scores, and so magnify what those are rounded by."""
    rows = np.random.default_rng(0).standard_t(2, (2750, 2))
    rows[:, 1] += 0.5 * rows[:, 0]
    latent = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(1))
    z = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(2))
    noise = fitted(rows[:2500], rows[2500:], latent[:2500])
    made = noise.add(latent, z)
    exact = copy.deepcopy(noise).double().add(latent.double(), z.double())
    assert float(((made - exact).abs() / made.std(0)).max()) < 6e-6
    shares = [0.01, 0.1, 0.9, 0.99]
    wanted = np.quantile(rows, shares, 0)
    np.testing.assert_allclose(np.quantile(made.numpy(), shares, 0), wanted, rtol=0.25)
