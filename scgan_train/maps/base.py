"""What the maps g_i share: a cluster's frame, the base class, and batches of a cluster's rows.

Maps work in the cluster's frame, v = F_i^-1 (eps - mu_i), and start as the identity there, so
that every cluster begins as its own Gaussian.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scgan_train.config import MapperConfig
from scgan_train.fitting.loop import Phase
from scgan_train.graph import Var, const, op, silu
from scgan_train.latents.clusters import NARROW, Clusters
from scgan_train.nets import ClusterMLP


class Invertible(nn.Module, ABC):
    """A map with g_i^-1, so that the latents of each cluster have a density."""

    @abstractmethod
    def log_densities(self, latents: Tensor, choice: Tensor, given: Tensor | None = None) -> Tensor:
        """Return log p_i [n, K] of latents [n, e] in every cluster.

        The choice has discrete values [n, r + h - 1], given ones first; `given` is numbers [n, p].
        """

    @abstractmethod
    def log_densities_graph(
        self, latents: Var, choice: Sequence[Var], given: Var | None = None
    ) -> Var:
        """Return `log_densities` as a graph, [K, n]."""


class Affine(Invertible):
    """g_i(w) = mu_i + F_i w: one Gaussian (K = 1), noisy centres (F_i = sigma_i), or a frame."""

    means: Tensor
    factors: Tensor

    def __init__(self, means: Tensor, factors: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means.clone())
        self.register_buffer("factors", factors.clone())

    def forward(self, w: Tensor, choice: Tensor) -> Tensor:
        """Return latents [n, e] of w [n, e] in the frames of their clusters, see `cluster_of`."""
        cluster = cluster_of(choice)
        if w.shape[1] > NARROW:
            return self._by_cluster(
                w, cluster, lambda k, part: part @ self.factors[k].T + self.means[k]
            )
        turned = (self.factors[cluster] @ w.unsqueeze(-1)).squeeze(-1)
        latents: Tensor = self.means[cluster] + turned
        return latents

    def inverse(self, latents: Tensor, cluster: Tensor) -> Tensor:
        """Return w [n, e] of latents [n, e]; frames up to `NARROW` wide are lower triangular."""
        if latents.shape[1] > NARROW:
            whiten = torch.linalg.inv(self.factors.double()).mT.to(latents)
            return self._by_cluster(
                latents, cluster, lambda k, part: (part - self.means[k]) @ whiten[k]
            )
        centred = (latents - self.means[cluster]).unsqueeze(-1)
        w: Tensor = torch.linalg.solve_triangular(self.factors[cluster], centred, upper=False)
        return w.squeeze(-1)

    @staticmethod
    def _by_cluster(
        rows: Tensor, cluster: Tensor, compute: Callable[[int, Tensor], Tensor]
    ) -> Tensor:
        """Return what is computed of each cluster's rows [n, e]: a matrix a row would not fit."""
        out = torch.empty_like(rows)
        for k in range(int(cluster.max()) + 1):
            mine = cluster == k
            out[mine] = compute(k, rows[mine])
        return out

    def graph(self, w: Var, choice: Sequence[Var]) -> Var:
        tables = torch.cat([self.factors.mT, self.means.unsqueeze(1)], 1)
        return op.transpose(affine_graph(tables, op.transpose(w), choice[-1]))

    def log_slopes(self) -> Tensor:
        """Return log |det dw/deps| [K]."""
        logs: Tensor = torch.linalg.slogdet(self.factors.double()).logabsdet
        return -logs

    def whitened(self, latents: Tensor) -> Tensor:
        """Return w [K, n, e] of latents [n, e] in every frame."""
        whiten = torch.linalg.inv(self.factors.double()).mT.to(latents)
        w: Tensor = (latents - self.means.unsqueeze(1)) @ whiten
        return w

    def whitened_graph(self, latents: Var, part: slice = slice(None)) -> Var:
        """Return `whitened` as a graph, in some of the frames."""
        whiten = torch.linalg.inv(self.factors[part].double()).mT
        centred = op.sub(latents, const(self.means[part].unsqueeze(1)))
        return op.matmul(centred, const(whiten))

    def log_densities(self, latents: Tensor, choice: Tensor, given: Tensor | None = None) -> Tensor:
        return (log_normal(self.whitened(latents)) + self.log_slopes().to(latents)[:, None]).T

    def log_densities_graph(
        self, latents: Var, choice: Sequence[Var], given: Var | None = None
    ) -> Var:
        logs = log_normal_graph(self.whitened_graph(latents), self.means.shape[1])
        return op.add(logs, const(self.log_slopes()[:, None]))


