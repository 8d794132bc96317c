"""Stage 2, first half: cut the latent space into K unimodal clusters.

    p(eps) = sum_i pi_i p_i(eps),      p_i close to N(mu_i, F_i F_i^T)

1. *Split* (`groups`): a band of a coordinate that holds no row, and that chance would not leave
   empty, separates two groups of rows, and so does a spike. A cluster never crosses groups.
2. *K-means* in every group, as in the paper.
3. *Refine*: expectation-maximisation with full covariances from there, up to the step of best
   held-out likelihood; a row belongs to a component drawn by its responsibilities. With
   phi(x) = [1, x, x x^T] both steps are one matrix product: log-densities = phi Theta^T,
   sufficient statistics = R^T phi. Above `NARROW` dimensions phi is too wide to be laid out.

Where coordinates are given, these come first, and the likelihood is that of the others given those,

    p(eps | h) = sum_i pi_i N(eps; A_i h + b_i, S_i),

a mixture of regressions; K-means begins with what one plane leaves. So clusters separate what is
generated, not the distribution of given columns: the head learns which a condition asks for.

Means and covariances are those of the rows that belong: a row that no component expected
stretches the one it fell to. A cluster's weight is its share of the rows, so groups keep their
shares exactly. No cluster is dropped for being small, save with given columns one of no more rows
than dimensions: its rows would follow from the given numbers exactly. Where latents are known
within bounds only (`ties`), they and the clusters are drawn and measured in turns (`settle`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scgan_infer.errors import UsageError
from scgan_train.config import ClusterConfig
from scgan_train.coordinates.groups import split
from scgan_train.graph import Var, const, op
from scgan_train.latents.ties import redraw

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

NARROW = 15  # dimensions up to which all products of two coordinates are laid out
PULLS = (0.1, 0.3, 1.0)  # how strongly a cluster's correlations may be pulled to all clusters'
SWEEPS = 4  # of drawing latents within their bounds
FLOOR = 1e-4  # smallest standard deviation of a cluster, in those of all rows
FIT_ROWS = 30_000  # rows that K-means and expectation-maximisation look at
CHOICE_ROWS = 12_000  # rows that the choice of K looks at; too few would stop it early
PLANE, PLANE_ROWS = 3, 40_000  # up to so many dimensions, where fits are quick, so many
PLANE_STARTS = 64  # over K, of K-means there: one start merges two of eight clusters in many seeds
STEPS = 30  # of expectation-maximisation
CHOICE_STEPS = 10  # of those, while K is chosen
STARTS = 24  # over K, of fits with given coordinates, of which few clusters have poor local optima
HELD = 0.2  # share of the rows that scores
FEW_ROWS = 1000  # up to so many rows, every fifth scores in its turn
ENOUGH = 0.01  # nats a row that more clusters must gain
CHUNK = 4096


@dataclass(frozen=True)
class Clusters:
    """K pieces of the latent space; tensors are float32 on the CPU.

    Attributes:
        weights: [K], each positive, with sum 1.
        means: [K, e].
        factors: [K, e, e], lower Cholesky factors of the covariances.
        kind: which rows a cluster owns: `kmeans`, those nearest to its mean; `em`, those it most
            likely made.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    kind: str

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def of(cls, weights: Array, means: Array, factors: Array, kind: str) -> Clusters:
        """Return clusters of arrays."""
        first, second, third = (torch.from_numpy(a).float() for a in (weights, means, factors))
        return cls(first, second, third, kind)

    def leading(self, p: int) -> Clusters:
        """Return the Gaussians of the first p coordinates, which factors give for free."""
        return Clusters(self.weights, self.means[:, :p], self.factors[:, :p, :p], "em")


