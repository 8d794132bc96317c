"""Run `scgan` in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Done

from scgan_train import app as cli

# a shell's background job ignores SIGINT, and so would the commands that it starts
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parents[1] / "infer"))


@pytest.fixture
def scgan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Return a function that runs a command in this process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["scgan", *map(str, arguments)])
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as stop:
                cli.main()
        finally:  # a test that fails must not leave the others deaf
            for number, handler in handlers.items():
                signal.signal(number, handler)
        taken = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Done(stop.value.code, taken.out, taken.err)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid bundle of two columns, x and y."""
    import tiny

    return tiny.save(tmp_path_factory.mktemp("cli") / "tiny")
