"""From the options of `scgan train` to settings: `--log pt,M --periodic phi=360` to nested dicts.

    --set and flags > SCGAN_* > TOML > preset

A resumed run keeps its settings: TOML, --set and flags must agree with them, others are ignored.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scgan_infer.errors import UsageError
from scgan_infer.names import Preset
from scgan_train import config as configs

Settings = dict[str, Any]

KINDS = ("log", "periodic", "bounded", "integer", "category")  # that have an option
OPTIONS = (
    "seed",
    "latents",
    "device",
    "mapper",
    "clusters",
    "columns",
    "given",
    "header",
    "missing",
    *KINDS,
)


def layers(
    preset: Preset,
    file: Path | None,
    assignments: Sequence[str],
    options: Mapping[str, Any],
    environment: Collection[str],
) -> tuple[Settings, Settings]:
    """Return the settings asked for, and those that are ignored when a run is resumed.

    Args:
        preset: name of the settings below all others.
        file: TOML file of settings.
        assignments: what `--set` was given, each time.
        options: the other options that are settings, by name; None where there is none.
        environment: the names of those that came from the environment.

    Raises:
        UsageError: a file or a value that can't be read, with an example of one that can; a column
            of two kinds.
    """
    flags = {name: value for name, value in options.items() if name not in environment}
    around = of_options({name: options[name] for name in environment})
    wanted = without(configs.read(file) if file else {}, around)
    assigned, chosen = configs.merge({}, *map(assignment, assignments)), of_options(flags)
    for name, column in chosen.get("columns", {}).items():
        other = assigned.get("columns", {}).get(name, {}).get("kind", column["kind"])
        if other != column["kind"]:
            raise UsageError(
                f"column {name!r} is {column['kind']} by an option, and {other} by --set; "
                "leave one out"
            )
    wanted = configs.merge(wanted, assigned, chosen)
    return wanted, configs.merge(configs.PRESETS[preset], around)


def without(settings: Settings, others: Settings) -> Settings:
    """Return the settings that others don't name."""
    kept = {}
    for key, value in settings.items():
        if key not in others:
            kept[key] = value
        elif isinstance(value, dict) and isinstance(others[key], dict):
            kept[key] = without(value, others[key])
    return kept


def of_options(options: Mapping[str, Any]) -> Settings:
    """Return the settings that options stand for; those that were not given (None) are left out."""
    settings: Settings = {}
    columns: dict[str, Settings] = {}
    for name, value in options.items():
        if name in KINDS:
            columns |= dict(described(name, value or ()))
        elif value is None:
            continue
        elif name == "mapper":
            settings["mapper"] = {"kind": value}
        elif name == "clusters":
            settings["clusters"] = {"k": value if value == "auto" else whole("--clusters", value)}
        elif name in ("columns", "given"):
            settings["given" if name == "given" else "select"] = list(names([value]))
        else:
            settings[name] = value
    return settings | ({"columns": columns} if columns else {})


def assignment(text: str) -> Settings:
    """Parse one `--set KEY=VALUE`: a dotted key and a value of TOML, a bare word being a string.

    >>> assignment("encoder.steps=5"), assignment('columns."Sepal.Length".kind=log')
    ({'encoder': {'steps': 5}}, {'columns': {'Sepal.Length': {'kind': 'log'}}})

    Raises:
        UsageError: without `=`, or a key that TOML does not know.
    """
    ends = [index for index, letter in enumerate(text) if letter == "="]
    words = [f"{text[:end]}={json.dumps(text[end + 1 :], ensure_ascii=False)}" for end in ends]
    for line in [text, *words] if "\n" not in text else []:
        with suppress(tomllib.TOMLDecodeError):
            if ends and (settings := tomllib.loads(line)):
                return settings
    raise UsageError(
        f"--set {text!r}: write it as KEY=VALUE, for example --set mapper.width=64; a name with "
        'dots, spaces or accents in quotes: columns."Sepal.Length".kind=real'
    )


def whole(option: str, text: str) -> int:
    """Return a whole number from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{option} {text!r}: a whole number from 1 on, or auto, is needed")
    return int(text)


def names(texts: Sequence[str]) -> Iterator[str]:
    """Yield the names in comma-separated lists."""
    return (name.strip() for text in texts for name in text.split(",") if name.strip())


def described(kind: str, texts: Sequence[str]) -> Iterator[tuple[str, Settings]]:
    """Yield the columns of a kind's option, `a,b`, `phi=360` or `a=0:1`, with their settings.

    Raises:
        UsageError: a domain that can't be read.
    """
    for item in names(texts):
        if kind not in ("periodic", "bounded"):
            yield item, {"kind": kind}
            continue
        name, _, value = item.rpartition("=")
        low, _, high = value.partition(":")
        ends = {"period": value} if kind == "periodic" else {"low": low, "high": high}
        try:
            domain = {key: float(end) for key, end in ends.items() if end}
        except ValueError:
            domain = {}
        if not name or not domain:
            example = "phi=360" if kind == "periodic" else "a=0:1, a=0: or a=:1"
            raise UsageError(f"--{kind} {item}: write it as {example}")
        yield name, {"kind": kind, **domain}
