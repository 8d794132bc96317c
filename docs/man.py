"""Print the manual page of `scgan`, from its commands: options, arguments, variables and exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from scgan_train.app.exits import __doc__ as ends
from scgan_train.app.plots import app


def page() -> str:
    """Return the page, in troff."""
    root = typer.main.get_command(app)
    lines = [
        '.TH SCGAN 1 "" "scgan" "User commands"',
        ".SH NAME",
        r"scgan \- generate data on disconnected pieces",
        ".SH SYNOPSIS",
        r".B scgan \fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        escaped(root.help or ""),
        "Data goes to standard output or to a file; messages go to standard error.",
        ".SH OPTIONS",
        *options(root),
        ".SH COMMANDS",
        *commands(root, "scgan"),
        ".SH EXIT STATUS",
        *(f"{escaped(line)}\n.br" for line in str(ends).splitlines() if line[:1].isdigit()),
        ".SH ENVIRONMENT",
        "Options that name a variable are read from it where the command line does not have them.",
    ]
    return "\n".join(lines) + "\n"


def commands(group: Any, above: str) -> Iterator[str]:
    """Yield a section for each command, groups split into theirs."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, f"{above} {name}")
            continue
        yield f".SS {above} {name}"
        yield escaped(" ".join((command.help or "").split()))
        yield from options(command)


def options(command: Any) -> Iterator[str]:
    """Yield an entry for each argument and option."""
    names = ["-h", "--help"]
    context = command.make_context("scgan", [], resilient_parsing=True, help_option_names=names)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield f".TP\n\\fB{escaped(record[0])}\\fR\n{escaped(record[1])}"


def escaped(text: str) -> str:
    """Return text as troff that shows just it."""
    plain = text.replace("\\", r"\(rs").replace("-", r"\-").replace("…", "...")
    return "\n".join(rf"\&{line}" if line[:1] in (".", "'") else line for line in plain.split("\n"))


if __name__ == "__main__":
    print(page(), end="")
