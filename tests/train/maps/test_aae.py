"""Each term of equations 2 and 3 does alone what it is there for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from cases import Watcher
from scipy.stats import kstest, norm
from torch import Tensor

from scgan_train.config import MapperConfig
from scgan_train.fitting.loop import Phase, fit, generator_for
from scgan_train.latents.clusters import Clusters
from scgan_train.maps.aae import AdversarialMapper

CLUSTERS = 8
ROWS = (0.6 * torch.randn(CLUSTERS, 500, 1, generator=generator_for(0, "rows"))).exp()  # skew


def mapper() -> AdversarialMapper:
    """Maps of clusters that are all alike, in frames that are the identity."""
    shares, means = torch.full((CLUSTERS,), 1 / CLUSTERS), torch.zeros(CLUSTERS, 1)
    clusters = Clusters(shares, means, torch.ones(CLUSTERS, 1, 1), "em")
    config = MapperConfig("aae", **AdversarialMapper.defaults(1, 4000) | {"steps": 300})
    return AdversarialMapper(clusters, config, generator_for(0, "maps"))


def trained(mapper: AdversarialMapper, term: str) -> AdversarialMapper:
    """Train by the critics' losses and by one term of the maps'."""
    labels = torch.arange(CLUSTERS).repeat_interleave(ROWS.shape[1])

    def phases(generator: torch.Generator) -> Iterator[Phase]:
        for phase in mapper.phases(ROWS.flatten(0, 1), labels, generator):
            critics, maps = phase.players

            def alone(*batch: Tensor, loss: object = maps.loss) -> dict[str, Tensor]:
                return {term: loss(*batch)[term]}  # type: ignore[operator]

            yield replace(phase, players=(critics, replace(maps, loss=alone)))

    fit("maps", mapper, phases, 0, Watcher())
    return mapper


def distance(made: Tensor, real: object) -> float:
    """Return the median Kolmogorov-Smirnov distance of the clusters' numbers [K, n, 1]."""
    return float(np.median([kstest(some.flatten(), real).statistic for some in made.detach()]))


def test_the_critic_on_codes_makes_them_normal() -> None:
    before, after = (ROWS + own.code(ROWS) for own in (mapper(), trained(mapper(), "codes")))
    assert distance(before, norm.cdf) > 0.5
    assert distance(after, norm.cdf) < 0.2


def test_the_critic_on_latents_makes_them_like_the_rows() -> None:
    w = torch.randn(CLUSTERS, 2000, 1, generator=generator_for(1, "w"))
    before, after = (w + own.map(w) for own in (mapper(), trained(mapper(), "latents")))
    assert distance(before, ROWS.flatten()) > 0.5
    assert distance(after, ROWS.flatten()) < 0.3


def test_reconstruction_brings_rows_back() -> None:
    own = mapper()
    with torch.no_grad():
        for weight in own.code.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator_for(2, "code")))

    def error() -> float:
        code = ROWS + own.code(ROWS)
        return float((code + own.map(code) - ROWS).detach().square().mean())

    before = error()
    trained(own, "reconstruction")
    assert error() < 0.02 * before
