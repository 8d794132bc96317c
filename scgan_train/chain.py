"""The head of a table with discrete values: a chain of small softmax networks, the cluster its last step.

    p(s_1) p(s_2 | s_1) ... p(cluster | s_1 .. s_(h-1))

Every outcome has an embedding; step j is a perceptron of the embeddings of the outcomes before it. The
cross-entropies of all steps are added. Each step has a uniform of its own, u_j: the outcome is the number
of cumulative probabilities up to u_j.

Such a chain learns rows by heart within a few passes. So it is trained in bursts, each about twice as long
as the one before, and the weights after the burst that is best on rows kept back stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scgan_train.encoder import mlp_graph
from scgan_train.graph import Var, const, op
from scgan_train.nets import mlp
from scgan_train.training.loop import Phase, Player, rows_of

EMBEDDING = 16
WIDTH = 128
DROPOUT = 0.1
BATCH = 512
BURSTS = (30, 70, 150, 250, 500, 1000, 2000)
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01
GAIN = 0.001  # nats a row that a longer training must gain
TRIANGLE = 256  # outcomes up to which cumulative sums are a matrix product


class Chain(nn.Module):
    """The chain over outcomes of these sizes [h], the last of them the clusters."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.embeddings = nn.ParameterList(
            torch.randn(size, EMBEDDING, generator=generator) for size in sizes[:-1]
        )
        self.first = nn.Parameter(torch.zeros(sizes[0]))
        self.networks = nn.ModuleList(
            mlp([EMBEDDING * j, WIDTH, WIDTH, sizes[j]], generator) for j in range(1, len(sizes))
        )

    @torch.no_grad()
    def start(self, choice: Tensor) -> None:
        """Make each step independent, by the shares of its outcomes among choices [N, h]."""
        shares = [
            (torch.bincount(choice[:, j], minlength=size) + 0.5).log()
            for j, size in enumerate(self.sizes)
        ]
        self.first.copy_(shares[0])
        for network, share in zip(self.networks, shares[1:], strict=True):
            *_, last = network.children()
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            last.bias.copy_(share - share.mean())

    def logits(self, choice: Tensor, step: int, generator: torch.Generator | None = None) -> Tensor:
        """Return unnormalised log-probabilities [n, V] of a step, given the outcomes before it.

        Args:
            choice: [n, h], of which the first `step` columns are looked at.
            step: which.
            generator: draws the dropout; none without.
        """
        if not step:
            return self.first.expand(len(choice), -1)
        x = torch.cat([self.embeddings[k][choice[:, k]] for k in range(step)], 1)
        if generator is None:
            logits: Tensor = self.networks[step - 1](x)
            return logits
        for layer in self.networks[step - 1].children():
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                kept = torch.rand(x.shape, generator=generator).to(x) >= DROPOUT
                x = x * kept / (1 - DROPOUT)
        return x

    def loss(self, choice: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return the sum of the steps' cross-entropies on a batch of outcomes [b, h]; see `logits`."""
        steps = range(len(self.sizes))
        terms = [cross_entropy(self.logits(choice, j, generator), choice[:, j]) for j in steps]
        return {"cross_entropy": torch.stack(terms).sum()}

    @torch.no_grad()
    def nats(self, choice: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of outcomes [n, h]."""
        return self.loss(choice, None)["cross_entropy"]

    @torch.no_grad()
    def select(self, u: Tensor) -> Tensor:
        """Return the outcomes [n, h] that uniforms u [n, h] choose."""
        choice = torch.zeros(u.shape, dtype=torch.int64, device=u.device)
        for j in range(len(self.sizes)):
            sums = self.logits(choice, j).to(u).softmax(1).cumsum(1)
            choice[:, j] = (u[:, j, None] >= sums[:, :-1]).sum(1)
        return choice

    def graph(self, u: Var) -> list[Var]:
        """Return `select` as a graph: the outcomes [n] of each step, of uniforms u [n, h]."""
        uniforms = op.split(u, num_outputs=len(self.sizes), axis=1)
        chosen: list[Var] = []
        known: list[Var] = []
        for j, size in enumerate(self.sizes):
            if j == 0:
                share = torch.softmax(self.first.double(), 0).cumsum(0)[:-1]
                passed = op.greater_or_equal(uniforms[0], const(share[None]))
            else:
                x = known[0] if j == 1 else op.concat(known, axis=1)
                logits = mlp_graph(self.networks[j - 1], x)
                sums = _cumulated(op.softmax(logits), size)
                passed = op.greater_or_equal(uniforms[j], sums)
            counted = op.reduce_sum(
                op.cast(passed, to=np.float32), const([1], np.int64), keepdims=0
            )
            index = op.min([op.cast(counted, to=np.int64), const(size - 1, np.int64)])
            chosen.append(index)
            if j < len(self.sizes) - 1:
                known.append(op.gather(const(self.embeddings[j]), index))
        return chosen

    def log_shares(self, choice: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p [n] of outcomes [n, h - 1], and log p [n, K] of each cluster after them."""
        steps = [self.logits(choice, j).log_softmax(1) for j in range(len(self.sizes))]
        own = [step.gather(1, choice[:, j, None]) for j, step in enumerate(steps[:-1])]
        return torch.cat(own, 1).sum(1), steps[-1]

    def log_shares_graph(self, choice: Sequence[Var]) -> tuple[Var, Var]:
        """Return `log_shares` as graphs, [n] and [n, K], of outcomes in h - 1 steps [n]."""
        axis, known = const([1], np.int64), []
        logs = const(torch.log_softmax(self.first.double(), 0))
        total = op.gather(logs, choice[0])
        for j in range(1, len(self.sizes)):
            known.append(op.gather(const(self.embeddings[j - 1]), choice[j - 1]))
            x = known[0] if j == 1 else op.concat(known, axis=1)
            logs = op.log_softmax(mlp_graph(self.networks[j - 1], x))
            if j < len(self.sizes) - 1:
                own = op.gather_elements(logs, op.unsqueeze(choice[j], axis), axis=1)
                total = op.add(total, op.squeeze(own, axis))
        return total, logs


class ChainStage(nn.Module):
    """A chain in training, and the best of what it has been, first of all independent steps.

    Args:
        chain: untrained.
        choice: outcomes [N, h] to train on.
        back: outcomes [M, h] that are kept back.

    Attributes:
        scores: mean cross-entropy of kept-back rows at the start and after each burst; infinite where
            there was none.
    """

    scores: Tensor

    def __init__(self, chain: Chain, choice: Tensor, back: Tensor) -> None:
        super().__init__()
        chain.start(choice)
        self.chain, self.best = chain, copy.deepcopy(chain)
        self.rows = (choice, back)
        self.register_buffer("scores", torch.full((len(BURSTS) + 1,), torch.inf).double())
        self.scores[0] = chain.nats(back)

    def phases(self) -> Iterator[Phase]:
        """Yield bursts of training until the rows that are kept back get no better."""
        chain, (choice, back) = self.chain, self.rows
        draw = rows_of(choice, batch=min(BATCH, len(choice)))
        trained = [p for name, p in chain.named_parameters() if name != "first"]
        for index, steps in enumerate(BURSTS, 1):
            player = Player("head", trained, chain.loss, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
            yield Phase(f"chain {index}", steps, draw, (player,), average=chain, decay=0.98)
            earlier = float(self.scores[:index].min())
            if not torch.isfinite(self.scores[index]):
                self.scores[index] = chain.nats(back)
                if self.scores[index] < earlier:
                    self.best.load_state_dict(chain.state_dict())
            if self.scores[index] > earlier - GAIN:
                break


def _cumulated(weights: Var, size: int) -> Var:
    if size > TRIANGLE:
        return op.cumsum(weights, const(1, np.int64))
    return op.matmul(weights, const(np.tri(size).T))
