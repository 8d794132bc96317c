from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import onnx
import pytest
import torch
from cases import Watcher, settings

from scgan_train.config import MapperConfig
from scgan_train.decoder import Decoder, DecoderStage
from scgan_train.fitting import guards
from scgan_train.fitting.loop import Phase, fit, generator_for
from scgan_train.graph import argument, model
from scgan_train.latents.clusters import Clusters
from scgan_train.maps import latent_model

SMALL = {"widths": [32], "batch": 256, "critic_width": 64}
CONFIG = settings(decoder={"warm_steps": 300, "steps": 600} | SMALL).decoder
SMALLER = replace(CONFIG, batch=128, critic_width=32, warm_steps=200, steps=200)

GAUSSIAN = latent_model(
    "gaussian",
    Clusters(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1, 1), "em"),
    MapperConfig(),
    torch.Generator(),
)


@pytest.fixture(scope="module")
def lossy() -> tuple[DecoderStage, torch.Tensor, torch.Tensor]:
    """Three columns behind one latent: what the latent does not say, noise must."""
    generator = generator_for(0, "data")
    latent = torch.randn(3000, 1, generator=generator)
    y = torch.cat([latent, latent.square(), torch.randn(3000, 1, generator=generator)], 1)
    stage = DecoderStage(GAUSSIAN, latent, y, CONFIG, generator)
    fit("decoder", stage, lambda _: stage.phases(latent, y, (latent, y)), 0, Watcher())
    return stage, latent, y


def test_reconstruction_explains_what_the_latent_says(
    lossy: tuple[DecoderStage, torch.Tensor, torch.Tensor],
) -> None:
    stage, latent, y = lossy
    with torch.no_grad():
        error = (stage.decoder(latent) - y).square().mean(0)
    assert (error[:2] < 0.05).all()
    assert float(error[2]) > 0.5


def test_the_whole_of_equation_4_teaches_the_noise_what_the_latent_loses(
    lossy: tuple[DecoderStage, torch.Tensor, torch.Tensor],
) -> None:
    stage, latent, y = lossy
    with torch.no_grad():
        noise = torch.randn(len(latent), stage.decoder.noise, generator=generator_for(0, "z"))
        moved = (stage.decoder(latent, noise) - stage.decoder(latent)).std(0)
        lost = (y - stage.decoder(latent)).std(0)
    assert float(moved[2]) > 0.7 * float(lost[2])
    assert float(moved[0]) < 0.1


def test_subspaces_stay_orthonormal(lossy: tuple[DecoderStage, torch.Tensor, torch.Tensor]) -> None:
    for subspace in lossy[0].decoder.subspaces:
        gram = subspace.basis.T @ subspace.basis
        assert torch.allclose(gram, torch.eye(len(gram)), atol=0.05)


def before_and_after(
    latent: torch.Tensor, y: torch.Tensor, **options: object
) -> tuple[Decoder, Decoder]:
    """The decoder without and with the steps of equation 4; latents are generated from one Gaussian."""
    stage = DecoderStage(
        GAUSSIAN, latent, y, replace(SMALLER, **options), generator_for(0, "decoder")
    )
    before: list[Decoder] = []

    def phases() -> Iterator[Phase]:
        for phase in stage.phases(latent, y, (latent, y)):
            if phase.name == "critics":
                before.append(deepcopy(stage.decoder))
            yield phase

    fit("decoder", stage, lambda _: phases(), 0, Watcher())
    return before[0], stage.decoder


def test_the_critic_on_generations_empties_the_gap_and_reconstruction_holds_its_ground() -> None:
    """Latents of rows are two lumps, generated ones lie between them, too: the paper's trade-off."""
    generator = generator_for(0, "lumps")
    lumps = torch.randn(1500, 1, generator=generator).sign()
    lumps += 0.1 * torch.randn(1500, 1, generator=generator)
    latent = torch.randn(2000, 1, generator=generator)
    before, after = before_and_after(lumps, lumps)
    z = torch.randn(2000, after.noise, generator=generator)
    with torch.no_grad():
        gaps = [float((own(latent, z).abs() < 0.6).float().mean()) for own in (before, after)]
    assert gaps[0] > 0.4
    assert gaps[1] < 0.3
    assert after.error(lumps, lumps) < 0.012


