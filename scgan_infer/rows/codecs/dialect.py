"""How a text file is written, inferred from its first lines.

separator   of , ; tab and |, the one that gives every line the same number of cells, two at least;
            of several one with no ; tab or | in its cells, then the one with most; of none likewise
decimal     a comma, where it separates no cells and some look like 1,5; where all those look like
            1,500, only if none looks like 1.5
header      the first line that is no comment; but a comment right above a line with a number in it
            is the header if both have as many cells (as in numpy.savetxt; some name a column #)
index       a first column without a name whose cells are whole numbers or texts, all different, as
            pandas and R write the labels of rows
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from scgan_infer.rows.codecs.base import number

SEPARATORS = ",;\t|"
COMMENT = "#"
INDEX = "the first column has no name and labels the rows; it is left out"
NAMELESS = re.compile(r"(Unnamed: \d+)?")  # pandas reads an empty name so, and writes that


def split(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Return the cells of each row."""
    return list(csv.reader(lines, delimiter=separator))


def separator_of(lines: Sequence[str]) -> str:
    """Return the separator of these lines' cells; a comma where there is none."""

    def fits(separator: str) -> tuple[bool, bool, int, bool]:
        try:
            rows = [row for row in split(lines, separator) if row] or [[]]
        except csv.Error:  # a cell of 131,072 characters
            rows = [[]]
        wide = len(rows[0])
        same = all(len(row) == wide for row in rows)
        others = set(SEPARATORS) - {separator, ","}
        clean = all(others.isdisjoint(cell) for row in rows for cell in row)
        return same and wide > 1, clean, wide, same

    return max(SEPARATORS, key=fits)


def has_decimal_commas(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a comma stands before the decimals, where it separates no cells."""
    cells = [cell.strip() for row in rows for cell in row]
    commas = {cell for cell in cells if re.fullmatch(r"[-+]?\d*,\d+", cell)}
    points = any(re.fullmatch(r"[-+]?\d*\.\d+", cell) for cell in cells)
    return any(not points or not grouped(cell, ".") for cell in commas)


def header_at(lines: Sequence[str]) -> int:
    """Return the index of the line of column names, or of the first row of a file without."""
    index = next((k for k, line in enumerate(lines) if not line.startswith(COMMENT)), len(lines))
    separator = separator_of(lines[index:])
    above, first = (split(lines[k : k + 1], separator) for k in (index - 1, index))
    named = index > 0 and above and first and len(above[0]) == len(first[0]) > 1
    return index - 1 if named and any(number(cell) is not None for cell in first[0]) else index


def are_spaced(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the one cell of each row is several numbers with spaces between.

    >>> are_spaced([["1 2.5"], ["3 4"]]), are_spaced([["1"], ["2"]]), are_spaced([["a 1"]])
    (True, False, False)
    """
    parts = [row[0].split() for row in rows if row]
    wide = len(parts[0]) if parts else 0
    numbers = all(number(cell) is not None for row in parts for cell in row)
    return wide > 1 and numbers and all(len(row) == wide for row in parts)


def is_index(name: str, cells: Sequence[object]) -> bool:
    """Return whether a first column labels the rows.

    >>> is_index("", ["0", "1"]), is_index("Unnamed: 0", [7, 3]), is_index("", ["0.5", "1"])
    (True, True, False)
    """
    if not NAMELESS.fullmatch(name) or len(set(cells)) < len(cells):
        return False
    values = map(number, cells)
    return all(value is None or value.is_integer() for value in values)


def grouped(cell: str, decimal: str) -> bool:
    """Return whether a cell is a number with separators of thousands.

    >>> grouped("1,234.5", "."), grouped("1.234,5", ","), grouped("1.234", ".")
    (True, True, False)
    """
    groups, point = ("[,' ]", r"\.") if decimal == "." else ("[.' ]", ",")
    return bool(re.fullmatch(rf"[-+]?\d{{1,3}}({groups}\d{{3}})+({point}\d*)?", cell.strip()))
