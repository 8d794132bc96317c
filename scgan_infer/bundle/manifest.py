"""The manifest of a bundle and its JSON; `bundle` documents each key.

A manifest may come from a stranger: `Manifest.from_json` checks everything, and names the key and
the value that it refuses.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from scgan_infer.bundle.interfaces import OPTIONAL, Interface, interfaces
from scgan_infer.bundle.rules import MAX_BYTES, OPSET
from scgan_infer.columns import NUMBERS, Column
from scgan_infer.errors import ModelError
from scgan_infer.names import LATENTS, MISSING

FORMAT = 2
FILE = "bundle.json"
HEAD = "head.onnx"
EXTRAS = ("preview.png", "card.md")
GRID = 2**24
SIZES = {  # the least and the most, by format
    1: dict.fromkeys("demq", (1, 4096)) | {"K": (1, 65536)},
    2: dict.fromkeys("dem", (1, 4096))
    | {"q": (0, 4096), "K": (1, 65536), "h": (1, 1024), "g": (0, 4096)},
}
SHA256 = re.compile("[0-9a-f]{64}")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of one step of the head's choice, for one column.

    Attributes:
        column: The column's index.
        values: By index; None for a missing cell.
        rest: Whether the index behind the last value is one, too: another number.
        remainder: Whether the values are differences from what other columns imply.
    """

    column: int
    values: tuple[float | None, ...]
    rest: bool
    remainder: bool = False

    def spelt(self, column: Column) -> list[str]:
        """Return the values as people write those of the column."""
        return [
            MISSING if value is None else column.rules.spell(value, column) for value in self.values
        ]


