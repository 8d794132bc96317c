"""What figures say, in words: one verdict, and tables of text.

A figure is judged by how far it is beyond its floor, less twice its error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scgan_infer.judging.figures import FIGURES, LEAST_JUDGED_ROWS, Figure, Figures
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
    "nearest_close": (0.01, 0.05),
}
GRADES = ("good", "fair", "bad")


class Verdict(NamedTuple):
    """How good generated rows are, `good`, `fair` or `bad`, and why."""

    grade: str
    why: str

    def __str__(self) -> str:
        return f"verdict: {self.grade}: {self.why}"


def verdict(figures: Figures) -> Verdict:
    """Return the grade of the worst figure; one counts by what is beyond twice its error."""
    grades = {
        name: _grade(name, figures.overall[name]) for name in LIMITS if name in figures.overall
    }
    worst = max(grades.values())
    named = [name for name, grade in grades.items() if grade == worst] if worst else ["c2st"]
    why = ", ".join(said(name, figures.overall[name]) for name in named)
    if not worst:
        few = (
            "" if figures.rows["generated"] >= LEAST_JUDGED_ROWS else ", as far as so few rows tell"
        )
        why = f"no figure is far from its floor{few}; {why}"
    return Verdict(GRADES[worst], why)


def _grade(name: str, figure: Figure) -> int:
    fair, bad = LIMITS[name]
    sign = np.sign(fair)
    beyond = sign * (figure.value - (figure.floor or 0.0)) - 2 * (figure.error or 0.0)
    return int(beyond > abs(fair)) + int(beyond > abs(bad))


def said(name: str, figure: Figure) -> str:
    """Return a figure in words, with its error and floor."""
    value, floor, error = formatted(name, figure)
    return f"{FIGURES[name].title} {value} ± {error} (floor {floor})"


def tables(figures: Figures, lines: int) -> list[list[tuple[str, ...]]]:
    """Tables of text, head first: all figures, then the `lines` worst columns, pairs and clusters."""
    overall: list[tuple[str, ...]] = [
        (FIGURES[name].title, *formatted(name, figure), FIGURES[name].meaning)
        for name, figure in figures.overall.items()
    ]
    errors = [key for key in ("mse", "mse_raw") if key in figures.overall]
    columns: list[tuple[str, ...]] = [
        (
            name,
            *map(number, of["wasserstein"][:2]),
            *(number(share, share=True) for share in of["shape"][:2]),
            *(number(of[key].value) for key in errors),
        )
        for name, of in sorted(
            figures.columns.items(), key=lambda item: -item[1]["wasserstein"].value
        )
    ]
    pairs: list[tuple[str, ...]] = [
        (f"{a}, {b}", *map(number, figure[:2])) for a, b, figure in figures.pairs
    ]
    clusters: list[tuple[str, ...]] = [
        (f"{i}", number(data, share=True), number(samples, share=True))
        for i, (data, samples) in sorted(
            enumerate(figures.clusters), key=lambda item: -abs(item[1][0] - item[1][1])
        )
    ]
    heads_and_rows: list[tuple[tuple[str, ...], list[tuple[str, ...]]]] = [
        (
            (
                *("column", "Wasserstein-1", "floor", "shape error", "floor"),
                *("error", "raw error")[: len(errors)],
            ),
            columns,
        ),
        (("pair", "correlation change", "floor"), pairs),
        (("cluster", "in data", "in samples"), clusters),
    ]
    return [
        [("figure", "value", "floor", "±", "meaning"), *overall],
        *([head, *rows[:lines]] for head, rows in heads_and_rows if rows),
    ]


def table_text(figures: Figures, *, lines: int = 12) -> str:
    """Lay the figures out for a terminal; of columns, pairs and clusters the `lines` worst ones."""
    blocks = [str(verdict(figures)), heading(figures)]
    for table in tables(figures, lines):
        table = [tuple(map(visible, row)) for row in table]
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        words = {0, *(j for j, head in enumerate(table[0]) if head == "meaning")}
        blocks.append(
            "\n".join(
                "  ".join(
                    cell.ljust(width) if j in words else cell.rjust(width)
                    for j, (cell, width) in enumerate(zip(row, widths, strict=True))
                ).rstrip()
                for row in table
            )
        )
    return "\n\n".join(blocks)


def heading(figures: Figures) -> str:
    """Say what was compared with what."""
    n = f"{figures.rows['generated']:,}"
    return f"{n} generated rows against {n} held-out rows; floor: {n} other held-out rows in their place"


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
