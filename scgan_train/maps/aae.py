"""Adversarial autoencoders, the paper's maps: `aae`.

An encoder q_i(w|eps) and a map g_i(eps|w) a cluster, a critic on codes (equation 2) and a critic on
latents (equation 3), in the cluster's frame: g(w) = w + MLP(w), q(v) = v + MLP(v), last layers zero
at the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scgan_train.fitting.loop import Phase, Player
from scgan_train.maps.base import Members, ResidualMapper
from scgan_train.nets import ClusterMLP, critic_loss, generator_loss, gradient_penalty

BATCH = 64  # rows a cluster


class AdversarialMapper(ResidualMapper):
    """The residual map of every cluster, trained against two critics."""

    @staticmethod
    def defaults(e: int, rows: int, steps: int = 0) -> dict[str, Any]:
        """Return width, steps and lr."""
        return {"width": 32, "steps": 800, "lr": 2e-3, "layers": 1}

    def build(self, generator: torch.Generator, sizes: Sequence[int]) -> None:
        super().build(generator, sizes)
        size, e = self.clusters.means.shape
        self.code = ClusterMLP(size, [e, int(self.config.width), e], generator, zero=True)
        self.critics = nn.ModuleList(ClusterMLP(size, [e, 24, 24, 1], generator) for _ in range(2))

    def loss(self, v: Tensor, w: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the autoencoder's terms on whitened latents v and codes w, both [K, b, e]."""
        on_codes, on_latents = self.critics
        code = v + self.code(v)
        again = code + self.map(code)
        return {
            "reconstruction": (again - v).square().mean(),
            "codes": 0.2 * generator_loss(on_codes(code)),
            "latents": generator_loss(on_latents(w + self.map(w))),
        }

    def critic_loss(self, v: Tensor, w: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the two critics' terms, with R1 at a quarter of the real codes and latents."""
        on_codes, on_latents = self.critics
        with torch.no_grad():
            code, fake = v + self.code(v), w + self.map(w)
        few_w, few_v = (real[:, : BATCH // 4].clone().requires_grad_() for real in (w, v))
        slopes = gradient_penalty(on_codes(few_w), few_w) + gradient_penalty(
            on_latents(few_v), few_v
        )
        return {
            "critic_codes": critic_loss(on_codes(w), on_codes(code)),
            "critic_latents": critic_loss(on_latents(v), on_latents(fake)),
            "penalty": 0.05 * slopes,
        }

    def phases(
        self, latents: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Phase]:
        """Yield one adversarial phase; the maps' average is what stays."""
        members = Members(self.clusters, latents, labels)
        steps, lr = int(self.config.steps), float(self.config.lr)

        def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            v = members.draw(BATCH, generator)
            return v, torch.randn(v.shape, generator=generator).to(v)

        maps = [*self.map.parameters(), *self.code.parameters()]
        players = (
            Player(
                "critics",
                list(self.critics.parameters()),
                self.critic_loss,
                1.5 * lr,
                betas=(0.0, 0.99),
            ),
            Player("maps", maps, self.loss, lr, betas=(0.0, 0.99)),
        )
        yield Phase("adversarial autoencoders", steps, draw, players, average=self.map, decay=0.99)
