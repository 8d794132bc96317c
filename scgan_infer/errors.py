"""One tree of errors; each class carries the exit code that the command line returns for it.

    ScganError      1   unexpected
    |- UsageError   2   an option or argument that does not fit
    |- ModelError   3   a bad model, or one of an unsupported version
    |- DeviceError  4   the device asked for is not available
    |- ParityError  5   an exported graph does not compute what the trained network computes
    |- ChecksumError 6  a file is not the one that its manifest names
    `- DataError    7   bad or unreadable data, or output that can't be written

A message is one line: what was wrong, the value at fault, what to do.
"""


def install(extra: str) -> str:
    """Return the command that installs an extra; scgan is on no package index.

    >>> install("plot")
    "pip install '.[plot]' in a checkout of scgan"
    """
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
