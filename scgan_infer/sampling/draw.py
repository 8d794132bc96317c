"""A request for samples of a model, as one value from the command line to the noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.arguments import whole
from scgan_infer.bundle import GRID, Manifest
from scgan_infer.errors import UsageError
from scgan_infer.names import MISSING

END = 2**63
MOST_FLOAT = 2**128  # float32 ends below

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """Samples start .. start + n - 1 of the stream that the seed names.

    Attributes:
        n: number of rows, 0 or more.
        seed: 0 .. 2^63 - 1.
        start: index of the first, 0 .. 2^63 - n.
        cluster: draw from this cluster, or these by their weights, without rejection; None for all.
        where: values of discrete columns by name, one or several each, that every row has.
        temperature: multiplies the noise w and z; below 1 rows crowd together.

    Raises:
        UsageError: a value out of its range.
    """

    n: int = 0
    seed: int = 0
    start: int = 0
    cluster: int | Sequence[int] | None = None
    temperature: float = 1.0
    where: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("n", "seed", "start"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        object.__setattr__(self, "cluster", _whole_or_several(self.cluster))
        if self.n < 0:
            raise UsageError(f"n must be 0 or more, not {self.n}")
        if not 0 <= self.seed < END:
            raise UsageError(f"seed must be in 0 .. 2^63 - 1, not {self.seed}")
        if self.start < 0 or self.start + self.n > END:
            raise UsageError(f"start must be in 0 .. 2^63 - n, not {self.start}")
        factor = _number(self.temperature)
        if not 0 <= factor < MOST_FLOAT:
            raise UsageError(f"temperature must be 0 or more and finite, not {self.temperature!r}")
        object.__setattr__(self, "temperature", factor)
        if not isinstance(self.where, Mapping | None):
            raise UsageError(f"where must map columns to values, not be {self.where!r}")

    def part(self, low: int, high: int) -> Draw:
        """Return samples low .. high - 1 of the same stream."""
        return replace(self, start=low, n=high - low)

    def allowed(self, manifest: Manifest) -> Sequence[NDArray[np.bool_]] | None:
        """Return which outcomes [V] each step of a chain may have; None for all of them.

        Raises:
            UsageError: no such cluster, column or value.
        """
        if self.cluster is None and not self.where:
            return None
        K = manifest.sizes["K"]
        masks = [np.ones(len(step.values) + step.rest, np.bool_) for step in manifest.steps]
        masks.append(np.ones(K, np.bool_))
        if self.cluster is not None:
            masks[-1] = np.isin(np.arange(K), self._clusters(K))
        for name, values in (self.where or {}).items():
            k, mask = outcomes(manifest, name, values)
            masks[k] &= mask
            if not masks[k].any():
                raise UsageError(f"no row has {name} = {values}")
        return masks

    def _clusters(self, count: int) -> list[int]:
        cluster = self.cluster
        assert cluster is not None
        chosen = sorted(set(cluster)) if isinstance(cluster, Sequence) else [cluster]
        if not chosen or not all(0 <= i < count for i in chosen):
            raise UsageError(f"cluster must be in 0 .. {count - 1}, not {cluster}")
        return chosen

    def intervals(self, thresholds: Sequence[int]) -> Integers | None:
        """Return [clusters, 2]: low <= k < high selects each cluster by u = k / 2^24; None for all.

        Raises:
            UsageError: no such cluster, or none that any sample comes from.
        """
        cluster = self.cluster
        if cluster is None:
            return None
        chosen = self._clusters(len(thresholds))
        ends = np.array((0, *thresholds), np.int64)
        intervals = np.stack([ends[chosen], ends[np.array(chosen) + 1]], axis=1)
        if (intervals[:, 0] == intervals[:, 1]).all():
            raise UsageError(f"cluster {cluster} has weight 0: no sample comes from it")
        return intervals


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, Real) else float("nan")
    except OverflowError:
        return float("inf")


def _whole_or_several(cluster: Any) -> int | tuple[int, ...] | None:
    if isinstance(cluster, np.ndarray):
        cluster = cluster.tolist()
    if isinstance(cluster, Sequence):
        return tuple(whole("cluster", one) for one in cluster)
    return None if cluster is None else whole("cluster", cluster)


def outcomes(manifest: Manifest, name: str, values: Any) -> tuple[int, NDArray[np.bool_]]:
    """Return which step is of a column, and which of its outcomes [V] are among one or more values.

    Raises:
        UsageError: no such discrete column, or a value that it never has.
    """
    from difflib import get_close_matches

    from scgan_infer.rows.codecs.base import number

    steps = {
        manifest.columns[step.column].name: k
        for k, step in enumerate(manifest.steps)
        if not step.remainder
    }
    if name not in steps:
        names = [column.name for column in manifest.columns]
        names += [given.column.name for given in manifest.given]
        close = get_close_matches(name, steps, 1)
        message = f"there is no column {name}" + (f"; did you mean {close[0]}?" if close else "")
        if name in names:
            message = (
                f"{name} is a column whose values are not drawn outright, so none can be asked for"
            )
        raise UsageError(
            f"{message}; discrete values are those of {', '.join(steps) or 'no column'}"
        )
    step = manifest.steps[steps[name]]
    column = manifest.columns[step.column]
    spelt = step.spelt(column)
    if isinstance(values, np.ndarray):
        values = values.tolist()
    several = values if isinstance(values, list | tuple | set | frozenset) else [values]
    mask = np.zeros(len(spelt) + step.rest, np.bool_)
    for value in several:
        absent = value is None or value != value or value == ""
        if absent and None in step.values:
            mask[step.values.index(None)] = True
            continue
        text = MISSING if absent else str(value)
        if text not in spelt and not column.categories and (parsed := number(text)) is not None:
            text = column.rules.spell(float(np.float32(parsed - (column.anchor or 0.0))), column)
        if text not in spelt:
            known = ", ".join(spelt[:12])
            more = ", ..." if len(spelt) > 12 else ""
            hint = "several values are where={NAME: [A, B]}"
            raise UsageError(f"{name} = {text!r} is not one of {known}{more}; {hint}")
        mask[spelt.index(text)] = True
    return steps[name], mask


def within(u: Floats, intervals: Integers) -> Floats:
    """Map u = k / 2^24, exactly and monotonically, onto the grid points of these intervals.

    Args:
        u: [n] in [0, 1).
        intervals: [j, 2] of low and high: the points low .. high - 1, each as likely as the other.

    Returns:
        float32 [n]; with one interval low + floor(k (high - low) / 2^24), over 2^24.
    """
    high = intervals[:, 1]
    ends = np.cumsum(high - intervals[:, 0])
    point = ((u * GRID).astype(np.int64) * ends[-1]) // GRID
    interval = np.searchsorted(ends, point, side="right")
    mapped: Floats = ((high[interval] - ends[interval] + point) / GRID).astype(np.float32)
    return mapped


def cut(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield low and high of the pieces of start .. end - 1 that multiples of `size` cut."""
    while start < end:
        stop = min(end, (start // size + 1) * size)
        yield start, stop
        start = stop
