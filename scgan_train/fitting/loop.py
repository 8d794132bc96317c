"""The training loop, once: a stage is phases in order, a phase players who take turns on batches.

    for step: batch = draw(); for each player: descend its loss on its parameters; average weights

A player's loss returns named terms and the loop descends their sum. A phase's random stream depends
only on the seed, the stage and the phase's number; a checkpoint holds weights, optimizers, averages
and that stream's state, so that a resumed training ends in the same bits as one that was never
interrupted. Several processes share out a batch (see `distributed`). A phase whose critic wins
outright leaves nothing but noise in the gradients: it is undone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scgan_train.fitting import distributed, guards
from scgan_train.fitting.guards import TrainingError

if TYPE_CHECKING:
    from scgan_train.training.progress import StageObserver

LOG_EVERY = 25
HELD_OUT_EVERY = 100
CRITIC = "critic_"
HELD_OUT = "held_out"

Draw: TypeAlias = Callable[[torch.Generator], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Player:
    """One set of parameters and the loss they descend.

    Attributes:
        loss: called with the batch's tensors and the generator; returns named terms.
        clip: largest norm of its gradient.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[..., dict[str, Tensor]]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 1.0


@dataclass(frozen=True)
class Phase:
    """Training steps of the players on batches from `draw`.

    Attributes:
        average: its parameters' exponential moving average replaces them when the phase ends.
        warmup: steps of linear warm-up.
        floor: the cosine schedule ends at this share of the learning rate.
        share: whether processes share out each batch; else all compute the whole of it.
        held_out: returns the loss that matters on rows that do not train it; draws nothing from the
            phase's stream.
    """

    name: str
    steps: int
    draw: Draw
    players: tuple[Player, ...]
    average: nn.Module | None = None
    decay: float = 0.999
    warmup: int = 0
    floor: float = 0.02
    share: bool = False
    held_out: Callable[[], float] | None = None


def generator_for(seed: int, *path: object) -> torch.Generator:
    """Return a generator whose stream is a function of the seed and the path alone."""
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def rows_of(*tensors: Tensor, batch: int) -> Draw:
    """Return a `draw`, with replacement, of `batch` rows per process, the same of every tensor."""
    batch *= distributed.size()

    def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
        index = torch.randint(len(tensors[0]), (batch,), generator=generator)
        return tuple(tensor[index.to(tensor.device)] for tensor in tensors)

    return draw


class Selected(nn.Module):
    """A module in training, and its best weights by a score on held-out rows.

    Args:
        trained: the module; its initial weights are scored, too.
        best: holds the weights with the best score.
        score: of `trained`, the lower the better.
        most: largest number of phases.
        gain: improvement of the score that a further phase must bring.

    Attributes:
        scores: at the start and after each phase; infinite for phases that were not run.
    """

    scores: Tensor

    def __init__(
        self,
        trained: nn.Module,
        best: nn.Module,
        score: Callable[[], Tensor],
        most: int,
        gain: float,
    ) -> None:
        super().__init__()
        self.trained, self.best = trained, best
        self.score, self.gain = torch.no_grad()(score), gain
        self.register_buffer("scores", torch.full((most + 1,), torch.inf).double())
        self.scores[0] = self.score()

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Return the weights that `best` takes from `trained`."""
        return self.trained.state_dict()

    def until_no_better(self, phases: Iterable[Phase]) -> Iterator[Phase]:
        """Yield phases as long as the score gets better."""
        for index, phase in enumerate(phases, 1):
            yield phase
            earlier = float(self.scores[:index].min())
            if not torch.isfinite(self.scores[index]):
                self.scores[index] = self.score()
                if self.scores[index] < earlier:
                    self.best.load_state_dict(self.weights())
            if self.scores[index] > earlier - self.gain:
                break


@distributed.translate_lost_process()
def fit(
    stage: str,
    module: nn.Module,
    phases: Callable[[torch.Generator], Iterator[Phase]],
    seed: int,
    observer: StageObserver,
) -> None:
    """Train `module` through its phases.

    Args:
        stage: name, part of the random stream.
        module: owns every parameter that the players train.
        phases: given the generator, yields phases; each draws its preparations when it begins.
        seed: the run's seed.
        observer: shows progress, keeps history and checkpoints.

    Raises:
        TrainingError: when a loss stops being a finite number, or another process is lost.
    """
    restored = observer.restore()
    distributed.barrier()
    resume_at = int(restored["phase"]) if restored else 0
    if restored:
        module.load_state_dict(_part(restored, "module."))
    generator = torch.Generator()
    sequence = phases(generator)
    index = 0
    while True:
        generator.set_state(generator_for(seed, stage, index).get_state())
        phase = next(sequence, None)
        if phase is None:
            return
        if index >= resume_at:
            state = _State(stage, module, phase, index, generator, observer)
            _fit_phase(state, restored if index == resume_at else {})
        index += 1


def _fit_phase(state: _State, restored: dict[str, Tensor]) -> None:
    """Take the steps of one phase: for each player loss, backward, step."""
    phase = state.phase
    first = state.restore(restored) if restored else 0
    losses_of = [
        distributed.shared(p.loss, p.parameters) if phase.share else p.loss for p in phase.players
    ]
    state.observer.begin(phase.name, phase.steps)
    for step in range(first, phase.steps):
        if state.observer.due():
            state.observer.save(state.tensors(step))
        batch = phase.draw(state.generator)
        if phase.share:
            batch = tuple(map(distributed.local_part, batch))
        terms: dict[str, Tensor] = {}
        for loss_of, descent in zip(losses_of, state.descents, strict=True):
            losses = loss_of(*batch, state.generator)
            loss = sum(losses.values(), torch.zeros(()))
            torch.autograd.backward(loss, inputs=descent.player.parameters)
            descent.step(_schedule(step, phase))
            terms |= losses
        if state.averages:
            state.average(state.averages, [weight.detach() for weight in state.weights], step)
        if step % LOG_EVERY == 0 or step == phase.steps - 1:
            state.log(step, terms)
    if guards.critic_won(state.critic_losses):
        state.module.load_state_dict(state.before)
        mean = sum(state.critic_losses) / len(state.critic_losses)
        state.observer.note(
            f"stage {state.stage}, {phase.name}: a critic won outright "
            f"(loss {mean:.2g}, 1.39 is a draw); what this phase had learned is undone; "
            "lower the critics' learning rate"
        )
        return
    with torch.no_grad():
        for weight, average in zip(state.weights, state.averages, strict=True):
            weight.copy_(average)


class Descent:
    """AdamW on a player's parameters, by torch's function: its class imports a compiler for 1 s.

    Attributes:
        moments: of each parameter by name: how many steps it took, and the averages of its gradient
            and its square.
    """

    def __init__(self, player: Player) -> None:
        self.player = player
        steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in player.parameters]
        self.moments = {
            "step": steps,
            "exp_avg": [torch.zeros_like(p) for p in player.parameters],
            "exp_avg_sq": [torch.zeros_like(p) for p in player.parameters],
        }

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Clip the gradients, take a step at this share of the learning rate, and forget them."""
        player = self.player
        nn.utils.clip_grad_norm_(player.parameters, player.clip)
        moved = [j for j, p in enumerate(player.parameters) if p.grad is not None]
        steps, averages, squares = ([values[j] for j in moved] for values in self.moments.values())
        adamw(
            [player.parameters[j] for j in moved],
            [gradient for p in player.parameters if (gradient := p.grad) is not None],
            averages,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=player.betas[0],
            beta2=player.betas[1],
            lr=player.lr * share,
            weight_decay=player.weight_decay,
            eps=1e-8,
            maximize=False,
        )
        for parameter in player.parameters:
            parameter.grad = None


