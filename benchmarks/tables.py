"""The tables of README.md, made from the JSON files beside it, each between its marks.

python benchmarks/tables.py         after another script here has written JSON

<!-- table planes -->          of planes.json, of all its sets
<!-- table real torsions -->   of real.json, of one set
<!-- end -->
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scgan_infer.files import write_bytes
from scgan_infer.judging.figures import FIGURES

HERE = Path(__file__).parent
JUDGE = 2  # counts changes of the judge: results of different ones can't be compared
SHOWN = ("c2st", "off", "missed", "sliced_wasserstein", "mse_raw", "nearest_ratio", "nearest_close")
SHAPES = {"mse_raw": ".1e", "nearest_ratio": ".2f"}
BLOCK = re.compile(r"(<!-- table (\w+) ?(\S*) -->\n).*?(<!-- end -->)", re.DOTALL)

Row = dict[str, Any]
Worst = Callable[[Sequence[float]], float]


def refreshed(text: str) -> str:
    """Return a text with every table made again."""
    return BLOCK.sub(lambda found: found[1] + table(found[2], found[3]) + found[4], text)


def table(kind: str, name: str = "") -> str:
    """Return the table of a kind's results, or of one set of them."""
    path = HERE / f"{kind}.json"
    if not path.exists():
        return "Not measured yet.\n"
    results = json.loads(path.read_text("utf-8"))
    if kind == "scale":
        return markdown(scale(results))
    if kind == "wide":
        return f"{markdown(wide(results))}\nMedians over seeds, the largest in brackets.\n"
    if kind == "posterior":
        return f"{markdown(posterior(results))}\nMedians over seeds, the worst in brackets.\n"
    if kind == "conditions":
        return f"{markdown(conditions(results))}\nMedians over seeds, the worst in brackets.\n"
    if kind == "mixed":
        return f"{markdown(mixed(results))}\nMedians over seeds, the worst in brackets.\n"
    if kind == "noise":
        return f"{markdown(noise(results))}\nMedians over seeds, the worst in brackets.\n"
    rows = [row for row in results["results"] if name in ("", row["set"])]
    trial = "" if results["scale"] == 1 else f"**A trial at {results['scale']:g} of all steps.** "
    if results.get("judge") != JUDGE:
        trial += "**Measured by an earlier judge, which saw less.** "
    seeds = len({row["seed"] for row in rows})
    machine = results["machine"]
    where = f"{machine['cores']} cores, torch {machine['torch']}, {results['jobs']} at a time"
    return f"{markdown(grid(rows))}\n{trial}Medians over {seeds} seeds, the largest in brackets; {where}.\n"


def grid(rows: Sequence[Row]) -> list[list[str]]:
    """Return a table's cells: of each set what other real rows score, then each model."""
    checks = list(dict.fromkeys(name for row in rows for name in row["checks"]))
    shown = [name for name in SHOWN if any(name in row["figures"] for row in rows)]
    lines = [["set", "model", *(FIGURES[name].title for name in shown), *checks, "training, s"]]

    def line(name: str, model: str, own: Sequence[Row], part: str, tests: str) -> list[str]:
        figures = ([row["figures"].get(key, {}).get(part) for row in own] for key in shown)
        seconds = [row["seconds"] for row in own if part == "value"]
        return [
            name,
            model,
            *(cell(values, shape(key)) for key, values in zip(shown, figures, strict=True)),
            *(cell([row[tests].get(check) for row in own], ".2g") for check in checks),
            cell(seconds, ".0f"),
        ]

    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        lines.append(line(name, "real rows", own, "floor", "checks_real"))
        for model in dict.fromkeys(sorted(row["model"] for row in own)):
            same = [row for row in own if row["model"] == model]
            lines.append(line(name, model, same, "value", "checks"))
    return lines


def scale(results: dict[str, Row]) -> list[list[str]]:
    """Return the cells of what `scale.py` measured."""
    head = (
        "case, K, e, map, read s, training s, peak memory MiB, C2ST, other real rows, off, missed"
    )
    return [
        head.split(", "),
        *(
            [
                case,
                f"{row['sizes']['K']}",
                f"{row['sizes']['e']}",
                row["map"],
                f"{row['read']:.1f}",
                f"{row['seconds']:.0f}",
                f"{row['before']:.0f} + {row['peak'] - row['before']:.0f}",
                f"{row['c2st']['value']:.3f}",
                f"{row['c2st']['floor']:.3f}",
                f"{row['off']['value']:.2%}",
                f"{row['missed']['value']:.2%}",
            ]
            for case, row in results.items()
        ),
    ]


def wide(results: Sequence[Row]) -> list[list[str]]:
    """Return the cells of what `wide.py` measured: of each case what other real rows score, then each model."""
    head = "case, model, seeds, C2ST, off, missed, zeros, training s, export s, rows/s"
    lines = [head.split(", ")]

    def figures(own: Sequence[Row], part: str, zeros: str) -> list[str]:
        names = (("c2st", ".3f"), ("off", ".2%"), ("missed", ".2%"))
        shown = [cell([row[name].get(part) for row in own], form) for name, form in names]
        return [*shown, cell([row[zeros] for row in own], ".0%")]

    for (case,), same in grouped(results, "case"):
        first = [row for row in same if row["model"] == "scgan"]
        lines.append(
            [case, "real rows", f"{len(first)}", *figures(first, "floor", "zeros_real"), "", "", ""]
        )
        for (model,), own in grouped(same, "model"):
            title = model
            if found := sorted({row["components"] for row in own if "components" in row}):
                title += f", {found[0]}" + (f" to {found[-1]}" if len(found) > 1 else "")
            lines.append(
                [
                    case,
                    title,
                    f"{len(own)}",
                    *figures(own, "value", "zeros"),
                    cell([row["seconds"] for row in own], ".3g"),
                    cell([row.get("export") for row in own], ".1f"),
                    cell([row.get("rate") for row in own], ",.0f"),
                ]
            )
    return lines


