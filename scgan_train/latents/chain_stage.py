"""How a chain is trained: numbers in order share weights, and each step keeps its best weights.

Outcomes that are numbers share what is learned of their neighbours. Their embeddings and the rows
of their last layer are, as long as the chain is trained,

    free [V, f] + cosines [V, 12] shared [12, f]

the cosines running over the numbers in order, so that slow changes along them are learned first.

Such a chain overfits within a few passes. So it is trained in bursts, each about twice as long
as the one before, and the weights after the burst that is best on rows kept back stay.
Unpredictable steps are worse by then, and sharp ones not yet learned. So the embeddings are frozen
from there on, which separates the steps; a step that is no better than its shares, beyond chance,
begins anew; and each has further bursts as long as it gains, and keeps its own best.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from scgan_train.coordinates.discrete import EMBEDDING, WIDTH
from scgan_train.fitting.loop import Phase, Player, Selected, rows_of
from scgan_train.latents.chain import Chain

BATCH = 512
BURSTS = (30, 70, 150, 250, 500, 1000, 2000)
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01
COSINES = 12  # that numbers in order share, and so many numbers at least
FREE = 0.3  # size of the free part of their embeddings
GAIN = 0.001  # nats a row that a longer training must gain
SURE = 0.5  # standard errors that a step must gain by to be taken


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
        self.targets: list[tuple[str, Tensor]] = []  # a weight's name, and its cosines
        self.shared = nn.ParameterList()
        for j, count in enumerate(numbers):
            if count < COSINES:
                continue
            position, network = chain.known + j, j - chain.lone
            embedding = chain.embeddings[position]
            waves = cosines(count, chain.sizes[j]).to(embedding)
            embedding.data[:count] *= FREE
            shared = torch.randn(COSINES, EMBEDDING, generator=generator).to(embedding)
            self._share(f"embeddings.{position}", waves, shared)
            if network >= 0:
                last = len(chain.networks[network]) - 1  # type: ignore[arg-type]
                self._share(
                    f"networks.{network}.{last}.weight", waves, embedding.new_zeros(COSINES, WIDTH)
                )

    def _share(self, name: str, waves: Tensor, shared: Tensor) -> None:
        self.targets.append((name, waves))
        self.shared.append(nn.Parameter(shared))

    def weights(self) -> dict[str, Tensor]:
        """Return the chain's weights by name."""
        free = dict(self.chain.named_parameters())
        pairs = zip(self.targets, self.shared, strict=True)
        return free | {name: free[name] + waves @ shared for (name, waves), shared in pairs}

    def of_step(self, step: int) -> list[nn.Parameter]:
        """Return what a step's network alone has in training."""
        prefix = f"networks.{step - self.chain.lone}."
        free = [weight for name, weight in self.chain.named_parameters() if name.startswith(prefix)]
        pairs = zip(self.targets, self.shared, strict=True)
        return free + [shared for (name, _), shared in pairs if name.startswith(prefix)]

    def nats(self, *inputs: object) -> Tensor:
        """Return the steps' negative log-likelihoods [k, b]; see `Chain.forward`."""
        nats: Tensor = functional_call(self.chain, self.weights(), inputs)
        return nats


