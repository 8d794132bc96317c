"""Figures in words: one verdict, and tables of text.

A figure is judged by how far it is beyond its floor, less twice its error. Training rows are copied
where generated rows are both much nearer to them than held-out rows are and more often the nearer:
where half of the rows lie close together and half far away, a median alone is not enough. A column
is judged by its shape error, less what chance adds to the worst of so many columns, and a pair by
its correlation where `Figures.pairs_off` has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from scgan_infer.judging.cuts import Figure
from scgan_infer.judging.figures import FIGURES, LEAST_JUDGED_ROWS, Figures
from scgan_infer.text import visible

# beyond its floor by how much a figure is fair, and bad; near copies have a smaller distance
LIMITS = {
    "c2st": (0.05, 0.15),
    "off": (0.01, 0.05),
    "missed": (0.01, 0.05),
    "shape": (0.02, 0.1),
    "trend": (0.05, 0.15),
    "clusters": (0.05, 0.15),
    "nearest_ratio": (-0.1, -0.3),
    "nearest_rank": (0.05, 0.1),
    "nearest_close": (0.01, 0.05),
}
COLUMN = (0.1, 0.3)  # of the worst column's shape error
COLUMN_CHANCE = 0.001  # that a column of real rows is that far off
BAD_PAIR = 0.3  # change of a correlation, beyond twice its error
GRADES = ("good", "fair", "bad")
MOST_LINES = 12  # of a table that a terminal shows
WORDS = {"meaning", "where"}  # heads of columns of text

Table: TypeAlias = list[tuple[str, ...]]  # of text, head first


class Verdict(NamedTuple):
    """How good generated rows are, `good`, `fair` or `bad`, and why."""

    grade: str
    why: str

    def __str__(self) -> str:
        return f"verdict: {self.grade}: {self.why}"


def verdict(figures: Figures) -> Verdict:
    """Return the worst grade; of a figure counts what is beyond twice its error."""
    grades = {
        name: _grade(name, figures.overall[name]) for name in LIMITS if name in figures.overall
    }
    if "nearest_rank" in grades:
        grades["nearest_ratio"] = min(grades["nearest_ratio"], grades.pop("nearest_rank"))
    reasons = [(grade, in_words(name, figures.overall[name])) for name, grade in grades.items()]
    reasons += _columns(figures) + _pairs(figures)
    worst = max(grade for grade, _ in reasons)
    if worst:
        return Verdict(GRADES[worst], ", ".join(why for grade, why in reasons if grade == worst))
    few = "" if figures.rows["generated"] >= LEAST_JUDGED_ROWS else ", as far as so few rows tell"
    why = f"no figure is far from its floor{few}; {in_words('c2st', figures.overall['c2st'])}"
    return Verdict(GRADES[worst], why)


def _columns(figures: Figures) -> list[tuple[int, str]]:
    """Return the grade and the name of the column whose shape is farthest from its floor."""
    shapes = {name: measures["shape"] for name, measures in figures.columns.items()}
    if not shapes:
        return []
    excess = {name: figure.value - (figure.floor or 0.0) for name, figure in shapes.items()}
    name = max(excess, key=lambda name: excess[name])
    # McDiarmid: a row of either side moves the error by 1 / n at most
    chance = np.sqrt(np.log(len(shapes) / COLUMN_CHANCE) / figures.rows["generated"])
    fair, bad = COLUMN
    grade = int(excess[name] > max(fair, chance)) + int(excess[name] - chance > bad)
    value, floor = (number(part, share=True) for part in shapes[name][:2])
    return [(grade, f"shape error of {name} {value} (floor {floor})")]


def _pairs(figures: Figures) -> list[tuple[int, str]]:
    """Return the grade of the pairs that are off, in all rows or a name's, and the worst pair."""
    grades = []
    many = f"correlations of {len(figures.pairs_off)} of {len(figures.pairs)} pairs of columns"
    whole = [(a, b, "", figure) for a, b, figure in figures.pairs_off]
    for pairs, what in ((whole, many), (figures.pairs_within, "correlations within names")):
        if pairs:
            a, b, name, worst = pairs[0]
            far = any(f.value - 2 * (f.error or 0.0) > BAD_PAIR for *_, f in pairs)
            where = f" where {name}," if name else ""
            by = f"{number(worst.value)} ± {number(worst.error)}"
            grades.append(
                (1 + int(far), f"{what} changed, most clearly of {a}, {b}{where} by {by}")
            )
    return grades


