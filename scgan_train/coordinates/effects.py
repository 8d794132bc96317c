"""Effects of discrete values on means: ridge regressions of coordinates, or latents in frames.

Where s_1 .. s_(h-1) are outcomes of the steps that the head draws, a coordinate y' has the residual

    y = (y' - m(s)) / spread,      m(s) = m_0 + t_1[s_1] + ... + t_(h-1)[s_(h-1)],

one number t an outcome; a step of numbers has a slope along them besides, which is shrunk less. A
flow that sees s learns the same, but slowly, and of some hundred rows maybe no more than their
mean: that flats of more rooms have more area, or were built later where no renovation is known.

All coordinates are shrunk alike, so that a linear relation between them holds between their means,
too. There are none unless they predict rows that were left out (each in its turn).

Means can be taken off coordinates before clusters are cut, or off the clusters' frames alone. The
first keeps effects of discrete values whole, the second clusters whose coordinates depend on each
other differently in different regions. `preferred` compares left-out rows' likelihoods in mixtures.

`hanging` tests which of them affect a coordinate beyond its mean. A network that sees no others can
be trained for longer before it identifies rows by their discrete values and overfits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_train.coordinates.discrete import Labels
from scgan_train.graph import Var, const, op

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

FEWEST = 50  # rows that a fit needs
MOST = 10_000  # of more, a flow learns more than means
PENALTIES = np.logspace(-3, 2, 9)  # rows that shrink an outcome's number
SLOPE = 10.0  # times as little shrunk
GAIN = 3.0  # nats that means must predict of all rows
OFTEN, COMMON = 5, 0.01  # rows of an outcome that has a separate number, and their share
MOST_OUTCOMES = 256  # of a step; of one with more the slope alone is fitted
LEAST = 1e-3  # spread
MIXTURES = (2, 4, 8)  # components
CUTS = 2  # fifths of the rows that are left out in turn
MOST_TRIED, WIDEST = 3000, 64  # rows and coordinates that mixtures are fitted to
MOST_NAMES, FEWEST_SLOPED = 8, 20  # of a pair; and rows that each needs
CERTAIN = 0.01  # chance that a pair is taken by
CLIPPED = 4.0  # standard deviations at most, of a row that is tested
CHANCE = 0.2  # of a false positive of `hanging`; false negatives cost more
FAR = 6.0  # standard deviations at most, of a row that is left out


@dataclass(frozen=True)
class Effects:
    """The means of e coordinates given the outcomes of h - 1 steps.

    Attributes:
        table: What each outcome adds, step after step, float32 [sum of sizes, e].
        sizes: How many outcomes each step has.
        spread: Standard deviation of the residual, float32 [e].
        pairs: Steps [p, 2] that interact; their rows follow those of all steps in the table.
    """

    table: NDArray[np.float32]
    sizes: tuple[int, ...]
    spread: NDArray[np.float32]
    pairs: Labels = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    @classmethod
    def fit(
        cls,
        features: Sequence[Floats],
        choice: Labels,
        y: Floats,
        present: Bools | None = None,
        slopes: Sequence[Floats] = (),
    ) -> Effects | None:
        """Return effects of outcomes [n, h-1] on coordinates [n, e]; None where they predict none.

        Args:
            features: Features of each outcome of each step, see `features_of`.
            choice: The outcomes.
            y: The coordinates.
            present: Which of them are used, bool [n, e]; all by default.
            slopes: Standardised number of each outcome, [V] per step, see `slopes_of`; or none.
        """
        sizes = tuple(len(each) for each in features)
        present = np.ones(y.shape, np.bool_) if present is None else present
        pairs = np.zeros((0, 2), np.int64)
        if slopes:
            first = cls.fit(features, choice, y, present)
            left = y - first.mean(choice) if first else y
            pairs = _pairs(features, slopes, choice, left, present)
        both = [np.einsum("a,bf->abf", slopes[k], features[m]) for k, m in pairs]
        features = [*features, *(each.reshape(-1, each.shape[2]) for each in both)]
        choice = _joined(choice, sizes, pairs)
        x = seen(features, choice)
        ends = np.cumsum([each.shape[1] for each in features])[:-1]
        groups = [
            (rows, np.flatnonzero((rows == present.T).all(1)))
            for rows in np.unique(present, axis=1).T
            if x.size and FEWEST <= rows.sum() <= len(rows) < MOST
        ]
        ridges = [Ridge(x[rows]) for rows, _ in groups]
        errors = [
            ridge.left_out(y[np.ix_(rows, columns)])
            for ridge, (rows, columns) in zip(ridges, groups, strict=True)
        ]
        nats = np.zeros(len(PENALTIES))
        for (rows, columns), error in zip(groups, errors, strict=True):
            before = y[np.ix_(rows, columns)].var(0)[:, None] + LEAST**2
            nats -= 0.5 * rows.sum() * np.log(error / before).sum(0)
        best = nats.argmax()
        if nats[best] < GAIN:
            return None
        table, spread = np.zeros((sum(map(len, features)), y.shape[1])), np.ones(y.shape[1])
        for ridge, (rows, columns), error in zip(ridges, groups, errors, strict=True):
            weights, start = ridge.fit(y[np.ix_(rows, columns)], PENALTIES[best])
            parts = zip(features, np.split(weights, ends), strict=True)
            table[:, columns] = np.concatenate([f @ part for f, part in parts])
            table[: sizes[0], columns] += start
            spread[columns] = error[:, best] ** 0.5
        return cls(table.astype(np.float32), sizes, spread.astype(np.float32), pairs)

    @property
    def starts(self) -> Labels:
        """Where the rows of each step and each pair begin in the table, and where the last end."""
        both = [self.sizes[k] * self.sizes[m] for k, m in self.pairs]
        return np.cumsum([0, *self.sizes, *both])

    def mean(self, choice: Labels) -> Floats:
        """Return m [n, e] of outcomes [n, h-1]."""
        outcomes = _joined(choice, self.sizes, self.pairs)
        means: Floats = self.table[outcomes + self.starts[:-1]].sum(1)
        return means

    def forward(self, y: Floats, choice: Labels) -> Floats:
        """Return residuals [n, e] of coordinates y' [n, e] of rows with outcomes [n, h-1]."""
        return np.asarray((y - self.mean(choice)) / self.spread, y.dtype)

    def inverse(self, y: Floats, choice: Labels) -> Floats:
        """Inverse of `forward`."""
        return np.asarray(y * self.spread + self.mean(choice), y.dtype)

    def mean_graph(self, choice: Sequence[Var]) -> Var:
        """Return m [n, e] as a graph, of outcomes in steps [n], with the cluster's or without."""
        tables = np.split(self.table, self.starts[1:-1])
        both = [
            op.add(op.mul(choice[k], const(self.sizes[m], np.int64)), choice[m])
            for k, m in self.pairs
        ]
        parts = [
            op.gather(const(table), outcomes)
            for table, outcomes in zip(tables, [*choice[: len(self.sizes)], *both], strict=True)
            if table.any()
        ]
        return parts[0] if len(parts) == 1 else op.sum(parts)


