"""Stage 1: an encoder whose latents keep distances between rows, trained by contrast alone.

Two noisy copies of a row, a = y + s n and b = y + s n', should find each other among the batch
(InfoNCE, equation 1):

    loss = - E log [ exp(sim(f(a_i), f(b_i)) / tau) / sum_j exp(sim(f(a_i), f(b_j)) / tau) ]

and the same with a, b swapped. With sim = -|.|^2 the best critic is -|y - y'|^2 / (4 s^2): the
encoder becomes a scaled isometry, so a row's position in its cluster survives. Cosine similarity
lives on a sphere and flattens clusters at low dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from scgan_train.config import EncoderConfig
from scgan_train.fitting import distributed
from scgan_train.fitting.loop import Phase, Player, rows_of
from scgan_train.graph import Var, const, op
from scgan_train.nets import mlp, mlp_graph

CURVES = 8
STRAIGHT = -60.0  # logarithm of a bend that vanishes in float64


class ColumnCurves(nn.Module):
    """A monotone curve per coordinate: a (y + sum_h v_h tanh(s_h y + b_h)), positive a, v and s.

    Without a bend v is almost zero, and each curve a line.
    """

    def __init__(
        self, dims: int, slope: float, generator: torch.Generator, *, bent: bool = True
    ) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((dims,), math.log(slope)))
        self.height = nn.Parameter(torch.full((dims, CURVES), -4.0 if bent else STRAIGHT))
        self.steepness = nn.Parameter(torch.zeros(dims, CURVES))
        self.offset = nn.Parameter(torch.randn(dims, CURVES, generator=generator))

    def forward(self, y: Tensor) -> Tensor:
        """Return the curves' values [n, dims]."""
        bends = self.height.exp() * torch.tanh(self.steepness.exp() * y.unsqueeze(-1) + self.offset)
        return self.slope.exp() * (y + bends.sum(-1))

    def log_slope(self, y: Tensor) -> Tensor:
        """Return log |det df/dy| [n] of coordinates [n, dims]."""
        steepness = self.steepness.exp()
        bends = torch.tanh(steepness * y.unsqueeze(-1) + self.offset)
        rise = (self.height.exp() * steepness * (1 - bends.square())).sum(-1)
        return ((1 + rise).log() + self.slope).sum(1)

    def log_slope_graph(self, y: Var) -> Var:
        height, bends = self.height.exp() * self.steepness.exp(), self._bends_graph(y)
        flat = op.sub(const(1), op.mul(bends, bends))
        rise = op.reduce_sum(op.mul(flat, const(height)), const([2], np.int64), keepdims=0)
        logs = op.add(op.log(op.add(rise, const(1))), const(self.slope))
        return op.reduce_sum(logs, const([1], np.int64), keepdims=0)

    def graph(self, y: Var) -> Var:
        bends = op.mul(self._bends_graph(y), const(self.height.exp()))
        total = op.reduce_sum(bends, const([2], np.int64), keepdims=0)
        return op.mul(op.add(y, total), const(self.slope.exp()))

    def _bends_graph(self, y: Var) -> Var:
        """Return the hyperbolic tangents [n, dims, CURVES]."""
        wide = op.unsqueeze(y, const([2], np.int64))
        return op.tanh(op.add(op.mul(wide, const(self.steepness.exp())), const(self.offset)))


class Encoder(nn.Module):
    """f: coordinates [n, d'] to latents [n, e], of unit mean spread once `calibrate` was called."""

    center: Tensor
    spread: Tensor

    def __init__(self, dims: int, config: EncoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = int(config.latent_dim)
        slope = math.sqrt(config.temperature) / (2 * config.noise)
        hidden = [config.width] * 2 if config.kind == "mlp" else []
        self.net: nn.Module = (
            ColumnCurves(dims, slope, generator, bent=int(config.steps) > 0)
            if config.kind == "columns"
            else mlp([dims, *hidden, self.latent_dim], generator)
        )
        self.register_buffer("center", torch.zeros(self.latent_dim))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, y: Tensor) -> Tensor:
        """Return latents [n, e]."""
        latent: Tensor = self.net(y)
        if self.config.similarity == "cosine":
            latent = nn.functional.normalize(latent, dim=-1)
        return (latent - self.center) / self.spread

    def graph(self, y: Var) -> Var:
        latent = self.net.graph(y) if isinstance(self.net, ColumnCurves) else mlp_graph(self.net, y)
        if self.config.similarity == "cosine":
            norm = op.reduce_l2(latent, const([1], np.int64))
            latent = op.div(latent, op.max([norm, const(1e-12)]))
        return op.div(op.sub(latent, const(self.center)), const(self.spread))

    @property
    def invertible(self) -> bool:
        """Whether f is one-to-one, so that it has a slope."""
        return self.config.similarity == "euclidean" and isinstance(self.net, ColumnCurves)

    def log_slope(self, y: Tensor) -> Tensor:
        """Return log |det df/dy| [n] of coordinates [n, d'], where it is invertible."""
        assert isinstance(self.net, ColumnCurves)
        return self.net.log_slope(y) - self.latent_dim * self.spread.log()

    def log_slope_graph(self, y: Var) -> Var:
        assert isinstance(self.net, ColumnCurves)
        spread = self.latent_dim * self.spread.double().log()
        return op.sub(self.net.log_slope_graph(y), const(spread))

    def loss(self, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return InfoNCE of a batch of coordinates [b, d'] (equation 1, both directions)."""
        rows = len(y) * distributed.size()
        drawn = torch.randn(2, rows, y.shape[1], generator=generator)
        noise = self.config.noise * distributed.local_part(drawn, 1).to(y)
        a, b = self(y + noise[0]), self(y + noise[1])
        target = torch.arange(len(y), device=y.device) + distributed.rank() * len(y)
        forth, back = (
            nn.functional.cross_entropy(self.similarity(one, distributed.gather(other)), target)
            for one, other in ((a, b), (b, a))
        )
        return {"info_nce": (forth + back) / 2}

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Return sim / tau of each latent a [n, e] with each b [k, e], as [n, k]."""
        dots = a @ b.T
        if self.config.similarity == "euclidean":
            dots = 2 * dots - a.square().sum(-1, keepdim=True) - b.square().sum(-1)
        return dots / self.config.temperature

    def phases(self, y: Tensor) -> Iterator[Phase]:
        """Yield the one phase of this stage, on coordinates [n, d']."""
        config = self.config
        player = Player("encoder", list(self.net.parameters()), self.loss, config.lr)
        draw = rows_of(y, batch=min(config.batch, len(y)))
        yield Phase("contrast", int(config.steps), draw, (player,), warmup=100, share=True)

    @torch.no_grad()
    def start(self, y: Tensor) -> None:
        """Take coordinates' [n, d'] principal axes as a linear encoder's: contrast tends to them.

        Views differ by equal noise in all directions, so the widest distinguish rows best.
        """
        if self.config.kind == "linear":
            *_, layer = self.net.children()
            assert isinstance(layer, nn.Linear)
            _, axes = torch.linalg.eigh(torch.cov(y.double().T))
            layer.weight.copy_(axes.flip(1)[:, : self.latent_dim].T)
            layer.weight.mul_(math.sqrt(self.config.temperature) / (2 * self.config.noise))

    @torch.no_grad()
    def calibrate(self, y: Tensor) -> None:
        """Centre the latents and divide them by their mean coordinate spread over rows [n, d']."""
        if self.config.similarity == "euclidean":
            latent = self(y)
            self.center.copy_(latent.mean(0))
            self.spread.copy_(latent.std(0).mean())
