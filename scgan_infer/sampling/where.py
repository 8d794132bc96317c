"""Sampling a category without rejection: clusters never mix categories, so a category is a set of clusters.

Which value a cluster has is asked of the model itself: 4096 rows of the cluster, all of which must agree.
"""

from __future__ import annotations

import numpy as np

from scgan_infer.errors import UsageError
from scgan_infer.sampling.model import Model
from scgan_infer.sampling.noise import BLOCK


def clusters_where(model: Model, condition: str) -> tuple[int, ...]:
    """Return the clusters whose rows have `condition`, for `Model.sample(..., cluster=...)`.

    Args:
        model: a loaded bundle with a category column.
        condition: NAME=VALUE, for example species=Gentoo.

    Raises:
        UsageError: no such category column or value, or no cluster has it for itself.
    """
    name, equals, value = condition.partition("=")
    categories = {
        column.name: column.categories for column in model.columns if column.kind == "category"
    }
    if not equals or name not in categories:
        known = ", ".join(categories) or "none here"
        raise UsageError(
            f"--where {condition!r}: write NAME=VALUE with a category column ({known})"
        )
    if value not in categories[name]:
        raise UsageError(f"--where {condition!r}: {name} is one of {', '.join(categories[name])}")
    place = [column.name for column in model.columns].index(name)
    wanted = categories[name].index(value)
    widths = np.diff([0, *model.manifest.thresholds])
    found = tuple(
        cluster
        for cluster in np.flatnonzero(widths).tolist()
        if (model.sample(BLOCK, cluster=cluster)[:, place] == wanted).all()
    )
    if not found:
        raise UsageError(
            f"--where {condition!r}: {value} is too rare to have clusters of its own; sample and filter"
        )
    return found
