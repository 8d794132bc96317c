"""Messages on text that should be a number or a date: what is wrong, and what to do.

Cells may be as long as their file, so each pattern's time grows with a cell's length alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from scgan_infer.rows.codecs.base import number
from scgan_infer.rows.codecs.text import CODE

GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
MEASURED = re.compile(
    r"(?=.*[^\d.,+\-\s])[$€£~]?\s?[+-]?[$€£]?(\d[\d,]*(\.\d*)?|\.\d+)\s?[^\W\d_]{0,4}[$€£²³]?"
)
PRICED = re.compile(r"\s[^\W\d_]{1,4}$|[%$€£<>,\s]")
DATED = re.compile(
    r"\d{1,2}[./-](\d{1,2}|[A-Za-z]{3,9})[./-]\d{2,4}.*"
    r"|[A-Za-z]{3,9} \d{1,2},? \d{4}.*|\d{4}\.\d\d\.\d\d.*"
)


def fault(cell: str, setting: Callable[[str], str]) -> str:
    """Return what is wrong with text among numbers; `setting` returns the setting of a kind."""
    text = cell.strip()
    if CODE.fullmatch(text):
        return (
            f"is a code among numbers; choose {setting('category')} for codes, integer for numbers"
        )
    if text.endswith("%") and number(text[:-1]) is not None:
        return "is a percentage where a number belongs; write it without the sign"
    if GROUPED.fullmatch(text):
        return "separates thousands; write all numbers without"
    if text[0] in "<>≤≥":
        return "is a bound where a number belongs; write a number, empty the cell"
    if MEASURED.fullmatch(text):
        return "has a sign or a unit beside the number; write all numbers alone"
    return "is text where a number belongs; empty the cell if it stands for a missing one, mend it"


def misspelt(texts: Collection[str]) -> str:
    """Return advice on texts that are all numbers or dates in an unsupported spelling, or ""."""
    if all(PRICED.search(text) and number(PRICED.sub("", text)) is not None for text in texts):
        return "write the numbers without signs or units"
    return "write dates as YYYY-MM-DD" if all(map(DATED.fullmatch, texts)) else ""
