"""Stage 3: a stochastic decoder of latents to coordinates, noise entering at every layer.

    h_0 = W_0 eps;   h_{l+1} = W_{l+1} silu(h_l + mu_l + U_l diag(s_l) z_l);   y = S eps + t + h_L

U_l has orthonormal columns (kept so by a penalty): the l-th noise moves h along its directions, by
importances s_l, around the origin mu_l, the bias of the layer before. z = 0 reconstructs; without
noise there is no z. The affine skip S starts as the least-squares fit, the last W as zero; where
the skip is exact, as behind an encoder of lines, nothing is trained and graphs have no layers.
Where the latent has fewer dimensions than the row, noise enters at the output instead, fitted by
likelihood to residuals of rows that the decoder has not seen (`subspace`). The objective is
equation 4: squared error of reconstructions with z fixed, a critic on reconstructions, a critic on
generations. Layers: He et al., "EigenGAN", ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scgan_train.config import DecoderConfig
from scgan_train.fitting import distributed
from scgan_train.fitting.loop import Draw, Phase, Player, rows_of
from scgan_train.graph import Var, const, op, silu
from scgan_train.latents.head import LatentModel
from scgan_train.nets import critic_loss, generator_loss, gradient_penalty, linear, mlp
from scgan_train.subspace import Residual, Subspace, principal

SHARES_AVERAGED = 10  # the average is over about the last tenth of the steps
EXACT = 1e-9  # mean squared error of a skip that needs no layers

Floats = NDArray[np.floating[Any]]


class Decoder(nn.Module):
    """The stack: (latent [n, e], z [n, q]) to coordinates [n, d'].

    Args:
        noise: dimensions of noise that enter at each layer.
        restored: those that enter at the output instead.

    Attributes:
        noise: q; 0 where the stack has no subspaces.
    """

    def __init__(
        self,
        latent_dim: int,
        dims: int,
        width: int,
        layers: int,
        noise: int,
        generator: torch.Generator,
        restored: int = 0,
    ) -> None:
        super().__init__()
        inputs = [latent_dim] + [width] * (layers - 1)
        self.layers = nn.ModuleList(linear(size, width, generator, gain=1.5) for size in inputs)
        self._subspaces = [Subspace(width, noise, generator) for _ in range(layers if noise else 0)]
        self.subspaces = nn.ModuleList(self._subspaces)
        self.noise = layers * noise + restored
        self.last = nn.Parameter(torch.zeros(dims, width))
        self.skip = linear(latent_dim, dims, generator)
        self.residual = Residual(latent_dim, dims, restored, generator) if restored else None

    def forward(self, latent: Tensor, z: Tensor | None = None) -> Tensor:
        """Return coordinates [n, d']; z is None, or zero, to reconstruct."""
        h = latent
        parts = () if z is None else torch.tensor_split(z, len(self.layers), 1)
        for index, layer in enumerate(self.layers):
            h = layer(h)
            if self.subspaces and parts:
                h = h + self.subspaces[index](parts[index])
            h = nn.functional.silu(h)
        y = torch.addmm(self.skip(latent), h, self.last.T)
        return y if self.residual is None or z is None else y + self.residual.add(latent, z)

    def orthogonality(self) -> Tensor:
        """Return the sum of |U^T U - 1|^2 over the subspaces."""
        terms = [subspace.orthogonality() for subspace in self._subspaces]
        terms += [self.residual.orthogonality()] if self.residual else []
        return sum(terms, self.last.new_zeros(()))

    def graph(self, latent: Var, z: Var | None, affine: tuple[Floats, Floats] | None = None) -> Var:
        """Return `forward` as a graph, then scale and shift [d'] of `affine`, folded into it."""
        scale, shift = affine or (np.ones(len(self.last)), np.zeros(len(self.last)))
        last = scale[:, None] * self.last.double().numpy(force=True)
        skip = scale[:, None] * self.skip.weight.double().numpy(force=True)
        bias = scale * self.skip.bias.double().numpy(force=True) + shift
        y = op.add(op.matmul(latent, const(skip.T)), const(bias))
        if z is None and not last.any():
            return y
        h, parts = latent, list[Var]()
        if z is not None and self.subspaces:
            parts += op.split(z, num_outputs=len(self.layers), axis=1)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            h = op.add(op.matmul(h, const(layer.weight.T)), const(layer.bias))
            if parts:
                directions = self._subspaces[index].directions()
                h = op.add(h, op.matmul(parts[index], const(directions)))
            h = silu(h)
        y = op.add(op.matmul(h, const(last.T)), y)
        if self.residual is None or z is None:
            return y
        return op.add(y, self.residual.add_graph(latent, z, scale))

    @torch.no_grad()
    def start(self, latent: Tensor, y: Tensor) -> None:
        """Set the skip to the least-squares fit of coordinates [n, d'] on latents [n, e]."""
        design = torch.cat([latent, latent.new_ones(len(latent), 1)], -1).double()
        driver = "gelsd" if y.device.type == "cpu" else None
        solution = torch.linalg.lstsq(design, y.double(), driver=driver).solution
        self.skip.weight.copy_(solution[:-1].T)
        self.skip.bias.copy_(solution[-1])

    @torch.no_grad()
    def wake(self, lost: Tensor) -> None:
        """Set importances to the spread [] reconstructions lose: critics miss smaller noise."""
        for subspace in self._subspaces:
            subspace.importance.fill_(lost)

    @torch.no_grad()
    def put_out(self, lost: Tensor) -> None:
        """Switch noise off if all is as `wake` set it: the phase that trains it was undone."""
        values: list[Tensor] = [subspace.importance for subspace in self._subspaces]
        if values and (torch.cat(values) == lost.to(values[0])).all():
            self.wake(torch.zeros_like(lost))

    @torch.no_grad()
    def error(self, latent: Tensor, y: Tensor) -> float:
        """Return the mean squared error of reconstructions of coordinates [n, d']."""
        return float((self(latent) - y).square().mean())

    def loss(self, latent: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the squared error of reconstructions alone."""
        return {"reconstruction": (self(latent) - y).square().mean()}

    @property
    def deterministic(self) -> list[nn.Parameter]:
        """Parameters of reconstruction: all but those of the noise."""
        return [*self.layers.parameters(), self.last, *self.skip.parameters()]

    @property
    def width(self) -> int:
        """Hidden units per layer."""
        return self.last.shape[1]

    @classmethod
    def of_shapes(cls, tensors: dict[str, Tensor]) -> Decoder:
        """Return an untrained decoder of the same shape as a saved one."""
        layers = sum(name.startswith("layers.") and name.endswith("weight") for name in tensors)
        noise, restored = (
            len(tensors.get(f"{name}.importance", ())) for name in ("subspaces.0", "residual")
        )
        dims, width = tensors["last"].shape
        latent_dim = tensors["skip.weight"].shape[1]
        return cls(latent_dim, dims, width, layers, noise, torch.Generator(), restored)


class DecoderStage(nn.Module):
    """Decoders of growing width until one suffices, then its noise, then its critics (equation 4).

    The first whose error on rows kept back is at most `DecoderConfig.error` is taken, or the last
    that still lowers the error by a tenth. The smaller one is the faster one. Where the latent has
    fewer dimensions than the row, most of the error can't be lowered: there the error is the
    geometric mean of the residuals' variances along what noise restores, and 2 % of it are enough.
    Each half of the rows then trains a decoder of that width, and noise at the output is fitted to
    the residuals of the other half; held-out rows show by how much these are too wide.

    Args:
        restored: noise dimensions at the output; without, critics teach noise in each layer.

    Attributes:
        errors: of each width, infinite where not trained; 0 of the first where its skip is exact.
        calibrated: whether the noise's spread was compared with rows kept back.
    """

    errors: Tensor
    calibrated: Tensor

    def __init__(
        self,
        model: LatentModel,
        latent: Tensor,
        y: Tensor,
        config: DecoderConfig,
        generator: torch.Generator,
        restored: int = 0,
    ) -> None:
        super().__init__()
        dims, width = y.shape[1], config.critic_width
        self.config = config
        self.restored = restored
        noise = config.noise if config.steps and not restored else 0
        self._widths = [
            Decoder(latent.shape[1], dims, units, config.layers, noise, generator, restored)
            for units in config.widths
        ]
        self.register_buffer("errors", torch.full((len(config.widths),), torch.inf).double())
        self.register_buffer("calibrated", torch.zeros(()))
        self.on_reconstructions = mlp([dims, width, width, 1], generator)
        self.on_generations = mlp([dims, width, width, 1], generator)
        self._halves = [
            Decoder(latent.shape[1], dims, units, config.layers, 0, generator)
            for units in (config.widths if restored else ())
            for _ in range(2)
        ]
        self.decoders, self.halves = nn.ModuleList(self._widths), nn.ModuleList(self._halves)
        self._model = [model]  # in a list, so that it is not trained
        self.to(y.device)
        for decoder in [*self._widths, *self._halves]:
            decoder.start(latent, y)
        if not config.steps and self._widths[0].error(latent, y) <= EXACT:
            self.errors[0] = 0.0

    @property
    def decoder(self) -> Decoder:
        """The decoder of the selected width."""
        return self._widths[self._best(len(self.errors))]

    def _best(self, tried: int) -> int:
        """Return the index of the width to take: the last that lowers the error by enough."""
        best, enough = 0, 0.98 if self.restored else 0.9
        for index, error in enumerate(self.errors[:tried].tolist()):
            best = index if error <= enough * float(self.errors[best]) else best
        return best

    @torch.no_grad()
    def _error(self, decoder: Decoder, latent: Tensor, y: Tensor) -> float:
        """Return the error that widths are compared by, of coordinates [n, d']."""
        if not self.restored:
            return decoder.error(latent, y)
        variances = principal(y - decoder(latent))[0][: self.restored]
        return float(variances.log().mean().exp())

    def phases(self, latent: Tensor, y: Tensor, back: tuple[Tensor, Tensor]) -> Iterator[Phase]:
        """Yield a phase per width, then, if it has steps, the whole of equation 4.

        On latents [n, e] and coordinates y [n, d']; `back` are both of rows kept back.
        """
        config = self.config
        if not self.errors[0]:
            return
        draw = rows_of(latent, y, batch=min(config.batch, len(y)))
        for index, decoder in enumerate(self._widths):
            phase = self._warm(f"width {decoder.width}", decoder, draw)
            yield replace(phase, held_out=partial(decoder.error, *back))
            if not torch.isfinite(self.errors[index]):
                self.errors[index] = self._error(decoder, *back)
                decoder.wake(self.errors[index].sqrt())
            if self.errors[index] <= config.error or self._best(index + 1) != index:
                break
        if self.restored and len(y) > 1:
            yield from self._restore(latent, y, back)
        if config.steps:
            decoder, betas = self.decoder, (0.0, 0.99)
            critics = [*self.on_reconstructions.parameters(), *self.on_generations.parameters()]
            players = (
                Player("critics", critics, self.critic_loss, config.critic_lr, betas),
                Player("decoder", list(decoder.parameters()), self.loss, config.joint_lr, betas),
            )
            steps = int(config.steps)
            decay = min(config.ema, steps / (steps + SHARES_AVERAGED))
            yield Phase("critics", steps, draw, players, average=decoder, decay=decay, share=True)
            decoder.put_out(self.errors[self._best(len(self.errors))].sqrt())

    def _warm(self, name: str, decoder: Decoder, draw: Draw) -> Phase:
        """Return the phase of reconstruction alone."""
        player = Player("decoder", decoder.deterministic, decoder.loss, self.config.lr)
        return Phase(name, self.config.warm_steps, draw, (player,), floor=0.002, share=True)

    def _restore(self, latent: Tensor, y: Tensor, back: tuple[Tensor, Tensor]) -> Iterator[Phase]:
        """Yield phases that train a decoder on each half, then noise on the other's residuals."""
        config, best = self.config, self._best(len(self.errors))
        decoder, pair = self.decoder, self._halves[2 * best : 2 * best + 2]
        n = len(y) // 2
        halves = [(latent[k : 2 * n : 2], y[k : 2 * n : 2]) for k in range(2)]
        for half, rows in zip(pair, halves, strict=True):
            yield self._warm("half", half, rows_of(*rows, batch=min(config.batch, n)))
        with torch.no_grad():
            latents = torch.cat([rows[0] for rows in halves])
            pairs = zip(pair[::-1], halves, strict=True)
            unseen = [rows[1] - half(rows[0]) for half, rows in pairs]
            residuals, held_out = torch.cat(unseen), back[1] - decoder(back[0])
        noise = decoder.residual
        assert noise is not None
        if not noise.importance.any():
            noise.start(residuals)
        player = Player("noise", noise.moved, noise.loss, config.lr, weight_decay=0.01)
        draw = rows_of(latents, residuals, batch=min(config.batch, len(latents)))
        yield Phase(
            *("noise", config.warm_steps, draw, (player,)),
            average=noise,
            decay=0.995,
            share=True,
            held_out=lambda: float(noise.nats(back[0], held_out)),
        )
        if not self.calibrated:
            noise.calibrate(latents, held_out)
            self.calibrated.fill_(1)

    def generate(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n generated rows of coordinates [n, d']."""
        decoder, rows = self.decoder, n * distributed.size()
        device = decoder.skip.weight.device
        with torch.no_grad():
            latent = distributed.local_part(self._model[0].draw(rows, generator, device))
        z = torch.randn(rows, decoder.noise, generator=generator)
        y: Tensor = decoder(latent, distributed.local_part(z).to(device))
        return y

    def loss(self, latent: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the decoder's side of equation 4."""
        config, decoder = self.config, self.decoder
        reconstructed, generated = decoder(latent), self.generate(len(y), generator)
        on_reconstructions = generator_loss(self.on_reconstructions(reconstructed))
        return {
            "reconstruction": config.reconstruction * (reconstructed - y).square().mean(),
            "on_reconstructions": config.lambda_r * on_reconstructions,
            "on_generations": config.lambda_x * generator_loss(self.on_generations(generated)),
            "orthogonality": config.orthogonality * decoder.orthogonality(),
        }

    def critic_loss(
        self, latent: Tensor, y: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the critics' side of equation 4, with R1 at every fourth real row."""
        with torch.no_grad():
            reconstructed, generated = self.decoder(latent), self.generate(len(y), generator)
        few = y[::4].clone().requires_grad_()
        on_r, on_x = self.on_reconstructions, self.on_generations
        slopes = gradient_penalty(on_r(few), few) + gradient_penalty(on_x(few), few)
        return {
            "critic_reconstructions": critic_loss(on_r(y), on_r(reconstructed)),
            "critic_generations": critic_loss(on_x(y), on_x(generated)),
            "penalty": self.config.penalty * slopes,
        }
