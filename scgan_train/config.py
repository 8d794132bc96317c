"""Settings of a training: one frozen dataclass per stage, one around them, plain data in and out.

Defaults that depend on the data are "auto"; `scgan_train.resolving` computes them from the rows,
and the result is trained and stored in runs and bundles. Settings come as nested dicts (defaults <
preset < TOML file < command line), merged, then checked once.
"""

from __future__ import annotations

import sys
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from scgan_infer.errors import UsageError
from scgan_infer.names import Device, Latents, Missing, Preset

Auto = Literal["auto"]
T = TypeVar("T")


MAY_BE_ZERO = {
    *("seed", "steps", "warm_steps", "ema"),
    *("reconstruction", "lambda_r", "lambda_x", "orthogonality", "penalty"),
}


@dataclass(frozen=True)
class EncoderConfig:
    """Stage 1 (equation 1 of the paper).

    Attributes:
        kind: `columns` (a monotone curve per column), `linear`, `mlp`, or `auto` (columns where
            the latent keeps every dimension, else linear).
        latent_dim: e; `auto` keeps all varying columns up to 256, or 16 where some are given.
        similarity: of two latents in InfoNCE: `euclidean` (minus the squared distance) or `cosine`.
        temperature: tau, which divides the similarity.
        noise: standard deviation of the noise of the two views, in standardised units.
        steps: training steps; `auto` is 500 of `mlp`, else none: a column's curve is a line then,
            and `linear` stays at the principal axes.
    """

    kind: Literal["auto", "columns", "linear", "mlp"] = "auto"
    latent_dim: int | Auto = "auto"
    similarity: Literal["euclidean", "cosine"] = "euclidean"
    temperature: float = 1.0
    noise: float = 0.1
    width: int = 96
    batch: int = 384
    steps: int | Auto = "auto"
    lr: float = 2e-3


@dataclass(frozen=True)
class ClusterConfig:
    """Stage 2, first half.

    Attributes:
        k: number of clusters, or with `choose` the largest that is considered.
        choose: use the number of best held-out likelihood; `auto` does so where `k` is `auto`.
        refine: expectation-maximisation with full covariances after K-means.
        split: never let a cluster cross an empty band of a latent coordinate.
        min_rows: rows below which a cluster stays a Gaussian, without a trained map.
    """

    k: int | Auto = "auto"
    choose: bool | Auto = "auto"
    refine: bool = True
    split: bool = True
    min_rows: int = 50


@dataclass(frozen=True)
class MapperConfig:
    """Stage 2, second half (equations 2 and 3): `kind` is in `MAPS`, or `auto` by dimensions.

    Attributes:
        steps: training steps; `auto` is the default of the kind.
        width: hidden units; `auto` is the default of the kind.
        lr: learning rate; `auto` is the default of the kind.
        layers: of a flow; `auto` is one, two from five dimensions on.
    """

    kind: str = "auto"
    steps: int | Auto = "auto"
    width: int | Auto = "auto"
    lr: float | Auto = "auto"
    layers: int | Auto = "auto"


