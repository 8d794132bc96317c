"""The row that `encode` writes: a latent, then the discrete columns by name, then the cluster.

A column that is drawn outright is written as it is. One of which the head draws heavy values is
that value, `missing`, or `other` where the cell has a coordinate. One that is put together from
others and a remainder is written as that remainder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.bundle.manifest import Manifest, Outcomes
from scgan_infer.columns import Column

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def columns_of(manifest: Manifest) -> tuple[Column, ...]:
    """Return the columns of what `encode` writes."""
    latents = (Column(f"latent_{j}") for j in range(manifest.sizes["e"]))
    drawn = (_column(manifest.columns[step.column], step) for step in manifest.steps)
    return (*latents, *drawn, Column("cluster", "integer"))


def rows_of(manifest: Manifest, latent: Floats, choice: Integers) -> Floats:
    """Return rows of these columns, of latents [n, e] and choices [n] or [n, h]."""
    choice = choice.reshape(len(latent), -1)
    drawn: list[NDArray[Any]] = [
        choice[:, j] if step.rest else np.array(step.values, np.float32)[choice[:, j]]
        for j, step in enumerate(manifest.steps)
    ]
    return np.column_stack([latent, *drawn, choice[:, -1]]).astype(np.float32)


def _column(column: Column, step: Outcomes) -> Column:
    if step.remainder:
        column = Column(f"{column.name} remainder", missing=column.missing)
    if not step.rest:
        return column
    return Column(column.name, "category", categories=(*step.spelt(column), "other"))
