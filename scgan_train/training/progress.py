"""Progress of a running training: display, history, checkpoints."""

from __future__ import annotations

import hashlib
import json
import time

import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from scgan_infer.errors import ModelError
from scgan_train.fitting import distributed
from scgan_train.fitting.loop import CRITIC, HELD_OUT
from scgan_train.run_folder import Run
from scgan_train.watch import Watch

CHECKPOINT_SECONDS = 30.0


class StageObserver:
    """Shows a stage's losses, appends them to `history.jsonl`, writes a checkpoint every 30 s."""

    def __init__(self, run: Run, watch: Watch, stage: str) -> None:
        self.run, self.watch, self.stage = run, watch, stage
        self.history = self.run.path / "history.jsonl"
        self.saved = time.monotonic()

    def begin(self, phase: str, steps: int) -> None:
        """Start showing a phase."""
        self.watch.begin(self.stage, steps)

    def losses(self, phase: str, step: int, terms: dict[str, float]) -> None:
        """Show and record the losses at a step."""
        line = {"stage": self.stage, "phase": phase, "step": step}
        rounded = {name: round(value, 7) for name, value in terms.items()}
        if distributed.rank() == 0:
            self.run.append("history.jsonl", json.dumps(line | rounded) + "\n")
        self.watch.show(step + 1, _shown(terms))

    def due(self) -> bool:
        """Return whether the last checkpoint is old."""
        return distributed.rank() == 0 and time.monotonic() - self.saved > CHECKPOINT_SECONDS

    def save(self, state: dict[str, Tensor]) -> None:
        """Write the checkpoint of this stage."""
        size = self.history.stat().st_size if self.history.exists() else 0
        name = torch.tensor(list(self.stage.encode()), dtype=torch.uint8)
        state = state | {"stage": name, "history": torch.tensor(size)}
        self.run.save_tensors("checkpoint", state | {"seal": self._seal(state)})
        self.saved = time.monotonic()

    def _seal(self, state: dict[str, Tensor]) -> Tensor:
        """Return a hash of a checkpoint and of its settings and rows."""
        of = (self.run.path / "config.toml").read_bytes() + self.run.facts["sha256"].encode()
        values = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        digest = hashlib.sha256(of + tensors_to_bytes(values)).digest()
        return torch.tensor(list(digest), dtype=torch.uint8)

    def note(self, message: str) -> None:
        """Store a note in the run, and show it."""
        self.run.facts.setdefault("notes", []).append(message)
        if distributed.rank() == 0:
            self.watch.say(f"note: {message}")

    def restore(self) -> dict[str, Tensor]:
        """Return this stage's checkpoint, if any, and truncate the history to its state then.

        Raises:
            ModelError: It is damaged, or another run's.
        """
        path = self.run.path / "checkpoint.safetensors"
        state = self.run.load_tensors("checkpoint") if path.exists() else {}
        if state and not torch.equal(state.pop("seal", torch.empty(0)), self._seal(state)):
            raise ModelError(f"{path} is not as this run left it; remove it to repeat its stage")
        if state and bytes(state["stage"].tolist()).decode() != self.stage:
            state = {}
        if self.history.exists():
            text = self.history.read_bytes()
            marker = f'"stage": "{self.stage}"'.encode()
            lines = (line for line in text.splitlines(keepends=True) if line.endswith(b"\n"))
            others = [line for line in lines if marker not in line]
            kept = text[: int(state["history"])] if state else b"".join(others)
            self.run.write("history.jsonl", kept)
        return state


def _shown(terms: dict[str, float]) -> str:
    """Return the first loss that is not a critic's, and its value on held-out rows."""
    name = next((name for name in terms if not name.startswith(CRITIC)), next(iter(terms)))
    held = f", held out {terms[HELD_OUT]:.4g}" if HELD_OUT in terms else ""
    return f"{name.replace('_', ' ')} {terms[name]:.4g}{held}"
