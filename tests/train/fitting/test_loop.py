from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import Watcher
from torch import Tensor, nn

import scgan_train
from scgan_train.fitting.loop import (
    Descent,
    Phase,
    Player,
    TrainingError,
    fit,
    generator_for,
    rows_of,
)
from scgan_train.nets import mlp

SMALL = {
    "device": "cpu",
    "encoder": {"steps": 30, "kind": "mlp"},
    "mapper": {"steps": 30, "kind": "flow"},
    "decoder": {"warm_steps": 30, "steps": 30},
}


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = generator_for(0, "toy")
        self.net = mlp([2, 8, 2], generator)
        self.x = torch.randn(200, 2, generator=generator)

    def loss(self, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        noise = 0.1 * torch.randn(x.shape, generator=generator)
        return {"error": (self.net(x + noise) - x.flip(1)).square().mean()}

    def phases(self, generator: torch.Generator) -> Iterator[Phase]:
        for name in ("first", "second"):
            scale = 1 + 0.1 * torch.rand((), generator=generator)
            player = Player(
                name, list(self.net.parameters()), lambda x, g, s=scale: self.loss(s * x, g), 1e-2
            )
            yield Phase(
                name,
                40,
                rows_of(self.x, batch=16),
                (player,),
                average=self.net,
                decay=0.9,
                warmup=5,
            )


def weights(toy: Toy) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in toy.net.parameters()])


@pytest.mark.parametrize("stopped_at", [1, 7, 40, 41, 55, 80])
def test_a_resumed_training_ends_in_the_same_bits(stopped_at: int) -> None:
    whole = Toy()
    fit("toy", whole, whole.phases, 5, Watcher())
    stopped, watcher = Toy(), Watcher(save_at=stopped_at)
    with pytest.raises(KeyboardInterrupt):
        fit("toy", stopped, stopped.phases, 5, watcher)
    resumed = Toy()
    fit("toy", resumed, resumed.phases, 5, Watcher(state=watcher.state))
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("decay", [None, 0.99])
def test_the_average_settles_where_the_weights_cannot(decay: float | None) -> None:
    """Steps that are too long dance around the best, 0, that the average comes near to, from far away."""
    net = nn.Linear(1, 100, bias=False, device="meta").to_empty(device="cpu")
    nn.init.constant_(net.weight, 5.0)

    def loss(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"error": (net.weight.T - x).square().mean()}

    player = Player("player", list(net.parameters()), loss, 0.1, clip=100.0)
    phase = Phase("phase", 1000, lambda g: (torch.randn(1, 100, generator=g),), (player,), floor=1)
    if decay:
        phase = replace(phase, average=net, decay=decay)
    fit("test", net, lambda _: iter([phase]), 0, Watcher())
    error = float(net.weight.detach().square().mean().sqrt())
    assert error < 0.1 if decay else error > 0.15


def test_a_step_is_that_of_adamw() -> None:
    mine, theirs = (nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    player = Player("all", list(mine.parameters()), dict, 0.1, (0.5, 0.9), 0.01, clip=2.0)
    descent = Descent(player)
    adamw = torch.optim.AdamW(theirs.parameters(), 0.1, (0.5, 0.9), weight_decay=0.01, fused=True)
    for share in (1.0, 0.5, 0.25):
        for net in (mine, theirs):
            net(torch.eye(3)).pow(4).sum().backward()
        descent.step(share)
        nn.utils.clip_grad_norm_(theirs.parameters(), 2.0)
        adamw.param_groups[0]["lr"] = 0.1 * share
        adamw.step()
        adamw.zero_grad()
        assert torch.equal(mine.weight, theirs.weight)
        assert torch.equal(mine.bias, theirs.bias)


def test_another_seed_gives_other_weights() -> None:
    toys = [Toy(), Toy()]
    for seed, toy in enumerate(toys):
        fit("toy", toy, toy.phases, seed, Watcher())
    assert not torch.equal(weights(toys[0]), weights(toys[1]))


def test_no_global_generator_is_touched() -> None:
    before = torch.random.get_rng_state()
    toy = Toy()
    fit("toy", toy, toy.phases, 0, Watcher())
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    toy = Toy()
    toy.x[:] = float("nan")
    with pytest.raises(TrainingError, match=r"stage toy, first, step 0: error = nan"):
        fit("toy", toy, toy.phases, 0, Watcher())


def test_a_run_does_not_depend_on_the_number_of_cores(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((2000, 3)) ** 3
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            run = scgan_train.train(rows, SMALL, tmp_path / str(threads))
        finally:
            torch.set_num_threads(before)
        runs.append({path.name: path.read_bytes() for path in run.path.glob("*.safetensors")})
    assert len(runs[0]) == 5
    assert runs[0] == runs[1]
