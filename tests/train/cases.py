"""What several tests train on."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from scgan_infer.columns import Column, Table
from scgan_train import config as configs
from scgan_train.config import Config

TINY = {
    "clusters": {"k": 6},
    "encoder": {"steps": 60},
    "mapper": {"steps": 60},
    "decoder": {"warm_steps": 150, "steps": 30, "widths": [32]},
}


def settings(**more: object) -> Config:
    return configs.from_dict(configs.merge(TINY, more))


def mixed_table(n: int = 1500) -> Table:
    """Every kind of column, three pieces that don't touch, and a column that never varies."""
    rng = np.random.default_rng(3)
    piece = rng.integers(3, size=n)
    columns = (
        Column("r"),
        Column("pt", "log"),
        Column("phi", "periodic", period=360.0, low=-180.0),
        Column("share", "bounded", low=0.0, high=1.0),
        Column("depth", "bounded", low=2.0, decimals=2),
        Column("count", "integer"),
        Column("species", "category", categories=("a", "b", "c")),
        Column("same"),
    )
    values = np.column_stack(
        [
            3.0 * piece + 0.1 * rng.standard_normal(n),
            np.exp(piece + 0.3 * rng.standard_normal(n)),
            (120.0 * piece + 170.0 + 20.0 * rng.standard_normal(n) + 180.0) % 360.0 - 180.0,
            rng.beta(2, 2, n),
            np.round(2.0 + rng.exponential(1.0, n), 2),
            rng.poisson(40, n),
            piece,
            np.full(n, 7.5),
        ]
    )
    return Table(columns, values.astype(np.float32))


def lossy_table(n: int, seed: int) -> Table:
    """Two columns in pieces that go together, of which a latent is made; heavy tails and tenths, which it loses."""
    rng = np.random.default_rng(seed)
    apart = 3.0 * rng.choice([-1, 1], n) + rng.standard_normal(n)
    wide = 0.9 * apart + rng.standard_normal(n)
    tenths = np.round(2 * rng.standard_normal(n) + 0.1 * wide, 1)
    columns = (Column("apart"), Column("wide"), Column("tails"), Column("tenths", decimals=1))
    values = [apart, wide, rng.standard_t(2, n), tenths]
    return Table(columns, np.column_stack(values).astype(np.float32))


class Watcher:
    """Keeps a checkpoint at chosen calls of `due`, and stops like a kill when told to."""

    def __init__(self, save_at: int = -1, state: dict[str, Tensor] | None = None) -> None:
        self.calls = 0
        self.save_at = save_at
        self.state = state or {}
        self.seen: list[tuple[str, int]] = []

    def begin(self, phase: str, steps: int) -> None: ...

    def losses(self, phase: str, step: int, terms: dict[str, float]) -> None:
        self.seen.append((phase, step))

    def due(self) -> bool:
        self.calls += 1
        return self.calls == self.save_at

    def save(self, state: dict[str, Tensor]) -> None:
        self.state = {name: tensor.clone() for name, tensor in state.items()}
        raise KeyboardInterrupt

    def restore(self) -> dict[str, Tensor]:
        return self.state

    def note(self, message: str) -> None: ...
