"""Trained networks as graphs should hold them: the same functions, in fewer and cheaper operators.

    decoder      importances, basis and order of z in one matrix a layer; none, and no use of z, where all
                 importances are 0; where every column is real, y scale + shift goes into the last layer and the skip
    transport    mu_i + F_i (w + V_i silu(...) + c_i)  =  (mu_i + F_i c_i + F_i w) + (F_i V_i) silu(...)

Products of weights are taken in double precision. The export holds the graphs to the unfolded networks.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from scgan_train.decoder import Decoder, Subspace
from scgan_train.head import Affine, LatentModel
from scgan_train.maps.ot import TransportMapper
from scgan_train.nets import RowProduct
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


class FoldedTransport(nn.Module):
    """w [n, e] and cluster [n] to latent [n, e]: `TransportMapper`."""

    @torch.no_grad()
    def __init__(self, mapper: TransportMapper) -> None:
        super().__init__()
        weights, biases = mapper.map.weights, mapper.map.biases
        factors, last = mapper.factors.double(), weights[1].double() @ mapper.factors.double().mT
        shift = (factors @ biases[1].double().mT).squeeze(-1)
        self.frame = Affine((mapper.means.double() + shift).float(), mapper.factors)
        for name, table in {"first": weights[0], "bias": biases[0], "last": last}.items():
            self.register_buffer(name, table.float().flatten(1))
        _, inputs, hidden = weights[0].shape
        self.inward, self.outward = RowProduct(inputs, hidden), RowProduct(hidden, inputs)

    def forward(self, w: Tensor, cluster: Tensor) -> Tensor:
        """Return latents."""
        first, bias, last = (
            self.get_buffer(name).index_select(0, cluster) for name in ("first", "bias", "last")
        )
        hidden = nn.functional.silu(self.inward(w, first) + bias)
        latent: Tensor = self.frame(w, cluster) + self.outward(hidden, last)
        return latent


def folded(latents: LatentModel) -> LatentModel:
    """Return a latent model of cheaper operators, or the same where there is nothing to fold."""
    if isinstance(latents.ensemble, TransportMapper):
        return LatentModel(latents.thresholds, FoldedTransport(latents.ensemble), latents.noise)
    return latents