def features_of(numbers: Sequence[Floats], sizes: Sequence[int], choice: Labels) -> list[Floats]:
    """Return the features of each outcome of each step, [V, F] each.

    Args:
        numbers: Those of each step, its first outcomes, ascending; none of names.
        sizes: How many outcomes each step has.
        choice: The outcomes [n, h-1] of rows.
    """
    features: list[Floats] = []
    slopes = slopes_of(numbers, sizes, choice)
    for outcomes, slope, size in zip(choice.T, slopes, sizes, strict=True):
        rows = np.bincount(outcomes, minlength=size)
        frequent = rows >= max(OFTEN, COMMON * len(choice))
        table = np.eye(size)[:, frequent] if size <= MOST_OUTCOMES else np.zeros((size, 0))
        if slope.any():
            table = np.concatenate([table, SLOPE**0.5 * slope[:, None]], 1)
        features.append(table)
    return features


def slopes_of(numbers: Sequence[Floats], sizes: Sequence[int], choice: Labels) -> list[Floats]:
    """Return the standardised number of each outcome, [V] per step; 0 for other outcomes."""
    slopes: list[Floats] = []
    for outcomes, values, size in zip(choice.T, numbers, sizes, strict=True):
        slope, weights = np.zeros(size), np.bincount(outcomes, minlength=size)[: len(values)]
        if len(values) > 2 and weights.any():
            mean = np.average(values, weights=weights)
            deviation = np.average((values - mean) ** 2, weights=weights) ** 0.5
            slope[: len(values)] = (values - mean) / max(deviation, 1e-9)
        slopes.append(slope)
    return slopes