def mixed(results: Sequence[Row]) -> list[list[str]]:
    """Return the cells of what `mixed.py` measured: of each set what real rows score, then ours."""
    figures = {
        name: MIXED[name] for name in MIXED if any(name in row["figures"] for row in results)
    }
    lines = [
        [
            "set",
            "rows",
            "seeds",
            *(title for title, _, _ in figures.values()),
            "training, s",
            "export, s",
        ]
    ]
    for (name,), own in grouped(results, "set"):
        real = [row["figures"]["real"] for row in own]
        shown = [
            [
                cell([row.get(key) for row in rows], form, worst)
                for key, (_, form, worst) in figures.items()
            ]
            for rows in (real, [row["figures"] for row in own])
        ]
        lines.append([name, "real", f"{len(own)}", *shown[0], "", ""])
        seconds = [
            cell([row[key] for row in own], form)
            for key, form in (("seconds", ".0f"), ("export", ".1f"))
        ]
        lines.append([name, "scgan", f"{len(own)}", *shown[1], *seconds])
    return lines


def posterior(results: Sequence[Row]) -> list[list[str]]:
    """Return the cells of what `posterior.py` measured, beside what was published."""
    head = "task, seeds, C2ST, published NPE, best sequential, smallest p of ranks, training s, processor s, export s"
    lines = [head.split(", ")]
    for (name,), own in grouped(results, "set"):
        figures = [
            cell([float(np.mean(row["c2st"])) for row in own], ".3f"),
            *(f"{value:.3f}" for value in PUBLISHED.get(name, ())),
            *([""] * (0 if name in PUBLISHED else 2)),
            cell([min(row["ranks"]) for row in own], ".3f", min),
            cell([row["seconds"] for row in own], ".0f"),
            cell([row["processor"] for row in own], ".0f"),
            cell([row["export"] for row in own], ".1f"),
        ]
        lines.append([name, f"{len(own)}", *figures])
    return lines


def conditions(results: Sequence[Row]) -> list[list[str]]:
    """Return the cells of what `conditions.py` measured."""
    head = "set, model, seeds, C2ST, training processor s, rows/s, rows/s without given columns"
    lines = [head.split(", ")]
    for (name, model), own in grouped(results, "set", "model"):
        figures = [
            cell([row["c2st"] for row in own], ".3f"),
            cell([row["processor"] for row in own], ".0f"),
        ]
        figures += [cell([row.get(key) for row in own], ".0f", min) for key in ("rate", "free")]
        lines.append([name, model, f"{len(own)}", *figures])
    return lines


def noise(results: Sequence[Row]) -> list[list[str]]:
    """Return the cells of what `noise.py` measured."""
    head = "set, seeds, C2ST with noise, C2ST without, other real rows, least restored, training processor s"
    lines = [head.split(", ")]
    for (name,), own in grouped(results, "set"):
        figures = [
            *(cell([row[key]["value"] for row in own], ".3f") for key in ("noise", "without")),
            cell([row["noise"]["floor"] for row in own], ".3f"),
            cell([min(row["restored"]) for row in own], ".0%", min),
            cell([row["processor"] for row in own], ".0f"),
        ]
        lines.append([name, f"{len(own)}", *figures])
    return lines


def grouped(results: Sequence[Row], *keys: str) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Yield the rows that agree in these cells, with the cells, in the order in which they come first."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in results:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    yield from groups.items()


def farthest(values: Sequence[float]) -> float:
    """Return the value farthest from a half."""
    return max(values, key=lambda value: abs(value - 0.5))


def shape(name: str) -> str:
    """Return how a figure is printed."""
    return SHAPES.get(name, ".2%" if FIGURES[name].share else ".3f")


def cell(values: Sequence[float | None], form: str, worst: Worst = max) -> str:
    """Print a median, and the worst value where they differ, the largest unless said."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    most = f" ({worst(numbers):{form}})" if len(set(numbers)) > 1 else ""
    return f"{np.median(numbers):{form}}{most}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lay cells out, head first."""
    head, *body = lines
    rows = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


# figures of `judge.py`: title, form, and which of several is the worst
MIXED: dict[str, tuple[str, str, Worst]] = {
    "detection": ("XGBoost detection", ".3f", min),
    "logistic": ("logistic detection", ".3f", min),
    "shape": ("shape error", ".2%", max),
    "trend": ("trend error", ".2%", max),
    "c2st": ("LightGBM AUC", ".3f", max),
    "auc": ("AUC, trained on them", ".3f", min),
    "nearer": ("nearer to training", ".3f", farthest),
}


# C2ST at 10,000 simulations, Lueckmann et al. (2021): posterior estimation by a network, and the best sequential method
PUBLISHED = {"two_moons": (0.606, 0.554), "gaussian_linear": (0.552, 0.544)}


if __name__ == "__main__":
    readme = HERE / "README.md"
    write_bytes(readme, refreshed(readme.read_text("utf-8")).encode())