class Mapper(nn.Module, ABC):
    """A map g_i for every cluster. Subclasses define how it is computed and how it is trained.

    Attributes:
        noise: m, the number of Gaussian inputs.
        clusters: the frames that it works in.
        config: width, steps and learning rate, none of them "auto".
        given: how many of the frames' coordinates come first that are given.
    """

    def __init__(
        self,
        clusters: Clusters,
        config: MapperConfig,
        generator: torch.Generator,
        sizes: Sequence[int] = (),
        given: int = 0,
    ) -> None:
        super().__init__()
        self.clusters, self.config, self.given = clusters, config, given
        self.noise = clusters.means.shape[1] - given
        self.build(generator, sizes)

    @abstractmethod
    def build(self, generator: torch.Generator, sizes: Sequence[int]) -> None:
        """Make the networks; `sizes` are those of the discrete steps' outcomes that it may see."""

    @staticmethod
    @abstractmethod
    def defaults(e: int, rows: int, steps: int = 0) -> dict[str, Any]:
        """Return width, steps and lr for so many dimensions, training rows and discrete steps."""

    @staticmethod
    def most_clusters(e: int) -> int:
        """Return the most clusters that latents of e dimensions should be cut into for it."""
        return 256

    @abstractmethod
    def forward(self, w: Tensor, choice: Tensor, given: Tensor | None = None) -> Tensor:
        """Return latents [n, e] of noise w [n, m] by choices' maps: `cluster_of`, `head.joined`.

        Where columns are given, theirs are the given numbers [n, p].
        """

    @abstractmethod
    def graph(self, w: Var, choice: Sequence[Var], given: Var | None = None) -> Var:
        """Return `forward` as a graph, in the form fastest in onnxruntime; choice in steps [n]."""

    @abstractmethod
    def phases(
        self, latents: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Phase]:
        """Yield the training phases on latents [N, e] with labels [N], or choices [N, h]."""

    def judge(self, latents: Tensor, choice: Tensor) -> float | None:
        """Return the loss on other latents; None if the map has none."""
        return None


class ResidualMapper(Mapper, ABC):
    """g_i(w) = mu_i + F_i (w + MLP_i(w)), one hidden layer a cluster, the last layer 0 at first."""

    def build(self, generator: torch.Generator, sizes: Sequence[int]) -> None:
        size, e = self.clusters.means.shape
        self.map = ClusterMLP(size, [e, int(self.config.width), e], generator, zero=True)
        self.frame = Affine(self.clusters.means, self.clusters.factors)

    def forward(self, w: Tensor, choice: Tensor, given: Tensor | None = None) -> Tensor:
        """Return latents [n, e]."""
        cluster = cluster_of(choice)
        latents: Tensor = self.frame(w + self.map.rows(w, cluster), cluster)
        return latents

    def graph(self, w: Var, choice: Sequence[Var], given: Var | None = None) -> Var:
        """Return `forward` as a graph: the frame F goes into the last layer (V, c).

        mu + (w + h V + c) F^T  =  (h, w) (V F^T, F^T) + (mu + c F^T)
        """
        first, last = (weight.double() for weight in self.map.weights)
        bias, shift = (bias.double() for bias in self.map.biases)
        turn, means = self.frame.factors.double().mT, self.frame.means.double().unsqueeze(1)
        x, cluster = op.transpose(w), choice[-1]
        hidden = silu(affine_graph(torch.cat([first, bias], 1), x, cluster))
        folded = torch.cat([last @ turn, turn, means + shift @ turn], 1)
        return op.transpose(affine_graph(folded, op.concat([hidden, x], axis=0), cluster))


