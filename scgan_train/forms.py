"""Forms of coordinates, as graphs: f(x), its inverse and its slope of values [k, n], columns along axis 0.

Parameters come as [k, 1]. Scores are a form of training alone: their tables come as they are, [CELLS, k].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scgan_infer.kinds import Form
from scgan_infer.kinds.base import Parameters
from scgan_infer.kinds.bend import FARTHEST
from scgan_infer.kinds.walls import MARGIN
from scgan_train.discrete import middles
from scgan_train.graph import Var, const, minus_infinity, op

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]
Graph: TypeAlias = Callable[[Var, Parameters], Var]

CELLS = 4096  # of probability, that a score's table has


class Scores(Form):
    """Normal scores: Phi(y) is the share of rows below x, somewhere within the share of x itself.

    The way back looks up the value at Phi(y) in a table of `CELLS`, so it is one of those that were seen.
    """

    name = "scores"

    def coordinate(self, x: Floats, p: Parameters) -> Floats:
        """Return the middle of each value's scores."""
        return self.within(x, p, np.full(x.shape, 0.5))

    def within(self, x: Floats, p: Parameters, share: Floats) -> Floats:
        """Return the score at a share [n, k] of the way through those of the nearest value in the table."""
        from scipy.special import ndtri

        columns = []
        for cells, part, table in zip(x.T, share.T, p["table"].T, strict=True):
            values, counts = np.unique(table, return_counts=True)
            nearest = np.searchsorted(middles(values), cells.astype(np.float32), side="right")
            below = (counts.cumsum() - counts)[nearest]
            columns.append(ndtri((below + part * counts[nearest]) / CELLS))
        limit = ndtri(0.25 / CELLS)
        return np.asarray(np.clip(np.stack(columns, 1), limit, -limit), x.dtype)

    def inverse(self, y: Floats, p: Parameters) -> Floats:
        """Return the values at the shares of rows that the scores are."""
        from scipy.special import ndtr

        cell = np.clip(np.floor(CELLS * ndtr(y)), 0, CELLS - 1).astype(np.int64)
        return np.asarray(np.take_along_axis(p["table"], cell, 0), y.dtype)


SCORES = Scores()


def _scores(x: Var, p: Parameters) -> Var:
    """Return `Scores.coordinate` of values [k, n]: the score of the nearest value that has one."""
    columns = []
    for table, cells in zip(
        p["table"].T, op.split(x, num_outputs=p["table"].shape[1]), strict=True
    ):
        values = np.unique(table)
        scores = SCORES.coordinate(values[:, None], {"table": table[:, None]})[:, 0]
        passed = op.greater_or_equal(cells, const(middles(values)[:, None]))
        passed = op.cast(passed, to=np.float32)
        index = op.cast(op.reduce_sum(passed, const([0], np.int64)), to=np.int64)
        columns.append(op.gather(const(scores), index))
    return op.concat(columns, axis=0)


def _scores_back(y: Var, p: Parameters) -> Var:
    """Return `Scores.inverse` of scores [k, n]."""
    share = op.mul(op.add(op.erf(op.mul(y, const(np.sqrt(0.5)))), const(1)), const(CELLS / 2))
    share = op.clip(share, const(0), const(CELLS - 1))
    starts = const(CELLS * np.arange(p["table"].shape[1])[:, None], np.int64)
    return op.gather(const(p["table"].T.reshape(-1)), op.add(op.cast(share, to=np.int64), starts))


def _line(x: Var, p: Parameters) -> Var:
    return x


def _log(x: Var, p: Parameters) -> Var:
    return op.log(x)


def _exp(f: Var, p: Parameters) -> Var:
    return op.exp(op.clip(f, const(-87.0), const(88.0)))


def _within(turn: Var, p: Parameters) -> Var:
    period = const(p["period"])
    return op.sub(turn, op.mul(period, op.floor(op.div(turn, period))))


def _turn(x: Var, p: Parameters) -> Var:
    return _within(op.sub(x, const(p["cut"])), p)


def _turn_back(f: Var, p: Parameters) -> Var:
    turn = _within(op.sub(op.add(f, const(p["cut"])), const(p["low"])), p)
    turn = op.where(op.less(turn, const(p["period"])), turn, const(0))
    return op.min([op.add(const(p["low"]), turn), const(p["last"])])


def _between(x: Var, p: Parameters) -> Var:
    share = op.clip(op.div(op.sub(x, const(p["low"])), const(p["range"])), const(0), const(1))
    share = op.add(const(MARGIN), op.mul(const(1 - 2 * MARGIN), share))
    return op.log(op.div(share, op.sub(const(1), share)))


