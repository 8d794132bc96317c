"""The manifest of a bundle and its JSON; what each key means is said in `bundle`.

A manifest may come from a stranger: `Manifest.from_json` takes nothing for granted, and names the key and the
value that it can't take.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from scgan_infer.bundle.rules import INTERFACES, MAX_BYTES, OPSET
from scgan_infer.columns import Column
from scgan_infer.errors import ModelError

FORMAT = 1
FILE = "bundle.json"
GRAPHS = tuple(INTERFACES)
EXTRAS = ("preview.png", "card.md")
LATENTS = ("gaussian", "centers", "mapper", "real")
GRID = 2**24
MAX_SIZES = {"d": 4096, "e": 4096, "m": 4096, "q": 4096, "K": 65536}
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Manifest:
    """What `bundle.json` says, by the same names; `files` is filled in when the bundle is saved."""

    name: str
    columns: tuple[Column, ...]
    sizes: dict[str, int]
    latents: str
    mapper: str
    thresholds: tuple[int, ...]
    opset: int = OPSET
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Return the bytes of `bundle.json`: the format's number, then the other keys sorted."""
        fields = {**asdict(self), "columns": [column.to_dict() for column in self.columns]}
        ordered = {"format": fields.pop("format"), **json.loads(json.dumps(fields, sort_keys=True))}
        return (json.dumps(ordered, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Inverse of `to_json`.

        Raises:
            ModelError: not JSON, a newer format, or a key that is missing or has a value it can't have.
        """
        try:
            found = json.loads(
                data, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite
            )
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{FILE} is not JSON that can be read: {error}") from None
        _check(found)
        fields = {name: found[name] for name in cls.__dataclass_fields__}
        columns = _columns(found["columns"], found["sizes"]["d"])
        return cls(**{**fields, "columns": columns, "thresholds": tuple(found["thresholds"])})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


def _check(found: object) -> None:
    if not isinstance(found, dict) or not _is_int(found.get("format"), 1, 2**63):
        raise ModelError(f"{FILE} has no format number: not a bundle")
    version = found["format"]
    if version > FORMAT:
        raise ModelError(
            f"bundle format {version} is newer than this scgan reads (up to {FORMAT}):"
            " upgrade with pip install --upgrade scgan"
        )
    _expect(found, "name", _is_name(found.get("name")))
    sizes = found.get("sizes")
    _expect(
        found,
        "sizes",
        isinstance(sizes, dict) and all(_is_int(sizes.get(k), 1, MAX_SIZES[k]) for k in MAX_SIZES),
    )
    _expect(found, "columns", isinstance(found.get("columns"), list))
    _expect(found, "latents", found.get("latents") in LATENTS)
    _expect(found, "mapper", found.get("mapper") == "" or _is_name(found.get("mapper")))
    _expect(found, "opset", _is_int(found.get("opset"), OPSET, OPSET))
    steps = found.get("thresholds")
    if not isinstance(steps, list) or len(steps) != found["sizes"]["K"]:
        raise ModelError(f"{FILE}: thresholds is not a list of K = {found['sizes']['K']} integers")
    rising = all(_is_int(step, 0, GRID) for step in steps) and all(
        a <= b for a, b in pairwise(steps)
    )
    _expect(found, "thresholds", rising and steps[-1] == GRID)
    _check_files(found.get("files"))
    for key in ("provenance", "metrics", "parity"):
        _expect(found, key, isinstance(found.get(key), dict))


def _columns(columns: list[Any], d: int) -> tuple[Column, ...]:
    if len(columns) != d or not all(isinstance(item, dict) for item in columns):
        raise ModelError(f"{FILE}: columns is not a list of d = {d} columns")
    made = []
    for place, fields in enumerate(columns):
        where = f"columns[{place}]."
        for key in ("name", "kind"):
            _expect(fields, key, _is_name(fields.get(key)), where)
        _expect(fields, "unit", fields.get("unit", "") == "" or _is_name(fields["unit"]), where)
        for key in ("period", "low", "high", "slack"):
            _expect(fields, key, key not in fields or _is_number(fields[key]), where)
        names = fields.get("categories", [])
        _expect(
            fields,
            "categories",
            isinstance(names, list) and all(_is_name(name) for name in names),
            where,
        )
        known = {key: fields[key] for key in Column.__dataclass_fields__ if key in fields}
        try:
            made.append(Column.from_dict(known))
        except ValueError as error:
            raise ModelError(f"{FILE}: {error}") from None
    if len({column.name for column in made}) != d:
        raise ModelError(f"{FILE}: two columns have the same name")
    return tuple(made)


def _check_files(files: object) -> None:
    if not isinstance(files, dict):
        raise ModelError(f"{FILE} names no files")
    if missing := [name for name in GRAPHS if name not in files]:
        raise ModelError(f"{FILE}: files does not name {', '.join(missing)}")
    for name, entry in files.items():
        if name not in (*GRAPHS, *EXTRAS):
            raise ModelError(f"{FILE}: {_show(name)} is not a file of a bundle")
        valid = isinstance(entry, dict) and _is_int(entry.get("bytes"), 0, MAX_BYTES)
        digest = entry.get("sha256") if valid else None
        _expect(
            files,
            name,
            isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None,
            "files.",
        )


def _expect(holder: Mapping[str, Any], key: str, valid: bool, where: str = "") -> None:
    if not valid:
        value = f"can't be {_show(holder[key])}" if key in holder else "is missing"
        raise ModelError(f"{FILE}: {where}{key} {value}")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and UNPRINTABLE.search(value) is None


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
