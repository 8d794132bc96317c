"""One tree of errors; each class carries the exit code that the command line returns for it.

A message is one line: what was wrong, the value at fault, what to do.
"""


def install(extra: str) -> str:
    """Return a command that installs an extra from where scgan came (PEP 610's `direct_url.json`).

    A wheel file or checkout that is gone, and an unpacked one that was never installed, leave the
    general form.

    >>> "[plot]" in install("plot")
    True
    """
    import json
    from importlib.metadata import Distribution
    from pathlib import Path
    from shlex import quote
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    for distribution in Distribution.discover(name="scgan"):
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        url = urlsplit(origin.get("url", ""))
        path = url2pathname(url.path)
        if url.scheme == "file" and Path(path).exists():
            editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
            return f"pip install {editable}{quote(f'{path}[{extra}]')}"
    return f"pip install '.[{extra}]' in a checkout of scgan"


class ScganError(Exception):
    """Base of every error that scgan raises on purpose."""

    exit_code = 1


class UsageError(ScganError):
    """An option or argument that does not fit."""

    exit_code = 2


class ModelError(ScganError):
    """A run or bundle that is damaged, malformed or of an unsupported version."""

    exit_code = 3


class DeviceError(ScganError):
    """The device asked for is not available."""

    exit_code = 4


class ParityError(ScganError):
    """An exported graph differs from the trained network by more than float rounding."""

    exit_code = 5


class ChecksumError(ScganError):
    """A file's SHA-256 differs from the one in the manifest."""

    exit_code = 6


class DataError(ScganError):
    """Bad or unreadable data, or output that can't be written."""

    exit_code = 7
