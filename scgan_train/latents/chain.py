"""The head with discrete values or given columns: small softmax networks in a chain to the cluster.

    p(s_1) p(s_2 | s_1) ... p(cluster | s_1 .. s_(h-1))

Every outcome has an embedding; step j is a perceptron of the embeddings of the outcomes before it.
All steps' cross-entropies are added. Each step has its own uniform number u_j: the outcome is the
number of cumulative probabilities up to u_j.

Given columns are inputs of every step: numbers h, embeddings of outcomes. The cluster's logits are

    log pi_k + log N(h; mu_k, Sigma_k)  +  network,      the network 0 at first,

so the gate begins as the exact posterior of the mixture and learns the rest.

Where a step follows from another in all training rows (a number from its name), or its number is
never below another's, a table of the other's outcomes corrects it before the cluster is drawn.

Outcomes that never occur together, beyond chance, get no probability: see `discrete.never`.

Early stopping underfits: dependence between outcomes is too weak. So finally each step gets a term

    logits_v += sum_w  t(v)^T W f(s, h)

linear in few statistics: a number's rank among those seen, each of few names, given numbers. At the
maximum of the likelihood, means of products t f^T are those of the rows (as in every exponential
family). It stays where it gains more than chance does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scgan_train.coordinates.discrete import EMBEDDING, FEW_NAMES, WIDTH
from scgan_train.coordinates.given import Conditions, ConditionVars
from scgan_train.graph import Var, const, op
from scgan_train.latents.clusters import Assign
from scgan_train.nets import mlp, mlp_graph

DROPOUT = 0.1
MOMENT_ROWS = 10_000  # at most, that the linear terms are fitted to
MOMENT_STEPS, RIDGE = 60, 5.0  # of L-BFGS; of the terms' squares, in rows
BARRED = -50.0  # added to the logits of what never occurs with another outcome
TIED, LEAST, NEVER, LINEAR = "tied_", "least_", "never_", "linear_"
UNSEEN = 0.01  # rows that each outcome of the first step has besides
TRIANGLE = 256  # outcomes up to which cumulative sums are a matrix product


class Chain(nn.Module):
    """The chain over outcomes of these sizes [h], the last of them the clusters.

    Args:
        sizes: how many outcomes each step has.
        generator: draws the first weights.
        given: sizes [r] of the outcomes that are known from the start.
        gate: effect of the given numbers on the clusters.
        context: how many given numbers every step sees, p.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        generator: torch.Generator,
        given: Sequence[int] = (),
        gate: Assign | None = None,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.sizes, self.known, self.gate = tuple(sizes), len(given), gate
        self._every = every = (*given, *sizes)
        self.embeddings = nn.ParameterList(
            torch.randn(size, EMBEDDING, generator=generator) for size in every[:-1]
        )
        self.lone = not given and not context  # then the first step sees nothing
        if self.lone:
            self.first = nn.Parameter(torch.zeros(sizes[0]))
        self.networks = nn.ModuleList(
            mlp([context + EMBEDDING * (self.known + j), WIDTH, WIDTH, size], generator)
            for j, size in enumerate(sizes)
            if j or not self.lone
        )

    @torch.no_grad()
    def start(self, choice: Tensor, back: Tensor) -> None:
        """Make each step independent, by the shares of its outcomes among choices [N, r + h].

        The first, which stays as it is, by those of rows kept back [M, r + h], too. The cluster
        begins as the mixture's exact posterior where numbers are given.
        """
        shares = [
            (torch.bincount(choice[:, self.known + j], minlength=size) + 0.5).log()
            for j, size in enumerate(self.sizes)
        ]
        if self.lone:
            every = torch.cat([choice[:, 0], back[:, 0]])
            self.first.copy_((torch.bincount(every, minlength=self.sizes[0]) + UNSEEN).log())
        if self.gate:
            shares[-1] = torch.zeros_like(shares[-1])
        for network, share in zip(self.networks, shares[-len(self.networks) :], strict=True):
            *_, last = network.children()
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            last.bias.copy_(share - share.mean())

    def logits(
        self, choice: Tensor, given: Tensor, step: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return unnormalised log-probabilities [n, V] of a step, given the outcomes before it.

        Args:
            choice: [n, r + h], of which the first r + `step` columns are used.
            given: numbers [n, p].
            step: which.
            generator: draws the dropout; none without.
        """
        if self.lone and not step:
            return self.first.expand(len(choice), -1)
        network, count = self.networks[step - self.lone], self.known + step
        x = torch.cat([given, *(self.embeddings[k][choice[:, k]] for k in range(count))], 1)
        linear = getattr(self, f"{LINEAR}{step}", None)
        more = None if linear is None else x @ linear
        for layer in network.children():
            x = layer(x)
            if generator is not None and isinstance(layer, nn.SiLU):
                kept = torch.rand(x.shape, generator=generator).to(x) >= DROPOUT
                x = x * kept / (1 - DROPOUT)
        x = x if more is None else x + more
        if self.gate and step == len(self.sizes) - 1:
            x = x - self.gate.costs(given).T
        for other, table in self._barred(step):
            x = x + table[choice[:, other]]
        return x

    def forward(
        self,
        choice: Tensor,
        given: Tensor,
        generator: torch.Generator | None = None,
        steps: Sequence[int] | None = None,
    ) -> Tensor:
        """Return minus log p [k, n] of outcomes [n, r + h] in k steps, or all; see `logits`."""
        terms = [
            cross_entropy(
                self.logits(choice, given, j, generator),
                choice[:, self.known + j],
                reduction="none",
            )
            for j in (range(len(self.sizes)) if steps is None else steps)
        ]
        return torch.stack(terms)

    def tie(self, step: int, other: int, table: Tensor, *, least: bool = False) -> None:
        """Let a step's outcome follow from another's, by a table [V] of these; both of r + h.

        If the table is of the least ones, the step keeps an outcome above.
        """
        self.register_buffer(f"{LEAST if least else TIED}{step}_{other}", table)

    def bar(self, step: int, other: int, barred: Tensor) -> None:
        """Let a step have no outcome barred [W, V] beside an earlier step's; both of r + h."""
        self.register_buffer(f"{NEVER}{step}_{other}", barred * BARRED)

    def match(
        self, choice: Tensor, given: Tensor, numbers: Sequence[int], generator: torch.Generator
    ) -> None:
        """Fit the linear terms of the steps to choices [N, r + h] and given numbers [N, p].

        Args:
            choice: outcomes.
            given: numbers.
            numbers: how many first outcomes of each of r + h are numbers in order; 0 of names.
            generator: draws the rows that are used.
        """
        some = torch.randperm(len(choice), generator=generator)[:MOMENT_ROWS].to(choice.device)
        choice, given = choice[some], given[some]
        tables = [
            statistics(torch.bincount(outcomes, minlength=size), count)
            for outcomes, size, count in zip(choice.T, self._every, numbers, strict=True)
        ]
        spans = [torch.linalg.pinv(table.detach().double()) for table in self.embeddings]
        for step in range(self.lone, len(self.sizes)):
            known = self.known + step
            basis, others = tables[known], spans[:known]
            # what is linear in an embedding: all of few outcomes, what is smooth along many
            parts = [span @ table for span, table in zip(others, tables, strict=False)]
            turn = torch.block_diag(  # type: ignore[no-untyped-call]
                torch.eye(given.shape[1]).to(basis), *parts
            )
            if not basis.shape[1] or not turn.shape[1]:
                continue
            x = torch.cat([given, *(self.embeddings[k][choice[:, k]] for k in range(known))], 1)
            weight = _tilted(
                self.logits(choice, given, step).detach().double(),
                x.detach().double() @ turn,
                basis,
                choice[:, known],
            )
            if weight is not None:
                self.register_buffer(f"{LINEAR}{step}", (turn @ weight @ basis.T).float())

    def _barred(self, step: int) -> Iterator[tuple[int, Tensor]]:
        """Yield what a step's logits gain for each outcome of another [V, W], and that other."""
        prefix = f"{NEVER}{self.known + step}_"
        for name, table in self.named_buffers(recurse=False):
            if name.startswith(prefix):
                yield int(name.removeprefix(prefix)), table

    @staticmethod
    def names_tie(name: str) -> bool:
        """Return whether a name in the state is that of a table of `tie`, `bar` or `match`."""
        return name.startswith((TIED, LEAST, NEVER, LINEAR))

    @property
    def tied(self) -> Iterator[tuple[int, int, Tensor, bool]]:
        """Steps that depend on another, that other, the table, if it is of least ones; in order."""
        # what follows from a step that was raised follows once more
        for kind in (TIED, LEAST, TIED):
            for name, table in self.named_buffers(recurse=False):
                if name.startswith(kind):
                    step, other = name.removeprefix(kind).split("_")
                    yield int(step), int(other), table, kind == LEAST

    @torch.no_grad()
    def select(self, u: Tensor, given: Conditions) -> Tensor:
        """Return the outcomes [n, h] that uniforms u [n, h] choose."""
        drawn = torch.zeros(u.shape, dtype=torch.int64, device=u.device)
        choice = torch.cat([given.s, drawn], 1)
        for j in range(len(self.sizes)):
            if j == len(self.sizes) - 1:
                for step, other, table, least in self.tied:
                    index = table[choice[:, other]]
                    choice[:, step] = torch.maximum(index, choice[:, step]) if least else index
            sums = self.logits(choice, given.h, j).to(u).softmax(1).cumsum(1)
            choice[:, self.known + j] = (u[:, j, None] >= sums[:, :-1]).sum(1)
        return choice[:, self.known :]

    def graph(self, u: Var, given: ConditionVars) -> list[Var]:
        """Return `select` as a graph: the outcomes [n] of each step, of uniforms u [n, h]."""
        uniforms = op.split(u, num_outputs=len(self.sizes), axis=1) if len(self.sizes) > 1 else [u]
        chosen: list[Var] = []
        known = self._known_graph(given)
        for j, size in enumerate(self.sizes):
            if j == len(self.sizes) - 1:
                for step, other, table, least in self.tied:
                    outcomes = [*given.s, *chosen]
                    index = op.gather(const(table, np.int64), outcomes[other])
                    index = op.max([index, outcomes[step]]) if least else index
                    chosen[step - self.known] = index
                    position = step + (given.h is not None)
                    known[position] = op.gather(const(self.embeddings[step]), index)
            if self.lone and j == 0:
                share = torch.softmax(self.first.double(), 0).cumsum(0)[:-1]
                cell = op.reshape(uniforms[0], const([-1], np.int64))
                index = _searched(cell, share.detach().numpy())
            else:
                logits = self._logits_graph(known, given, [*given.s, *chosen], j)
                sums = _cumulated(op.softmax(logits), size)
                passed = op.greater_or_equal(uniforms[j], sums)
                counted = op.reduce_sum(
                    op.cast(passed, to=np.float32), const([1], np.int64), keepdims=0
                )
                index = op.min([op.cast(counted, to=np.int64), const(size - 1, np.int64)])
            chosen.append(index)
            if j < len(self.sizes) - 1:
                known.append(op.gather(const(self.embeddings[self.known + j]), index))
        return chosen

    def log_shares(self, choice: Tensor, given: Conditions) -> tuple[Tensor, Tensor]:
        """Return log p [n] of outcomes [n, h - 1], and log p [n, K] of each cluster after them."""
        every, total = torch.cat([given.s, choice], 1), given.h.new_zeros(len(choice))
        for j in range(choice.shape[1]):
            logs = self.logits(every, given.h, j).log_softmax(1)
            total = total + logs.gather(1, choice[:, j, None]).squeeze(1)
        return total, self.logits(every, given.h, choice.shape[1]).log_softmax(1)

    def log_shares_graph(
        self, choice: Sequence[Var], given: ConditionVars
    ) -> tuple[Var | None, Var]:
        """Return `log_shares` as graphs, [n] (None for h = 1) and [n, K], of h - 1 outcomes [n]."""
        axis, total = const([1], np.int64), None
        known = self._known_graph(given)
        for j in range(len(self.sizes)):
            if self.lone and j == 0:
                log_share = op.gather(const(torch.log_softmax(self.first.double(), 0)), choice[0])
            else:
                logs = op.log_softmax(self._logits_graph(known, given, [*given.s, *choice], j))
                if j == len(self.sizes) - 1:
                    break
                log_share = op.gather_elements(logs, op.unsqueeze(choice[j], axis), axis=1)
                log_share = op.squeeze(log_share, axis)
            total = log_share if total is None else op.add(total, log_share)
            known.append(op.gather(const(self.embeddings[self.known + j]), choice[j]))
        return total, logs

    def _known_graph(self, given: ConditionVars) -> list[Var]:
        """Return what every step sees of given columns."""
        known = [] if given.h is None else [given.h]
        tables = zip(self.embeddings, given.s, strict=False)
        return known + [op.gather(const(table), outcome) for table, outcome in tables]

    def _logits_graph(
        self, known: Sequence[Var], given: ConditionVars, outcomes: Sequence[Var], step: int
    ) -> Var:
        """Return `logits` of a step that sees something as a graph."""
        network, costs = self.networks[step - self.lone], None
        linear = getattr(self, f"{LINEAR}{step}", None)
        if self.gate and step == len(self.sizes) - 1:
            assert given.h is not None
            costs = op.transpose(self.gate.costs_graph(given.h))
            learned = any(weight.any() for weight in list(network.parameters())[-2:])
            if not learned and linear is None:
                return op.neg(costs)  # nothing was learned
        x = known[0] if len(known) == 1 else op.concat(known, axis=1)
        logits = mlp_graph(network, x)
        logits = logits if linear is None else op.add(logits, op.matmul(x, const(linear)))
        for other, table in self._barred(step):
            logits = op.add(logits, op.gather(const(table), outcomes[other]))
        return logits if costs is None else op.sub(logits, costs)


def statistics(counts: Tensor, numbers: int) -> Tensor:
    """Return what is to be matched of a step's outcomes, which came so often [V], float64 [V, F].

    Of numbers, the first outcomes, the standardised rank; of few names all but the first.
    """
    size = len(counts)
    if not numbers:
        return torch.eye(size)[:, 1 : FEW_NAMES * (size <= FEW_NAMES)].to(counts).double()
    position, seen = torch.arange(numbers).to(counts).double(), counts[:numbers].double()
    mean = (seen * position).sum() / seen.sum().clamp(min=1)
    spread = ((seen * (position - mean) ** 2).sum() / seen.sum().clamp(min=1)).sqrt()
    table = torch.zeros(size, 1).to(position)
    table[:numbers, 0] = (position - mean) / spread.clamp(min=1e-9)
    return table


def _tilted(base: Tensor, f: Tensor, table: Tensor, outcome: Tensor) -> Tensor | None:
    """Return likeliest W [F, T] beside logits [n, V], of features [n, F] and statistics [V, T].

    None by chance: twice the gain of all rows, in nats, is then on average the size of W. SciPy's
    optimiser: that of torch imports a compiler, which takes seconds.
    """
    from scipy.optimize import minimize

    shape = (f.shape[1], table.shape[1])

    def nats(weight: Tensor) -> Tensor:
        return cross_entropy(base + f @ weight @ table.T, outcome)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight = torch.from_numpy(flat.reshape(shape)).to(f).requires_grad_()
        total = nats(weight) + RIDGE / (2 * len(f)) * weight.square().sum()
        (slope,) = torch.autograd.grad(total, weight)
        return total.item(), slope.cpu().numpy().ravel()

    size = math.prod(shape)
    solution = minimize(
        loss, np.zeros(size), jac=True, method="L-BFGS-B", options={"maxiter": MOMENT_STEPS}
    )
    weight = torch.from_numpy(solution.x.reshape(shape)).to(f)
    gained = 2 * len(f) * (nats(torch.zeros_like(weight)) - nats(weight)).item()
    return weight if gained > size else None


def _searched(u: Var, sums: NDArray[np.float64]) -> Var:
    """Return how many of the ascending sums [V - 1] are at most u, for each of [n], by halving."""
    padded = np.full(1 << len(sums).bit_length(), 2.0)
    padded[: len(sums)] = sums
    index, half = op.cast(op.mul(u, const(0)), to=np.int64), len(padded) // 2
    while half:
        middle = op.add(index, const(half, np.int64))
        bound = op.gather(const(padded), op.sub(middle, const(1, np.int64)))
        index = op.where(op.greater_or_equal(u, bound), middle, index)
        half //= 2
    return index


def _cumulated(weights: Var, size: int) -> Var:
    if size > TRIANGLE:
        return op.cumsum(weights, const(1, np.int64))
    return op.matmul(weights, const(np.tri(size).T))
