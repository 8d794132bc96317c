"""Stage 2, first half: cut the latent space into K unimodal pieces.

    p(eps) = sum_i pi_i p_i(eps),      p_i close to N(mu_i, F_i F_i^T)

Three steps; the first and the last may be switched off:

1. *Split* (`groups`): a band of a coordinate that holds no row, and that chance would not leave empty, separates two
   groups of rows; a narrow one that many rows share (a spike: zeros among amounts, stars among redshifts) is a group
   of its own. A cluster never crosses groups. Values of a category are such groups.
2. *K-means* in every group, as in the paper.
3. *Refine*: expectation-maximisation with full covariances from there. With phi(x) = [1, x, x x^T] both steps
   are one matrix product: log-densities = phi Theta^T, sufficient statistics = R^T phi. The step with the
   best likelihood of held-out rows is kept, and a row belongs to a component drawn by its responsibilities.

Means and covariances are then those of the rows that belong: a row that no component expected stretches the one it
fell to, and does not lie thousands of standard deviations out.

A cluster's weight is the share of rows that belong to it, so groups keep their shares exactly.

Two fits end in different cuts of the same rows, and maps over one do not err where those over the other do. `overlay`
makes one mixture of several fits: every row belongs to one cluster of each, and each makes an equal share of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scgan_infer.errors import UsageError
from scgan_train.config import ClusterConfig
from scgan_train.groups import MOST, combinations, split

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

FLOOR = 1e-4  # smallest standard deviation of a cluster, in those of all rows: a constant coordinate has this one
ROWS = 30_000  # rows that K-means and expectation-maximisation look at
LOOK = 12_000  # rows that the choice of K looks at
STEPS = 30  # of expectation-maximisation
HELD = 0.2  # share of the rows that scores
ENOUGH = 0.01  # nats a row that more clusters must gain
CHUNK = 4096


@dataclass(frozen=True)
class Clusters:
    """K pieces of the latent space; tensors are float32 on the CPU.

    Attributes:
        weights: [K], each positive, with sum 1.
        means: [K, e].
        factors: [K, e, e], lower Cholesky factors of the covariances.
        kind: which rows a cluster owns: `kmeans`, those nearest to its mean; `em`, those it most likely made.
        sizes: clusters of each fit, in order; they sum to K.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor
    kind: str
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", self.sizes or (len(self.weights),))

    def __len__(self) -> int:
        return len(self.weights)

    def fits(self) -> list[Clusters]:
        """Return each fit's clusters, with weights of sum 1."""
        sizes = list(self.sizes)
        parts = (torch.split(tensor, sizes) for tensor in (self.weights, self.means, self.factors))
        return [
            Clusters(own / own.sum(), means, factors, self.kind)
            for own, means, factors in zip(*parts, strict=True)
        ]


def overlay(fits: Sequence[Clusters], labels: Sequence[Tensor]) -> tuple[Clusters, Tensor]:
    """Return one mixture of several fits to the same rows, each with an equal share, and the labels in it [fits, N]."""
    sizes = tuple(map(len, fits))
    mixture = Clusters(
        weights=torch.cat([fit.weights for fit in fits]) / len(fits),
        means=torch.cat([fit.means for fit in fits]),
        factors=torch.cat([fit.factors for fit in fits]),
        kind=fits[0].kind,
        sizes=sizes,
    )
    return mixture, torch.stack([own + sum(sizes[:i]) for i, own in enumerate(labels)])


class Assign(nn.Module):
    """Latent to cluster, from differences to the means: exact in float32 for clusters as tight as `FLOOR`."""

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
        """Latents [n, e] to the index of their cluster [n], int64."""
        white = (latents - self.means) @ self.whiten
        return (0.5 * white.square().sum(2) + self.scores).argmin(0)


