"""A training that goes wrong stops or repairs itself, and says so in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import mixed_table, settings
from torch import Tensor, nn

import scgan_train
from scgan_infer import bundle
from scgan_infer.columns import Column, Table
from scgan_train.coordinates import discrete
from scgan_train.encoder import Encoder
from scgan_train.exporting.exporter import export
from scgan_train.fitting import guards
from scgan_train.fitting.guards import TrainingError
from scgan_train.fitting.loop import Phase, Player, fit
from scgan_train.run_folder import Run
from scgan_train.training.stages import train


def plane(n: int = 800) -> Table:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(n, 2)) + 6 * rng.integers(2, size=(n, 1))
    return Table((Column("x"), Column("y")), values.astype(np.float32))


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    config = settings(encoder={"kind": "mlp", "lr": 1e30}, clusters={"k": 2})
    with pytest.raises(TrainingError, match=r"stage encoder.*learning rate"):
        train(plane(), config, tmp_path / "run")
    assert not Run.load(tmp_path / "run").finished("encoder")


class Collapsed(Encoder):
    """Keeps one direction of the coordinates only."""

    def forward(self, y: Tensor) -> Tensor:
        latent = super().forward(y)
        return latent[:, :1].expand(latent.shape) + 1e-4 * latent


@pytest.mark.parametrize("factor", [0.0, 1e-3, np.nan])
def test_latents_without_spread_are_refused(factor: float) -> None:
    y = torch.from_numpy(plane().values)
    flat = y * torch.tensor([1.0, factor])
    with pytest.raises(TrainingError, match="collapsed"):
        guards.check_encoder(flat, y)
    with pytest.raises(TrainingError, match="collapsed"):
        guards.check_encoder(flat * 0, y)
    guards.check_encoder(y[:, :1], y)
    guards.check_encoder(y @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]), y)


def test_data_on_a_line_is_no_collapse(tmp_path: Path) -> None:
    x = plane().values[:, :1]
    table = Table((Column("x"), Column("y")), np.hstack([x, 2 * x]))
    assert train(table, settings(clusters={"k": 2}), tmp_path / "run").finished("decoder")


def test_a_collapsed_encoder_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scgan_train.training.stages.Encoder", Collapsed)
    with pytest.raises(
        TrainingError, match=r"stage encoder: it collapsed, its latents have effective rank 1"
    ):
        train(plane(), settings(), tmp_path / "run")
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


@pytest.mark.parametrize("refine", [True, False])
def test_clusters_without_rows_are_dropped_and_that_is_said(
    tmp_path: Path, refine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discrete, "find", lambda *_: ())  # three points are discrete values
    monkeypatch.setattr(discrete, "is_spiked", lambda column, cells: False)
    rng = np.random.default_rng(0)
    values = np.repeat([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], 100, 0)[rng.permutation(300)]
    table = Table((Column("x"), Column("y")), values.astype(np.float32))
    config = settings(clusters={"k": 8, "refine": refine, "min_rows": 10})
    run = train(table, config, tmp_path / "run")
    clusters, labels, _ = run.load_clusters()
    assert len(clusters) < 8
    assert "clusters have rows" in run.facts["clusters"]
    assert torch.bincount(labels, minlength=len(clusters)).min() > 0


class Duel(nn.Module):
    """A number that a critic reads off; `held` keeps its maker from answering."""

    def __init__(self, held: bool) -> None:
        super().__init__()
        self.held = held
        self.made = nn.Parameter(torch.full((1,), 30.0))
        self.score = nn.Parameter(torch.zeros(2))

    def critic(self, x: Tensor) -> Tensor:
        return self.score[0] * x + self.score[1]

    def critic_loss(self, real: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        soft = nn.functional.softplus
        return {
            "critic_x": soft(-self.critic(real)).mean()
            + soft(self.critic(self.made.detach())).mean()
        }

    def loss(self, real: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        pull = (self.made - 30.5).square() if self.held else (self.made - real.mean()).square()
        return {"made": pull.sum()}

    def phases(self, generator: torch.Generator) -> Iterator[Phase]:
        players = (
            Player("critic", [self.score], self.critic_loss, 0.05, clip=100.0),
            Player("maker", [self.made], self.loss, 0.1, clip=100.0),
        )
        yield Phase("duel", 600, lambda g: (torch.randn(64, generator=g),), players, floor=1.0)


class Watcher:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.state: dict[str, Tensor] = {}
        self.step = 0

    def begin(self, phase: str, steps: int) -> None: ...

    def losses(self, phase: str, step: int, terms: dict[str, float]) -> None:
        self.step = step

    def due(self) -> bool:
        return self.step == 550 and not self.state

    def save(self, state: dict[str, Tensor]) -> None:
        self.state = {name: tensor.clone() for name, tensor in state.items()}

    def restore(self) -> dict[str, Tensor]:
        return {}

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_critic_that_wins_outright_has_its_phase_undone() -> None:
    lost, watcher = Duel(held=True), Watcher()
    fit("test", lost, lost.phases, 0, watcher)
    assert lost.made.item() == 30.0
    assert lost.score.tolist() == [0.0, 0.0]
    (note,) = watcher.notes
    assert "a critic won outright" in note
    assert "\n" not in note
    even, watcher = Duel(held=False), Watcher()
    fit("test", even, even.phases, 0, watcher)
    assert abs(even.made.item()) < 1
    assert watcher.notes == []


def test_a_resumed_phase_is_undone_all_the_same() -> None:
    lost, watcher = Duel(held=True), Watcher()
    fit("test", lost, lost.phases, 0, watcher)
    assert int(watcher.state["step"]) > 450
    again, second = Duel(held=True), Watcher()
    second.restore = lambda: watcher.state  # type: ignore[method-assign]
    fit("test", again, again.phases, 0, second)
    assert again.made.item() == 30.0
    assert second.notes == watcher.notes


def test_reconstructions_worse_than_a_constant_stop_the_run(tmp_path: Path) -> None:
    y = torch.from_numpy(plane().values)
    guards.check_decoder(y * 0.9, y)
    with pytest.raises(TrainingError, match=r"stage decoder.*a constant has"):
        guards.check_decoder(-y, y)
    config = settings(decoder={"lr": 30.0, "warm_steps": 40}, clusters={"k": 2})
    with pytest.raises(TrainingError, match=r"stage decoder"):
        train(plane(), config, tmp_path / "run")
    assert not (tmp_path / "run" / "decoder.safetensors").exists()


def test_an_export_says_what_its_figures_have_against_it(tmp_path: Path) -> None:
    run = train(mixed_table(6000), settings(latents="gaussian"), tmp_path / "run", "mixed.csv")
    export(run, tmp_path / "bundle")
    loaded = bundle.load(tmp_path / "bundle").manifest
    assert loaded.metrics["c2st"] > 0.7
    (note,) = loaded.metrics["notes"]
    assert note.startswith("c2st 0.")
    assert f"Note: {note}." in (tmp_path / "bundle" / "card.md").read_text()


def test_a_table_too_small_to_hold_rows_out_is_judged_by_those_trained_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(600)
    rows = {
        "x": x,
        "y": np.abs(x) ** 3 * rng.choice([-1, 1], 600),
        "k": rng.choice(["a", "b"], 600),
    }
    run = scgan_train.train(rows, settings(latents="gaussian"), tmp_path / "run")
    assert "c2st" not in run.facts["figures"]
    scgan_train.train(rows, None, tmp_path / "run", resume=True)
    scgan_train.export(run.path, tmp_path / "bundle")
    (told,) = bundle.load(tmp_path / "bundle").manifest.metrics["notes"]
    assert re.match(r"c2st 0.[6-9]\d* ± 0.01\d on rows trained on", told)


def test_figures_at_and_beyond_their_bounds() -> None:
    assert guards.quality_warnings({"c2st": 0.55, "mse": 0.5}) == []
    assert len(guards.quality_warnings({"c2st": 0.56, "mse": 0.51})) == 2
    assert guards.quality_warnings({"c2st": 0.56, "rows": 1000}) == []
    (note,) = guards.quality_warnings({"c2st": 0.6, "rows": 1000})
    assert note.startswith("c2st 0.6 ± 0.013 on held-out rows")
    assert len(guards.quality_warnings({"mse": float("nan")})) == 1


def test_the_error_of_an_area_is_what_it_swings_by() -> None:
    pytest.importorskip("sklearn")
    from sklearn.metrics import roc_auc_score

    rng, label = np.random.default_rng(0), np.repeat([0, 1], 50)
    areas = [roc_auc_score(label, rng.random(100)) for _ in range(400)]
    assert guards.c2st_error(50) == pytest.approx(np.std(areas), rel=0.1)


def test_shares_that_are_off_are_named_and_others_are_not() -> None:
    real, made = torch.arange(4000) % 4, torch.arange(4000) % 3
    clusters = [f"cluster {i}" for i in range(4)]
    notes = guards.share_warnings([(["m", "f"], real % 2, real % 2), (clusters, real, made)])
    assert len(notes) == 3
    assert notes[0].startswith(
        "cluster 3: 0.00% of generated rows, but 25.00% ± 0.68% of held-out ones"
    )
