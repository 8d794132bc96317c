"""Forms of coordinates as graphs: f(x), its inverse and slope of values [k, n], columns on axis 0.

Parameters are [k, 1]. Scores are only for training: their tables, `low` and `high`, are [CELLS, k].
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
from scgan_train.graph import Var, const, minus_infinity, op

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]
Graph: TypeAlias = Callable[[Var, Parameters], Var]

CELLS = 4096  # of probability, that a score's table has
MIDDLES = (np.arange(CELLS) + 0.5) / CELLS
BRIDGED = 0.02  # spreads, between numbers that others may lie between
INSIDE = 1e-3  # of a cell, that a score keeps from its ends, where the next cell may begin far away


class Scores(Form):
    """Normal scores: Phi(y) is the share of rows below x, somewhere within the share of x itself.

    The inverse uses a table of `CELLS`: in a cell the value is constant where it repeats, and rises
    from `low` to `high` where it is one of many (see `edges`). Score and value rise together there.
    """

    name = "scores"

    def coordinate(self, x: Floats, p: Parameters) -> Floats:
        """Return the middle of each value's scores."""
        return self.within(x, p, np.full(x.shape, 0.5))

    def within(self, x: Floats, p: Parameters, share: Floats) -> Floats:
        """Return scores at a share [n, k] of the way through each value's, or the nearest's."""
        columns = []
        for cells, part, low, high in zip(x.T, share.T, p["low"].T, p["high"].T, strict=True):
            pieces = Pieces.of(low, high)
            columns.append(pieces.scores(cells, part))
        return np.asarray(np.stack(columns, 1), x.dtype)

    def inverse(self, y: Floats, p: Parameters) -> Floats:
        """Return the values at the shares of rows that the scores are."""
        from scipy.special import ndtr

        position = CELLS * ndtr(y)
        cell = np.clip(np.floor(position), 0, CELLS - 1).astype(np.int64)
        low, high = (np.take_along_axis(p[name], cell, 0) for name in ("low", "high"))
        return np.asarray(low + np.clip(position - cell, 0, 1) * (high - low), y.dtype)


SCORES = Scores()


class Pieces(NamedTuple):
    """The scores of a column's values, piece by piece, ascending: a value's, or rising with them.

    Attributes:
        starts: Least value of each piece but the first, float32.
        origin: Value where a piece that rises begins.
        width: How far it goes; 0 of a piece that is one value.
        first: Position of its first score, in cells.
        last: That of its last.
    """

    starts: Singles
    origin: Floats
    width: Floats
    first: Floats
    last: Floats

    @property
    def ends(self) -> tuple[Floats, Floats]:
        """Score where each piece begins, and where it ends."""
        return _score(self.first), _score(self.last)

    @classmethod
    def of(cls, low: Singles, high: Singles) -> Pieces:
        """Return the pieces of a table, the values [CELLS] at both ends of its cells."""
        cells = np.arange(CELLS)
        # a value's first cell
        begins = np.append(True, (low[1:] != low[:-1]) | (high[1:] != high[:-1]))
        first, last = cells[begins], np.append(cells[begins][1:], CELLS)
        low, high = low[begins].astype(np.float64), high[begins].astype(np.float64)
        starts = np.where(high[:-1] < low[1:], (high[:-1] + low[1:]) / 2, low[1:])
        return cls(starts.astype(np.float32), low, high - low, first + 0.0, last + 0.0)

    def scores(self, x: Floats, share: Floats) -> Floats:
        """Return the scores of values [n] at a share [n] of the way through those of a value."""
        index = np.searchsorted(self.starts, x.astype(np.float32), side="right")
        origin, width, first, last = (part[index] for part in self[1:])
        rises = width > 0
        start, end = (part[index] for part in self.ends)
        way = np.clip((x - origin) / np.where(rises, width, 1), INSIDE, 1 - INSIDE)
        flat = _score(first + share * (last - first))
        return np.where(rises, start + way * (end - start), flat)