def cluster_of(choice: Tensor) -> Tensor:
    """Return the cluster [n] of choices [n] or [n, h], whose last step it is."""
    return choice if choice.dim() == 1 else choice[:, -1]


class Members:
    """Rows grouped by cluster, in each cluster's frame, to draw equal batches from all at once."""

    def __init__(self, clusters: Clusters, latents: Tensor, labels: Tensor) -> None:
        labels = cluster_of(labels)
        order = torch.argsort(labels, stable=True)
        self.counts = torch.bincount(labels, minlength=len(clusters))
        frame = Affine(clusters.means, clusters.factors).to(latents)
        self.whitened = frame.inverse(latents[order], labels[order])

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return whitened rows [K, batch, e]."""
        rows: Tensor = self.whitened[draw(self.counts, batch, generator)]
        return rows

    def by_cluster(self) -> Sequence[Tensor]:
        """Return the whitened rows of each cluster."""
        return torch.split(self.whitened, self.counts.tolist())


def draw(counts: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Return indices [K, batch] into rows that are sorted by cluster, counts [K] of each."""
    share = torch.rand(len(counts), batch, generator=generator).to(counts.device)
    position = (share * counts[:, None]).long()
    return (counts.cumsum(0) - counts)[:, None] + position.clamp(max=counts[:, None] - 1)


def log_normal(w: Tensor) -> Tensor:
    """Return the log-density [...] of standard normal w [..., e]."""
    return -0.5 * w.square().sum(-1) - 0.5 * math.log(2 * math.pi) * w.shape[-1]


def log_normal_graph(w: Var, e: int) -> Var:
    """Return `log_normal` as a graph, of w [K, n, e]."""
    squares = op.reduce_sum(op.mul(w, w), const([2], np.int64), keepdims=0)
    return op.sub(op.mul(squares, const(-0.5)), const(0.5 * math.log(2 * math.pi) * e))


def affine_graph(tables: Tensor, x: Var, choice: Var) -> Var:
    """Return sum_i x_i A_i + b, [o, n], of columns of x [i, n]; (A, b) [i + 1, o] is its cluster's.

    Features run along axis 0 and rows along axis 1: then every operator sees long vectors, which
    onnxruntime is 3 to 8 times faster at than at a batch of tiny matrix products. Each row takes
    its cluster's i o numbers; with fewer clusters than outputs x is laid out K times, K i numbers
    with zeros but at its cluster, and one product does it. A number costs the same in both.
    """
    size, inputs, outputs = tables.shape
    if size < outputs:
        first, second, every = lengths([0]), lengths([1]), const(np.arange(size)[:, None], np.int64)
        mine = op.cast(op.equal(op.unsqueeze(choice, first), every), to=np.float32)
        spread = op.mul(op.unsqueeze(mine, second), op.unsqueeze(x, first))
        flat = op.reshape(spread, const([size * (inputs - 1), -1], np.int64))
        weights, biases = tables[:, :-1].flatten(0, 1).T, tables[:, -1].T
        return op.add(op.matmul(const(weights), flat), op.matmul(const(biases), mine))
    coefficients = op.transpose(op.gather(const(tables.flatten(1)), choice))
    *matrix, total = op.split(coefficients, lengths([outputs] * inputs), axis=0)
    for row, value in zip(matrix, op.split(x, lengths([1] * (inputs - 1)), axis=0), strict=True):
        total = op.add(total, op.mul(value, row))
    return total


def lengths(sizes: list[int]) -> Var:
    """Return a list of whole numbers as a constant."""
    return const(sizes, np.int64)