def _grade(name: str, figure: Figure) -> int:
    fair, bad = LIMITS[name]
    sign = np.sign(fair)
    excess = sign * (figure.value - (figure.floor or 0.0)) - 2 * (figure.error or 0.0)
    return int(excess > abs(fair)) + int(excess > abs(bad))


def in_words(name: str, figure: Figure) -> str:
    """Return a figure in words, with its error and floor."""
    value, floor, error = formatted(name, figure)
    return f"{FIGURES[name].title} {value} ± {error} (floor {floor})"


def overview(figures: Figures) -> Table:
    """Return a line for each figure."""
    lines = [
        (FIGURES[name].title, *formatted(name, figure), FIGURES[name].meaning)
        for name, figure in figures.overall.items()
    ]
    return [("figure", "value", "floor", "±", "meaning"), *lines]


def details(figures: Figures) -> dict[str, Table]:
    """Return the tables of columns, of pairs and of clusters by caption, the worst first."""
    errors = {"mse": "error", "mse_raw": "raw error"}
    errors = {key: head for key, head in errors.items() if key in figures.overall}
    columns: Table = [
        ("column", "Wasserstein-1", "floor", "shape error", "floor", *errors.values())
    ]
    for name, measures in sorted(
        figures.columns.items(), key=lambda item: -item[1]["wasserstein"].value
    ):
        numbers = map(number, measures["wasserstein"][:2])
        shares = (number(share, share=True) for share in measures["shape"][:2])
        columns.append((name, *numbers, *shares, *(number(measures[key].value) for key in errors)))
    pairs: Table = [("pair", "correlation change", "floor")]
    pairs += [(f"{a}, {b}", *map(number, figure[:2])) for a, b, figure in figures.pairs]
    clusters: Table = [("cluster", "in data", "in samples")]
    ranked = sorted(enumerate(figures.clusters), key=lambda item: -abs(item[1][0] - item[1][1]))
    clusters += [(f"{i}", *(number(share, share=True) for share in both)) for i, both in ranked]
    tables = {"Columns": columns, "Pairs of columns": pairs, "Clusters": clusters}
    return {f"{what}, the worst first": table for what, table in tables.items() if table[1:]}


def table_text(figures: Figures, more: Mapping[str, Table] | None = None) -> str:
    """Lay out figures, and `more` tables by caption, for a terminal: of a table the first lines."""
    blocks = [str(verdict(figures)), heading(figures), _aligned(overview(figures))]
    for caption, table in {**details(figures), **(more or {})}.items():
        blocks.append(f"{caption}\n{_aligned(table[: MOST_LINES + 1])}")
    return "\n\n".join(blocks)


def _aligned(table: Table) -> str:
    """Return a table with words on the left of their columns, numbers on the right."""
    table = [tuple(map(visible, row)) for row in table]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    sides = ["<" if j == 0 or head in WORDS else ">" for j, head in enumerate(table[0])]
    forms = [f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True)]
    return "\n".join("  ".join(forms).format(*row).rstrip() for row in table)


def heading(figures: Figures) -> str:
    """Return a line on what was compared with what."""
    n = f"{figures.rows['generated']:,}"
    return (
        f"{n} generated rows against {n} held-out rows; floor: {n} other held-out rows in "
        "their place"
    )


def formatted(name: str, figure: Figure) -> tuple[str, ...]:
    """Print a figure's value, floor and error."""
    return tuple(number(part, share=FIGURES[name].share) for part in figure)


def number(value: float | None, *, share: bool = False) -> str:
    """Print four decimals, or two digits of a small number, or a share in percent; `-` for None."""
    if value is None:
        return "-"
    if share:
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.1e}"