def edges(tables: Singles, smooth: NDArray[np.bool_]) -> tuple[Singles, Singles]:
    """Return values [CELLS, k] at both ends of the cells, of tables [k, CELLS] of values amid them.

    Both are the value itself where a column is not smooth, beside an equal value or a far one.
    """
    low, high = tables.copy(), tables.copy()
    gap = np.diff(tables, axis=1)
    still = np.zeros((len(tables), 1), np.bool_)
    alone = ~(np.hstack([gap == 0, still]) | np.hstack([still, gap == 0]))
    near = gap < BRIDGED * tables.std(1, keepdims=True, dtype=np.float64)
    bridged = smooth[:, None] & alone[:, 1:] & alone[:, :-1] & near
    corners = (tables[:, :-1] + gap / 2).astype(np.float32)
    high[:, :-1][bridged] = corners[bridged]
    low[:, 1:][bridged] = corners[bridged]
    return low.T, high.T


def quantiles(present: Singles, shares: Floats = MIDDLES, smooth: bool = False) -> Singles:
    """Return the values [CELLS] below which such shares of the rows [n] lie.

    Where a column is smooth, they lie between those of rows that are near and repeat no number.
    """
    rows, n = np.sort(present), len(present)
    if not n:
        return np.zeros(len(shares), np.float32)
    values = rows[np.minimum(shares * n, n - 1).astype(np.int64)]
    if not smooth or n < 2:
        return values
    position = np.clip(shares * n - 0.5, 0, n - 1)
    before = np.minimum(position.astype(np.int64), n - 2)
    same = rows[1:] == rows[:-1]
    repeats = np.append(False, same) | np.append(same, False)
    gap = rows[before + 1] - rows[before]
    near = gap < BRIDGED * rows.std(dtype=np.float64)
    bridged = near & ~repeats[before] & ~repeats[before + 1]
    return np.where(bridged, rows[before] + (position - before) * gap, values).astype(np.float32)


def _score(position: Floats) -> Floats:
    """Return the score at a position among the cells."""
    from scipy.special import ndtri

    limit = ndtri(0.25 / CELLS)
    return np.asarray(np.clip(ndtri(position / CELLS), limit, -limit))


def _scores(x: Var, p: Parameters) -> Var:
    """Return `Scores.coordinate` of values [k, n]: the score of the nearest value that has one."""
    columns, k = [], p["low"].shape[1]
    for low, high, cells in zip(p["low"].T, p["high"].T, op.split(x, num_outputs=k), strict=True):
        pieces = Pieces.of(low, high)
        passed = op.greater_or_equal(cells, const(pieces.starts[:, None]))
        passed = op.cast(passed, to=np.float32)
        index = op.cast(op.reduce_sum(passed, const([0], np.int64)), to=np.int64)
        rises, (start, end) = pieces.width > 0, pieces.ends
        height = np.where(rises, start, _score((pieces.first + pieces.last) / 2))
        if not rises.any():
            columns.append(op.gather(const(height), index))
            continue
        inverse = np.where(rises, 1 / np.where(rises, pieces.width, 1), 0)
        way = op.sub(cells, op.gather(const(pieces.origin), index))
        way = op.mul(way, op.gather(const(inverse), index))
        way = op.clip(way, const(INSIDE), const(1 - INSIDE))
        slope = op.gather(const(np.where(rises, end - start, 0)), index)
        columns.append(op.add(op.gather(const(height), index), op.mul(way, slope)))
    return op.concat(columns, axis=0)


def _scores_back(y: Var, p: Parameters) -> Var:
    """Return `Scores.inverse` of scores [k, n]."""
    half = const(CELLS / 2)
    # from the middle, which rounds less
    position = op.mul(op.erf(op.mul(y, const(np.sqrt(0.5)))), half)
    cell = op.clip(op.floor(op.add(position, half)), const(0), const(CELLS - 1))
    starts = const(CELLS * np.arange(p["low"].shape[1])[:, None], np.int64)
    index = op.add(op.cast(cell, to=np.int64), starts)
    low = op.gather(const(p["low"].T.reshape(-1)), index)
    rise = p["high"] - p["low"]
    if not rise.any():
        return low
    way = op.clip(op.sub(position, op.sub(cell, half)), const(0), const(1))
    return op.add(low, op.mul(op.gather(const(rise.T.reshape(-1)), index), way))


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