def fit(
    latents: Tensor,
    config: ClusterConfig,
    generator: torch.Generator,
    most: int = MOST,
    categories: Labels | None = None,
) -> tuple[Clusters, Tensor, str]:
    """Fit clusters to latents.

    Args:
        latents: [N, e].
        config: how many clusters, and which of the three steps.
        generator: source of all randomness here.
        most: the largest K that `auto` considers.
        categories: each row's categories [N, c]; rows of other ones share no cluster.

    Returns:
        The clusters, each row's cluster [N] int64, and a sentence saying how K was chosen.

    Raises:
        UsageError: more clusters than rows.
    """
    rows = latents.double().cpu().numpy()
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    if config.k != "auto" and config.k > len(rows):
        raise UsageError(
            f"{config.k} clusters asked of {len(rows)} rows; ask for fewer with --clusters"
        )
    pieces = np.zeros(len(rows), np.int64) if categories is None else combinations(categories)
    groups = split(rows, config.min_rows, pieces) if config.split else pieces
    if config.k != "auto" and config.k <= groups.max():
        groups = np.zeros(len(rows), np.int64)
    floor = FLOOR * np.maximum(rows.std(0), 1e-6)
    kernel = np.maximum(floor, _kernel(rows, pieces))
    if config.k == "auto":
        k, note = _choose(rows, groups, floor, config, most, rng)
    else:
        k, note = config.k, f"{config.k} clusters, as asked"
    labels = np.zeros(len(rows), np.int64)
    parts: list[_Mixture] = []
    for group, part_k in enumerate(_apportion(k, groups)):
        inside = np.flatnonzero(groups == group)
        own = kernel if len(inside) <= rows.shape[1] else floor
        part = _fit_group(
            rows[inside], part_k, own, config.refine, rng, HELD if config.refine else 0.0
        )[0]
        drawn = _belong(rows[inside], part, config, rng)
        labels[inside] = drawn + sum(len(other.means) for other in parts)
        centre = rows[inside].mean(0)
        part = _mixture(_sums(rows[inside] - centre, drawn), own)
        parts.append(_Mixture(part.weights, part.means + centre, part.factors))
    counts = np.bincount(labels)
    found = Clusters(
        weights=torch.from_numpy(counts / len(rows)).float(),
        means=torch.from_numpy(np.concatenate([part.means for part in parts])).float(),
        factors=torch.from_numpy(np.concatenate([part.factors for part in parts])).float(),
        kind="em" if config.refine else "kmeans",
    )
    if len(parts) > 1:
        note += f"; {len(parts)} groups of rows apart"
    if len(counts) != k:
        note += f"; {len(counts)} clusters in the end"
    return found, torch.from_numpy(labels), note


def _kernel(rows: Array, pieces: Labels) -> Array:
    """Standard deviations [e] of a Gaussian kernel, by Silverman's rule, from the spread within pieces."""
    counts = np.bincount(pieces).astype(np.float64)
    means = np.stack([np.bincount(pieces, column) for column in rows.T], 1) / counts[:, None]
    within = (rows - means[pieces]).std(0)
    width = rows.shape[1]
    return np.asarray(within * (4 / ((width + 2) * len(rows))) ** (1 / (width + 4)), np.float64)


def _apportion(k: int, groups: Labels) -> list[int]:
    """Share k clusters among groups by their rows (Webster's method), at least one each."""
    sizes = np.bincount(groups)
    parts = np.ones(len(sizes), np.int64)
    for _ in range(k - len(sizes)):
        parts[np.argmax(sizes / (parts + 0.5))] += 1
    return [int(part) for part in parts]


