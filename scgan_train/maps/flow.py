"""A triangular spline flow: the map `flow`.

In a cluster's frame noise w becomes a row coordinate by coordinate:

    v_j = s(w_j; knots that a small network computes from v_1 .. v_(j-1) and the cluster)

with s a monotone rational-quadratic spline on [-4, 4] and the identity outside (Durkan et al. 2019,
"Neural spline flows"). Training goes the other way, w = g^-1(v), where all coordinates are known,
and descends

    - log p(v) = |w|^2 / 2 - sum_j log dw_j/dv_j.

Where a table has discrete values, the networks see an embedding of each, too, beside the
coordinates before theirs. Of few rows, a network sees only those that its coordinate is found to
depend on, and their effects on means in the clusters' frames are subtracted before (`effects`):

    eps = mu_i + M_i (m(s) + spread flow(w, i, s))

Given numbers h come first in the frame, whose factor is triangular. So their noise a is known, the
Gaussian of the latents given them comes free, and the flow moves the other noise, seeing a:

    a = F_hh^-1 (h - mu_h), within +-6;      eps = mu_e + F_eh a + F_ee flow(w; a)

Such a flow overfits more easily, so it is trained in bursts, and the weights that are best on rows
kept back stay, even if they are the identity.

The least smooth coordinate comes first, so that smooth ones are conditioned on those that jump,
and not the other way round. From five coordinates on, a second layer takes them in reverse order.

Above `NARROW` dimensions a frame is the cluster's principal axes, the widest first, and only the
leading ones are moved; the others stay Gaussian. One layer of the flow, trained for a while on the
first `MOST_LEADING`, decides how many: the gain of coordinate j on rows kept back,

    E[log p(v_j | v_1 .. v_(j-1))] - E[log N(v_j)],

does not depend on coordinates after j.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from scgan_train import graph
from scgan_train.coordinates.effects import MOST, Effects, hanging
from scgan_train.fitting.loop import Phase, Player, Selected
from scgan_train.graph import Var, const, copied, op
from scgan_train.latents.clusters import NARROW, Clusters
from scgan_train.maps.base import (
    Affine,
    Invertible,
    Mapper,
    affine_graph,
    cluster_of,
    lengths,
    log_normal,
    log_normal_graph,
)

BINS = 8
BOUND = 4.0  # of a spline, and of the logarithms that make it
TWO_LAYERS = 5  # dimensions from which one order of the coordinates is not enough
BATCH = 256
JITTER = 0.02  # noise on training rows, in the cluster's frame
MOST_LEADING = 24  # directions of a wide cluster that may be moved
PROBE = 0.2  # share of the steps that choose how many are
ENOUGH = 0.005  # nats a row that one more must gain
BACK = 0.1  # share of the rows that decide it, and are kept back meanwhile
EMBEDDING = 8  # numbers that represent a discrete value
TOGETHER = 16  # clusters whose densities a graph computes at once: what they hold stays small
BURSTS = (0.125, 0.125, 0.25, 0.5)  # of the steps, where columns are given
GAIN = 0.001  # nats a row that a longer training must gain then
FARTHEST = 6.0  # standard deviations that a given number is taken to be from its cluster


class Spline:
    """Monotone rational-quadratic splines of [-4, 4] onto itself, the identity outside.

    Args:
        raw: [..., 3 BINS - 1] real numbers; logarithms of the bins' widths and heights, up to a
            factor each, and of the slopes at inner knots. All 0: the identity.
    """

    def __init__(self, raw: Tensor) -> None:
        widths, heights, slopes = torch.split(raw.clamp(-BOUND, BOUND), [BINS, BINS, BINS - 1], -1)
        self.x, self.y = (
            BOUND * (2 * pad(logits.softmax(-1).cumsum(-1), (1, 0)) - 1)
            for logits in (widths, heights)
        )
        self.slopes = pad(slopes, (1, 1)).exp()

    def forward(self, x: Tensor) -> Tensor:
        """Return the values [...] at x [...]."""
        inside = x.clamp(-BOUND, BOUND)
        left, low, width, height, start, end = self._bin(inside, self.x)
        z = (inside - left) / width
        mean, bend = height / width, z * (1 - z)
        y = low + height * (mean * z * z + start * bend) / (mean + (start + end - 2 * mean) * bend)
        return y + (x - inside)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x [...] with spline(x) = y, and log dx/dy [...]."""
        inside = y.clamp(-BOUND, BOUND)
        left, low, width, height, start, end = self._bin(inside, self.y)
        rise, mean = (inside - low) / height, height / width
        twist = start + end - 2 * mean
        a, b = mean - start + rise * twist, start - rise * twist
        z = 2 * mean * rise / (b + (b * b + 4 * a * mean * rise).clamp(min=1e-12).sqrt())
        bend = z * (1 - z)
        slope = (end * z * z + 2 * mean * bend + start * (1 - z).square()) * (
            mean / (mean + twist * bend)
        ).square()
        return left + z * width + (y - inside), torch.where(inside == y, -slope.log(), 0.0)

    def _bin(self, at: Tensor, knots: Tensor) -> tuple[Tensor, ...]:
        """Return corner, width, height and slopes at both ends of the bins that `at` falls in."""
        index = (knots[..., 1:-1] <= at.unsqueeze(-1)).sum(-1, keepdim=True)
        (left, right), (low, high), (start, end) = (
            some.gather(-1, torch.cat([index, index + 1], -1)).unbind(-1)
            for some in (self.x, self.y, self.slopes)
        )
        return left, low, right - left, high - low, start, end