class Assign(nn.Module):
    """Latent to cluster, from differences to the means: exact for clusters as tight as `FLOOR`."""

    means: Tensor
    whiten: Tensor
    scores: Tensor

    def __init__(self, clusters: Clusters) -> None:
        super().__init__()
        size, width = clusters.means.shape
        if clusters.kind == "em":
            factors = clusters.factors.double()
            whiten = torch.linalg.inv(factors)
            scores = factors.diagonal(dim1=1, dim2=2).log().sum(1) - clusters.weights.double().log()
        else:
            whiten = torch.eye(width, dtype=torch.float64).expand(size, width, width)
            scores = torch.zeros(size, dtype=torch.float64)
        self.register_buffer("means", clusters.means[:, None].clone())
        self.register_buffer("whiten", whiten.mT.float().contiguous())
        self.register_buffer("scores", scores.float()[:, None])

    def forward(self, latents: Tensor) -> Tensor:
        """Return the index of the cluster [n], int64, of latents [n, e]."""
        return self.costs(latents).argmin(0)

    def costs(self, latents: Tensor) -> Tensor:
        """Return -log(pi_i p_i) [K, n] of latents [n, e], up to what all clusters share."""
        white = (latents - self.means) @ self.whiten
        return 0.5 * white.square().sum(2) + self.scores

    def graph(self, latents: Var) -> Var:
        return op.arg_min(self.costs_graph(latents), axis=0, keepdims=0)

    def costs_graph(self, latents: Var) -> Var:
        white = op.matmul(op.sub(latents, const(self.means)), const(self.whiten))
        squares = op.reduce_sum(op.mul(white, white), const([2], np.int64), keepdims=0)
        return op.add(op.mul(squares, const(0.5)), const(self.scores))


def fit(
    latents: Tensor,
    config: ClusterConfig,
    generator: torch.Generator,
    given: int = 0,
    allowed: int | None = None,
) -> tuple[Clusters, Tensor, str]:
    """Fit clusters to latents.

    Args:
        latents: [N, e].
        config: resolved; with `choose`, `k` is the largest number that is considered.
        generator: source of all randomness here.
        given: how many given coordinates come first: no band of theirs splits; one cluster may do.
        allowed: the number that the rows allow, of which the sentence says whether it limits K.

    Returns:
        The clusters, each row's cluster [N] int64, and a sentence saying how K was chosen.

    Raises:
        UsageError: more clusters than rows.
    """
    rows = latents.double().cpu().numpy()
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    k = int(config.k)
    if k > len(rows) and not config.choose:
        raise UsageError(f"clusters.k = {k} clusters asked of {len(rows)} rows; ask for fewer")
    k = min(k, len(rows))
    whole = np.zeros(len(rows), np.int64)
    groups = split(rows[:, given:], config.min_rows) if config.split else whole
    if not config.choose and k <= groups.max():
        groups = whole
    floor = FLOOR * np.maximum(rows.std(0), 1e-6)
    fitting, note = _Fitting(floor, config.refine, given, rng), f"{k} clusters, as asked"
    if config.choose:
        k, note = fitting.choose(rows, groups, k, k if allowed is None else allowed)
    kernel = np.maximum(floor, _kernel(rows))
    labels = np.zeros(len(rows), np.int64)
    parts: list[Mixture] = []
    for group, own_k in enumerate(_apportion(k, groups)):
        inside = np.flatnonzero(groups == group)
        few = len(inside) <= rows.shape[1]
        group_fitting = replace(fitting, floor=kernel) if few else fitting
        mixture, own_labels = group_fitting.group(rows[inside], own_k)
        labels[inside] = own_labels + sum(len(part.means) for part in parts)
        parts.append(mixture)
    counts = np.bincount(labels)
    means = np.concatenate([part.means for part in parts])
    factors = np.concatenate([part.factors for part in parts])
    clusters = Clusters.of(counts / len(rows), means, factors, "em" if config.refine else "kmeans")
    if len(parts) > 1:
        note += f"; {len(parts)} groups of rows with gaps between them"
    if len(counts) != k:
        enough = "have more rows than dimensions" if given else "clusters have rows"
        note += f"; {len(counts)} {enough}"
    return clusters, torch.from_numpy(labels), note