@dataclass(frozen=True)
class _Mixture:
    weights: Array
    means: Array
    factors: Array

    def theta(self) -> Array:
        """Coefficients [K, 1 + e + e^2] of log(pi_i N(x; mu_i, F_i F_i^T)) over phi(x)."""
        width = self.means.shape[1]
        inverse = np.linalg.inv(self.factors)
        precision = inverse.transpose(0, 2, 1) @ inverse
        linear = np.einsum("kij,kj->ki", precision, self.means)
        constant = (
            np.log(self.weights)
            - np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(1)
            - 0.5 * np.einsum("ki,ki->k", linear, self.means)
            - 0.5 * width * np.log(2 * np.pi)
        )
        return np.concatenate(
            [constant[:, None], linear, -0.5 * precision.reshape(len(linear), -1)], axis=1
        )

    def logits(self, rows: Array) -> Array:
        return _phi(rows) @ self.theta().T


def _phi(rows: Array) -> Array:
    products = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    return np.concatenate([np.ones((len(rows), 1)), rows, products], axis=1)


def _mixture(statistics: Array, floor: Array) -> _Mixture:
    """Mixture with the given sums of phi per component [K, 1 + e + e^2] (the M-step).

    A covariance from few rows is pulled to its own diagonal by (e / rows)^2: it stays regular, on its scale.
    """
    width = len(floor)
    counts = np.maximum(statistics[:, 0], 1e-9)
    means = statistics[:, 1 : 1 + width] / counts[:, None]
    second = statistics[:, 1 + width :].reshape(-1, width, width) / counts[:, None, None]
    covariances = second - means[:, :, None] * means[:, None, :]
    diagonal = np.maximum(np.diagonal(covariances, axis1=1, axis2=2), 0.0)
    pull = np.minimum(width / counts, 1.0)[:, None, None] ** 2
    regular = (1 - pull) * covariances + (pull * diagonal[:, None] + floor**2) * np.eye(width)
    return _Mixture(counts / counts.sum(), means, _cholesky(regular))


def _cholesky(covariances: Array) -> Array:
    """Lower factors; rounding may have left an eigenvalue of about -1e-16, which is lifted."""
    try:
        return np.asarray(np.linalg.cholesky(covariances), np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariances)
        values = np.maximum(values, 1e-12 * np.maximum(values[:, -1:], 1e-12))
        lifted = vectors * values[:, None] @ vectors.transpose(0, 2, 1)
        return np.asarray(np.linalg.cholesky(lifted), np.float64)


def _expect(rows: Array, theta: Array) -> tuple[Array, float]:
    """Sums of phi by responsibility [K, 1 + e + e^2], and the rows' mean log-likelihood (the E-step)."""
    statistics, likelihood = np.zeros_like(theta), 0.0
    for at in range(0, len(rows), CHUNK):
        phi = _phi(rows[at : at + CHUNK])
        logits = phi @ theta.T
        top = logits.max(1, keepdims=True)
        shares = np.exp(logits - top)
        total = shares.sum(1, keepdims=True)
        likelihood += float((top + np.log(total)).sum())
        shares /= total
        statistics += shares.T @ phi
    return statistics, likelihood / len(rows)


def _fit_group(
    rows: Array,
    k: int,
    floor: Array,
    refine: bool,
    rng: np.random.Generator,
    held_share: float = HELD,
    most: int = ROWS,
    steps: int = STEPS,
) -> tuple[_Mixture, float]:
    """K-means and, if asked, expectation-maximisation; and the log-likelihood of held-out rows."""
    seen = rows if len(rows) <= most else rows[rng.choice(len(rows), most, replace=False)]
    centre = seen.mean(0)
    seen = seen - centre
    held, used = np.split(rng.permutation(len(seen)), [int(held_share * len(seen))])
    if len(held) < 10:
        held = used = np.arange(len(seen))
    labels = _kmeans(seen[used], k, 20 if refine else 300, rng)
    mixture = best = _mixture(_sums(seen[used], labels), floor)
    score, stale = -np.inf, 0
    for _ in range(steps if refine and len(best.means) > 1 else 1):
        theta = mixture.theta()
        now = _expect(seen[held], theta)[1]
        stale = 0 if now > score + 1e-3 else stale + 1
        if now > score:
            best, score = mixture, now
        if stale == 3:
            break
        mixture = _mixture(_expect(seen[used], theta)[0], floor)
    return _Mixture(best.weights, best.means + centre, best.factors), score


