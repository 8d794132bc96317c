"""Trained networks as graphs should hold them: the same functions, in fewer and cheaper operators.

    decoder      importances, basis and order of z in one matrix a layer; none, and no use of z, where all
                 importances are 0; where every column is real, y scale + shift goes into the last layer and the skip

Products of weights are taken in double precision. The export holds the graphs to the unfolded networks.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from scgan_train.decoder import Decoder, Subspace
from scgan_train.transform import Transform


class FoldedDecoder(nn.Module):
    """latent [n, e] and z [n, q] to x [n, d]: `Decoder`, then `Transform.inverse`."""

    @torch.no_grad()
    def __init__(self, decoder: Decoder, transform: Transform) -> None:
        super().__init__()
        self.layers = decoder.layers
        self.skip = copy.deepcopy(decoder.skip)
        last = decoder.last.double()
        every = transform.dims == len(transform.columns)
        self.transform = (
            None if every and {c.kind for c in transform.columns} == {"real"} else transform
        )
        if self.transform is None:
            scale, shift = transform.scale.double(), transform.shift.double()
            last = scale[:, None] * last
            self.skip.weight.copy_(scale[:, None] * self.skip.weight.double())
            self.skip.bias.copy_(scale * self.skip.bias.double() + shift)
        self.register_buffer("last", last.float().T.contiguous())
        self.moves: list[str | None] = []
        start = 0
        for place, subspace in enumerate(decoder.subspaces):
            assert isinstance(subspace, Subspace)
            move = (subspace.basis * subspace.importance).T
            rows = torch.zeros(decoder.noise, move.shape[1])
            rows[start : start + len(move)] = move
            start += len(move)
            self.moves.append(f"move{place}" if move.any() else None)
            if move.any():
                self.register_buffer(f"move{place}", rows)

    def forward(self, latent: Tensor, z: Tensor) -> Tensor:
        """Return rows."""
        h = latent
        for layer, move in zip(self.layers, self.moves, strict=True):
            h = layer(h)
            h = nn.functional.silu(h if move is None else torch.addmm(h, z, self.get_buffer(move)))
        y = torch.addmm(self.skip(latent), h, self.get_buffer("last"))
        return y if self.transform is None else self.transform.inverse(y)