@dataclass(frozen=True)
class GivenColumn:
    """A column that is an input.

    Attributes:
        column: The column; as an input a missing cell is NaN and a category its index.
        place: Its index among all columns, generated ones included.
        low: Least number that was seen in training; None of names.
        high: The greatest.
    """

    column: Column
    place: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Manifest:
    """The contents of `bundle.json`, by the same names; `files` is filled in on saving.

    `steps` are those of the choice but the last, the cluster. `given` is left out of JSON where
    there are none.
    """

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
    steps: tuple[Outcomes, ...] = ()
    given: tuple[GivenColumn, ...] = ()
    format: int = FORMAT

    def fields(self) -> dict[str, Any]:
        """Return the contents of the JSON: the format's number, then the other keys sorted."""
        fields = {**asdict(self), "columns": [column.to_dict() for column in self.columns]}
        for step in fields["steps"]:
            if not step["remainder"]:
                del step["remainder"]
        for entry, one in zip(fields["given"], self.given, strict=True):
            entry["column"] = one.column.to_dict()
        if not self.given:
            del fields["given"]
        return {"format": fields.pop("format"), **json.loads(json.dumps(fields, sort_keys=True))}

    def to_json(self) -> bytes:
        """Return the bytes of `bundle.json`."""
        text = json.dumps(self.fields(), indent=1, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Inverse of `to_json`.

        Raises:
            ModelError: not JSON, a newer format, or a key that is missing or has a value it can't
                have.
        """
        try:
            content = json.loads(
                data.decode(),
                object_pairs_hook=_unique,
                parse_float=_finite,
                parse_constant=_finite,
            )
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{FILE} is not JSON that can be read: {error}") from None
        _check(content)
        content.setdefault("steps", [])
        content.setdefault("given", [])
        fields = {name: content[name] for name in cls.__dataclass_fields__}
        fields["columns"] = _columns(content["columns"], content["sizes"]["d"])
        fields["sizes"] = _sizes(content)
        fields["given"] = _given(content["given"], fields["columns"], fields["sizes"]["g"])
        _check_conditions(content["parity"], fields["sizes"]["g"])
        fields["thresholds"] = tuple(content["thresholds"])
        fields["steps"] = _steps(content["steps"], fields["columns"], fields["sizes"]["h"])
        return cls(**fields)

    @cached_property
    def whole(self) -> tuple[Column, ...]:
        """All columns of a row, given and generated, in the order in which they were trained on."""
        return tuple(self.columns[j] if j >= 0 else self.given[-1 - j].column for j in self.order)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Per column of whole rows, its index among the generated, or -1 - that among the given."""
        given = {one.place: -1 - k for k, one in enumerate(self.given)}
        generated = iter(range(len(self.columns)))
        return tuple(
            given[j] if j in given else next(generated)
            for j in range(len(self.columns) + len(given))
        )

    @cached_property
    def interfaces(self) -> dict[str, Interface]:
        """The inputs and outputs of each graph that the bundle may hold."""
        return interfaces(self.format, self.sizes)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key occurs twice")
    return fields


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


def _check(fields: object) -> None:
    if not isinstance(fields, dict) or not _is_int(fields.get("format"), 1, 2**63):
        raise ModelError(f"{FILE} has no format number: not a bundle")
    version, sizes = fields["format"], fields.get("sizes")
    if version > FORMAT:
        raise ModelError(
            f"bundle format {version} is newer than this scgan reads (up to {FORMAT}): "
            "install a newer scgan"
        )
    if not isinstance(sizes, dict):
        sizes = {}
    limits = SIZES[version]
    _expect(fields, "name", _is_name(fields.get("name")))
    _expect(fields, "sizes", all(_is_int(sizes.get(key), *limits[key]) for key in limits))
    _expect(fields, "columns", isinstance(fields.get("columns"), list))
    _expect(fields, "latents", fields.get("latents") in LATENTS)
    _expect(fields, "mapper", fields.get("mapper") == "" or _is_name(fields.get("mapper")))
    _expect(fields, "opset", _is_int(fields.get("opset"), OPSET, OPSET))
    steps = fields.get("thresholds")
    if not isinstance(steps, list) or len(steps) != sizes["K"]:
        raise ModelError(f"{FILE}: thresholds is not a list of K = {sizes['K']} integers")
    valid = all(_is_int(step, 0, GRID) for step in steps) and steps[-1] == GRID
    _expect(fields, "thresholds", valid and all(a <= b for a, b in pairwise(steps)))
    sizes = _sizes(fields)
    _check_files(fields.get("files"), interfaces(version, sizes), sizes["h"] + sizes["g"])
    for key in ("provenance", "metrics", "parity"):
        _expect(fields, key, isinstance(fields.get(key), dict))


def _sizes(fields: dict[str, Any]) -> dict[str, int]:
    """Return the format's sizes; those that it lacks are of one step, and nothing given."""
    return {"h": 1, "g": 0, **{key: fields["sizes"][key] for key in SIZES[fields["format"]]}}


def _columns(columns: list[Any], d: int, where: str = "columns") -> tuple[Column, ...]:
    if len(columns) != d or not all(isinstance(item, dict) for item in columns):
        raise ModelError(
            f"{FILE}: {where} is not a list of {'d' if where == 'columns' else 'g'} = {d} columns"
        )
    result = []
    for j, fields in enumerate(columns):
        names = fields.get("categories", [])
        valid = {key: _is_name(fields.get(key)) for key in ("name", "kind")}
        for key in ("unit", "resolution", "pattern"):
            valid[key] = fields.get(key, "") == "" or _is_name(fields[key])
        for key in NUMBERS:
            valid[key] = key not in fields or _is_number(fields[key])
        valid["missing"] = isinstance(fields.get("missing", False), bool)
        valid["categories"] = isinstance(names, list) and all(map(_is_name, names))
        for key, is_valid in valid.items():
            _expect(fields, key, is_valid, f"{where}[{j}].")
        known = {key: fields[key] for key in Column.__dataclass_fields__ if key in fields}
        try:
            result.append(Column.from_dict(known))
        except ValueError as error:
            raise ModelError(f"{FILE}: {error}") from None
    if len({column.name for column in result}) != d:
        raise ModelError(f"{FILE}: two columns have the same name")
    return tuple(result)


def _given(given: Any, columns: tuple[Column, ...], g: int) -> tuple[GivenColumn, ...]:
    """Return the g given columns, in the order of c; their `place` ascends."""
    if not isinstance(given, list) or len(given) != g:
        raise ModelError(f"{FILE}: given is not a list of g = {g} columns")
    entries = [one if isinstance(one, dict) else {} for one in given]
    given_columns = _columns([one.get("column") for one in entries], g, "given")
    result, last = [], -1
    for k, (one, column) in enumerate(zip(entries, given_columns, strict=True)):
        where, most = f"given[{k}].", len(columns) + g - 1
        _expect(one, "place", _is_int(one.get("place"), last + 1, most), where)
        last = one["place"]
        for key in ("low", "high"):
            _expect(one, key, one.get(key) is None or _is_number(one[key]), where)
        result.append(GivenColumn(column, last, one.get("low"), one.get("high")))
    if {column.name for column in given_columns} & {column.name for column in columns}:
        raise ModelError(f"{FILE}: a given column and another have the same name")
    return tuple(result)


def _check_conditions(parity: dict[str, Any], g: int) -> None:
    """Check the conditions that stored rows were generated at."""
    rows = parity.get("c", [])
    valid = isinstance(rows, list) and all(isinstance(row, list) and len(row) == g for row in rows)
    valid = valid and all(cell is None or _is_number(cell) for row in rows for cell in row)
    _expect(parity, "c", valid, "parity.")


def _steps(steps: Any, columns: tuple[Column, ...], h: int) -> tuple[Outcomes, ...]:
    """Return the outcomes of the h - 1 steps before the cluster."""
    if not isinstance(steps, list) or len(steps) != h - 1:
        raise ModelError(f"{FILE}: steps is not a list of h - 1 = {h - 1} steps")
    result = []
    for k, step in enumerate(steps):
        fields = step if isinstance(step, dict) else {}
        values = fields.get("values")
        valid = isinstance(values, list) and all(v is None or _is_number(v) for v in values)
        _expect(fields, "values", valid, f"steps[{k}].")
        valid = _is_int(fields.get("column"), 0, len(columns) - 1)
        _expect(fields, "column", valid, f"steps[{k}].")
        _expect(fields, "rest", isinstance(fields.get("rest"), bool), f"steps[{k}].")
        remainder = fields.get("remainder", False)
        _expect(fields, "remainder", isinstance(remainder, bool), f"steps[{k}].")
        result.append(
            Outcomes(fields["column"], tuple(fields["values"]), fields["rest"], remainder)
        )
    if len({step.column for step in result}) != len(result):
        raise ModelError(f"{FILE}: two steps are of the same column")
    return tuple(result)


def _check_files(files: object, graphs: Mapping[str, Interface], seen: int) -> None:
    """Check the entry `files`; a head is needed where it reads or draws more than one number."""
    if not isinstance(files, dict):
        raise ModelError(f"{FILE} names no files")
    needed = [name for name in graphs if name not in OPTIONAL or (name == HEAD and seen > 1)]
    if missing := [name for name in needed if name not in files]:
        raise ModelError(f"{FILE}: files does not name {', '.join(missing)}")
    for name, entry in files.items():
        if name not in graphs and name not in EXTRAS:
            raise ModelError(f"{FILE}: {_show(name)} is not a file of a bundle")
        valid = isinstance(entry, dict) and _is_int(entry.get("bytes"), 0, MAX_BYTES)
        digest = entry.get("sha256") if valid else None
        _expect(files, name, isinstance(digest, str) and bool(SHA256.fullmatch(digest)), "files.")


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