def _between_back(f: Var, p: Parameters) -> Var:
    share = op.div(op.sub(op.sigmoid(f), const(MARGIN)), const(1 - 2 * MARGIN))
    share = op.clip(share, const(0), const(1))
    x = op.add(const(p["low"]), op.mul(const(p["range"]), share))
    return op.min([x, const(p["high"])])


def _beyond(x: Var, p: Parameters) -> Var:
    distance = op.div(op.sub(x, const(p["wall"])), const(p["spread"]))
    t = op.add(const(MARGIN), op.max([distance, const(0)]))
    return op.add(t, op.log(op.sub(const(1), op.exp(op.neg(t)))))


def _beyond_back(f: Var, p: Parameters) -> Var:
    tail = op.log(op.add(const(1), op.exp(op.neg(op.abs(f)))))
    softplus = op.add(op.max([f, const(0)]), tail)
    t = op.max([op.sub(softplus, const(MARGIN)), const(0)])
    return op.add(const(p["wall"]), op.mul(const(p["spread"]), t))


def _bent(x: Var, p: Parameters) -> Var:
    t = op.div(op.sub(x, const(p["centre"])), const(p["width"]))
    size = op.abs(t)
    size = op.log(op.add(size, op.sqrt(op.add(op.mul(size, size), const(1)))))
    return op.where(op.less(t, const(0)), op.neg(size), size)


def _bent_back(f: Var, p: Parameters) -> Var:
    f = op.clip(f, const(-FARTHEST), const(FARTHEST))
    twice = op.sub(op.exp(f), op.exp(op.neg(f)))
    return op.add(const(p["centre"]), op.mul(const(p["width"] / 2), twice))


def _bent_slope(x: Var, p: Parameters) -> Var:
    t = op.div(op.sub(x, const(p["centre"])), const(p["width"]))
    grown = op.mul(const(0.5), op.log(op.add(op.mul(t, t), const(1))))
    return op.sub(const(-np.log(p["width"])), grown)


def _flat(x: Var, p: Parameters) -> Var:
    return op.mul(x, const(0))


def _log_slope(x: Var, p: Parameters) -> Var:
    positive = op.greater(x, const(0))
    return op.where(positive, op.neg(op.log(x)), minus_infinity())


def _turn_slope(x: Var, p: Parameters) -> Var:
    return _where_inside(x, p["low"], p["last"], const(0))


def _between_slope(x: Var, p: Parameters) -> Var:
    share = op.clip(op.div(op.sub(x, const(p["low"])), const(p["range"])), const(0), const(1))
    share = op.add(const(MARGIN), op.mul(const(1 - 2 * MARGIN), share))
    flat = op.mul(op.mul(const(p["range"]), share), op.sub(const(1), share))
    slope = op.log(op.div(const(1 - 2 * MARGIN), flat))
    return _where_inside(x, p["low"], p["high"], slope)


def _beyond_slope(x: Var, p: Parameters) -> Var:
    distance = op.div(op.sub(x, const(p["wall"])), const(p["spread"]))
    t = op.add(const(MARGIN), op.max([distance, const(0)]))
    flat = op.mul(const(np.abs(p["spread"])), op.sub(const(1), op.exp(op.neg(t))))
    inside = op.greater_or_equal(distance, const(0))
    return op.where(inside, op.neg(op.log(flat)), minus_infinity())


def _where_inside(x: Var, low: Singles, high: Singles, slope: Var) -> Var:
    """Return the slope between the ends, and minus infinity beyond."""
    inside = op.and_(op.greater_or_equal(x, const(low)), op.less_or_equal(x, const(high)))
    return op.where(inside, slope, minus_infinity())


class Graphs(NamedTuple):
    """A form's graphs: x to f(x) and back, and log |f'(x)|; see `Form` for the mathematics."""

    forward: Graph
    back: Graph
    log_slope: Graph


GRAPHS: dict[str, Graphs] = {
    "line": Graphs(_line, _line, _flat),
    "log": Graphs(_log, _exp, _log_slope),
    "turn": Graphs(_turn, _turn_back, _turn_slope),
    "between": Graphs(_between, _between_back, _between_slope),
    "above": Graphs(_beyond, _beyond_back, _beyond_slope),
    "below": Graphs(_beyond, _beyond_back, _beyond_slope),
    "bend": Graphs(_bent, _bent_back, _bent_slope),
    "scores": Graphs(_scores, _scores_back, _flat),
}
