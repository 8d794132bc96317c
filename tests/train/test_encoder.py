from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import Watcher, settings

from scgan_train import datasets
from scgan_train.coordinates.transform import Coordinates
from scgan_train.encoder import ColumnCurves, Encoder
from scgan_train.fitting.loop import fit, generator_for


def trained(**options: object) -> tuple[torch.Tensor, torch.Tensor]:
    table = datasets.table("eight_gaussians", 4000, 0)
    y = torch.from_numpy(Coordinates.fit(table).forward(table.values))
    config = settings(encoder={"steps": 250, "latent_dim": 2, "kind": "columns"}).encoder
    config = replace(config, **options)
    encoder = Encoder(2, config, generator_for(0, "test"))
    fit("encoder", encoder, lambda _: encoder.phases(y), 0, Watcher())
    encoder.calibrate(y)
    with torch.no_grad():
        return y, encoder(y)


def left_unexplained(y: torch.Tensor, latent: torch.Tensor) -> float:
    """Share of the rows' variance within pieces that a cubic regression from latents does not explain."""
    a, b = latent.T
    design = torch.stack([a**i * b**j for i in range(4) for j in range(4 - i)], 1).double()
    fitted = design @ torch.linalg.lstsq(design, y.double()).solution
    angle = torch.atan2(y[:, 1], y[:, 0])
    piece = ((angle / (torch.pi / 4)).floor().long() % 8)[:, None].expand_as(y)
    means = torch.zeros(8, 2).scatter_reduce(0, piece, y, "mean", include_self=False)
    within = (y - means.gather(0, piece)).square().mean()
    return float((fitted - y).square().mean() / within)


def test_a_linear_encoder_keeps_the_principal_axes_and_contrast_leaves_it_there() -> None:
    y = torch.randn(1000, 4, generator=generator_for(0, "rows"))
    y *= torch.tensor([0.3, 2.0, 1.0, 0.1])
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator_for(1, "turn"))).Q
    config = settings(encoder={"kind": "linear", "latent_dim": 2, "steps": 100}).encoder
    encoder = Encoder(4, config, generator_for(0, "test"))

    def lost() -> float:
        latent = encoder(y @ turn).double()
        centred = latent - latent.mean(0)
        back = centred @ torch.linalg.lstsq(centred, y.double()).solution
        return float((y - y.mean(0) - back).square().mean(0).sum())

    with torch.no_grad():
        encoder.start(y @ turn)
        assert lost() == pytest.approx(0.1, rel=0.1)
    fit("encoder", encoder, lambda _: encoder.phases(y @ turn), 0, Watcher())
    with torch.no_grad():
        assert lost() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("kind", ["columns", "mlp"])
def test_a_row_s_position_within_its_cluster_survives(kind: str) -> None:
    assert left_unexplained(*trained(kind=kind)) < 0.02


def test_cosine_similarity_on_a_circle_loses_it() -> None:
    lost = left_unexplained(*trained(kind="mlp", similarity="cosine", temperature=0.1))
    assert lost > 0.2


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_the_noise_of_the_views_is_the_scale_of_what_is_near(noise: float) -> None:
    """The best critic of noisy views is -|y - y'|^2 / (4 s^2), so that latents stretch by 1 / (2 s)."""
    y = torch.randn(1000, 2, generator=generator_for(0, "plane"))
    config = settings(encoder={"steps": 200, "latent_dim": 2, "kind": "mlp", "batch": 128})
    encoder = Encoder(2, replace(config.encoder, noise=noise), generator_for(0, "test"))
    fit("encoder", encoder, lambda _: encoder.phases(y), 0, Watcher())
    step = 0.01 * torch.randn(1000, 2, generator=generator_for(1, "plane"))
    with torch.no_grad():
        stretch = (encoder(y + step) - encoder(y)).norm(dim=1) / step.norm(dim=1)
    assert float(stretch.median()) == pytest.approx(1 / (2 * noise), rel=0.25)


def test_neither_view_is_the_one_that_looks_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views 1 that coincide are as bad as views 2 that do: exchanging the noise changes nothing."""
    config = settings(encoder={"latent_dim": 2, "kind": "columns"}).encoder
    encoder = Encoder(2, config, generator_for(0, "test"))
    y, *views = torch.randn(3, 50, 2, generator=generator_for(0, "views"))
    views[0] = (y[:1] - y) / config.noise
    losses = []
    for drawn in (torch.stack(views), torch.stack(views[::-1])):
        monkeypatch.setattr(torch, "randn", lambda *_, drawn=drawn, **__: drawn)
        losses.append(encoder.loss(y, torch.Generator())["info_nce"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_latents_have_unit_mean_spread() -> None:
    _, latent = trained()
    assert float(latent.std(0).mean()) == pytest.approx(1, abs=1e-3)
    assert float(latent.mean(0).abs().max()) < 1e-3


def test_column_curves_are_monotone_and_keep_columns_apart() -> None:
    curves = ColumnCurves(3, 5.0, generator_for(0, "curves"))
    for parameter in curves.parameters():
        torch.nn.init.normal_(parameter, generator=generator_for(1, "curves"))
    y = torch.linspace(-4, 4, 1000)[:, None].expand(-1, 3)
    assert (curves(y).diff(dim=0) > 0).all()
    jacobian = torch.func.jacrev(lambda row: curves(row[None])[0])(torch.zeros(3))
    assert torch.equal(jacobian, jacobian.diag().diag())


def test_an_encoder_s_slope_is_its_jacobian_s() -> None:
    config = settings(encoder={"latent_dim": 3, "kind": "columns"}).encoder
    encoder = Encoder(3, config, generator_for(0, "slope"))
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, generator=generator_for(1, "slope"))
    encoder.spread.fill_(0.3)
    y = torch.randn(50, 3, generator=generator_for(2, "slope"))
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: encoder(row[None])[0]))(y)
    torch.testing.assert_close(encoder.log_slope(y), torch.linalg.slogdet(jacobians).logabsdet)