def _sums(rows: Array, labels: Labels) -> Array:
    """Sums of phi over the rows of each label [K, 1 + e + e^2]."""
    statistics = np.zeros((labels.max() + 1, 1 + rows.shape[1] + rows.shape[1] ** 2))
    for at in range(0, len(rows), CHUNK):
        member = np.eye(len(statistics))[labels[at : at + CHUNK]]
        statistics += member.T @ _phi(rows[at : at + CHUNK])
    return statistics


def _kmeans(rows: Array, k: int, steps: int, rng: np.random.Generator) -> Labels:
    """Label of each row, 0 to at most k - 1 without a hole."""
    from sklearn.cluster import KMeans

    k = min(k, len(np.unique(rows, axis=0)))
    if k == 1:
        return np.zeros(len(rows), np.int64)
    found = KMeans(k, n_init=1, max_iter=steps, random_state=int(rng.integers(2**31))).fit_predict(
        rows
    )
    return np.unique(found, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _belong(
    rows: Array, mixture: _Mixture, config: ClusterConfig, rng: np.random.Generator
) -> Labels:
    """Draw each row's component; components left with too few rows are dropped and their rows drawn again."""
    least = min(config.min_rows, len(rows)) if config.refine else 1
    while True:
        labels = _draw(rows, mixture, config, rng)
        counts = np.bincount(labels, minlength=len(mixture.means))
        if counts.min() >= least or len(counts) == 1:
            return labels
        small = np.argsort(counts)[: max(1, int((counts < least).sum()) // 2)]
        keep = np.setdiff1d(np.arange(len(counts)), small)
        mixture = _Mixture(
            mixture.weights[keep] / mixture.weights[keep].sum(),
            mixture.means[keep],
            mixture.factors[keep],
        )


def _draw(
    rows: Array, mixture: _Mixture, config: ClusterConfig, rng: np.random.Generator
) -> Labels:
    labels = np.empty(len(rows), np.int64)
    theta = mixture.theta()
    for at in range(0, len(rows), CHUNK):
        some = rows[at : at + CHUNK]
        if config.refine:
            scores = _phi(some) @ theta.T + rng.gumbel(size=(len(some), len(theta)))
        else:
            scores = some @ mixture.means.T - 0.5 * np.square(mixture.means).sum(1)
        labels[at : at + CHUNK] = scores.argmax(1)
    return labels


def _choose(
    rows: Array,
    groups: Labels,
    floor: Array,
    config: ClusterConfig,
    most: int,
    rng: np.random.Generator,
) -> tuple[int, str]:
    """K from the held-out log-likelihood of short fits, doubled until it falls, and a sentence on it.

    The smallest K within `ENOUGH` of the best: twice the clusters cost twice the pairs, tables and noise.
    """
    most = min(most, max(1, len(rows) // max(config.min_rows, 3 * rows.shape[1])))
    scores: dict[int, float] = {}
    most = max(most, int(groups.max()) + 1)
    k = min(max(4, int(groups.max()) + 1), most)
    while k not in scores:
        scores[k] = 0.0
        for group, part_k in enumerate(_apportion(k, groups)):
            inside = rows[groups == group]
            share = len(inside) / len(rows)
            look = max(int(LOOK * share), min(len(inside), 5 * rows.shape[1]))
            fitted = _fit_group(inside, part_k, floor, config.refine, rng, most=look, steps=10)
            scores[k] += share * fitted[1]
        if scores[k] < max(scores.values()):
            break
        k = min(2 * k, most)
    best = max(scores.values())
    enough = next(k for k, score in scores.items() if score > best - ENOUGH)
    tried = ", ".join(f"{k}: {score:.3f}" for k, score in scores.items())
    return enough, f"{enough} clusters are enough by the log-likelihood of held-out rows ({tried})"