def _joined(choice: Labels, sizes: Sequence[int], pairs: Labels) -> Labels:
    """Return outcomes [n, h-1 + p], those of pairs behind the others."""
    both = [choice[:, [k]] * sizes[m] + choice[:, [m]] for k, m in pairs]
    return np.concatenate([choice, *both], 1)


def _pairs(
    features: Sequence[Floats],
    slopes: Sequence[Floats],
    choice: Labels,
    left: Floats,
    present: Bools,
) -> Labels:
    """Return steps [p, 2]: of numbers, and of names by which residuals' [n, e] slopes differ."""
    from scipy.special import chdtrc

    steps = range(len(slopes))
    named = [m for m in steps if not slopes[m].any() and 2 <= features[m].shape[1] <= MOST_NAMES]
    tried = [(k, m) for k in steps if slopes[k].any() for m in named]
    pairs = []
    for k, m in tried:
        z, least = slopes[k][choice[:, k]], 1.0
        for j in range(left.shape[1]):
            terms = []
            for name in range(features[m].shape[1]):
                mask = present[:, j] & (z != 0) & (features[m][choice[:, m], name] > 0)
                if mask.sum() >= FEWEST_SLOPED:
                    a, b = z[mask] - z[mask].mean(), left[mask, j] - left[mask, j].mean()
                    terms.append((a @ b) ** 2 / max((a * a) @ (b * b), 1e-12))
            least = min(least, float(chdtrc(len(terms), sum(terms))) if terms else 1.0)
        if least * len(tried) * left.shape[1] < CERTAIN:
            pairs.append((k, m))
    return np.array(pairs, np.int64).reshape(-1, 2)


def seen(features: Sequence[Floats], choice: Labels) -> Floats:
    """Return the features [n, F] of outcomes [n, h-1]."""
    return np.concatenate([f[outcomes] for f, outcomes in zip(features, choice.T, strict=True)], 1)


class Ridge:
    """Ridge regressions on the same features [n, F], by the eigenvectors of their covariance."""

    def __init__(self, x: Floats) -> None:
        self.mean = x.mean(0)
        centred = x - self.mean
        self.values, self.vectors = np.linalg.eigh(centred.T @ centred)
        self.values = np.maximum(self.values, 0)
        self.turned = centred @ self.vectors

    def fit(self, y: Floats, penalty: float) -> tuple[Floats, Floats]:
        """Return slopes [F, e] and intercepts [e] for y [n, e]."""
        centre = y.mean(0)
        turned = self.turned.T @ (y - centre) / (self.values + penalty)[:, None]
        slopes: Floats = self.vectors @ turned
        return slopes, centre - self.mean @ slopes

    def left_out(self, y: Floats) -> Floats:
        """Return mean squared errors [e, penalties] of y [n, e], each row predicted by the rest."""
        y = y - y.mean(0)
        product, squares, errors = self.turned.T @ y, self.turned**2, []
        for penalty in PENALTIES:
            weight = 1 / (self.values + penalty)
            leverage = squares @ weight + 1 / len(y)
            rest = (y - self.turned @ (weight[:, None] * product)) / (1 - leverage)[:, None]
            errors.append((rest**2).mean(0))
        return np.stack(errors, 1) + LEAST**2