def test_the_critic_on_reconstructions_puts_them_among_the_rows() -> None:
    """The second column is near 1 or -1, the latent does not say which; the least error lies between.

    Generated latents lie elsewhere, and say nothing about these.
    """
    generator = generator_for(0, "sides")
    first, noise = 0.5 * torch.randn(2, 1500, 1, generator=generator)
    side = torch.where(torch.rand(1500, 1, generator=generator) < 0.7, 1.0, -1.0)
    latent, y = 3 + first, torch.cat([first, side + 0.6 * noise], 1)
    both = before_and_after(latent, y, reconstruction=1.0, lambda_r=3.0, lambda_x=0.0)
    with torch.no_grad():
        made = [own(latent)[:, 1].abs() for own in both]
    off = [float(((side - 1).abs() > 0.5).float().mean()) for side in made]
    assert off[0] > 0.9
    assert off[1] < 0.4


def test_noise_of_a_phase_that_is_undone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "critic_won", lambda losses: bool(losses))
    latent, y = torch.randn(2, 500, 1, generator=generator_for(0, "undone"))
    _, after = before_and_after(latent, y, steps=30)
    z = torch.ones(500, after.noise)
    assert torch.equal(after(latent, z), after(latent))


@pytest.mark.parametrize("steps", [30, 600, 10_000])
def test_the_average_has_forgotten_where_equation_4_began(steps: int) -> None:
    latent = torch.zeros(10, 1)
    stage = DecoderStage(GAUSSIAN, latent, latent, replace(CONFIG, steps=steps), torch.Generator())
    *_, phase = stage.phases(latent, latent, (latent, latent))
    assert phase.decay**steps < 1e-3


def test_every_parameter_hears_the_objective(
    lossy: tuple[DecoderStage, torch.Tensor, torch.Tensor],
) -> None:
    stage, latent, y = lossy
    terms = stage.loss(latent[:64], y[:64], generator_for(0, "loss"))
    gradients = torch.autograd.grad(sum(terms.values()), list(stage.decoder.parameters()))
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_it_starts_as_the_least_squares_fit() -> None:
    generator = generator_for(1, "linear")
    latent = torch.randn(500, 2, generator=generator)
    y = latent @ torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]) + 0.25
    decoder = Decoder(2, 3, 16, 2, 0, generator)
    decoder.start(latent, y)
    assert torch.allclose(decoder(latent), y, atol=1e-5)


@pytest.mark.parametrize(
    ("bends", "error", "width"), [(0.0, 1e-6, 4), (2.0, 1e-6, 16), (2.0, 0.5, 4)]
)
def test_the_narrowest_width_that_is_good_enough_is_taken(
    bends: float, error: float, width: int
) -> None:
    """A line needs no units; waves need more, unless a large error is good enough."""
    generator = generator_for(2, "waves")
    latent = 2 * torch.randn(2000, 1, generator=generator)
    y = torch.cat([latent, latent + torch.sin(bends * latent)], 1)
    config = replace(CONFIG, widths=(4, 8, 16), error=error, warm_steps=400, steps=0)
    stage = DecoderStage(GAUSSIAN, latent, y, config, generator)
    fit("decoder", stage, lambda _: stage.phases(latent, y, (latent, y)), 0, Watcher())
    assert stage.decoder.width == width


def test_a_wider_one_that_does_not_lower_the_error_is_not_taken() -> None:
    generator = generator_for(3, "noise")
    latent, y = torch.randn(2, 2000, 1, generator=generator)
    config = replace(CONFIG, widths=(4, 8, 16), error=1e-6, warm_steps=100, steps=0)
    stage, watcher = DecoderStage(GAUSSIAN, latent, y, config, generator), Watcher()
    fit("decoder", stage, lambda _: stage.phases(latent, y, (latent, y)), 0, watcher)
    assert stage.decoder.width == 4
    assert {phase for phase, _ in watcher.seen} == {"width 4", "width 8"}


