"""How the program ends: every error is caught here and becomes one line on stderr and a code.

0 done  1 unexpected, out of memory  2 to 7 a `ScganError`  7 no space, no right  130, 143 a signal

Python handles a signal between its bytecodes only. Where native code does not return for `PATIENCE`
seconds, as in a long graph, a thread ends the process, and files are left as by SIGKILL.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from types import FrameType, TracebackType
from typing import NoReturn

import typer

from scgan_infer.errors import ScganError, install
from scgan_train.app.actions import next_step, say
from scgan_train.app.commands import only
from scgan_train.app.plots import app
from scgan_train.watch import LEVEL

EXPECTED = (ScganError, typer.TyperException, KeyboardInterrupt, OSError, ModuleNotFoundError)

# parts of messages about too little memory, or no room for another thread
SHORT = ("memory", "bad_alloc", "bad allocation", "map segment", "start new thread")

PATIENCE = 5.0

# typer's names of kinds of numbers, and ours
NUMBERS = {
    "a valid int range": "a whole number",
    "a valid int": "a whole number",
    "a valid float range": "a number",
}

# anywhere on the command line, as --debug
LOUDNESS = {"--quiet": -1, "-q": -1, "--verbose": 1, "-v": 1}

COMPLETE = "_SCGAN_COMPLETE"  # a shell asks for completions of a command line

ENDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

received: list[int] = []  # the signals that ask this process to end


def run() -> int:
    """Run the command that `sys.argv` asks for and return its exit code."""
    debug = "--debug" in sys.argv[1:]
    LEVEL.set(
        max((level for word, level in LOUDNESS.items() if word in sys.argv[1:]), key=abs, default=0)
    )
    words = [word for word in sys.argv[1:] if word != "--debug" and word not in LOUDNESS]
    arguments = [*words[1:], "--help"] if words[:1] == ["help"] else words or ["--help"]
    if not debug:
        sys.excepthook = unexpected
    received.clear()
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    try:
        with impatience():
            if COMPLETE in os.environ:
                typer.main.get_command(app)(prog_name="scgan")
            command = typer.main.get_command(only(arguments[0]))
            with command.make_context("scgan", arguments) as context:
                command.invoke(context)
            sys.stdout.flush()
    except typer.Exit as end:
        if not words:
            say(next_step())
        return end.exit_code
    except (*EXPECTED, RuntimeError, ImportError, MemoryError) as error:
        if not (received or isinstance(error, EXPECTED) or starved(error)):
            raise
        if debug:
            for line in "".join(traceback.format_exception(error)).splitlines():
                say(line, always=True)
        return failed(error)
    return 0


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """End by a signal: partial output is cleaned up, or kept for --resume."""
    received.append(number)
    raise KeyboardInterrupt


@contextmanager
def impatience() -> Iterator[None]:
    """End the process `PATIENCE` seconds after SIGINT or SIGTERM, unless the block has ended."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    over = Event()

    def watch() -> None:
        with os.fdopen(reader, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM) and not over.wait(PATIENCE):
                    with suppress(OSError):
                        os.write(2, f"scgan: {ENDS[signal.Signals(number[0])]}\n".encode())
                    os._exit(128 + number[0])

    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(writer)


def failed(error: BaseException) -> int:
    """Report an error in one line and return the exit code."""
    if received or isinstance(error, KeyboardInterrupt):  # locks and C code may raise another error
        number = received[0] if received else signal.SIGINT
        message, code = ENDS[signal.Signals(number)], 128 + number
    elif not isinstance(error, ScganError) and starved(error):
        message = "out of memory; raise its limit (ulimit -v), or take fewer rows or threads"
        code = ScganError.exit_code
    elif isinstance(error, OSError):
        if error.filename is None:  # stdout is closed, and Python would write again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        message, code = f"{error.filename or 'output'}: {error.strerror or error}", 7
    elif isinstance(error, ModuleNotFoundError):
        message, code = f"{error.name} is not installed; {install('train')}", 2
    elif isinstance(error, typer.TyperException):
        message, code = f"{wrong(error)} (see --help)", 2
    else:
        assert isinstance(error, ScganError)
        message, code = str(error), error.exit_code
    say(f"scgan: {message}", always=True)
    return code


def starved(error: BaseException) -> bool:
    """Return whether an error, or its cause, comes from too little memory."""
    worded = isinstance(error, RuntimeError | ImportError) and any(w in str(error) for w in SHORT)
    if worded or isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM:
        return True
    behind = error.__cause__ or error.__context__
    return behind is not None and starved(behind)


def wrong(error: typer.TyperException) -> str:
    """Return what is wrong with the command line, and the offending word."""
    message, value = " ".join(error.format_message().rstrip(".").split()), ""
    for ours, theirs in NUMBERS.items():
        message = message.replace(ours, theirs)
    for option in getattr(getattr(error, "param", None), "opts", []):
        for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
            name, equals, rest = word.partition("=")
            if name == option:
                value = rest if equals else following
    return message if value in message else f"{message}, not {value!r}"


def unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report a bug of scgan in one line; Python then ends with exit code 1."""
    what = f"{kind.__name__}: {error}"
    say(f"scgan: unexpected {what[:300]}; run again with --debug and report it", always=True)
