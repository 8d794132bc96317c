"""Text from strangers, such as a bundle's names or a file's header, on its way to a terminal."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Return text on one line, every character of it visible.

    What moves the cursor, breaks the line, turns the direction of writing or is half a character
    stands as its escape.

    >>> print(visible("Jäger\nverified: good\x1b[8m \u202e \ud800"))
    Jäger\nverified: good\x1b[8m \u202e \ud800
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