@dataclass(frozen=True)
class DecoderConfig:
    """Stage 3 (equation 4).

    Attributes:
        widths: hidden units per layer, narrowest first: the first whose error on rows kept back
            is at most `error` is taken, or the last that still lowers it by a tenth.
        error: mean squared error of coordinates that is small enough, in their variances.
        layers: hidden layers, each with its own noise subspace.
        noise: noise dimensions per layer, where there are critics; q = layers * noise. A linear
            encoder has noise at the decoder's output instead, of as many dimensions as it loses.
        warm_steps: steps of reconstruction alone, noise off, and of the output noise's likelihood.
        steps: steps of the whole objective, with critics and noise in every layer; `auto` is none:
            what they gain on one table they lose on another.
        reconstruction: weight of the squared error with z fixed.
        lambda_r: weight of the critic on reconstructions.
        lambda_x: weight of the critic on generations.
        orthogonality: weight of |U^T U - 1|^2.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    error: float = 3e-6
    layers: int = 2
    noise: int = 2
    batch: int = 512
    warm_steps: int = 1500
    steps: int | Auto = "auto"
    lr: float = 2e-3
    joint_lr: float = 2e-3
    critic_lr: float = 2e-3
    critic_width: int = 128
    reconstruction: float = 10.0
    lambda_r: float = 0.1
    lambda_x: float = 1.0
    orthogonality: float = 1.0
    penalty: float = 0.05
    ema: float = 0.999


@dataclass(frozen=True)
class Config:
    """All settings of a training.

    Attributes:
        latents: where latents for generation come from (`gaussian`, `centers`, `mapper`, `real`).
        columns: name -> the `Column` fields set (kind, period, low, high, unit, categories).
        select: names of the columns to use; empty means all.
        given: names of the columns that are inputs and never generated.
        missing: how missing cells are handled: kept as data (`keep`), rows dropped, or an error.
        tails: whether generated numbers may leave the range of the training rows.
        constraints: whether relations between number columns in all rows are detected and kept.
        header: whether the first line of a text file has the names; without, they are x0, x1, ...
        max_rows: rows kept for training, a uniform sample where the data has more.
    """

    seed: int = 0
    latents: Latents = "mapper"
    device: Device = "auto"
    missing: Missing = "keep"
    tails: bool = False
    constraints: bool = True
    max_rows: int = 2_000_000
    select: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    header: bool = True
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    encoder: EncoderConfig = EncoderConfig()
    clusters: ClusterConfig = ClusterConfig()
    mapper: MapperConfig = MapperConfig()
    decoder: DecoderConfig = DecoderConfig()


PRESETS: dict[Preset, dict[str, Any]] = {
    "standard": {},
    "quick": {"mapper": {"steps": 400}, "decoder": {"warm_steps": 500}},
    "paper": {
        "encoder": {"kind": "mlp"},
        "clusters": {"refine": False, "split": False},
        "mapper": {"kind": "aae"},
        "decoder": {"steps": 600},
    },
}


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested settings; a later layer wins.

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            merged[key] = (
                merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
            )
    return merged


def differing(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested settings that differ from the defaults.

    >>> differing({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"x": 1, "y": 1}, "b": 3})
    {'a': {'y': 2}}
    """
    changed = {}
    for key, value in settings.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            value, default = differing(value, default), {}
        if value != default:
            changed[key] = value
    return changed


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file of settings.

    Raises:
        UsageError: if it is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"settings {path}: {why}; name a TOML file of settings") from error


def to_dict(config: Config) -> dict[str, Any]:
    """Return plain nested data; inverse of `from_dict`."""
    return asdict(config)


def from_dict(settings: Mapping[str, Any]) -> Config:
    """Check nested settings and build the configuration.

    Raises:
        UsageError: naming an unknown key or a value of the wrong type, with what would fit.
    """
    return _build(Config, settings, "")


def _build(kind: type[T], settings: Any, where: str) -> T:
    if not isinstance(settings, Mapping):
        raise UsageError(
            f"setting {where.rstrip('.')}: a table of settings is needed, not {settings!r}"
        )
    hints = typing.get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, value in settings.items():
        if key not in names:
            raise UsageError(f"unknown setting {where}{key}; known here: {', '.join(names)}")
        hint = hints[key]
        if is_dataclass(hint):
            values[key] = _build(typing.cast(type[Any], hint), value, f"{where}{key}.")
        else:
            values[key] = _checked(hint, value, f"{where}{key}")
    return kind(**values)


def _checked(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is tuple:
        entries = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_checked(typing.get_args(hint)[0], entry, where) for entry in entries)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not _fits(hint, value):
        raise UsageError(f"setting {where} = {value!r}: {_wanted(hint)} is needed")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        name = where.rpartition(".")[2]
        low = 0 if name in MAY_BE_ZERO else sys.float_info.min
        high = 1 if name == "ema" else sys.float_info.max
        if not low <= value <= high:
            wanted = "from 0 to 1" if high == 1 else "from 0 on" if low == 0 else "above 0"
            raise UsageError(f"setting {where} = {value!r}: a finite number {wanted} is needed")
    return value


def _fits(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(part, value) for part in typing.get_args(hint))
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, typing.cast(type, hint))


def _wanted(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_wanted(part) for part in typing.get_args(hint))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        hint, "a table"
    )