def _bins_graph(x: Var, raw: Var, *, back: bool) -> Sequence[Var]:
    """Return the bins of numbers [1, n], or with `back` of values: see the last line, [1, n] each.

    Knots are times the unnormalised sum of their sizes, width and height. Around the slopes, raw
    [3 BINS + 1, n] holds rows of zeros, for slopes 1 at both ends. One product makes knots, sums
    and slopes, looked up together: a row at a time costs as much as its operators are many.
    """
    parts = op.exp(op.clip(raw, const(-BOUND), const(BOUND)))
    knots = BOUND * (2 * np.tri(BINS + 1, BINS, -1) - 1)
    sums = np.kron(np.eye(2), np.concatenate([knots, np.ones((1, BINS))]))
    wide, slopes = len(sums), BINS + 1
    table = np.zeros((wide + slopes, 2 * BINS + slopes))
    table[:wide, : 2 * BINS], table[wide:, 2 * BINS :] = sums, np.eye(slopes)
    rows = op.matmul(const(table), parts)
    first = 1 + (BINS + 2) * back  # of the inner knots of x or y
    inner, width, height = (
        op.slice(rows, lengths([start]), lengths([end]), lengths([0]))
        for start, end in ((first, first + BINS - 1), (BINS + 1, BINS + 2), (wide - 1, wide))
    )
    size = height if back else width
    inside = op.clip(x, const(-BOUND), const(BOUND))
    at = op.mul(inside, size)
    passed = op.cast(op.less_or_equal(inner, at), to=np.float32)
    index = op.cast(op.matmul(const(np.ones((1, BINS - 1))), passed), to=np.int64)
    corners = np.add.outer(np.arange(3) * (BINS + 2), np.arange(2)).reshape(6, 1)
    gathered = op.gather_elements(rows, op.add(index, const(corners, np.int64)), axis=0)
    left, right, low, high, start, end = op.split(gathered, lengths([1] * 6), axis=0)
    run, rise = op.sub(right, left), op.sub(high, low)
    mean = op.div(op.mul(rise, width), op.mul(run, height))
    return inside, at, width, height, left, run, low, rise, mean, start, end


SHAPES = (1, "n"), (3 * BINS + 1, "n")  # of numbers and of what `_bins_graph` takes


@copied(*SHAPES)
def spline_graph(x: Var, raw: Var) -> Sequence[Var]:
    """Return `Spline(raw).forward(x)` of x [1, n] as a graph; raw as `_bins_graph` takes it."""
    inside, at, _, height, left, run, low, rise, mean, start, end = _bins_graph(x, raw, back=False)
    z = op.div(op.sub(at, left), run)
    square = op.mul(z, z)
    bend = op.sub(z, square)
    above = op.add(op.mul(mean, square), op.mul(start, bend))
    below = op.add(mean, op.mul(op.sub(op.sub(op.add(start, end), mean), mean), bend))
    y = op.div(op.add(low, op.mul(rise, op.div(above, below))), height)
    return [op.add(y, op.sub(x, inside))]


