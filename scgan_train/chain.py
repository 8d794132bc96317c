"""The head of a table with discrete values: a chain of small softmax networks, the cluster its last step.

    p(s_1) p(s_2 | s_1) ... p(cluster | s_1 .. s_(h-1))

Every outcome has an embedding; step j is a perceptron of the embeddings of the outcomes before it. The
cross-entropies of all steps are added. Each step has a uniform of its own, u_j: the outcome is the number
of cumulative probabilities up to u_j.

Outcomes that are numbers share what is learned of their neighbours. Their embeddings and the rows of their last layer
are, as long as the chain is trained,

    free [V, f] + cosines [V, 12] shared [12, f]

the cosines running over the numbers in order, so that slow changes along the numbers are learned first.

Such a chain learns rows by heart within a few passes. So it is trained in bursts, each about twice as long
as the one before, and the weights after the burst that is best on rows kept back stay.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
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
COSINES = 12  # that numbers in order share, and so many numbers at least
FREE = 0.3  # size of the free part of their embeddings
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

    def forward(self, choice: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean negative log-likelihood of outcomes [n, h]; see `logits`."""
        steps = range(len(self.sizes))
        terms = [cross_entropy(self.logits(choice, j, generator), choice[:, j]) for j in steps]
        return torch.stack(terms).sum()

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


class Sharing(nn.Module):
    """The weights of a chain in training: free ones, and what numbers in order share.

    Args:
        chain: untrained, whose weights become the free ones.
        numbers: how many outcomes of each step, the first ones, are numbers in order; 0 of names.
        generator: draws what embeddings share.
    """

    def __init__(self, chain: Chain, numbers: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.chain = chain
        self.places: list[tuple[str, Tensor]] = []  # a weight's name, and its cosines
        self.shared = nn.ParameterList()
        for j, count in enumerate(numbers):
            if count < COSINES:
                continue
            waves = cosines(count, chain.sizes[j]).to(chain.first)
            own = chain.embeddings[j]
            own.data[:count] *= FREE
            shared = torch.randn(COSINES, EMBEDDING, generator=generator).to(own)
            self._share(f"embeddings.{j}", waves, shared)
            if j:
                last = len(chain.networks[j - 1]) - 1  # type: ignore[arg-type]
                self._share(f"networks.{j - 1}.{last}.weight", waves, own.new_zeros(COSINES, WIDTH))

    def _share(self, name: str, waves: Tensor, shared: Tensor) -> None:
        self.places.append((name, waves))
        self.shared.append(nn.Parameter(shared))

    def weights(self) -> dict[str, Tensor]:
        """Return the chain's weights by name."""
        free = dict(self.chain.named_parameters())
        pairs = zip(self.places, self.shared, strict=True)
        return free | {name: free[name] + waves @ shared for (name, waves), shared in pairs}

    def loss(self, choice: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Return the sum of the steps' cross-entropies on a batch of outcomes [b, h]."""
        return {"cross_entropy": functional_call(self.chain, self.weights(), (choice, generator))}


class ChainStage(nn.Module):
    """A chain in training, and the best of what it has been, first of all independent steps.

    Args:
        chain: untrained.
        choice: outcomes [N, h] to train on.
        back: outcomes [M, h] that are kept back.
        numbers: see `Sharing`; none by default.
        generator: draws what numbers share.

    Attributes:
        scores: mean cross-entropy of kept-back rows at the start and after each burst; infinite where
            there was none.
    """

    scores: Tensor

    def __init__(
        self,
        chain: Chain,
        choice: Tensor,
        back: Tensor,
        numbers: Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        chain.start(choice)
        self.best = copy.deepcopy(chain)
        self.sharing = Sharing(chain, numbers, generator or torch.Generator())
        self.rows = (choice, back)
        self.register_buffer("scores", torch.full((len(BURSTS) + 1,), torch.inf).double())
        with torch.no_grad():
            self.scores[0] = chain(back)

    def phases(self) -> Iterator[Phase]:
        """Yield bursts of training until the rows that are kept back get no better."""
        sharing, (choice, back) = self.sharing, self.rows
        draw = rows_of(choice, batch=min(BATCH, len(choice)))
        trained = [p for name, p in sharing.named_parameters() if name != "chain.first"]
        for index, steps in enumerate(BURSTS, 1):
            player = Player("head", trained, sharing.loss, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
            yield Phase(
                f"chain {index}",
                steps,
                draw,
                (player,),
                average=sharing,
                decay=0.98,
                held_out=lambda: float(sharing.loss(back, None)["cross_entropy"]),
            )
            earlier = float(self.scores[:index].min())
            if not torch.isfinite(self.scores[index]):
                with torch.no_grad():
                    self.scores[index] = sharing.loss(back, None)["cross_entropy"]
                    if self.scores[index] < earlier:
                        self.best.load_state_dict(sharing.weights())
            if self.scores[index] > earlier - GAIN:
                break


def _cumulated(weights: Var, size: int) -> Var:
    if size > TRIANGLE:
        return op.cumsum(weights, const(1, np.int64))
    return op.matmul(weights, const(np.tri(size).T))


def cosines(count: int, size: int) -> Tensor:
    """Return cosines [size, 12] of 1 to 12 half turns along the first `count` outcomes; rows have length 1."""
    turns = math.pi * (torch.arange(count) + 0.5)[:, None] / count * torch.arange(1, COSINES + 1)
    waves = torch.zeros(size, COSINES)
    waves[:count] = turns.cos() * (2 / COSINES) ** 0.5
    return waves
