"""Replace "auto" in a configuration by values computed from the rows, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from scgan_infer.columns import Table
from scgan_infer.errors import DataError, DeviceError, UsageError
from scgan_train.config import Config
from scgan_train.coordinates import discrete
from scgan_train.coordinates.constraints import Constraint
from scgan_train.coordinates.describing import continuous, find_constraints, learned
from scgan_train.coordinates.given import divide, part
from scgan_train.maps import MAPS, choose, resolved

MOST_LATENTS = 256  # dimensions that `auto` keeps
MOST_BESIDE_GIVEN = 16  # the same where columns are given: a flow moves all of them then
MOST_CLUSTERS = 256  # that `auto` considers
ROWS_A_CLUSTER = 10  # at least on average, and three per dimension
ENOUGH_ROWS = 40  # of a cluster, whatever the dimension: correlations are shrunken


def constraints_of(config: Config, rows: Table) -> tuple[Constraint, ...]:
    """Return the constraints between the generated columns of rows; none if switched off.

    Raises:
        UsageError: a given column does not exist, or no column is generated.
    """
    made, _ = divide(rows.columns, config.given)
    return find_constraints(part(rows, made), config.tails) if config.constraints else ()


def resolve(config: Config, rows: Table, constraints: Sequence[Constraint] | None = None) -> Config:
    """Return the configuration with each "auto" replaced by a value computed from the rows.

    Args:
        config: the settings.
        rows: all rows.
        constraints: `constraints_of` them, if already known.

    Raises:
        DataError: no bundle could hold the networks that draw the discrete values.
        DeviceError: the device asked for is not available.
        UsageError: an unknown kind of map, or a setting that given columns do not support.
    """
    made, given = divide(rows.columns, config.given)
    if given and config.latents != "mapper":
        raise UsageError(
            f"latents = {config.latents} has no given columns; leave it out, or take mapper"
        )
    if given and config.decoder.steps not in ("auto", 0):
        raise UsageError(
            f"decoder.steps = {config.decoder.steps}: the decoder has no critics where columns "
            "are given; leave it out"
        )
    outcomes = sum(rows.columns[j].rules.named for j in given)
    known = constraints_of(config, rows) if constraints is None else constraints
    rows = learned(part(rows, made), known)
    steps_drawn = discrete.find(rows)
    if flaw := discrete.too_many(steps_drawn, rows.columns, outcomes):
        raise DataError(flaw)
    encoder, clusters, mapper = config.encoder, config.clusters, config.mapper
    dims = len(continuous(rows, steps_drawn))
    most_latents = MOST_BESIDE_GIVEN if given else MOST_LATENTS
    e = _or(encoder.latent_dim, min(dims, most_latents))
    kind = _or(encoder.kind, "columns" if e == dims else "linear")
    steps = _or(encoder.steps, 500 if kind == "mlp" else 0)
    if config.latents == "gaussian":
        clusters = replace(clusters, k=1, split=False)
    allowed = allowed_clusters(len(rows), e)
    kind_of_map = MAPS[choose(mapper.kind, e, len(steps_drawn), bool(given))]
    most = min(MOST_CLUSTERS, kind_of_map.most_clusters(e + len(given)), allowed)
    choose_k = _or(clusters.choose, clusters.k == "auto")
    return replace(
        config,
        device=_device(config.device),
        encoder=replace(encoder, latent_dim=e, kind=kind, steps=steps),
        clusters=replace(clusters, k=_or(clusters.k, most), choose=choose_k),
        mapper=resolved(mapper, e, len(rows), len(steps_drawn), bool(given)),
        decoder=replace(config.decoder, steps=_or(config.decoder.steps, 0)),
    )


def allowed_clusters(rows: int, e: int) -> int:
    """Return the largest number of clusters that so many rows of e latent dimensions allow."""
    return max(1, rows // max(ROWS_A_CLUSTER, min(3 * e, ENOUGH_ROWS)))


def _or(value: Any, default: Any) -> Any:
    return default if value == "auto" else value


def _device(name: str) -> Literal["cpu", "cuda"]:

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise DeviceError(
            "device cuda: torch finds no CUDA device here; train on the CPU, or see `scgan doctor`"
        )
    return "cuda"
