"""Results of `quality.py` as Markdown tables, between its marks in README.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from cases import Settings

from scgan_infer.files import write_bytes
from scgan_infer.judging.figures import CUTS

README = Path(__file__).with_name("README.md")
TITLES = {
    "planes": "Planes: fresh rows",
    "real": "Real sets: the 40 % of the rows that were not trained on",
    "ablation": "What the critics and the decoder's noise add where the latent has fewer dimensions than the data",
}
HEADS: dict[str, tuple[str, str]] = {
    "c2st": ("C2ST", ".3f"),
    "off": ("off", ".2%"),
    "missed": ("missed", ".2%"),
    "sliced_wasserstein": ("sliced W2", ".3f"),
    "mse_raw": ("MSE", ".1e"),
    "reconstruction_c2st": ("C2ST of reconstructions", ".3f"),
    "nearest_ratio": ("nearest row, ratio", ".2f"),
    "nearest_close": ("near-copies", ".2%"),
}
MARKS = ("<!-- quality.py begins -->", "<!-- quality.py ends -->")


def lay_out(files: list[Path]) -> None:
    """Write tables of results between the marks in README.md, or at its end."""
    found = [json.loads(file.read_text("utf-8")) for file in files]
    parts = [
        section(result, file)
        for file, result in zip(files, found, strict=True)
        if result.get("kind") in TITLES
    ]
    body = "\n".join([MARKS[0], *parts, MARKS[1]]) + "\n"
    old = README.read_text("utf-8") if README.exists() else "# Benchmarks\n\n"
    before, begins, rest = old.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2].removeprefix("\n") if begins else ""
    write_bytes(README, (before.rstrip("\n") + "\n\n" + body + after).encode())


def section(result: Settings, file: Path) -> str:
    """Return a table a set, or one of all planes: medians over seeds, the largest in brackets, and real rows."""
    rows = result["results"]
    kind, sets = result["kind"], list(dict.fromkeys(row["set"] for row in rows))
    of = {name: len({row["seed"] for row in rows if row["set"] == name}) for name in sets}
    seeds = min(of.values())
    more = "".join(f"; {name}: {count}" for name, count in of.items() if count > seeds)
    groups = [sets] if kind == "planes" else [[name] for name in sets]
    cuts = rows[0].get("cuts", CUTS)
    command = f"{kind} --seeds {seeds}" + (f" --only {','.join(sets)}" if kind == "real" else "")
    command += f" --cuts {cuts}" if cuts != CUTS else ""
    where = f"{result['machine']['cores']} cores, torch {result['machine']['torch']}"
    trial = "" if result["scale"] == 1 else f" **A trial at {result['scale']:g} of all steps.**"
    return "\n".join(
        [
            f"### {TITLES[kind]}\n",
            f"`python benchmarks/quality.py {command}` wrote `{file.name}` "
            f"({where}; {result['jobs']} training(s) at a time, of one thread each). "
            f'Medians over {seeds} seed(s){more}, in brackets the largest. "Real rows" is what other real rows score '
            f"in place of generated ones.{trial}\n",
            *(grid(rows, group) for group in groups),
        ]
    )


def grid(rows: list[Settings], sets: list[str]) -> str:
    """Return the table of these sets."""
    rows = [row for row in rows if row["set"] in sets]
    checks = list(dict.fromkeys(name for row in rows for name in row["checks"]))
    shown = [name for name in HEADS if any(name in row["figures"] for row in rows)]
    head = ["set", "model", *(HEADS[name][0] for name in shown), *checks, "training s"]
    lines = [head, ["---"] * len(head)]

    def line(
        name: str, model: str, own: list[Settings], part: str, tests: str, seconds: list[float]
    ) -> None:
        figures = ([row["figures"].get(key, {}).get(part) for row in own] for key in shown)
        found = ([row[tests].get(check) for row in own] for check in checks)
        lines.append(
            [name, model]
            + [cell(values, HEADS[key][1]) for key, values in zip(shown, figures, strict=True)]
            + [cell(values, ".2g") for values in found]
            + [cell(seconds, ".0f")]
        )

    for name in sets:
        own = [row for row in rows if row["set"] == name]
        line(name, "real rows", own, "floor", "checks_real", [])
        for model in dict.fromkeys(row["model"] for row in own):
            same = [row for row in own if row["model"] == model]
            line(name, model, same, "value", "checks", [row["seconds"] for row in same])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def cell(values: list[float | None], shape: str) -> str:
    """Print a median, and the largest value where there are several."""
    numbers = list(dict.fromkeys(value for value in values if value is not None))
    if not numbers:
        return ""
    most = f" ({max(numbers):{shape}})" if len(numbers) > 1 else ""
    return f"{np.median(numbers):{shape}}{most}"
