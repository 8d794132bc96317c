"""Building blocks of models; weights are drawn from the given generator."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from scgan_train.graph import Var, const, op, silu


def linear(inputs: int, outputs: int, generator: torch.Generator, gain: float = 1.0) -> nn.Linear:
    """Return an affine layer, weights uniform of variance gain^2 / inputs, bias zero."""
    bound = gain * math.sqrt(3 / max(inputs, 1))
    layer = nn.Linear(inputs, outputs, device="meta")  # draws nothing from a global generator
    weight = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(outputs))
    return layer


def mlp(sizes: list[int], generator: torch.Generator) -> nn.Sequential:
    """Return affine layers of the given sizes with SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [linear(inputs, outputs, generator, gain=1.5 if layers else 1.0), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def mlp_graph(net: nn.Module, x: Var) -> Var:
    """Return a perceptron of `mlp` as a graph."""
    for layer in net.children():
        if isinstance(layer, nn.Linear):
            weight, bias = const(layer.weight.T), const(layer.bias)
            x = op.add(op.matmul(x, weight), bias)
        else:
            x = silu(x)
    return x


class ClusterMLP(nn.Module):
    """K separate perceptrons of one shape, evaluated together, one batched product a layer.

    Hidden units start with their bends spread over the inputs' range: with all of them at zero,
    maps learn several times slower.
    """

    def __init__(
        self, clusters: int, sizes: list[int], generator: torch.Generator, *, zero: bool = False
    ) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = math.sqrt(3 / inputs)
            weight = torch.empty(clusters, inputs, outputs)
            weight.uniform_(-bound, bound, generator=generator)
            bias = torch.empty(clusters, 1, outputs).uniform_(-1.5, 1.5, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))
        nn.init.zeros_(self.biases[-1])
        if zero:
            nn.init.zeros_(self.weights[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs [K, b, outputs] of inputs [K, b, inputs]."""
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, nn.functional.silu(x) if layer else x, weight)
        return x

    def rows(self, x: Tensor, cluster: Tensor) -> Tensor:
        """Return outputs [n, outputs] of inputs [n, inputs], row i through network cluster[i]."""
        x = x.unsqueeze(1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = (nn.functional.silu(x) if layer else x) @ weight[cluster] + bias[cluster]
        return x.squeeze(1)


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the logistic loss of a critic that should score `real` high and `fake` low."""
    return nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Return the non-saturating loss of a generator that wants its scores high."""
    return nn.functional.softplus(-fake).mean()


def gradient_penalty(scores: Tensor, inputs: Tensor) -> Tensor:
    """Return R1, the mean squared gradient of the scores at real inputs (Mescheder et al. 2018)."""
    (gradient,) = torch.autograd.grad(scores.sum(), inputs, create_graph=True)
    return gradient.square().sum(-1).mean()
