"""Stage 3: a stochastic decoder from latents to coordinates, noise entering at every layer as in EigenGAN.

    h_0 = W_0 eps;   h_{l+1} = W_{l+1} silu(h_l + mu_l + U_l diag(s_l) z_l);   y = S eps + t + h_L

U_l has orthonormal columns (kept so by a penalty): the l-th noise moves h along directions of its own, by importances
s_l, around the origin mu_l, which is the bias of the layer before. z = 0 reconstructs. The affine skip S starts as the
least-squares fit, the last W as zero. The objective is equation 4: squared error of reconstructions with z fixed, a
critic on reconstructions, a critic on generations times lambda_x. Layers: He et al., "EigenGAN", ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scgan_train.config import DecoderConfig
from scgan_train.head import LatentModel
from scgan_train.nets import critic_loss, generator_loss, gradient_penalty, linear, mlp
from scgan_train.training import distributed
from scgan_train.training.loop import Phase, Player, rows_of

START_GAIN = 0.02


class Subspace(nn.Module):
    """The place where z_l enters a layer: h + U diag(s) z, U orthonormal [width, q_l]."""

    def __init__(self, width: int, noise: int, generator: torch.Generator) -> None:
        super().__init__()
        basis, _ = torch.linalg.qr(torch.randn(width, noise, generator=generator))
        self.basis = nn.Parameter(basis.contiguous())
        self.importance = nn.Parameter(torch.zeros(noise))

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """Return h [n, width] moved by noise z [n, q_l]."""
        return torch.addmm(h, z, (self.basis * self.importance).T)

    def orthogonality(self) -> Tensor:
        """Return |U^T U - 1|^2."""
        gram = self.basis.T @ self.basis
        return (gram - torch.eye(len(gram), device=gram.device)).square().sum()


class Decoder(nn.Module):
    """The stack: (latent [n, e], z [n, q]) to coordinates [n, d']."""

    def __init__(
        self, latent_dim: int, dims: int, config: DecoderConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        width = (80 if dims <= 8 else 192) if config.width == "auto" else config.width
        self.config = config
        self.noise = config.layers * config.noise
        self.subspaces = nn.ModuleList(
            Subspace(width, config.noise, generator) for _ in range(config.layers)
        )
        inputs = [latent_dim] + [width] * (config.layers - 1)
        self.layers = nn.ModuleList(linear(size, width, generator, gain=1.5) for size in inputs)
        self.last = nn.Parameter(torch.zeros(dims, width))
        self.skip = linear(latent_dim, dims, generator)

    def forward(self, latent: Tensor, z: Tensor) -> Tensor:
        """Return coordinates [n, d']."""
        h = self.layers[0](latent)
        parts = torch.split(z, self.config.noise, -1)
        for subspace, layer, part in zip(self.subspaces, self.layers[1:], parts, strict=False):
            h = layer(nn.functional.silu(subspace(h, part)))
        h = nn.functional.silu(self.subspaces[-1](h, parts[-1]))
        return torch.addmm(self.skip(latent), h, self.last.T)

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Return coordinates [n, d'] with the noise fixed at zero."""
        y: Tensor = self(latent, latent.new_zeros(len(latent), self.noise))
        return y

    @torch.no_grad()
    def start(self, latent: Tensor, y: Tensor) -> None:
        """Set the skip to the least-squares fit of coordinates [n, d'] on latents [n, e]."""
        design = torch.cat([latent, latent.new_ones(len(latent), 1)], -1).double()
        solution = torch.linalg.lstsq(
            design, y.double(), driver="gelsd" if y.device.type == "cpu" else None
        ).solution
        self.skip.weight.copy_(solution[:-1].T)
        self.skip.bias.copy_(solution[-1])


class DecoderStage(nn.Module):
    """The decoder with its two critics, and the losses between them."""

    def __init__(
        self, decoder: Decoder, latents: LatentModel, dims: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        width = decoder.config.critic_width
        self.decoder = decoder
        self.on_reconstructions = mlp([dims, width, width, 1], generator)
        self.on_generations = mlp([dims, width, width, 1], generator)
        self._latents = [latents]

    def generate(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n generated rows of coordinates [n, d']."""
        device = self.decoder.skip.weight.device
        with torch.no_grad():
            rows = n * distributed.size()
            latent = distributed.mine(self._latents[0].draw(rows, generator, device))
        z = distributed.mine(torch.randn(rows, self.decoder.noise, generator=generator)).to(device)
        y: Tensor = self.decoder(latent, z)
        return y

    def warm_loss(self, latent: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the squared error of reconstructions alone."""
        return {"reconstruction": (self.decoder.reconstruct(latent) - y).square().mean()}

    def loss(self, latent: Tensor, y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the decoder's side of equation 4."""
        config = self.decoder.config
        again = self.decoder.reconstruct(latent)
        orthogonality = sum(
            (s.orthogonality() for s in self.subspaces()), torch.zeros((), device=y.device)
        )
        return {
            "reconstruction": config.reconstruction * (again - y).square().mean(),
            "on_reconstructions": config.lambda_r * generator_loss(self.on_reconstructions(again)),
            "on_generations": config.lambda_x
            * generator_loss(self.on_generations(self.generate(len(y), generator))),
            "orthogonality": config.orthogonality * orthogonality,
        }

    def critic_loss(
        self, latent: Tensor, y: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the critics' side of equation 4, with R1 at every fourth real row."""
        with torch.no_grad():
            again, made = self.decoder.reconstruct(latent), self.generate(len(y), generator)
        few = y[::4].clone().requires_grad_()
        critics = (self.on_reconstructions, self.on_generations)
        penalty = sum((gradient_penalty(critic(few), few) for critic in critics), y.new_zeros(()))
        return {
            "critic_reconstructions": critic_loss(
                self.on_reconstructions(y), self.on_reconstructions(again)
            ),
            "critic_generations": critic_loss(self.on_generations(y), self.on_generations(made)),
            "penalty": self.decoder.config.penalty * penalty,
        }

    def subspaces(self) -> list[Subspace]:
        """Return the decoder's subspaces."""
        return [s for s in self.decoder.subspaces if isinstance(s, Subspace)]

    def phases(self, latent: Tensor, y: Tensor) -> Iterator[Phase]:
        """Yield reconstruction alone, then, if it has steps, the whole of equation 4."""
        config = self.decoder.config
        weights = list(self.decoder.parameters())
        self.decoder.start(latent, y)
        draw = rows_of(latent, y, batch=min(config.batch, len(y)))
        warm = Player("decoder", weights, self.warm_loss, config.lr)
        yield Phase("reconstruction", config.warm_steps, draw, (warm,), floor=0.002, share=True)
        if config.steps in ("auto", 0):
            return
        with torch.no_grad():
            for subspace in self.subspaces():
                subspace.importance.fill_(START_GAIN)
        critics = [*self.on_reconstructions.parameters(), *self.on_generations.parameters()]
        players = (
            Player("critics", critics, self.critic_loss, config.critic_lr, betas=(0.0, 0.99)),
            Player("decoder", weights, self.loss, config.joint_lr, betas=(0.0, 0.99)),
        )
        yield Phase(
            "critics",
            int(config.steps),
            draw,
            players,
            average=self.decoder,
            decay=config.ema,
            share=True,
        )