class ChainStage(Selected):
    """A chain in training, and the best of what it has been, first of all independent steps.

    Args:
        chain: untrained.
        rows: outcomes [N, r + h] and given numbers [N, p] to train on.
        back: [M, r + h] and [M, p] that are kept back.
        numbers: see `Sharing`; none by default.
        generator: draws what numbers share.

    Attributes:
        own: nats [9, h] of each step on the rows kept back since the embeddings stay, at first and
            after each burst; infinite where there was none.
    """

    own: Tensor

    def __init__(
        self,
        chain: Chain,
        rows: tuple[Tensor, Tensor],
        back: tuple[Tensor, Tensor],
        numbers: Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        chain.start(rows[0], back[0])
        best, first = copy.deepcopy(chain), copy.deepcopy(chain)
        sharing = Sharing(chain, numbers, generator or torch.Generator())

        def score() -> Tensor:
            return sharing.nats(*back).mean(1).sum()

        super().__init__(sharing, best, score, len(BURSTS), GAIN)
        self.rows, self.back, self.first = rows, back, first
        nats = torch.full((len(BURSTS) + 1, len(chain.sizes)), torch.inf)
        self.register_buffer("own", nats.double())

    def weights(self) -> dict[str, Tensor]:
        """See `Selected.weights`."""
        sharing = self.trained
        assert isinstance(sharing, Sharing)
        return sharing.chain.state_dict() | sharing.weights()

    def phases(self) -> Iterator[Phase]:
        """Yield bursts of training until held-out rows gain nothing: of all steps, then of each."""
        sharing = self.trained
        assert isinstance(sharing, Sharing)
        every = range(len(sharing.chain.sizes))
        trained = [p for name, p in sharing.named_parameters() if name != "chain.first"]
        yield from self.until_no_better(
            self._phase(f"chain {index}", steps, trained, every)
            for index, steps in enumerate(BURSTS, 1)
        )
        if not torch.isfinite(self.own[0]).all():
            self._part(sharing)
        active = list(every)[sharing.chain.lone :]
        for index, steps in enumerate(BURSTS, 1):
            if not active:
                break
            weights = [weight for step in active for weight in sharing.of_step(step)]
            yield self._phase(f"steps {index}", steps, weights, active)
            if not torch.isfinite(self.own[index]).all():
                self._take(sharing, index)
            gained = self.own[:index].amin(0) - self.own[index]
            active = [step for step in active if gained[step] > GAIN]

    def _phase(
        self, name: str, steps: int, weights: Sequence[nn.Parameter], active: Sequence[int]
    ) -> Phase:
        """Return a burst of training some weights on the likelihood of some steps."""
        sharing, rows = self.trained, self.rows
        assert isinstance(sharing, Sharing)

        def loss(choice: Tensor, given: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            nats = sharing.nats(choice, given, generator, active)
            return {"cross_entropy": nats.mean(1).sum()}

        return Phase(
            name,
            steps,
            rows_of(*rows, batch=min(BATCH, len(rows[0]))),
            (Player("head", weights, loss, LEARNING_RATE, weight_decay=WEIGHT_DECAY),),
            average=sharing,
            decay=0.98,
            held_out=lambda: float(self.score()),
        )

    @torch.no_grad()
    def _part(self, sharing: Sharing) -> None:
        """Let each step begin with its best network, or anew where no better than its shares."""
        better = _surely_less(self.best(*self.back), self.first(*self.back))
        self._adopt(~better, self.first.state_dict())
        sharing.chain.load_state_dict(self.best.state_dict())
        for shared in sharing.shared:
            shared.zero_()
        self.own[0] = self.best(*self.back).mean(1)

    @torch.no_grad()
    def _take(self, sharing: Sharing, index: int) -> None:
        """Keep the networks that are better than what was kept of their steps."""
        now = sharing.nats(*self.back)
        self.own[index] = now.mean(1)
        self._adopt(_surely_less(now, self.best(*self.back)), self.weights())

    def _adopt(self, taken: Tensor, state: Mapping[str, Tensor]) -> None:
        """Copy the networks of some steps [h] from a state of the chain into the best."""
        chain = self.best
        assert isinstance(chain, Chain)
        for step in torch.nonzero(taken[chain.lone :]).flatten().tolist():
            for name, weight in chain.networks[step].named_parameters(f"networks.{step}"):
                weight.copy_(state[name])


def _surely_less(nats: Tensor, others: Tensor) -> Tensor:
    """Return for which steps [h] nats [h, M] are below others by over `SURE` standard errors."""
    gained = others - nats
    error = gained.std(1, correction=0) / max(gained.shape[1] - 1, 1) ** 0.5
    return torch.gt(gained.mean(1), SURE * error)


def cosines(count: int, size: int) -> Tensor:
    """Return rows [size, 12] of length 1: cosines of 1 to 12 half turns on the first `count`."""
    turns = math.pi * (torch.arange(count) + 0.5)[:, None] / count * torch.arange(1, COSINES + 1)
    waves = torch.zeros(size, COSINES)
    waves[:count] = turns.cos() * (2 / COSINES) ** 0.5
    return waves