@dataclass
class _State:
    """The state of a phase, and how it is saved and restored.

    Attributes:
        before: the module's weights when the phase began.
        critic_losses: of the last quarter of the phase.
    """

    stage: str
    module: nn.Module
    phase: Phase
    index: int
    generator: torch.Generator
    observer: StageObserver

    def __post_init__(self) -> None:
        phase, module = self.phase, self.module
        self.descents = [Descent(player) for player in phase.players]
        self.weights = list(phase.average.parameters()) if phase.average else []
        self.averages = [weight.detach().clone() for weight in self.weights]
        self.average = get_ema_multi_avg_fn(phase.decay)  # type: ignore[no-untyped-call]
        self.before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        self.critic_losses: list[float] = []

    def log(self, step: int, terms: dict[str, Tensor]) -> None:
        """Report the losses, as means over processes.

        Raises:
            TrainingError: one is not finite.
        """
        means = distributed.mean(torch.stack([value.detach() for value in terms.values()]))
        numbers = dict(zip(terms, means.tolist(), strict=True))
        if not all(map(math.isfinite, numbers.values())):
            bad = ", ".join(f"{name} = {value}" for name, value in numbers.items())
            raise TrainingError(
                f"stage {self.stage}, {self.phase.name}, step {step}: {bad}; lower its learning "
                "rate or look for extreme rows"
            )
        held_out, last = self.phase.held_out, step == self.phase.steps - 1
        if held_out and (step % HELD_OUT_EVERY == 0 or last):
            with torch.no_grad():
                value = held_out()
            if math.isfinite(value):
                numbers = numbers | {HELD_OUT: value}
        self.observer.losses(self.phase.name, step, numbers)
        rivals = [value for name, value in numbers.items() if name.startswith(CRITIC)]
        if rivals and step >= 0.75 * self.phase.steps:
            self.critic_losses.append(min(rivals))

    def tensors(self, step: int) -> dict[str, Tensor]:
        """Return the state as named tensors; inverse of `restore`."""
        state = {
            "phase": torch.tensor(self.index),
            "step": torch.tensor(step),
            "generator": self.generator.get_state(),
            "critic_losses": torch.tensor(self.critic_losses, dtype=torch.float64),
        }
        state |= {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        state |= {f"before.{name}": tensor for name, tensor in self.before.items()}
        state |= {f"average.{i}": tensor for i, tensor in enumerate(self.averages)}
        state |= dict(self._moments())
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def restore(self, state: dict[str, Tensor]) -> int:
        """Restore a saved state, all but the weights, and return its step."""
        self.before = _part(state, "before.")
        self.critic_losses = state["critic_losses"].tolist()
        for i, average in enumerate(self.averages):
            average.copy_(state[f"average.{i}"])
        for name, moment in self._moments():
            if name in state:
                moment.copy_(state[name])
        self.generator.set_state(state["generator"])
        return int(state["step"])

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the moments of all parameters by name."""
        for i, descent in enumerate(self.descents):
            for name, moments in descent.moments.items():
                for j, moment in enumerate(moments):
                    yield f"optimizer.{i}.{j}.{name}", moment


def _schedule(step: int, phase: Phase) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then a cosine."""
    if step < phase.warmup:
        return (step + 1) / phase.warmup
    done = (step - phase.warmup) / max(1, phase.steps - phase.warmup)
    return phase.floor + (1 - phase.floor) * 0.5 * (1 + math.cos(math.pi * done))


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    names = [name for name in state if name.startswith(prefix)]
    return {name.removeprefix(prefix): state[name] for name in names}
