"""Paths of run folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scgan_infer.errors import UsageError

RUNS = Path("runs")
DEFAULT = "eight_gaussians"


def newest(part: str) -> Path:
    """Return the run in `runs/` whose file of this name is the newest.

    Raises:
        UsageError: there is none.
    """
    paths = sorted(RUNS.glob(f"*/{part}"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise UsageError(f"no run in {RUNS}/ has {part}; name one, or make one with `scgan train`")
    return paths[-1].parent


def free_folder(source: str) -> Path:
    """Return a new folder in `runs/`: the source's name, numbered from the second on."""
    stem = Path(source).stem
    path, number = RUNS / stem, 2
    while path.exists():
        path, number = RUNS / f"{stem}-{number}", number + 1
    return path


def fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that are "auto", which agree with any resolved value."""
    return {
        key: fixed(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if value != "auto"
    }
