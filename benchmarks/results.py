"""Results of a benchmark: a list of rows in a JSON file, so that what is there is not measured again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scgan_infer.files import write_bytes


class Results:
    """The rows of a file, which is written anew after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = (
            json.loads(path.read_text("utf-8")) if path.exists() else []
        )

    def have(self, **key: object) -> bool:
        """Say whether a row with these cells is there."""
        return any(key.items() <= row.items() for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows.append(row)
        write_bytes(self.path, json.dumps(self.rows, indent=1).encode())


def options(
    text: str, out: Path, what: str, names: Iterable[str], seeds: int
) -> argparse.ArgumentParser:
    """Return a parser for the names of what to measure, --seeds and --out."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(what, nargs="*", help=", ".join(names))
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", type=Path, default=out)
    return parser
