"""Progress of long work: a bar on a terminal, elsewhere a line every few seconds.

    `LEVEL`         bar    lines every    ends of stages
    None (Python)   yes    -              -
    -1 (--quiet)    -      -              -
    0 (a command)   yes    5 s            -
    1 (--verbose)   yes    1 s            yes

Work of less than a second shows nothing. A notebook that can't draw bars gets lines. Narrow
terminals keep the steps done and the time left.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from contextvars import ContextVar, copy_context
from importlib.util import find_spec
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, Self

from scgan_infer.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

LEVEL: ContextVar[int | None] = ContextVar("level", default=None)
PATIENCE = 1.0  # seconds until a bar appears
EVERY = {0: 5.0, 1: 1.0}  # seconds between lines
WITH_BAR, WITH_TEXT = 56, 90  # smallest terminal width for each


class Watch:
    """Shows one kind of work after another; a context manager.

    Args:
        shown: False where another process shows it.
    """

    def __init__(self, shown: bool = True) -> None:
        level, notebook = LEVEL.get(), "ipykernel" in sys.modules
        shown = shown and level != -1 and sys.stderr is not None
        bars = (shown and sys.stderr.isatty()) or (notebook and find_spec("ipywidgets") is not None)
        self.level = level or 0
        self.bars = shown and bars
        self.lines = shown and not bars and (level is not None or notebook)
        self.over, self.drawing = Event(), RLock()
        self.display: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.name, self.done, self.text = "", 0, ""
        self.total: int | None = None
        self.first: tuple[float, int] | None = None  # time and steps done of the first report
        self.entered = self.begun = time.monotonic()

    def __enter__(self) -> Self:
        if self.lines or self.bars:
            Thread(target=copy_context().run, args=(self._tick,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with self.drawing:
            self._end()
            if self.display is not None:
                self.display.stop()

    def begin(self, name: str, total: int | None = None) -> None:
        """Begin another kind of work, of so many steps if that is known."""
        with self.drawing:
            self._end()
            self.name, self.total, self.done, self.text = name, total, 0, ""
            self.first = None
            self.begun = time.monotonic()
            if self.display is not None and name in self.tasks:
                self.display.reset(self.tasks[name], total=total)
            self._draw()

    def show(self, done: int, text: str = "") -> None:
        """Show how many steps are done, and a text."""
        self.done, self.text = done, text
        self.first = self.first or (time.monotonic(), done)
        self._draw()

    def say(self, message: str) -> None:
        """Write a line, above the bar if there is one."""
        if self.display is not None:
            self.display.console.print(visible(message), markup=False, soft_wrap=True)
        elif self.bars or self.lines:
            with suppress(OSError):  # a closed stream is no error
                print(visible(message), file=sys.stderr, flush=True)

    def _draw(self) -> None:
        if not self.bars or time.monotonic() - self.entered < PATIENCE:
            return
        with self.drawing:
            if self.display is None:
                from rich.console import Console

                self.display = bars(Console(stderr=True))
                self.display.start()
            if self.name not in self.tasks:
                self.tasks[self.name] = self.display.add_task(self.name, total=self.total, text="")
            task = self.tasks[self.name]
            self.display.update(task, completed=self.done, total=self.total, text=self.text)

    def _end(self) -> None:
        """Finish the current kind of work."""
        if self.display is not None and self.name in self.tasks and self.total is None:
            self.display.update(self.tasks[self.name], total=1, completed=1)
        if self.name and self.level > 0:
            took = time.monotonic() - self.begun
            self.say(", ".join(filter(None, [f"{self.name}: {took:.1f} s", self.text])))
        self.name = ""

    def _tick(self) -> None:
        """Show work that may not report its progress, until it is over."""
        while not self.over.wait(EVERY[self.level] if self.lines else PATIENCE):
            if self.lines and self.name:
                self.say(self.line())
            elif self.bars:
                with self.drawing:
                    if self.name and not self.over.is_set():
                        self._draw()

    def line(self) -> str:
        """Return the progress in words.

        >>> watch = Watch()
        >>> watch.begin("encoder", 200)
        >>> watch.show(50, "info_nce 1.5")
        >>> watch.line().partition(", ")[0]
        'encoder: 50 of 200'
        """
        now = time.monotonic()
        if self.total is None:
            return f"{self.name}: {now - self.begun:.0f} s"
        since, before = self.first or (now, self.done)  # earlier time includes preparation
        left = ""
        if self.done > before:
            seconds = (now - since) * (self.total - self.done) / (self.done - before)
            left = f"about {seconds:.0f} s left"
        far = f"{self.name}: {self.done:,} of {self.total:,}"
        return ", ".join(filter(None, [far, left, self.text]))


def bars(console: Console) -> Progress:
    """Return rich's bars with as many columns as there is room for."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns: list[ProgressColumn] = [
        TextColumn("{task.description:<10}"),
        TimeRemainingColumn(),
        MofNCompleteColumn(),
    ]
    if console.width >= WITH_BAR:
        columns.insert(1, BarColumn(bar_width=min(40, console.width // 4)))
    if console.width >= WITH_TEXT:
        columns.append(TextColumn("{task.fields[text]}"))
    return Progress(*columns, console=console)
