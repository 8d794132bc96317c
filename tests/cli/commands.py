"""How a command ended, and commands in a process of their own, to die, hang or fill a disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

FAST = [
    *("--set", "encoder.steps=20", "--set", "mapper.steps=20", "--set", "decoder.warm_steps=20"),
    *("--set", "max_rows=2000", "--clusters", "3", "--mapper", "aae", "--device", "cpu"),
]
PROGRESS = re.compile(r"[a-z ]+: [\d,]+ (of|s)\b")  # of work that takes long on a busy machine
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def failed(self, code: int, *words: str) -> None:
        """Check the exit code, and that stderr is one line with these words and no traceback."""
        assert self.code == code, self.err
        lines = [
            line
            for line in self.err.splitlines()
            if not line.startswith(("model: ", "device: ", "note: ")) and not PROGRESS.match(line)
        ]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("scgan: ")
        assert "Traceback" not in self.err
        assert len(lines[0]) < 700
        for word in words:
            assert word in lines[0]


def spawn(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    command = [sys.executable, "-m", "scgan_train", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload, no-any-return]


def apart(*arguments: object, **options: object) -> Done:
    """Run a command in a process of its own."""
    with spawn(*arguments, **options) as process:
        out, err = process.communicate(timeout=120)
    return Done(process.returncode, out or "", err or "")


def blocks(language: str) -> list[str]:
    """The README's blocks of code in a language, in order."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