@dataclass(frozen=True)
class _Fitting:
    """What all fits of one clustering have in common.

    Attributes:
        floor: smallest standard deviations [e].
        given: how many coordinates come first that are given.
    """

    floor: Array
    refine: bool
    given: int
    rng: np.random.Generator

    def group(self, rows: Array, k: int) -> tuple[Mixture, Labels]:
        """Fit k components, draw each row's component, and measure those by their own rows."""
        centre = rows.mean(0)
        mixture, _ = self.best(rows - centre, k, HELD if self.refine else 0.0, FIT_ROWS, STEPS)
        if self.given:  # a plane leaves nothing of fewer rows than it has numbers
            mixture = mixture.among(mixture.weights * len(rows) > rows.shape[1])
        labels = _owners(rows - centre, mixture, self.rng if self.refine else None)
        labels = np.unique(labels, return_inverse=True)[1].reshape(-1)  # none without a row
        mixture = _mixture(_sums(rows - centre, labels), self.floor, mixture.pull, self.given)
        return replace(mixture, means=mixture.means + centre), labels

    def best(
        self, rows: Array, k: int, held_out: float, most: int, steps: int
    ) -> tuple[Mixture, float]:
        """Return K-means or, if asked, expectation-maximisation's best step; then the best pull.

        The score is the mean log-likelihood of the share of rows held out of the fit, of at most so
        many rows. With given coordinates the best of some fits is taken.
        """
        rng = self.rng
        seen = rows if len(rows) <= most else rows[rng.choice(len(rows), most, replace=False)]
        held, used = np.split(rng.permutation(len(seen)), [int(held_out * len(seen))])
        if len(held) < 2:
            held = used = np.arange(len(seen))
        starts = max(1, STARTS // k) if self.given and self.refine and k > 1 else 1
        climbed = [self._climb(seen[used], seen[held], k, steps) for _ in range(starts)]
        return max(climbed, key=lambda pair: pair[1])

    def _climb(self, used: Array, held: Array, k: int, steps: int) -> tuple[Mixture, float]:
        """Return the step that scores best on rows held out, and its score; see `best`."""
        floor, given = self.floor, self.given
        labels = self._kmeans(_unexplained(used, given), k)
        mixture = best = _mixture(_sums(used, labels), floor, given=given)
        score, stale = -np.inf, 0
        for _ in range(steps if self.refine and len(best.means) > 1 else 1):
            now = _expect(held, mixture)[1]
            stale = 0 if now > score + 1e-3 else stale + 1
            if now > score:
                best, score = mixture, now
            if stale == 3:
                break
            mixture = _mixture(_expect(used, mixture)[0], floor, given=given)
        if self.refine and used.shape[1] > NARROW:
            statistics = _expect(used, best)[0]
            for pull in PULLS:
                mixture = _mixture(statistics, floor, pull, given)
                now = _expect(held, mixture)[1]
                best, score = (mixture, now) if now > score else (best, score)
        return best, score

    def _kmeans(self, rows: Array, k: int) -> Labels:
        """Return the label of each row, 0 to at most k - 1 without a hole."""
        from sklearn.cluster import KMeans

        k = min(k, len(np.unique(rows, axis=0)))
        if k == 1:
            return np.zeros(len(rows), np.int64)
        steps, seed = (20 if self.refine else 300), int(self.rng.integers(2**31))
        starts = max(1, PLANE_STARTS // k) if rows.shape[1] <= PLANE else 1
        labels = KMeans(k, n_init=starts, max_iter=steps, random_state=seed).fit_predict(rows)
        return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def choose(self, rows: Array, groups: Labels, most: int, allowed: int) -> tuple[int, str]:
        """Return K, by short fits' held-out log-likelihood, doubled from 4 until it falls; and why.

        K is at most `most`, which the rows limit, or the map where it is below `allowed`.

        With given coordinates K starts at 1, and the likelihood is conditional: what they do among
        themselves needs no clusters, and each needless one cuts what a flow would learn from all
        its rows. It is the smallest K within `ENOUGH` of the best: twice the clusters cost twice
        the tables. On planes the same rows score every K, too, and it doubles until it falls twice.
        """
        least = int(groups.max()) + 1
        limit, most = "rows allow" if most >= allowed else "map allows", max(most, least)
        scores: dict[int, float] = {}
        plane = rows.shape[1] <= PLANE and not self.given
        seed = int(self.rng.integers(2**62)) if self.given or plane else 0
        k = min(max(1 if self.given else 4, least), most)
        while k not in scores:
            # with given coordinates the same rows score every K
            fitting = replace(self, rng=np.random.default_rng(seed)) if seed else self
            scores[k] = fitting.score(rows, groups, k)
            if all(score < max(scores.values()) for score in [*scores.values()][-1 - plane :]):
                break
            k = min(2 * k, most)
        best = max(scores.values())
        enough = next(k for k, score in scores.items() if score > best - ENOUGH)
        tried = ", ".join(f"{k}: {score:.3f}" for k, score in scores.items())
        reason = f"the {limit} no more" if enough == most else "more gain nothing"
        return enough, f"{enough} clusters, {reason}; log-likelihood of held-out rows ({tried})"

    def score(self, rows: Array, groups: Labels, k: int) -> float:
        """Return the held-out log-likelihood of k clusters: a mean over five cuts of few rows."""
        total = 0.0
        for group, own_k in enumerate(_apportion(k, groups)):
            inside = rows[groups == group] - rows[groups == group].mean(0)
            share = len(inside) / len(rows)
            quick = rows.shape[1] <= PLANE and not self.given
            most = int((PLANE_ROWS if quick else CHOICE_ROWS) * share)
            most = max(most, min(len(inside), 5 * rows.shape[1]))
            cuts = 5 if len(inside) <= FEW_ROWS else 1
            for _ in range(cuts):
                total += share / cuts * self.best(inside, own_k, HELD, most, CHOICE_STEPS)[1]
        return total


def settle(
    latents: Tensor,
    bounds: tuple[Tensor, Tensor],
    clusters: Clusters,
    labels: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Clusters, Tensor]:
    """Draw latents [N, e] by `em` clusters, and measure these and rows' labels [N] again, in turns.

    The bounds are the least and greatest [N, e] that latents may be; equal where one is known.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    rows = latents.double().cpu().numpy()
    low, high = (bound.double().cpu().numpy() for bound in bounds)
    floor = FLOOR * np.maximum(rows.std(0), 1e-6)
    assigned = labels.cpu().numpy()
    parts = (clusters.weights, clusters.means, clusters.factors)
    weights, means, factors = (part.double().numpy() for part in parts)
    mixture = Mixture(weights, means, factors)
    for _ in range(SWEEPS):
        rows = redraw(rows, (low, high), assigned, mixture.means, mixture.factors, rng)
        mixture = _mixture(_sums(rows, assigned), floor, PULLS[1])
        assigned = np.unique(_owners(rows, mixture, rng), return_inverse=True)[1].reshape(-1)
        mixture = _mixture(_sums(rows, assigned), floor, PULLS[1])
    settled = Clusters.of(mixture.weights, mixture.means, mixture.factors, clusters.kind)
    return torch.from_numpy(rows).to(latents), settled, torch.from_numpy(assigned).to(labels)


def _kernel(rows: Array) -> Array:
    """Standard deviations [e] of a Gaussian kernel, by Silverman's rule."""
    width = rows.shape[1]
    factor = (4 / ((width + 2) * len(rows))) ** (1 / (width + 4))
    return np.asarray(rows.std(0) * factor, np.float64)


def _apportion(k: int, groups: Labels) -> list[int]:
    """Share k clusters among groups by their rows (Webster's method), at least one each."""
    sizes = np.bincount(groups)
    parts = np.ones(len(sizes), np.int64)
    for _ in range(k - len(sizes)):
        parts[np.argmax(sizes / (parts + 0.5))] += 1
    return [int(part) for part in parts]


@dataclass(frozen=True)
class Mixture:
    """Gaussians: weights [K], means [K, e], covariances' lower factors [K, e, e], and their pull.

    Of the others given the first `given` coordinates, where there are such.
    """

    weights: Array
    means: Array
    factors: Array
    pull: float = PULLS[-1]
    given: int = 0

    def logits(self, rows: Array) -> Array:
        """Return log(pi_i N(x; mu_i, F_i F_i^T)) [n, K] of rows [n, e]."""
        if self.given:
            p = self.given
            known = Mixture(np.ones(len(self.means)), self.means[:, :p], self.factors[:, :p, :p])
            return replace(self, given=0).logits(rows) - known.logits(rows[:, :p])
        inverse = np.linalg.inv(self.factors)
        constant = (
            np.log(self.weights)
            - np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(1)
            - 0.5 * self.means.shape[1] * np.log(2 * np.pi)
        )
        if self.means.shape[1] > NARROW:
            parts = zip(self.means, inverse, strict=True)
            far = [np.square((rows - mean) @ whitening.T).sum(1) for mean, whitening in parts]
            return np.asarray(constant - 0.5 * np.stack(far, 1), np.float64)
        precision = inverse.transpose(0, 2, 1) @ inverse
        linear = np.einsum("kij,kj->ki", precision, self.means)
        constant = constant - 0.5 * np.einsum("ki,ki->k", linear, self.means)
        squares = -0.5 * precision.reshape(len(linear), -1)
        theta = np.concatenate([constant[:, None], linear, squares], axis=1)
        return np.asarray(_phi(rows) @ theta.T, np.float64)

    def among(self, kept: Labels) -> Mixture:
        """Return the components [K] that are kept, the heaviest always."""
        kept = kept | (self.weights == self.weights.max())
        weights = self.weights[kept] / self.weights[kept].sum()
        return replace(self, weights=weights, means=self.means[kept], factors=self.factors[kept])


def _phi(rows: Array) -> Array:
    products = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    return np.concatenate([np.ones((len(rows), 1)), rows, products], axis=1)


def _statistics(rows: Array, shares: Array) -> Array:
    """Return sums of phi [K, 1 + e + e^2] over rows [n, e] by their components' shares [n, K]."""
    if rows.shape[1] <= NARROW:
        return np.asarray(shares.T @ _phi(rows), np.float64)
    second = [((share[:, None] * rows).T @ rows).ravel() for share in shares.T]
    return np.concatenate([shares.sum(0)[:, None], shares.T @ rows, np.stack(second)], axis=1)


def _mixture(statistics: Array, floor: Array, pull: float = PULLS[-1], given: int = 0) -> Mixture:
    """Return the mixture with these sums of phi per component [K, 1 + e + e^2] (the M-step).

    A covariance keeps its variances, and its correlations are pulled to those of all components
    together, by (pull e / rows)^2; those in turn to none: it stays regular, on its scale.
    """
    width = len(floor)
    counts = np.maximum(statistics[:, 0], 1e-9)
    means = statistics[:, 1 : 1 + width] / counts[:, None]
    second = statistics[:, 1 + width :].reshape(-1, width, width) / counts[:, None, None]
    covariances = second - means[:, :, None] * means[:, None, :]
    spreads = np.sqrt(np.maximum(np.diagonal(covariances, axis1=1, axis2=2), 0.0))
    pooled = np.tensordot(counts / counts.sum(), covariances, 1)
    scale = np.sqrt(np.maximum(np.diagonal(pooled), 1e-300))
    loose = min(width / counts.sum(), 1.0) ** 2
    common = (1 - loose) * pooled / np.outer(scale, scale) + loose * np.eye(width)
    share = np.minimum(pull * width / counts, 1.0)[:, None, None] ** 2
    outer = spreads[:, :, None] * spreads[:, None, :]
    regular = (1 - share) * covariances + share * common * outer + np.diag(floor**2)
    return Mixture(counts / counts.sum(), means, _cholesky(regular), pull, given)


def _cholesky(covariances: Array) -> Array:
    """Lower factors; rounding may have left an eigenvalue of about -1e-16, which is lifted."""
    try:
        return np.asarray(np.linalg.cholesky(covariances), np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariances)
        values = np.maximum(values, 1e-12 * np.maximum(values[:, -1:], 1e-12))
        lifted = vectors * values[:, None] @ vectors.transpose(0, 2, 1)
        return np.asarray(np.linalg.cholesky(lifted), np.float64)


def _expect(rows: Array, mixture: Mixture) -> tuple[Array, float]:
    """Return sums of phi by responsibility [K, 1 + e + e^2], and the mean log-likelihood (E)."""
    width = rows.shape[1]
    statistics, likelihood = np.zeros((len(mixture.means), 1 + width + width**2)), 0.0
    for at in range(0, len(rows), CHUNK):
        some = rows[at : at + CHUNK]
        logits = mixture.logits(some)
        top = logits.max(1, keepdims=True)
        shares = np.exp(logits - top)
        total = shares.sum(1, keepdims=True)
        likelihood += float((top + np.log(total)).sum())
        shares /= total
        statistics += _statistics(some, shares)
    return statistics, likelihood / len(rows)


def _unexplained(rows: Array, given: int) -> Array:
    """Return what a plane in the first p coordinates leaves of the others, of rows [n, p + e]."""
    if not given:
        return rows
    known = np.column_stack([np.ones(len(rows)), rows[:, :given]])
    plane = np.linalg.lstsq(known, rows[:, given:], rcond=None)[0]
    return np.asarray(rows[:, given:] - known @ plane, np.float64)


def _sums(rows: Array, labels: Labels) -> Array:
    """Return the sums of phi over the rows of each label [K, 1 + e + e^2]."""
    statistics = np.zeros((labels.max() + 1, 1 + rows.shape[1] + rows.shape[1] ** 2))
    for at in range(0, len(rows), CHUNK):
        member = np.eye(len(statistics))[labels[at : at + CHUNK]]
        statistics += _statistics(rows[at : at + CHUNK], member)
    return statistics


def _owners(rows: Array, mixture: Mixture, rng: np.random.Generator | None) -> Labels:
    """Return each row's component, drawn by responsibility, or without a generator the nearest."""
    labels = np.empty(len(rows), np.int64)
    for at in range(0, len(rows), CHUNK):
        some = rows[at : at + CHUNK]
        if rng is not None:  # Gumbel noise on the logits draws by their softmax
            scores = mixture.logits(some) + rng.gumbel(size=(len(some), len(mixture.means)))
        else:
            scores = some @ mixture.means.T - 0.5 * np.square(mixture.means).sum(1)
        labels[at : at + CHUNK] = scores.argmax(1)
    return labels
