"""Coordinates known only within bounds, drawn given their row's others (data augmentation).

Equal numbers of a column have one interval of scores, not one score. Spread over it at random they
carry noise that hides dependence between columns: for two mostly 0, their remaining correlation.
Given a Gaussian of mean mu and precision P for the row's cluster, coordinate j is

    x_j | the others  ~  N(mu_j - sum_(i != j) P_ij (x_i - mu_i) / P_jj,  1 / P_jj)  in its bounds,

one coordinate after the other (Gibbs sampling; Albert and Chib 1993 for a probit model).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def redraw(
    rows: Array,
    bounds: tuple[Array, Array],
    labels: Labels,
    means: Array,
    factors: Array,
    rng: np.random.Generator,
) -> Array:
    """Return rows [n, e] with every coordinate that has bounds drawn once given the others.

    Bounds are least and greatest [n, e], equal where a coordinate is known. Clusters, of which each
    row has the label [n], have means [K, e] and lower Cholesky factors [K, e, e] of covariances.
    """
    from scipy.special import ndtr, ndtri

    drawn = rows.copy()
    for k in np.unique(labels):
        mine = np.flatnonzero(labels == k)
        inverse = np.linalg.inv(factors[k])
        precision = inverse.T @ inverse
        centred = rows[mine] - means[k]
        low, high = (bound[mine] - means[k] for bound in bounds)
        for j in np.flatnonzero((low < high).any(0)):
            spread = precision[j, j] ** -0.5
            middle = centred[:, j] - centred @ precision[:, j] * spread**2
            ends = (low[:, j] - middle) / spread, (high[:, j] - middle) / spread
            # in the upper tail ndtr is 1 to the last bit: the other tail is used
            flipped = ends[0] > 0
            least, greatest = np.where(flipped, (-ends[1], -ends[0]), ends)
            below, above = ndtr(least), ndtr(greatest)
            share = np.maximum(below + (above - below) * rng.random(len(mine)), 1e-300)
            score = np.clip(ndtri(share), least, greatest)
            centred[:, j] = middle + spread * np.where(flipped, -score, score)
        drawn[mine] = np.clip(centred + means[k], *(bound[mine] for bound in bounds))
    return drawn
