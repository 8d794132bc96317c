"""How the program ends: every error becomes one line on stderr and its exit code, caught in one place.

done 0    unexpected 1    a `ScganError` its own, 2 to 7    no space, no right: 7    interrupted 130, terminated 143
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

from scgan_infer.errors import ScganError


class Terminated(KeyboardInterrupt):
    """The system asks to end (SIGTERM)."""


def say(message: str) -> None:
    """Write one line to stderr."""
    print(message, file=sys.stderr, flush=True)


def ended(
    command: Callable[[], int], usage: type[Exception], abort: type[Exception], debug: bool
) -> int:
    """Run a command to its end and return the exit code; what fails is said.

    Args:
        command: returns the exit code that it asks for.
        usage: what a bad command line raises, with `format_message()` and perhaps `param`.
        abort: what an interrupted command may raise in place of KeyboardInterrupt.
        debug: show tracebacks, and let what is unexpected through.
    """
    if not debug:
        sys.excepthook = unexpected
    signal.signal(signal.SIGTERM, terminate)
    try:
        return command()
    except (ScganError, usage, abort, KeyboardInterrupt, OSError, ModuleNotFoundError) as error:
        if debug:
            traceback.print_exception(error)
        return failed(error, usage)
    except RuntimeError as error:
        stopped = interruption(error)
        if stopped is None:
            raise
        return failed(stopped, usage)


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does: what is begun is cleaned up, or kept for --resume."""
    raise Terminated


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the signal that an error comes from: Python's locks complain when one falls between their steps."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def failed(error: BaseException, usage: type[Exception]) -> int:
    """Say in one line what was wrong and return the exit code."""
    if isinstance(error, OSError):
        if (
            error.filename is None
        ):  # stdout takes no more; without this, Python would try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        message, code = f"{error.filename or 'output'}: {error.strerror or error}", 7
    elif isinstance(error, ModuleNotFoundError):
        message, code = f"{error.name} is not installed; pip install 'scgan[train]'", 2
    elif isinstance(error, usage):
        said, value = error.format_message().rstrip("."), given(error)  # type: ignore[attr-defined]
        said = said.replace(" (env var: 'None')", "")
        message, code = f"{said}{'' if value in said else f', not {value!r}'} (see --help)", 2
    elif isinstance(error, ScganError):
        message, code = str(error), error.exit_code
    elif isinstance(error, Terminated):
        message, code = "terminated", 143
    else:
        message, code = "interrupted", 130
    say("scgan: " + " ".join(message.split()))
    return code


def given(error: Exception) -> str:
    """Return what the command line gave for the option that an error is about."""
    for option in getattr(getattr(error, "param", None), "opts", []):
        for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
            name, equals, value = word.partition("=")
            if name == option:
                return value if equals else following
    return ""


def unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Say in one line that this is a fault of scgan; Python then ends with exit code 1."""
    what = " ".join(f"{kind.__name__}: {error}".split())
    say(f"scgan: unexpected {what[:300]}; run again with --debug and report it")
