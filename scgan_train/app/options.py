"""From the options of `scgan train` to settings: `--log pt,M --periodic phi=360` to nested dicts, then one `Config`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scgan_infer.errors import UsageError
from scgan_train import config as configs

Settings = dict[str, Any]


def flags(
    *,
    plain: Mapping[str, Any],
    mapper: str | None,
    clusters: str | None,
    select: str | None,
    kinds: Mapping[str, Sequence[str] | None],
) -> Settings:
    """Return the settings that flags stand for; those that were not given are left out.

    Args:
        plain: settings whose value is the flag's.
        mapper: kind of map.
        clusters: a whole number, or auto.
        select: comma-separated columns to use.
        kinds: for each kind of column, what its option was given, each time: `a,b`, `phi=360` or `a=0:1`.

    Raises:
        UsageError: a value that can't be read, with an example of one that can.
    """
    found: Settings = {key: value for key, value in plain.items() if value is not None}
    if mapper is not None:
        found["mapper"] = {"kind": mapper}
    if clusters is not None:
        found["clusters"] = {"k": clusters if clusters == "auto" else whole("--clusters", clusters)}
    if select is not None:
        found["select"] = names([select])
    found["columns"] = {
        name: fields
        for kind, texts in kinds.items()
        for name, fields in described(kind, texts or [])
    }
    return found


def layered(
    preset: Settings, file: Path | None, assignments: Sequence[str], flags: Settings
) -> configs.Config:
    """Merge preset, TOML file, `--set` and flags, of which the last wins, and check the outcome.

    Raises:
        UsageError: a file that can't be read, an unknown setting, or a value that does not fit.
    """
    layers = [
        preset,
        configs.read(file) if file else {},
        *map(configs.assignment, assignments),
        flags,
    ]
    return configs.from_dict(configs.merge(*layers))


def whole(option: str, text: str) -> int:
    """Return a whole number from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{option} {text!r}: a whole number from 1 on, or auto, is needed")
    return int(text)


def names(texts: Iterable[str]) -> list[str]:
    """Return the names in comma-separated lists."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def described(kind: str, texts: Sequence[str]) -> Iterable[tuple[str, Settings]]:
    """Yield the columns that a kind's option names, with their settings."""
    for item in names(texts):
        if kind in ("periodic", "bounded"):
            name, _, value = item.rpartition("=")
            yield name, domain(kind, name, value)
        else:
            yield item, {"kind": kind}


def domain(kind: str, name: str, value: str) -> Settings:
    """Return the settings of one `phi=360` or `a=0:1`."""
    try:
        if kind == "periodic" and name:
            return {"kind": kind, "period": float(value)}
        low, _, high = value.partition(":")
        ends = {key: float(end) for key, end in (("low", low), ("high", high)) if end}
        if name and ends:
            return {"kind": kind, **ends}
    except ValueError:
        pass
    example = "phi=360" if kind == "periodic" else "a=0:1, a=0: or a=:1"
    raise UsageError(f"--{kind} {name}={value}: write it as {example}")
