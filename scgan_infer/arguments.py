"""Convert callers' whole numbers to Python's `int`: numpy's narrow integers overflow in sums."""

from __future__ import annotations

from operator import index
from typing import Any

from scgan_infer.errors import UsageError


def whole(name: str, value: Any) -> int:
    """Return a whole number, one of numpy's of any width included, as Python's `int`.

    Raises:
        UsageError: it is something else, such as 2.0, "2" or True.

    >>> whole("n", 2)
    2
    """
    try:
        if not isinstance(value, bool):
            return index(value)
    except TypeError:
        pass
    raise UsageError(f"{name} must be a whole number, not {value!r}")
