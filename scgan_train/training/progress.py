"""What a training shows and keeps while it runs: a bar on a terminal, a history, checkpoints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from torch import Tensor

from scgan_infer.text import visible
from scgan_train.training import distributed
from scgan_train.training.run import Run

CHECKPOINT_SECONDS = 30.0


class Progress:
    """Bars for a whole run; nothing is drawn where stderr is not a terminal."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty() or distributed.rank() > 0,
        )

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def stage(self, name: str) -> StageObserver:
        """Return the observer of one stage."""
        return StageObserver(self, name)

    @contextmanager
    def spinner(self, name: str) -> Iterator[None]:
        """Show a bar that only says that something is under way."""
        task = self.bars.add_task(name, total=None, losses="")
        yield
        self.bars.update(task, total=1, completed=1)


class StageObserver:
    """Shows a stage's losses, appends them to `history.jsonl`, writes a checkpoint now and then."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self.progress, self.run, self.stage = progress, progress.run, stage
        self.history = self.run.path / "history.jsonl"
        self.saved = time.monotonic()
        self.task = progress.bars.add_task(stage, total=None, losses="")

    def begin(self, phase: str, steps: int) -> None:
        """Start the bar of a phase."""
        self.progress.bars.update(self.task, total=steps, completed=0, description=self.stage)

    def losses(self, phase: str, step: int, terms: dict[str, float]) -> None:
        """Show and record the losses at a step."""
        line = {"stage": self.stage, "phase": phase, "step": step}
        rounded = {name: round(value, 7) for name, value in terms.items()}
        if distributed.rank() == 0:
            self.run.append("history.jsonl", json.dumps(line | rounded) + "\n")
        shown = " ".join(f"{name} {value:.4g}" for name, value in list(terms.items())[:4])
        self.progress.bars.update(self.task, completed=step + 1, losses=shown)

    def due(self) -> bool:
        """Say whether the last checkpoint is old."""
        return distributed.rank() == 0 and time.monotonic() - self.saved > CHECKPOINT_SECONDS

    def save(self, state: dict[str, Tensor]) -> None:
        """Write the checkpoint of this stage."""
        size = self.history.stat().st_size if self.history.exists() else 0
        name = torch.tensor(list(self.stage.encode()), dtype=torch.uint8)
        self.run.save_tensors("checkpoint", state | {"stage": name, "history": torch.tensor(size)})
        self.saved = time.monotonic()

    def note(self, message: str) -> None:
        """Keep a sentence with the run, and say it."""
        self.run.facts.setdefault("notes", []).append(message)
        if distributed.rank() == 0:
            note = f"note: {visible(message)}"
            self.progress.bars.console.print(note, markup=False, soft_wrap=True)

    def restore(self) -> dict[str, Tensor]:
        """Return this stage's checkpoint, if any, and cut the history back to where it was then."""
        path = self.run.path / "checkpoint.safetensors"
        state = self.run.load_tensors("checkpoint") if path.exists() else {}
        if state and bytes(state["stage"].tolist()).decode() != self.stage:
            state = {}
        if self.history.exists():
            text = self.history.read_bytes()
            own = f'"stage": "{self.stage}"'.encode()
            lines = (line for line in text.splitlines(keepends=True) if line.endswith(b"\n"))
            others = [line for line in lines if own not in line]
            kept = text[: int(state["history"])] if state else b"".join(others)
            self.run.write("history.jsonl", kept)
        return state
