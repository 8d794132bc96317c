"""Sampling a category without rejection: clusters never mix categories.

So a category is a set of clusters. The value of a cluster is that of samples from it: 4096 rows of
the cluster, all of which must agree.
"""

from __future__ import annotations

import numpy as np

from scgan_infer.errors import UsageError
from scgan_infer.sampling.model import Model
from scgan_infer.sampling.noise import BLOCK


def clusters_where(model: Model, condition: str) -> tuple[int, ...]:
    """Return the clusters whose rows have `condition`, as species=Gentoo, for `Model.sample`.

    Raises:
        UsageError: no such category column or value, or no cluster has it for itself.
    """
    name, _, value = condition.partition("=")
    known = {
        column.name: (j, column) for j, column in enumerate(model.columns) if column.categories
    }
    if name not in known or "=" not in condition:
        raise UsageError(
            f"condition {condition!r}: write NAME=VALUE with a category column "
            f"({', '.join(known) or 'none here'})"
        )
    j, column = known[name]
    if value not in column.categories:
        names = ", ".join(column.categories)
        raise UsageError(f"condition {condition!r}: {name} is one of {names}")
    index = column.categories.index(value)
    weights = np.diff([0, *model.manifest.thresholds])
    clusters = tuple(
        cluster
        for cluster in np.flatnonzero(weights).tolist()
        if (model.sample(BLOCK, cluster=cluster)[:, j] == index).all()
    )
    if not clusters:
        raise UsageError(
            f"condition {condition!r}: {value} is too rare to have clusters of its own; "
            "sample and filter"
        )
    return clusters
