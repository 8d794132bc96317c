"""The command line `scgan`: imports no torch, and nothing at all before Ctrl-C is handled."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing takes a few milliseconds, before Ctrl-C is handled
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
    """Run a program that handles Ctrl-C itself once it is imported, and handle it until then."""
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
    """Replace closed standard streams by /dev/null opened the wrong way.

    Otherwise the next file that is opened would take their descriptor, and messages to stderr go
    into it, or without a `sys.stderr` to stdout.
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
    """Ignore SIGINT and SIGTERM.

    Python restores their defaults while it ends, which would change the code; and when one process
    fails, torchrun ends the others, even those that are about to end. Python also records an
    interrupt that leaves code compiled from a string, as dataclasses are, even if it is caught
    further out, and then ends by SIGINT instead of with the exit code; running any such code again
    clears the record.
    """
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    exec("")


def again(ignored: Any) -> None:
    """Interrupt again where Python ignores it: in callbacks, which imports use a lot."""
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    import signal
    from threading import Timer

    Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