@copied(*SHAPES)
def inverse_spline_graph(y: Var, raw: Var) -> Sequence[Var]:
    """Return `Spline(raw).inverse` of y [1, n] as graphs, [1, n] each; raw as in `_bins_graph`."""
    inside, at, width, _, left, run, low, step, mean, start, end = _bins_graph(y, raw, back=True)
    rise = op.div(op.sub(at, low), step)
    twist = op.sub(op.sub(op.add(start, end), mean), mean)
    b = op.sub(start, op.mul(rise, twist))
    a = op.add(op.sub(mean, start), op.mul(rise, twist))
    twice = op.mul(const(2), op.mul(mean, rise))
    root = op.add(op.mul(b, b), op.mul(op.mul(const(2), a), twice))
    z = op.div(twice, op.add(b, op.sqrt(op.max([root, const(1e-12)]))))
    rest = op.sub(const(1), z)
    bend = op.mul(z, rest)
    slope = op.add(op.mul(op.mul(end, z), z), op.mul(op.mul(start, rest), rest))
    slope = op.add(slope, op.mul(op.mul(const(2), mean), bend))
    ratio = op.div(mean, op.add(mean, op.mul(twist, bend)))
    logs = op.neg(op.log(op.mul(slope, op.mul(ratio, ratio))))
    logs = op.where(op.equal(inside, y), logs, const(0))
    x = op.div(op.add(left, op.mul(z, run)), width)
    return op.add(x, op.sub(y, inside)), logs


