"""Between rows in the user's units and the space that networks see, in both directions.

Each varying column becomes one standardised coordinate y = (f(x) - shift) / scale, with f the form
of its kind (`scgan_infer.kinds`), or its *score* where few numbers are repeated often (`Scores`).
Columns of one form are computed together, as a block; coordinates are in the blocks' order. Columns
of values steps apart are rounded on the way back; one that never varies is written as it was.

What the head draws (`discrete`) has no coordinate. Where a column has one, but the cell is missing
or heavy, the coordinate is filled: normal in training, 0 in graphs; ignored on the way back.

Everything here is computed twice: in numpy, and in the exported graphs, whose networks end in an
affine map that takes in scale and shift: the rows of y are graph_rows(scale y + shift).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.columns import Column, Table
from scgan_infer.kinds.bend import BEND
from scgan_train.coordinates import constraints, discrete
from scgan_train.coordinates.block import Block, upright
from scgan_train.coordinates.constraints import Constraint
from scgan_train.coordinates.describing import (
    JITTER_ABOVE,
    SMOOTH,
    describe,
    find_constraints,
    group,
    learned,
    present_cells,
)
from scgan_train.coordinates.discrete import Labels
from scgan_train.coordinates.effects import Effects, features_of, preferred, seen, slopes_of
from scgan_train.coordinates.forms import CELLS, MIDDLES, SCORES, Scores, edges, quantiles
from scgan_train.coordinates.margins import Margins
from scgan_train.coordinates.ranges import Ranges
from scgan_train.coordinates.rounding import LARGE, Rounding
from scgan_train.graph import Var, const, minus_infinity, op

Floats = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Coordinates:
    """A data set's map: `forward` to standardised coordinates, `inverse` back, in given precision.

    Attributes:
        outer: The d columns.
        constraints: What holds between them.
        columns: What coordinates are of: or of the remainder where that is learned instead.
        steps: What the head draws, h - 1 steps.
        dims: Number d' of coordinates; never 0: a table of discrete values alone has one of noise.
        index: The column of each coordinate, int64 [d'].
        ends: Between which values of each coordinate's column lie, float32 [2, d']; nan where they
            may leave the range that was seen.
        bends: Centre and width of each long-tailed column's coordinate, float32 [2, d']; else nan.
        tables: Of each coordinate that is a score, float32 [s, CELLS]; `scored` marks which.
        smooth: Which coordinates are scores of columns that may take unseen numbers, bool [d'].
        shift: float32 [d'].
        scale: float32 [d'].
        margins: Curves of coordinates; None without them.
        effects: Effects of discrete values on coordinates' means; None without any.
        ranges: Which ranges of f(x) they leave; None without any.
        constant: A row, float32 [d], for the columns that have no coordinate.
    """

    def __init__(self, columns: Sequence[Column], state: Mapping[str, NDArray[Any]]) -> None:
        self.outer = tuple(columns)
        self.constraints = constraints.load(columns, state)
        self.columns = constraints.inner(columns, self.constraints)
        self.steps = discrete.load(state)
        self.index: NDArray[np.int64] = state["index"]
        self.fitted, self.shift, self.scale, self.constant = (
            np.asarray(state[name], np.float32) for name in ("fitted", "shift", "scale", "constant")
        )
        self.dims = len(self.index)
        self.ends = np.asarray(state.get("ends", np.full((2, self.dims), np.nan)), np.float32)
        scores = np.asarray(state.get("scored", np.zeros(self.dims)))
        self.scored, self.smooth = scores > 0, scores == SMOOTH
        self.bends = np.asarray(state.get("bends", np.full((2, self.dims), np.nan)), np.float32)
        self.tables = np.asarray(state.get("tables", np.zeros((0, CELLS))), np.float32)
        self.margins = None
        if "margins" in state:
            curves = (state.get(name) for name in ("margins_missing", "margins_steps"))
            self.margins = Margins(state["margins"], *curves)
        self.effects, self.ranges = None, None
        sizes = tuple(step.size for step in self.steps)
        if "effects" in state:
            pairs = state.get("pairs", np.zeros((0, 2), np.int64))
            self.effects = Effects(state["effects"], sizes, state["spread"], pairs)
        if "low" in state:
            self.ranges = Ranges(state["low"], state["high"], sizes)
        self.slot = np.zeros(len(self.columns), np.int64)
        self.slot[self.index] = np.arange(self.dims)
        self.still = ~np.isin(np.arange(len(self.columns)), self.index)
        groups = groupby(
            range(self.dims),
            lambda k: group(
                self.columns[self.index[k]], int(scores[k]), bool(self.bends[0, k] < np.inf)
            ),
        )
        self.blocks = [self._block(list(positions)) for _, positions in groups]

    def _block(self, positions: list[int]) -> Block:
        span = slice(positions[0], positions[-1] + 1)
        columns = [self.columns[j] for j in self.index[span]]
        if self.scored[span].all():
            before = int(self.scored[: span.start].sum())
            low, high = edges(self.tables[before : before + len(positions)], self.smooth[span])
            rounding = Rounding.of(columns) if self.smooth[span.start] else None
            return Block(SCORES, self.index[span], span, {"low": low, "high": high}, rounding)
        form = columns[0].rules.form(columns[0])
        parameters = form.parameters(columns, self.fitted[span])
        if not np.isnan(self.bends[:, span]).any():
            form = BEND
            parameters = {"centre": self.bends[0, span], "width": self.bends[1, span]}
        block = Block(form, self.index[span], span, parameters, Rounding.of(columns))
        if form.name == "turn" or np.isnan(self.ends[:, span]).any():
            return block
        steps = np.array([column.step or 0.0 for column in columns], np.float32)
        return block.reflected(self.ends[0, span], self.ends[1, span], steps)

    @classmethod
    def fit(
        cls,
        table: Table,
        kept: NDArray[np.int64] | slice = slice(None),
        matches: Sequence[Constraint] | None = None,
        *,
        tails: bool = False,
        given: bool = False,
    ) -> Coordinates:
        """Return the coordinates of a table.

        Args:
            table: All rows; they say what is discrete and what varies, as for kinds and `resolve`.
            kept: The rows that train, from which alone forms, means and standard deviations come.
            matches: Constraints between the columns, if already known.
            tails: Whether values may leave the range that was seen.
            given: Whether the columns are given: numbers are not drawn, scored or constrained then.
        """
        if matches is None:
            matches = () if given else find_constraints(table, tails)
        inner = learned(table, matches)
        steps, values = discrete.find(inner, given), inner.values[kept]
        state: dict[str, Any] = {
            **describe(inner, values, steps, tails, given),
            **discrete.state(steps),
            **constraints.state(matches),
        }
        dims = len(state["index"])
        bare = cls(table.columns, state | {"shift": np.zeros(dims), "scale": np.ones(dims)})
        present = present_cells(values, steps)[:, bare.index]
        raw = np.where(present, bare._raw(bare._safe(values)), np.nan)
        counted = np.isfinite(raw).any(0)
        shift, deviation = np.zeros(dims), np.zeros(dims)
        shift[counted] = np.nanmean(raw[:, counted], 0)
        deviation[counted] = np.nanstd(raw[:, counted], 0)
        scale = np.where(deviation > 0, deviation, 1.0)
        # equal numbers are spread over their scores
        shift[bare.scored], scale[bare.scored] = 0.0, 1.0
        fitted = cls(table.columns, state | {"shift": shift, "scale": scale})
        if steps and not given:
            fitted.effects = fitted._effects(table.values[kept])
            fitted.ranges = fitted._ranges(raw, discrete.choose(steps, values))
        return fitted

    def _effects(self, x: Singles) -> Effects | None:
        """Return effects of discrete values on means in rows [n, d]; None where left to the map."""
        choice = self.choose(x)
        present, features = self.present(choice), self.features(choice)
        for block in self.blocks:
            if block.form.name == "turn":  # an angle has no mean
                present[:, block.positions] = False
        y = self.forward(x, np.random.default_rng(0), jitter=True).astype(np.float64)
        effects = Effects.fit(features, choice, y, present, self.slopes(choice))
        if effects is None:
            return None
        left = np.where(present, effects.forward(y, choice), y)
        slopes: Floats = np.where(present, -np.log(effects.spread), 0).sum(1)
        return effects if preferred(seen(features, choice), y, left, slopes) else None

    def _ranges(self, f: Floats, choice: Labels) -> Ranges | None:
        """Return the ranges that outcomes [n, h-1] leave to f(x) [n, d'], nan in cells without."""
        present = ~np.isnan(f) & ~self.scored
        for block in self.blocks:
            if block.form.name == "turn":  # an angle has no ends
                present[:, block.positions] = False
        return Ranges.find(f, present, choice, [step.size for step in self.steps])

    def features(self, choice: Labels) -> list[Floats]:
        """Return the features of each step's outcomes, see `features_of`, given rows' [n, h-1]."""
        return features_of(self._numbers, [step.size for step in self.steps], choice)

    def slopes(self, choice: Labels) -> list[Floats]:
        """Return the standardised number of each outcome of each step, see `slopes_of`."""
        return slopes_of(self._numbers, [step.size for step in self.steps], choice)

    @property
    def _numbers(self) -> list[Floats]:
        """The numbers of each step; none of names."""
        named = [self.columns[step.column].rules.named for step in self.steps]
        return [
            np.zeros(0) if name else step.numbers.astype(np.float64)
            for name, step in zip(named, self.steps, strict=True)
        ]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that make it again, with the columns: `Coordinates(columns, state)`."""
        return {
            "index": self.index,
            "fitted": self.fitted,
            "shift": self.shift,
            "scale": self.scale,
            "constant": self.constant,
            "ends": self.ends,
            "scored": np.where(self.smooth, SMOOTH, self.scored).astype(np.uint8),
            "tables": self.tables,
            **discrete.state(self.steps),
            **constraints.state(self.constraints),
            **({} if np.isnan(self.bends).all() else {"bends": self.bends}),
            **({"effects": e.table, "spread": e.spread} if (e := self.effects) else {}),
            **({"pairs": e.pairs} if e and len(e.pairs) else {}),
            **({"low": r.low, "high": r.high} if (r := self.ranges) else {}),
        }

    def _raw(self, x: Floats) -> Floats:
        parts = [block.form.coordinate(x[:, block.index], block.p) for block in self.blocks]
        return np.concatenate(parts, axis=1)

    def _safe(self, x: Floats) -> Floats:
        """Return rows [n, d] without missing cells, in float64."""
        wide = x.astype(np.float64)
        return np.where(np.isnan(wide), self.anchor, wide)

    @property
    def anchor(self) -> Singles:
        """A number [d] of each column, that stands where a cell is missing."""
        anchor = np.where(np.isnan(self.constant), np.float32(0), self.constant)
        for step in self.steps:
            if len(step.numbers) and np.isnan(self.constant[step.column]):
                anchor[step.column] = step.numbers[0]
        return np.asarray(anchor, np.float32)

    def choose(self, x: Floats) -> Labels:
        """Return the outcome of every step [n, h-1] of rows [n, d]."""
        return discrete.choose(self.steps, constraints.forward(x, self.constraints))

    def forward(
        self, x: Floats, rng: np.random.Generator | None = None, *, jitter: bool = False
    ) -> Floats:
        """Return coordinates [n, d'] of rows [n, d].

        Args:
            x: The rows.
            rng: Fills coordinates of cells that the head draws with normal numbers, and spreads
                equal numbers over their scores; without it, 0 and their middle.
            jitter: Whether numbers that are steps apart have noise of one step; see `dequantise`.
        """
        x = constraints.forward(x, self.constraints)
        if jitter:
            assert rng is not None
            x = self.dequantise(x, rng)
        safe = np.where(np.isnan(x), self.anchor, x) if self.steps else x
        raw = self._raw(safe)
        for block in self.blocks:
            if rng is not None and isinstance(block.form, Scores):
                part = safe[:, block.index]
                raw[:, block.positions] = block.form.within(part, block.p, rng.random(part.shape))
        y: Floats = (raw - self.shift) / self.scale
        choice = discrete.choose(self.steps, x)
        y = self.margins.inverse(y, self._gone(choice)) if self.margins else y
        y = self.effects.forward(y, choice) if self.effects else y
        if self.steps:
            filled = np.zeros(y.shape) if rng is None else rng.standard_normal(y.shape)
            y = np.where(present_cells(x, self.steps)[:, self.index], y, filled).astype(y.dtype)
        return y

    def present(self, choice: Labels) -> NDArray[np.bool_]:
        """Return which coordinates [n, d'] are used where outcomes are [n, h-1]."""
        present = np.ones((len(choice), self.dims), np.bool_)
        for k, step in enumerate(self.steps):
            present[:, self.index == step.column] = choice[:, [k]] == len(step.values)
        return present

    def gone(self, choice: Labels) -> dict[int, Bools]:
        """Return for each step with missing cells which rows [n] of outcomes [n, h-1] have one."""
        return {
            k: choice[:, k] == len(step.numbers)
            for k, step in enumerate(self.steps)
            if np.isnan(step.values).any()
        }

    def _gone(self, choice: Labels | None) -> Bools | None:
        """Return the curve that coordinates [n, d'] use, by outcomes [n, h-1]; None of one each."""
        if self.margins is None or choice is None:
            return None
        return self.margins.sides(self.gone(choice), len(choice))

    def _graph_gone(self, choice: Sequence[Var]) -> Var | None:
        """Return `_gone` as a graph, int64 [d', n], of outcomes in steps [n]."""
        if self.margins is None or self.margins.steps is None:
            return None
        masks = {-1: op.mul(choice[0], const(0, np.int64))}
        for k in set(self.margins.steps.tolist()) - {-1}:
            missing = const(len(self.steps[k].numbers), np.int64)
            masks[k] = op.cast(op.equal(choice[k], missing), to=np.int64)
        wide = {k: op.unsqueeze(mask, const([0], np.int64)) for k, mask in masks.items()}
        return op.concat([wide[k] for k in self.margins.steps.tolist()], axis=0)

    @property
    def continuous(self) -> bool:
        """Whether any column has numbers that are not drawn outright."""
        drawn = {step.column for step in self.steps if not step.rest}
        return not drawn.issuperset(self.index.tolist())

    def log_slope(self, x: Floats) -> Floats:
        """Return log |det dy/dx| [n] of rows [n, d], in the user's units.

        It is minus infinity outside the columns' domains, and where cells without coordinates have
        values never seen; NaN where a cell is missing or heavy and others of its column are not.
        """
        x = constraints.forward(x, self.constraints)
        total = np.zeros(len(x), x.dtype)
        if self.continuous:
            parts = [block.form.log_slope(x[:, block.index], block.p) for block in self.blocks]
            scale = np.log(self.unit.astype(x.dtype))
            slopes = np.concatenate(parts, 1) - scale
            if self.margins:
                y = (self._raw(x) - self.shift) / self.scale
                gone = self._gone(discrete.choose(self.steps, x))
                slopes = slopes + self.margins.log_slope(y, gone)
            total = slopes.sum(1, dtype=x.dtype)
        for j, values in self._listed():
            known = (x[:, j, None] == values) | (np.isnan(x[:, j, None]) & np.isnan(values))
            total[~known.any(1)] = -np.inf
        total[~present_cells(x, [step for step in self.steps if step.rest]).all(1)] = np.nan
        return total

    def _listed(self) -> list[tuple[int, Singles]]:
        """Return the columns whose cells are always one of some values, with those values."""
        listed = [(step.column, step.values) for step in self.steps if not step.rest]
        alone = set(np.flatnonzero(self.still).tolist()) - {step.column for step in self.steps}
        return listed + [(j, self.constant[[j]]) for j in sorted(alone)]

    def bounds(self, x: Singles, y: Floats) -> tuple[Floats, Floats]:
        """Return least and greatest coordinates [n, d'] rows [n, d] of coordinates y may have.

        They are y itself but where a number has an interval of scores.
        """
        x = constraints.forward(x, self.constraints)
        choice = discrete.choose(self.steps, x)
        safe = np.where(np.isnan(x), self.anchor, x) if self.steps else x
        known = self.whole(y, choice)
        low, high = known.copy(), known.copy()
        for block in self.blocks:
            if isinstance(block.form, Scores):
                part = safe[:, block.index]
                for side, share in ((low, 0.0), (high, 1.0)):
                    raw = block.form.within(part, block.p, np.full(part.shape, share))
                    side[:, block.positions] = (raw - self.shift[block.positions]) / self.scale[
                        block.positions
                    ]
        if self.effects:
            low, high = (self.effects.forward(side, choice) for side in (low, high))
        present = present_cells(x, self.steps)[:, self.index]
        return np.where(present, low, y), np.where(present, high, y)

    def whole(self, y: Floats, choice: Labels | None) -> Floats:
        """Return y' [n, d'], with the means of outcomes [n, h-1] added, of coordinates [n, d']."""
        if not self.effects:
            return y
        assert choice is not None
        return self.effects.inverse(y, choice)

    @property
    def unit(self) -> Singles:
        """By how much f(x) rises with each coordinate, float32 [d']."""
        return self.scale * self.effects.spread if self.effects else self.scale

    def inverse(self, y: Floats, choice: Labels | None = None) -> Floats:
        """Return rows [n, d] of coordinates [n, d'] and outcomes [n, h-1], all in their domains."""
        y = self.whole(y, choice)
        y = self.margins.forward(y, self._gone(choice)) if self.margins else y
        f = y * self.scale + self.shift
        if self.ranges:
            assert choice is not None
            f = self.ranges.hold(f, choice)
        x = np.empty((len(y), len(self.columns)), y.dtype)
        x[:] = self.constant
        for block in self.blocks:
            x[:, block.index] = block.rows(f[:, block.positions])
        for k, step in enumerate(self.steps):
            assert choice is not None
            x[:, step.column] = step.fill(x[:, step.column], choice[:, k])
        return constraints.inverse(x, self.constraints)

    def balanced(self, x: Singles, y: Floats, there: tuple[Bools, Bools]) -> Singles:
        """Return tables by which numbers are as frequent in generated rows as in training rows.

        Scores of generated rows are nearly normal, not quite: a table uses their ranks instead.

        Args:
            x: Training rows [n, d].
            y: Coordinates of generated rows [N, d'], behind their curves.
            there: Which of both are used, bool [n, d'] and [N, d']; a column's table stays where
                fewer generated rows do than it has cells.
        """
        from scipy.special import ndtri

        x, tables = constraints.forward(x, self.constraints), self.tables.copy()
        middles = ndtri(MIDDLES)
        for table, k in zip(tables, np.flatnonzero(self.scored), strict=True):
            scores = np.sort(y[there[1][:, k], k])
            if len(scores) >= CELLS:
                shares = np.searchsorted(scores, middles) / len(scores)
                cells = x[there[0][:, k], self.index[k]]
                table[:] = quantiles(cells, shares, bool(self.smooth[k]))
        return tables

    def dequantise(self, values: Floats, rng: np.random.Generator) -> Floats:
        """Return rows [n, d] with uniform noise of one step on stepped columns with many values.

        Only where the cell has a coordinate, and that is no score.
        """
        out, present = values.copy(), present_cells(values, self.steps)
        scored = set(self.index[self.scored].tolist())
        for j, column in enumerate(self.columns):
            if column.step is not None and column.rules.jitters and j not in scored:
                noise = rng.random(len(values), np.float32) - np.float32(0.5)
                if len(np.unique(values[:, j])) > JITTER_ABOVE:
                    out[:, j] += np.where(present[:, j], noise * np.float32(column.step), 0)
        return out

    def graph_choose(self, x: Var) -> list[Var]:
        """Return `choose` of rows [n, d] as graphs, [n] each."""
        return self._graph_chosen(self._graph_learned(x))

    def _graph_chosen(self, x: Var) -> list[Var]:
        """Return the outcomes [n] of rows [n, d] of what is learned, as graphs."""
        return [
            step.choose_graph(op.gather(x, const(step.column, np.int64), axis=1))
            for step in self.steps
        ]

    def graph_log_slope(self, x: Var) -> Var:
        """Return `log_slope` as a graph."""
        x = self._graph_learned(x)
        columns = op.transpose(x)
        cells = op.gather(columns, const(self.index, np.int64), axis=0)
        slopes = op.mul(op.where(op.isnan(cells), const(0), cells), const(0))
        if self.continuous:
            parts = [block.graph_log_slope(self._part(cells, block)) for block in self.blocks]
            slopes = op.sub(op.concat(parts, axis=0), const(upright(np.log(self.unit))))
            if self.margins:
                y = self._graph_standardised(cells)
                gone = self._graph_gone(self._graph_chosen(x))
                slopes = op.add(slopes, self.margins.log_slope_graph(y, gone))
        total = op.reduce_sum(slopes, const([0], np.int64), keepdims=0)
        for j, values in self._listed():
            column = op.gather(columns, const([j], np.int64), axis=0)
            numbers = np.where(np.isnan(values), np.float32(LARGE), values)  # constants are finite
            known = op.equal(column, const(upright(numbers)))
            if np.isnan(values).any():
                known = op.or_(known, op.isnan(column))
            seen = op.reduce_max(op.cast(known, to=np.float32), const([0], np.int64), keepdims=0)
            total = op.where(op.greater(seen, const(0)), total, minus_infinity())
        for step in self.steps:
            if step.rest:
                choice = step.choose_graph(op.gather(x, const(step.column, np.int64), axis=1))
                rest = op.equal(choice, const(len(step.values), np.int64))
                total = op.where(rest, total, op.sqrt(const(-1)))
        return total

    def graph_forward(self, x: Var) -> Var:
        """See `forward`, of rows [n, d] alone."""
        x = self._graph_learned(x)
        absent = self._graph_absent(x) if self.steps else None
        choice = self._graph_chosen(x) if self.effects or self.margins else []
        x = op.transpose(x)
        if not self._in_order:
            x = op.gather(x, const(self.index, np.int64), axis=0)
        if self.steps:
            x = op.where(op.isnan(x), const(upright(self.anchor[self.index])), x)
        y = self._graph_standardised(x)
        y = self.margins.inverse_graph(y, self._graph_gone(choice)) if self.margins else y
        if self.effects:
            y = op.sub(y, op.transpose(self.effects.mean_graph(choice)))
            y = op.div(y, const(upright(self.effects.spread)))
        if absent is not None:
            y = op.where(absent, const(0), y)
        return op.transpose(y)

    def _graph_standardised(self, cells: Var) -> Var:
        """Return (f(x) - shift) / scale of cells [d', n]."""
        parts = [block.graph_forward(self._part(cells, block)) for block in self.blocks]
        raw = op.sub(op.concat(parts, axis=0), const(upright(self.shift)))
        return op.div(raw, const(upright(self.scale)))

    @property
    def _in_order(self) -> bool:
        """Whether coordinates are those of all columns, in their order."""
        return np.array_equal(self.index, np.arange(len(self.columns)))

    def _part(self, y: Var, block: Block) -> Var:
        """Return the coordinates [k, n] of a block."""
        if len(self.blocks) == 1:
            return y
        index = np.arange(block.positions.start, block.positions.stop)
        return op.gather(y, const(index, np.int64), axis=0)

    def _graph_absent(self, x: Var) -> Var:
        """Return which cells [d', n] of rows [n, d] have no coordinate."""
        steps = {step.column: step for step in self.steps}
        rows = []
        for j in self.index.tolist():
            cells = op.gather(x, const(j, np.int64), axis=1)
            absent = op.isnan(cells)
            if j in steps:
                rest = const(len(steps[j].values), np.int64)
                absent = op.not_(op.equal(steps[j].choose_graph(cells), rest))
            rows.append(op.unsqueeze(absent, const([0], np.int64)))
        return op.concat(rows, axis=0)

    def graph_rows(self, f: Var, choice: Sequence[Var] = ()) -> Var:
        """Return rows [n, d] of y `unit` + shift [n, d'], not standardised; without effects f(x).

        Columns lie along axis 0: broadcasting along a short last axis is ten times slower.
        """
        plain = all(
            block.form.name == "line" and not (block.rounding or block.ends)
            for block in self.blocks
        )
        bare = not (self.steps or self.constraints or self.margins)
        if self._in_order and plain and bare:
            return f
        f = op.transpose(f)
        if self.effects:
            mean = op.transpose(self.effects.mean_graph(choice))
            f = op.add(f, op.mul(mean, const(upright(self.scale))))
        if self.margins:
            f = self.margins.graph(f, self.scale, self.shift, self._graph_gone(choice))
        if self.ranges:
            f = self.ranges.graph(f, choice)
        x = op.concat([block.graph_rows(self._part(f, block)) for block in self.blocks], axis=0)
        if not self._in_order:
            x = op.gather(x, const(self.slot, np.int64), axis=0)
        if self.still.any():
            still, constant = upright(self.still), upright(self.anchor)  # finite
            x = op.where(const(still, np.bool_), const(constant), x)
        if self.steps:
            cells = list(op.split(x, num_outputs=len(self.columns), axis=0))
            for step, outcome in zip(self.steps, choice, strict=True):
                wide = op.unsqueeze(outcome, const([0], np.int64))
                cells[step.column] = step.fill_graph(cells[step.column], wide)
            x = op.concat(cells, axis=0)
        return op.transpose(constraints.inverse_graph(x, self.constraints, len(self.columns)))

    def _graph_learned(self, x: Var) -> Var:
        return constraints.forward_graph(x, self.constraints, len(self.columns))