def hanging(v: Floats, choice: Labels) -> Bools:
    """Return which coordinates [n, e] depend on which of the outcomes [n, h-1], bool [e, h-1].

    An analysis of variance over a step's outcomes tests v_j, |v_j|, a product v_j v_i, or whether
    v_j is above a decile: means, spreads, slopes or shapes. Outcomes of under `OFTEN` rows are one.
    """
    from scipy.special import chdtrc

    groups = []
    for outcomes in choice.T:
        group = np.where(np.bincount(outcomes)[outcomes] < OFTEN, -1, outcomes)
        order = np.argsort(group, kind="stable")
        groups.append((order, np.unique(group[order], return_index=True, return_counts=True)[1:]))
    v = np.clip(v, -CLIPPED, CLIPPED)
    dependent = np.zeros((v.shape[1], len(groups)), np.bool_)
    for j in range(len(dependent)):
        values, others = v[:, [j]], np.delete(v, j, 1)
        above = values > np.quantile(values, np.linspace(0, 1, 11)[1:-1])
        parts = np.concatenate([values, np.abs(values), values * others, above], 1)
        parts = (parts - parts.mean(0)) / np.maximum(parts.std(0), LEAST)
        for k, (order, (starts, rows)) in enumerate(groups):
            sums = np.add.reduceat(parts[order], starts)
            between = (sums**2 / rows[:, None]).sum(0).max()
            dependent[j, k] = parts.shape[1] * chdtrc(len(rows) - 1, between) < CHANCE
    return dependent


def preferred(x: Floats, whole: Floats, left: Floats, slopes: Floats) -> bool:
    """Return whether mixtures give residuals a greater likelihood than coordinates.

    Args:
        x: Features [n, F] of the rows' outcomes.
        whole: Coordinates [n, e].
        left: Their residuals.
        slopes: Logarithm [n] of the determinant, from the one to the other.
    """
    from sklearn.exceptions import ConvergenceWarning

    if whole.shape[1] > WIDEST:
        return False
    order = np.random.default_rng(0).permutation(len(x))[:MOST_TRIED]
    cuts = [(np.delete(order, np.s_[k::5]), order[k::5]) for k in range(CUTS)]
    ridges = [Ridge(x[used]) for used, _ in cuts]

    def best(y: Floats, more: Floats) -> float:
        return max(
            sum(
                float((_expected(x, y, k, ridge, *cut) + more[cut[1]]).mean())
                for ridge, cut in zip(ridges, cuts, strict=True)
            )
            for k in MIXTURES
        )

    with warnings.catch_warnings():  # rough fits will do
        warnings.simplefilter("ignore", ConvergenceWarning)
        return best(left, slopes) > best(whole, 0 * slopes)


def _expected(x: Floats, y: Floats, k: int, ridge: Ridge, used: Labels, held: Labels) -> Floats:
    """Return log p(y | x) [m] of held-out rows: logistic clusters, with means in their frames."""
    from scipy.special import logsumexp
    from sklearn.linear_model import LogisticRegression
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(k, random_state=0, max_iter=30).fit(y[used])
    labels, factors = mixture.predict(y[used]), np.linalg.cholesky(mixture.covariances_)
    whiten = np.linalg.inv(factors)
    kinds = np.unique(labels)
    shares = np.full((len(held), k), -np.inf)
    shares[:, kinds[:1]] = 0.0
    if len(kinds) > 1:
        gate = LogisticRegression().fit(x[used], labels)
        shares[:, kinds] = gate.predict_log_proba(x[held])
    v = np.einsum("nij,nj->ni", whiten[labels], y[used] - mixture.means_[labels])
    errors = ridge.left_out(v)
    best = np.log(errors).sum(0).argmin()
    slopes, start = ridge.fit(v, PENALTIES[best])
    means, spread = x[held] @ slopes + start, errors[:, best] ** 0.5
    for i in kinds:
        z = ((y[held] - mixture.means_[i]) @ whiten[i].T - means) / spread
        slope = np.log(np.diagonal(factors[i])).sum() + np.log(spread).sum()
        shares[:, i] -= 0.5 * np.minimum(z * z, FAR**2).sum(1) + slope
    log_likelihood: Floats = logsumexp(shares, axis=1)
    return log_likelihood