class Triangular(nn.Module):
    """One layer: e networks, the j-th of the context, the coordinates before j and the cluster.

    The context are c numbers a row that hold from the start; there may be none.
    """

    before: Tensor
    seen: Tensor | None = None

    def __init__(
        self, clusters: int, e: int, hidden: int, generator: torch.Generator, context: int = 0
    ) -> None:
        super().__init__()

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.first = uniform(math.sqrt(6 / e), e, e, hidden)
        self.first_bias = uniform(1.0, clusters, e, hidden)
        self.second = uniform(1.5 * math.sqrt(3 / hidden), e, hidden, hidden)
        self.second_bias = nn.Parameter(torch.zeros(e, 1, hidden))
        self.last = nn.Parameter(torch.zeros(e, hidden, 3 * BINS - 1))
        self.context = uniform(math.sqrt(3 / context), e, context, hidden) if context else None
        self.register_buffer("before", torch.ones(e, e).tril(-1), persistent=False)

    def see(self, seen: Tensor) -> None:
        """Let each network see only context numbers that are not 0 in its line of `seen` [e, c]."""
        assert self.context is not None
        self.seen = seen.unsqueeze(2).to(self.context)
        with torch.no_grad():
            self.context.mul_(self.seen)

    def splines(
        self, v: Tensor, cluster: Tensor, context: Tensor | None, columns: slice = slice(None)
    ) -> Spline:
        """Return splines for `columns` of v [n, e], by coordinates before, clusters [n], context.

        There may be fewer coordinates than networks.
        """
        e = v.shape[1]
        columns = slice(*columns.indices(e))
        known = v.unsqueeze(1) * self.before[columns, :e]  # [n, columns, e]
        bias = self.first_bias[:, columns][cluster].transpose(0, 1)
        hidden = known.transpose(0, 1) @ self.first[columns, :e] + bias
        if context is not None and self.context is not None:
            weights = self.context[columns]
            hidden = hidden + context @ (
                weights if self.seen is None else weights * self.seen[columns]
            )
        hidden = silu(hidden)
        hidden = silu(hidden @ self.second[columns] + self.second_bias[columns])
        return Spline((hidden @ self.last[columns]).transpose(0, 1))

    def inverse(
        self, v: Tensor, cluster: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return w [n, e] and log |det dw/dv| [n] of v [n, e] by clusters [n], context [n, c]."""
        w, logs = self.splines(v, cluster, context).inverse(v)
        return w, logs.sum(1)

    def forward(self, w: Tensor, cluster: Tensor, context: Tensor | None = None) -> Tensor:
        """Return v [n, e], a coordinate a pass."""
        v = w  # of which a network sees what is done
        for j in range(w.shape[1]):
            column = slice(j, j + 1)
            moved = self.splines(v, cluster, context, column).forward(w[:, column])
            v = torch.cat([v[:, :j], moved, v[:, j + 1 :]], 1)
        return v

    def _padded(self) -> Tensor:
        """Return the last weights with zeros around the slopes', as `spline_graph` takes them."""
        sizes, slopes = torch.split(self.last, [2 * BINS, BINS - 1], -1)
        return torch.cat([sizes, pad(slopes, (1, 1))], -1)

    def graph(self, w: Sequence[Var], cluster: Var, context: Var | None) -> Sequence[Var]:
        """Return `forward` of coordinates [1, n] each and context [c, n]: small steps.

        Without context the first comes from a table. A cluster's bias is the weight of its
        indicator: to add a gathered row to a product takes longer.
        """
        last, v = self._padded(), list[Var]()
        clusters = const(np.arange(len(self.first_bias))[:, None], np.int64)
        known = [op.cast(op.equal(clusters, cluster), to=np.float32)]
        if context is None:
            table = silu(silu(self.first_bias[:, 0]) @ self.second[0] + self.second_bias[0])
            raw = op.gather(const(table @ last[0]), cluster)
            v = spline_graph(w[0], op.transpose(raw))
        else:
            known.append(context)
        for j in range(len(v), len(w)):
            weights = [self.first_bias[:, j], self.first[j, :j]]
            if self.context is not None:
                weights.insert(1, self.context[j])
            x = op.concat([*known, *v], axis=0)
            hidden = graph.silu(op.gemm(x, const(torch.cat(weights)), transA=1))
            second, bias = const(self.second[j]), const(self.second_bias[j, 0])
            hidden = graph.silu(op.gemm(hidden, second, bias))
            v += spline_graph(w[j], op.gemm(const(last[j]), hidden, transA=1, transB=1))
        return v

    def inverse_graph(self, v: Var, e: int, part: slice, context: Var | None) -> tuple[Var, Var]:
        """Return `inverse` as graphs: w [k, n, e], logs [k, n] of v [k, n, e] in some clusters."""
        first, last = (self.first * self.before.unsqueeze(2))[:, :e], self._padded()
        size = len(self.first_bias[part])
        inverses = []
        coordinates = op.split(v, lengths([1] * e), axis=2)
        for j in range(e):
            hidden = op.matmul(v, const(first[j]))
            hidden = op.add(hidden, const(self.first_bias[part, j].unsqueeze(1)))
            if context is not None and self.context is not None:
                hidden = op.add(hidden, op.matmul(context, const(self.context[j])))
            hidden = op.matmul(graph.silu(hidden), const(self.second[j]))
            hidden = graph.silu(op.add(hidden, const(self.second_bias[j])))
            flat = op.reshape(hidden, lengths([-1, self.last.shape[1]]))
            raw = op.gemm(const(last[j]), flat, transA=1, transB=1)
            inverses.append(inverse_spline_graph(op.reshape(coordinates[j], lengths([1, -1])), raw))
        w, logs = (
            op.reshape(op.transpose(op.concat(parts, axis=0)), lengths([size, -1, e]))
            for parts in zip(*inverses, strict=True)
        )
        return w, op.reduce_sum(logs, const([2], np.int64), keepdims=0)


class FlowMapper(Mapper, Invertible):
    """g_i(w) = mu_i + M_i flow(w, i), M_i a cluster's Cholesky factor in the flow's order, or axes.

    Attributes:
        given: how many given numbers come first in the frame, p.
        order: of the frame's coordinates, [p + e].
        leading: how many coordinates are moved; 0 before it is known.
        effects: effects of discrete values on means in the frames; None without any.
    """

    effects: Effects | None = None

    order: Tensor
    leading: Tensor
    means: Tensor
    spread: Tensor

    @staticmethod
    def defaults(e: int, rows: int, steps: int = 0) -> dict[str, Any]:
        """Return as many steps as the rows bear before the flow copies them.

        >>> [FlowMapper.defaults(4, rows)["steps"] for rows in (100, 1000, 5000, 10**6)]
        [164, 653, 1715, 2600]

        Fewer where rows differ in discrete values, too:

        >>> [FlowMapper.defaults(4, rows, 1)["steps"] for rows in (100, 1000, 5000, 10**6)]
        [16, 207, 1213, 2600]
        """
        share, layers = min(1.0, rows / 10_000), 1 if e < TWO_LAYERS else 2
        iterations = round(2600 * share ** (1.1 if steps else 0.6))
        return {"width": 64, "steps": iterations, "lr": 5e-3, "layers": layers}

    @staticmethod
    def most_clusters(e: int) -> int:
        """Return three a dimension, up to 16, or 32 of a wide table: it shares what is common."""
        return min(16, 3 * e) if e <= NARROW else 32

    def build(self, generator: torch.Generator, sizes: Sequence[int]) -> None:
        clusters, config, given = self.clusters, self.config, self.given
        size, e = len(clusters), self.noise
        context = given + EMBEDDING * len(sizes)
        most = e if given else min(e, MOST_LEADING)
        self._layers = [
            Triangular(size, most, int(config.width), generator, context)
            for _ in range(int(config.layers))
        ]
        self.layers = nn.ModuleList(self._layers)
        self.embeddings = nn.ParameterList(
            torch.randn(outcomes, EMBEDDING, generator=generator) for outcomes in sizes
        )
        self.lay_out(chosen=e > NARROW and not given)  # given numbers need a triangular frame

    def lay_out(self, *, chosen: bool) -> None:
        """Make the frame: principal axes, if leading ones are chosen, or triangular, all moved."""
        clusters, given, e = self.clusters, self.given, self.noise
        coordinates = torch.arange(e) if chosen else coordinate_order(clusters, given)
        order = torch.cat([torch.arange(given), given + coordinates])
        ordered = clusters.factors.double()[:, order]
        covariances = ordered @ ordered.mT
        factors = (principal_axes if chosen else torch.linalg.cholesky)(covariances).float()
        self.frame = Affine(clusters.means[:, order], factors)
        self.chosen = chosen
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("leading", torch.tensor(0 if chosen else e), persistent=chosen)

    def follow(self, effects: Effects) -> None:
        """Let means in the frames, in the flow's order, follow discrete values."""
        self.effects = effects
        self.register_buffer("means", torch.from_numpy(effects.table))
        self.register_buffer("spread", torch.from_numpy(effects.spread))
        if len(effects.pairs):
            self.register_buffer("pairs", torch.from_numpy(effects.pairs))

    def _mean(self, choice: Tensor) -> Tensor:
        """Return means [n, e] in the frames where there are effects, of choices."""
        assert self.effects
        sizes = self.effects.sizes
        both = [choice[:, k] * sizes[m] + choice[:, m] for k, m in self.effects.pairs.tolist()]
        outcomes = torch.cat([choice[:, : len(sizes)], *(each[:, None] for each in both)], 1)
        starts = torch.from_numpy(self.effects.starts[:-1]).to(choice)
        mean: Tensor = self.means[outcomes + starts].sum(1)
        return mean

    def context(self, choice: Tensor, a: Tensor) -> Tensor | None:
        """Return what networks see [n, c]: given numbers' noise a [n, p], choices' discrete values.

        None where there are neither.
        """
        parts = [a] if self.given else []
        parts += [table[choice[:, k]] for k, table in enumerate(self.embeddings)]
        return torch.cat(parts, 1) if parts else None

    def context_graph(self, choice: Sequence[Var]) -> Var:
        """Return embeddings of `context` as a graph, of a choice in steps [n]; some must exist."""
        parts = [
            op.gather(const(table), outcomes)
            for table, outcomes in zip(self.embeddings, choice, strict=False)
        ]
        return parts[0] if len(parts) == 1 else op.concat(parts, axis=1)

    def known(self, given: Tensor, cluster: Tensor) -> Tensor:
        """Return the noise a [n, p] of given numbers [n, p] in the frames of clusters [n]."""
        return self._parts[0].inverse(given, cluster).clamp(-FARTHEST, FARTHEST)

    def forward(self, w: Tensor, choice: Tensor, given: Tensor | None = None) -> Tensor:
        """Return latents [n, e]."""
        cluster, a = cluster_of(choice), w[:, :0]
        if given is not None and self.given:
            a = self.known(given, cluster)
        context = self.context(choice, a)
        v, rest = w[:, : int(self.leading)], w[:, int(self.leading) :]
        for depth in reversed(range(len(self.layers))):
            v = self._layers[depth](v, cluster, context)
            v = v.flip(1) if depth else v
        every = torch.cat([a, v, rest], 1)
        if self.effects:
            every = every * self.spread + self._mean(choice)
        latents: Tensor = self.frame(every, cluster)[:, self._back]
        return latents

    @property
    def _back(self) -> Tensor:
        """Where the latents [e] are in the frame."""
        return torch.argsort(self.order)[self.given :]

    def graph(self, w: Var, choice: Sequence[Var], given: Var | None = None) -> Var:
        """Return `forward` as a graph, features along axis 0."""
        known, p = [], self.given
        if given is not None and p:
            whiten = torch.linalg.inv(self.frame.factors[:, :p, :p].double())
            start = -whiten @ self.frame.means[:, :p].double().unsqueeze(2)
            tables = torch.cat([whiten.mT, start.mT], 1)
            a = affine_graph(tables, op.transpose(given), choice[-1])
            known = [op.clip(a, const(-FARTHEST), const(FARTHEST))]
        seen = list(known)
        if len(self.embeddings):
            seen.append(op.transpose(self.context_graph(choice)))
        context = op.concat(seen, axis=0) if len(seen) > 1 else next(iter(seen), None)
        moved, noise = int(self.leading), op.transpose(w)
        sizes = [1] * moved + [self.noise - moved] * (moved < self.noise)
        parts = op.split(noise, lengths(sizes), axis=0) if len(sizes) > 1 else (noise,)
        v, rest = list(parts[:moved]), list(parts[moved:])
        for depth in reversed(range(len(self.layers))):
            layer = self._layers[depth]
            if layer.last.any():  # else it is the identity
                v = list(layer.graph(v, choice[-1], context))
            v = v[::-1] if depth else v
        frame = Affine(self.frame.means[:, self._back], self.frame.factors[:, self._back])
        every = op.transpose(op.concat([*known, *v, *rest], axis=0))
        if self.effects:
            every = op.mul(every, const(self.spread))
            every = op.add(every, self.effects.mean_graph(choice))
        return frame.graph(every, choice)

    def whitened(self, latents: Tensor, choice: Tensor) -> Tensor:
        """Return given numbers and latents [n, p + e] in clusters' frames, in the flow's order."""
        v = self.frame.inverse(latents[:, self.order], cluster_of(choice))
        return (v - self._mean(choice)) / self.spread if self.effects else v

    def loss(self, v: Tensor, choice: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return minus the mean log p of rows v [b, p + e] in clusters' frames, given first p."""
        a, w = v[:, : self.given].clamp(-FARTHEST, FARTHEST), v[:, self.given :]
        logs = self.log_density(w, cluster_of(choice), self.context(choice, a))
        return {"minus_log_likelihood": -logs.mean()}

    @torch.no_grad()
    def judge(self, latents: Tensor, choice: Tensor) -> float:
        v = self.whitened(latents, choice)
        return float(self.loss(v, choice, torch.Generator())["minus_log_likelihood"])

    def log_density(self, v: Tensor, cluster: Tensor, context: Tensor | None) -> Tensor:
        """Return the log-density [n] of rows v [n, e] in the frames of clusters [n]."""
        w, rest = v[:, : int(self.leading)], v[:, int(self.leading) :]
        gained = log_normal(rest)
        for depth, layer in enumerate(self._layers):
            w, logs = layer.inverse(w.flip(1) if depth else w, cluster, context)
            gained = gained + logs
        return log_normal(w) + gained

    @property
    def _parts(self) -> tuple[Affine, Affine, Tensor]:
        """Frames of given numbers, of latents in the flow's order, and how these follow, F_eh."""
        means, factors, p = self.frame.means, self.frame.factors, self.given
        known = Affine(means[:, :p], factors[:, :p, :p])
        return known, Affine(means[:, p:], factors[:, p:, p:]), factors[:, p:, :p]

    def log_densities(self, latents: Tensor, choice: Tensor, given: Tensor | None = None) -> Tensor:
        known, made, follow = self._parts
        ordered = latents[:, self.order[self.given :] - self.given]
        a, v = latents[:, :0].expand(len(self.clusters), -1, -1), made.whitened(ordered)
        if given is not None and self.given:
            a = known.whitened(given).clamp(-FARTHEST, FARTHEST)
            v = v - torch.linalg.solve_triangular(made.factors, follow @ a.mT, upper=False).mT
        slopes = made.log_slopes().to(latents)
        if self.effects:
            v, slopes = (v - self._mean(choice)) / self.spread, slopes - self.spread.log().sum()
        logs = [
            self.log_density(v[k], torch.full((len(v[k]),), k), self.context(choice, a[k]))
            for k in range(len(v))
        ]
        return torch.stack(logs, 1) + slopes

    def log_densities_graph(
        self, latents: Var, choice: Sequence[Var], given: Var | None = None
    ) -> Var:
        embedded = self.context_graph(choice) if len(self.embeddings) else None
        ordered = op.gather(latents, const(self.order[self.given :] - self.given, np.int64), axis=1)
        size = len(self.clusters)
        parts = [slice(at, min(at + TOGETHER, size)) for at in range(0, size, TOGETHER)]
        mean = self.effects.mean_graph(choice) if self.effects else None
        terms = [self._log_densities_graph(ordered, embedded, given, part, mean) for part in parts]
        return terms[0] if len(terms) == 1 else op.concat(terms, axis=0)

    def _log_densities_graph(
        self,
        ordered: Var,
        embedded: Var | None,
        given: Var | None,
        part: slice,
        mean: Var | None,
    ) -> Var:
        """Return log-densities [k, n] in some clusters of latents [n, e] in the flow's order."""
        known, made, follow = self._parts
        w, context = made.whitened_graph(ordered, part), embedded
        if given is not None and self.given:
            a = op.clip(known.whitened_graph(given, part), const(-FARTHEST), const(FARTHEST))
            back = torch.linalg.inv(made.factors[part].double()) @ follow[part].double()
            w, context = op.sub(w, op.matmul(a, const(back.mT))), a
            if embedded is not None:
                rows = op.unsqueeze(embedded, const([0], np.int64))
                rows = op.add(rows, const(np.zeros((len(back), 1, 1))))
                context = op.concat([a, rows], axis=2)
        total = const(made.log_slopes()[part, None])
        if mean is not None:
            w = op.div(op.sub(w, mean), const(self.spread))
            total = op.sub(total, const(self.spread.double().log().sum()))
        moved = int(self.leading)
        if moved < self.noise:
            rest = op.gather(w, const(np.arange(moved, self.noise), np.int64), axis=2)
            total = op.add(total, log_normal_graph(rest, self.noise - moved))
            w = op.gather(w, const(np.arange(moved), np.int64), axis=2)
        backwards = const(np.arange(moved)[::-1], np.int64)
        for depth, layer in enumerate(self._layers):
            w = op.gather(w, backwards, axis=2) if depth else w
            w, logs = layer.inverse_graph(w, moved, part, context)
            total = op.add(total, logs)
        return op.add(total, log_normal_graph(w, moved))

    def phases(
        self, latents: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Phase]:
        """Yield phases of maximum likelihood; the weights' average is what stays.

        Given numbers stand before the latents. In many dimensions a short phase comes first, which
        decides how many coordinates are moved.
        """
        steps = int(self.config.steps)
        if self.chosen:
            back, used = split_rows(len(latents), generator)
            few = math.ceil(PROBE * steps)
            yield self.phase("leading", few, latents[used], labels[used], probe=True)
            if not int(self.leading):
                v = self.whitened(latents[back], labels[back])
                self.leading.fill_(self._worth_moving(v, labels[back]))
        yield self.phase("likelihood", steps, latents, labels)

    def phase(
        self, name: str, steps: int, latents: Tensor, labels: Tensor, *, probe: bool = False
    ) -> Phase:
        """Return a phase of so many steps; see `phases`. As a probe, of the first layer alone."""
        whitened = self.whitened(latents, labels)
        if len(self.embeddings) and not self.given and len(labels) < MOST:
            self._look(whitened, labels)

        def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            index = torch.randint(len(latents), (BATCH,), generator=generator).to(labels.device)
            noise = JITTER * torch.randn(BATCH, self.noise, generator=generator)
            return whitened[index] + pad(noise, (self.given, 0)).to(whitened), labels[index]

        decay = 0.01 if len(self.layers) == 1 else 0.1  # two layers begin to copy rows
        trained = nn.ModuleList([self.layers[0] if probe else self.layers, self.embeddings])
        parameters, loss = list(trained.parameters()), self.probe_loss if probe else self.loss
        player = Player("flow", parameters, loss, float(self.config.lr), weight_decay=decay)
        return Phase(name, steps, draw, (player,), average=trained, decay=0.995)

    def _look(self, v: Tensor, choice: Tensor) -> None:
        """Let networks see only discrete values that coordinates v [n, e] in frames depend on."""
        outcomes = choice[:, : len(self.embeddings)].cpu().numpy()
        for depth, layer in enumerate(self._layers):
            coordinates, moved = v[:, : len(layer.before)], int(self.leading)
            coordinates = coordinates[:, :moved].flip(1) if depth else coordinates
            seen = torch.from_numpy(hanging(coordinates.double().cpu().numpy(), outcomes)).float()
            rest = len(layer.before) - len(seen)
            seen = pad(seen.repeat_interleave(EMBEDDING, 1), (0, 0, 0, rest), value=1.0)
            layer.see(seen)

    def gains(self, v: Tensor, choice: Tensor) -> Tensor:
        """Return what each first coordinate of rows v [n, e] gains by one layer alone, [n, j]."""
        layer = self._layers[0]
        v = v[:, : len(layer.first)]
        w, logs = layer.splines(v, cluster_of(choice), self.context(choice, v[:, :0])).inverse(v)
        gained: Tensor = 0.5 * (v.square() - w.square()) + logs
        return gained

    def probe_loss(
        self, v: Tensor, choice: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return minus the mean of what all of the first coordinates gain."""
        return {"leading": -self.gains(v, choice).sum(1).mean()}

    @torch.no_grad()
    def _worth_moving(self, v: Tensor, choice: Tensor) -> int:
        """Return up to which coordinate moving pays on rows kept back, v [n, e]; at least one."""
        parts = zip(torch.split(v, 4096), torch.split(choice, 4096), strict=True)
        each = torch.cat([self.gains(*part) for part in parts]).double().mean(0)
        return int((each - ENOUGH).cumsum(0).argmax()) + 1


def split_rows(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return which of n rows are kept back, at least one, and the others."""
    order = torch.randperm(n, generator=generator)
    back = max(1, int(BACK * n))
    return order[:back], order[back:] if n > back else order


def principal_axes(covariances: Tensor) -> Tensor:
    """Return factors V sqrt(L) [K, e, e] of covariances V L V^T, the widest axis first."""
    values, vectors = torch.linalg.eigh(covariances)
    axes: Tensor = (vectors * values.clamp(min=0).sqrt().unsqueeze(1)).flip(2)
    return axes


class GivenFlowStage(Selected):
    """A flow that sees given columns, in training, and the best of it, first of all the identity.

    Args:
        flow: untrained.
        rows: given numbers and latents [N, p + e] with choices [N] or [N, r + h] to train on.
        back: [M, p + e] and [M] or [M, r + h] that are kept back.
    """

    def __init__(
        self, flow: FlowMapper, rows: tuple[Tensor, Tensor], back: tuple[Tensor, Tensor]
    ) -> None:
        best = copy.deepcopy(flow)
        super().__init__(flow, best, lambda: torch.tensor(flow.judge(*back)), len(BURSTS), GAIN)
        self.rows = rows

    def phases(self) -> Iterator[Phase]:
        """Yield bursts of maximum likelihood until the rows that are kept back get no better."""
        flow = self.trained
        assert isinstance(flow, FlowMapper)
        steps = int(flow.config.steps)
        return self.until_no_better(
            flow.phase(f"likelihood {index}", max(1, round(share * steps)), *self.rows)
            for index, share in enumerate(BURSTS, 1)
        )


def coordinate_order(clusters: Clusters, given: int = 0) -> Tensor:
    """Return the coordinates [e] behind given ones by their mixture's entropy, lowest first."""
    weights, means = clusters.weights.double().numpy(), clusters.means.double().numpy()[:, given:]
    spreads = clusters.factors.double().square().sum(2).sqrt().numpy()[:, given:]
    entropies = []
    for mean, spread in zip(means.T, spreads.T, strict=True):
        grid = np.linspace((mean - 3 * spread).min(), (mean + 3 * spread).max(), 200)
        wide = np.maximum(spread, grid[1] - grid[0])
        mass = (weights / wide * np.exp(-0.5 * ((grid[:, None] - mean) / wide) ** 2)).sum(1)
        mass /= mass.sum()
        entropies.append(-(mass * np.log(np.maximum(mass, 1e-300))).sum())
    return torch.from_numpy(np.argsort(entropies, kind="stable"))
