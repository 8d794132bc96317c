"""The command line `scgan`: imports no torch, and nothing at all before Ctrl-C has an answer."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would take a few milliseconds that have no answer yet
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def main() -> NoReturn:
    """Run the command line; every error becomes one line and its exit code."""
    guarded(command)


def command() -> int:
    """Run one command and return its exit code."""
    from scgan_train.app.exits import run

    return run()


def guarded(program: Callable[[], int]) -> NoReturn:
    """Run a program that answers Ctrl-C itself once it is imported, and answer until then."""
    sys.unraisablehook = again
    occupy()
    try:
        code = program()
    except KeyboardInterrupt:
        print("scgan: interrupted", file=sys.stderr)
        code = 130
    finally:
        deaf()
    sys.exit(code)


def occupy() -> None:
    """Put something that refuses in place of standard streams that are closed, whose numbers files would take.

    What is said on stderr would go into the next file that is opened; without a `sys.stderr` it went to stdout.
    """
    import os

    for number, access in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, access), True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def deaf() -> None:
    """Ignore signals that ask for an end.

    Python puts their defaults back while it ends, which would change the code; and when one process fails, torchrun
    ends the others, even those that are about to end. Python also notes an interrupt that leaves code compiled from
    a string, as dataclasses are made of, even if it is caught further out, and ends by SIGINT itself in place of the
    exit code; the next such code takes the note back.
    """
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    exec("")


def again(ignored: Any) -> None:
    """Interrupt once more where Python drops it: in a callback, of which imports have many."""
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    import signal
    from threading import Timer

    Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
