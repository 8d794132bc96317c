"""Run `scgan` in this process, or in one of its own where it must die, hang or fill a disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "infer"))

FAST = [
    *("--set", "encoder.steps=20", "--set", "mapper.steps=20", "--set", "decoder.warm_steps=20"),
    *("--set", "max_rows=2000", "--clusters", "3", "--mapper", "aae", "--device", "cpu"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def failed(self, code: int, *words: str) -> None:
        """Check the exit code, that stderr is one line without a traceback, and that it says these words."""
        assert self.code == code, self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("model: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("scgan: ")
        assert "Traceback" not in self.err
        assert len(lines[0]) < 700
        for word in words:
            assert word in lines[0]


@pytest.fixture
def scgan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs a command in this process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["scgan", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        signal.signal(signal.SIGTERM, handler)
        taken = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Done(stop.value.code, taken.out, taken.err)

    return run


def spawn(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload, no-any-return]


def apart(*arguments: object, **options: object) -> Done:
    """Run a command in a process of its own."""
    with spawn(*arguments, **options) as process:
        out, err = process.communicate(timeout=120)
    return Done(process.returncode, out or "", err or "")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid bundle of two columns, x and y."""
    import tiny

    from scgan_infer import bundle

    return bundle.save(tmp_path_factory.mktemp("cli") / "tiny", tiny.MANIFEST, tiny.GRAPHS, tiny.EXTRAS)
