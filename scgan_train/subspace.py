"""Subspaces through which noise enters the decoder, of its layers and its output.

At the output y = D(eps) + U diag(s) psi(v), v = C (1 + N(eps)) diag(exp g(eps)) z. U [d', q] spans
the leading principal axes of residuals y - D(eps), rotated so that as many columns as possible lie
along one axis; s are the residuals' spreads there, psi their normal quantiles, a monotone line of
many pieces for each, D(eps) the origin. C is the Cholesky factor of their normal scores v. N
(strictly lower triangular) turns noise, g stretches it, by the latent; both start at 0. Then

    log p(v | eps) = log N(exp(-g) (1 + N)^-1 C^-1 v; 0, 1) - sum g - log det C

which is that of the residuals but for a constant. z = 0 is D(eps), the mean, which psi need not
have in its middle: within about `NEAR` of it the noise fades away. Steep quantiles magnify what v
was rounded by: so v is z plus what the factors add, and psi is nowhere steeper than `STEEPEST`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scgan_train.graph import Var, const, op
from scgan_train.maps.base import log_normal
from scgan_train.nets import mlp, mlp_graph

WIDTH = 64  # hidden units of the network of N and g
MIXED = 8  # matrices that N is a combination of
MOST = 3.0  # of |g|
BELIEF = 50  # weight, in rows, of the spread from other rows
STEP, PIECES = 0.25, 16  # of psi, from 0 to 4 on both sides
STEEPEST = 12.0  # slope of psi: rounding of v then moves nothing by 1e-5 of a spread
NEAR = 0.02  # length of z
MOST_SORTED = 2**23  # numbers that psi is estimated from
NARROWEST = 1e-4  # spread of a direction, in standardised coordinates


def principal(residuals: Tensor) -> tuple[Tensor, Tensor]:
    """Return residuals' [n, d'] variances [d'] about 0, principal axes [d', d'], widest first."""
    values, axes = torch.linalg.eigh(residuals.double().mT @ residuals.double() / len(residuals))
    return values.flip(0).clamp(min=NARROWEST**2), axes.flip(1)


def _no_steeper(quantiles: Tensor) -> Tensor:
    """Return quantiles [q, 2 PIECES + 1], slopes limited to `STEEPEST` from the middle outwards."""
    most = STEEPEST * STEP * torch.arange(PIECES + 1).to(quantiles)
    below, above = (
        (side - most).cummin(1).values + most
        for side in (-quantiles[:, : PIECES + 1].flip(1), quantiles[:, PIECES:])
    )
    return torch.cat([-below[:, 1:].flip(1), above], 1)


class Subspace(nn.Module):
    """Adds z to a layer: h + U diag(s) z, U orthonormal [width, q]; none until s is set."""

    def __init__(self, width: int, noise: int, generator: torch.Generator) -> None:
        super().__init__()
        basis, _ = torch.linalg.qr(torch.randn(width, noise, generator=generator))
        self.basis = nn.Parameter(basis.contiguous())
        self.importance = nn.Parameter(torch.zeros(noise))

    def forward(self, z: Tensor) -> Tensor:
        """Return the shift of a layer [n, width] by noise z [n, q]: U diag(s) z."""
        return z @ self.directions()

    def directions(self) -> Tensor:
        """Return diag(s) U^T [q, width]."""
        return (self.basis * self.importance).T

    def orthogonality(self) -> Tensor:
        """Return |U^T U - 1|^2."""
        gram = self.basis.T @ self.basis
        return (gram - torch.eye(len(gram), device=gram.device)).square().sum()


class Residual(Subspace):
    """The part of y [n, d'] that the latent [n, e] loses, as noise z [n, q]; none until `start`.

    Attributes:
        quantiles: psi at its knots [q, 2 PIECES + 1].
        factor: C [q, q].
    """

    quantiles: Tensor
    factor: Tensor

    def __init__(self, latent_dim: int, dims: int, noise: int, generator: torch.Generator) -> None:
        super().__init__(dims, noise, generator)
        self.shape = mlp([latent_dim, WIDTH, noise + MIXED], generator)
        self.turns = nn.Parameter(torch.zeros(MIXED, noise, noise))
        self.register_buffer("quantiles", torch.zeros(noise, 2 * PIECES + 1))
        self.register_buffer("factor", torch.eye(noise))
        *_, last = self.shape.children()
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight[:noise])  # and so g, but not the mixture of N

    @property
    def moved(self) -> list[nn.Parameter]:
        """Parameters fitted by likelihood: the network and the matrices that N combines."""
        return [*self.shape.parameters(), self.turns]

    @torch.no_grad()
    def start(self, residuals: Tensor) -> None:
        """Estimate U, s, psi and C from residuals [n, d']."""
        axes = principal(residuals)[1][:, : len(self.importance)]
        turn = scipy.linalg.qr(axes.T.numpy(force=True), mode="economic", pivoting=True)[0]
        self.basis.copy_(axes @ torch.from_numpy(turn).to(axes))
        t = residuals @ self.basis
        self.importance.copy_(t.square().mean(0).sqrt().clamp(min=NARROWEST))
        t, knots = t / self.importance, self.knots.to(t)
        some, shares = t[:: 1 + t.numel() // MOST_SORTED], torch.special.ndtr(knots)
        self.quantiles.copy_(torch.quantile(some, shares, 0).T + NARROWEST * knots)
        covariance = torch.cov(self.scores(t).double().T).reshape(len(turn), -1)
        narrow = NARROWEST * torch.eye(len(turn)).to(covariance)
        self.factor.copy_(torch.linalg.cholesky(covariance + narrow))

    @property
    def knots(self) -> Tensor:
        """Normal scores at which psi is known."""
        return STEP * torch.arange(-PIECES, PIECES + 1.0)

    def scores(self, t: Tensor) -> Tensor:
        """Return v [n, q] with psi(v) = t, a last knot for t beyond it."""
        known = self.quantiles
        index = torch.searchsorted(known[:, 1:-1].contiguous(), t.T.contiguous())
        low, high = known.gather(1, index), known.gather(1, index + 1)
        share = ((t.T - low) / (high - low)).clamp(0, 1)
        return STEP * (index + share - PIECES).T

    def _slopes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return psi(0) [q], and its changes of slope at the knots above and below, [q, PIECES]."""
        rises = self.quantiles.diff() / STEP
        up, down = rises[:, PIECES:], rises[:, :PIECES].flip(1)
        start = torch.zeros_like(up[:, :1])
        return self.quantiles[:, PIECES], up.diff(prepend=start), down.diff(prepend=start)

    def psi(self, v: Tensor) -> Tensor:
        """Return t [n, q] at normal scores v, which are clipped to the last knots."""
        v = v.clamp(-STEP * PIECES, STEP * PIECES)
        (middle, up, down), knots = self._slopes(), STEP * torch.arange(PIECES).to(v)
        above, below = ((side.unsqueeze(2) - knots).relu() for side in (v, -v))
        return middle + (above * up).sum(2) - (below * down).sum(2)

    @torch.no_grad()
    def calibrate(self, latent: Tensor, back: Tensor) -> None:
        """Fit the noise's marginals to those of residuals, and s to their size on held-out rows.

        Args:
            latent: [n, e], of the rows that the noise was fitted to.
            back: residuals [m, d'] of other rows, which weigh as m rows in s.
        """
        scores = self.scores(back @ self.basis / self.importance)
        squares = (scores.square().sum(0) + BELIEF) / (len(scores) + BELIEF)
        self.importance.mul_(squares.sqrt())
        z = torch.randn(len(latent), len(self.importance), generator=torch.Generator())
        v = self.mixed(latent, z.to(latent)).T.contiguous().sort().values
        knots = self.knots.to(v).expand(len(v), -1).contiguous()
        counts = torch.searchsorted(v, knots).clamp(1, v.shape[1] - 1)
        known = self.psi(torch.special.ndtri(counts.to(v) / v.shape[1]).T).T
        self.quantiles.copy_(_no_steeper(known) + NARROWEST * knots)

    def shaped(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return g [n, q] and the shares [n, MIXED] of the matrices in N."""
        out = self.shape(latent)
        noise = len(self.importance)
        return MOST * torch.tanh(out[:, :noise] / MOST), torch.tanh(out[:, noise:])

    def add(self, latent: Tensor, z: Tensor) -> Tensor:
        """Return what noise z [n, q] adds to coordinates [n, d']."""
        near = torch.exp(z.square().sum(1, keepdim=True) * (-0.5 / NEAR**2))
        return self.forward(self.psi(self.mixed(latent, z)) - near * self.quantiles[:, PIECES])

    def mixed(self, latent: Tensor, z: Tensor) -> Tensor:
        """Return normal scores v [n, q], as z plus an increment, for less rounding in float32."""
        stretch, shares = self.shaped(latent)
        half = torch.tanh(stretch / 2)
        more = z * (2 * half / (1 - half))  # z (exp g - 1)
        turned = ((z + more) @ self._flat()).reshape(-1, MIXED, z.shape[1])
        more = more + (shares.unsqueeze(2) * turned).sum(1)
        return z + (more + (z + more) @ self._turn())

    def _turn(self) -> Tensor:
        """Return (C - 1)^T."""
        return self.factor.T - torch.eye(len(self.factor)).to(self.factor)

    def _flat(self) -> Tensor:
        """Return the strictly lower triangular matrices, transposed and beside each other."""
        return self.turns.tril(-1).permute(2, 0, 1).flatten(1)

    def add_graph(self, latent: Var, z: Var, scale: NDArray[Any]) -> Var:
        """Return `add` as a graph, times scale [d']."""
        noise = len(self.importance)
        stretch, shares = op.split(
            mlp_graph(self.shape, latent), const([noise, MIXED], np.int64), axis=1
        )
        half = op.tanh(op.mul(op.tanh(op.mul(stretch, const(1 / MOST))), const(MOST / 2)))
        more = op.mul(z, op.div(op.add(half, half), op.sub(const(1.0), half)))
        shape = const([-1, MIXED, noise], np.int64)
        turned = op.reshape(op.matmul(op.add(z, more), const(self._flat())), shape)
        weights = op.unsqueeze(op.tanh(shares), const([2], np.int64))
        moved = op.reduce_sum(op.mul(turned, weights), const([1], np.int64), keepdims=0)
        more = op.add(more, moved)
        length = op.reduce_sum(op.mul(z, z), const([1], np.int64))
        near = op.exp(op.mul(length, const(-0.5 / NEAR**2)))
        v = op.add(z, op.add(more, op.matmul(op.add(z, more), const(self._turn()))))
        t = op.sub(self._psi_graph(v), op.mul(near, const(self._slopes()[0])))
        return op.matmul(t, const(self.directions().double().numpy(force=True) * scale))

    def _psi_graph(self, v: Var) -> Var:
        middle, up, down = self._slopes()
        v = op.clip(v, const(-STEP * PIECES), const(STEP * PIECES))
        wide, knots = op.unsqueeze(v, const([2], np.int64)), const(STEP * np.arange(PIECES))
        above, below = (
            op.reduce_sum(
                op.mul(op.relu(op.sub(side, knots)), const(steps)), const([2], np.int64), keepdims=0
            )
            for side, steps in ((wide, up), (op.neg(wide), down))
        )
        return op.add(op.sub(above, below), const(middle))

    def noise_of(self, latent: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
        """Return noise z [n, q] that adds residuals [n, d'], as far as along U, and g [n, q]."""
        stretch, shares = self.shaped(latent)
        turns = torch.einsum("na,aij->nij", shares, self.turns.tril(-1))
        v = self.scores(residuals @ self.basis / self.importance).T
        v = torch.linalg.solve_triangular(self.factor, v, upper=False).T.unsqueeze(2)
        upright = torch.linalg.solve_triangular(turns, v, upper=False, unitriangular=True)
        return upright.squeeze(2) * (-stretch).exp(), stretch

    def nats(self, latent: Tensor, residuals: Tensor) -> Tensor:
        """Return the mean of -log p(v | eps) of residuals [n, d'], without log det C."""
        z, stretch = self.noise_of(latent, residuals)
        return (stretch.sum(1) - log_normal(z)).mean()

    def loss(
        self, latent: Tensor, residuals: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return `nats` as the one term to descend."""
        return {"noise": self.nats(latent, residuals)}