def restored(
    latent: torch.Tensor, y: torch.Tensor, back: int, lost: int, **more: object
) -> tuple[DecoderStage, torch.Tensor]:
    """Train a decoder whose noise restores, and return what that adds to coordinates."""
    config = replace(CONFIG, **{"steps": 0, "lr": 5e-3} | more)
    generator = generator_for(6, "decoder")
    stage = DecoderStage(GAUSSIAN, latent[back:], y[back:], config, generator, lost)
    kept = latent[:back], y[:back]
    fit("decoder", stage, lambda _: stage.phases(latent[back:], y[back:], kept), 0, Watcher())
    with torch.no_grad():
        z = torch.randn(len(latent), stage.decoder.noise, generator=generator_for(0, "z"))
        return stage, stage.decoder(latent, z) - stage.decoder(latent)


def test_noise_restores_the_spread_that_the_latent_lost_where_it_lost_it() -> None:
    """Two columns have a known spread given the latent, one of them one that depends on it; they correlate."""
    generator = generator_for(7, "lost")
    latent = torch.randn(4000, 1, generator=generator)
    first, second = torch.randn(2, 4000, 1, generator=generator)
    spread = (latent / 2).exp()
    y = torch.cat([latent, latent.sin() + first, spread * (0.8 * first + 0.6 * second)], 1)
    stage, added = restored(latent, y, 400, 2, widths=(16,), warm_steps=800)
    lost = torch.cat([first, spread], 1).square().mean(0).sqrt()
    assert (added.std(0)[1:] / lost).tolist() == pytest.approx([1, 1], abs=0.1)
    assert added[:, 0].std() < 0.05
    for rows in (latent[:, 0] > 0.5, latent[:, 0] < -0.5):
        even = added[rows, 1:] / torch.cat([torch.ones_like(spread), spread], 1)[rows]
        assert even.std(0).tolist() == pytest.approx([1, 1], abs=0.12)
        assert float(torch.corrcoef(even.T)[0, 1]) == pytest.approx(0.8, abs=0.1)
    with torch.no_grad():
        still = stage.decoder(latent, torch.zeros(len(latent), 2))
    assert torch.equal(still, stage.decoder(latent))


@pytest.mark.parametrize(
    ("stopped_at", "widths"),
    [
        *((at, (4, 8, 16)) for at in (200, 600, 1000, 1220)),
        *((at, (4,)) for at in (300, 500, 700, 810)),
    ],
)
def test_a_stage_stopped_at_any_phase_goes_on_to_the_same_decoder(
    stopped_at: int, widths: tuple[int, ...]
) -> None:
    generator = generator_for(4, "waves")
    latent = 2 * torch.randn(1000, 1, generator=generator)
    y = torch.cat([latent, torch.sin(2 * latent)], 1)
    lost = int(len(widths) == 1)
    steps = 200 if lost else 400
    config = replace(CONFIG, widths=widths, error=1e-9, warm_steps=steps, steps=30)

    def trained(watcher: Watcher) -> DecoderStage:
        stage = DecoderStage(GAUSSIAN, latent, y, config, generator_for(5, "decoder"), lost)
        fit("decoder", stage, lambda _: stage.phases(latent, y, (latent, y)), 0, watcher)
        return stage

    whole, watcher = trained(Watcher()), Watcher(save_at=stopped_at)
    with pytest.raises(KeyboardInterrupt):
        trained(watcher)
    resumed = trained(Watcher(state=watcher.state))
    assert whole.decoder.width == resumed.decoder.width == widths[-1]
    for one, other in zip(whole.decoder.parameters(), resumed.decoder.parameters(), strict=True):
        assert torch.equal(one, other)


def test_behind_lines_nothing_is_trained_and_the_graph_has_no_layers() -> None:
    latent = torch.randn(500, 2, generator=generator_for(0, "data"))
    y = latent @ torch.tensor([[1.0, 0.5], [0.0, 2.0]]) + 3
    config = replace(CONFIG, steps=0)
    stage = DecoderStage(GAUSSIAN, latent, y, config, generator_for(0, "decoder"))
    assert not list(stage.phases(latent, y, (latent, y)))
    assert stage.decoder.error(latent, y) < 1e-9
    x = argument(("n", 2))
    graph = onnx.load_from_string(model({"x": x}, {"y": stage.decoder.graph(x, None)}))
    assert {node.op_type for node in graph.graph.node} == {"Add", "MatMul", "Identity"}
    bent = DecoderStage(GAUSSIAN, latent, y + latent.square(), config, generator_for(0, "decoder"))
    assert next(bent.phases(latent, y, (latent, y))).steps == config.warm_steps
