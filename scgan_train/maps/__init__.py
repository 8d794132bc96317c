"""Stage 2: the maps from Gaussian noise to a cluster's latents, all clusters trained together.

`MAPS` names them: a map is a class in a separate file and one line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from scgan_infer.errors import UsageError
from scgan_train.config import MapperConfig
from scgan_train.latents.clusters import Clusters
from scgan_train.latents.head import LatentModel, thresholds
from scgan_train.maps.aae import AdversarialMapper
from scgan_train.maps.base import Affine, Mapper
from scgan_train.maps.flow import FlowMapper
from scgan_train.maps.ot import TransportMapper

MAPS: dict[str, type[Mapper]] = {
    "aae": AdversarialMapper,
    "ot": TransportMapper,
    "flow": FlowMapper,
}
# dimensions; above, transport pairs depend more on the sample than on the cluster
MOST_TRANSPORTED = 3


def choose(kind: str, e: int, steps: int = 0, given: bool = False) -> str:
    """Return a map's name, or for `auto` one by the number of latent dimensions and discrete steps.

    The flow alone sees discrete values and given columns.

    Raises:
        UsageError: for an unknown name, listing the known, or a map that sees no given columns.
    """
    if kind == "auto":
        kind = "ot" if e <= MOST_TRANSPORTED and not steps and not given else "flow"
    if kind not in MAPS:
        raise UsageError(f"no map is called {kind!r}; choose from auto, {', '.join(MAPS)}")
    if given and kind != "flow":
        raise UsageError(f"the map {kind!r} sees no given columns; leave it out, or take flow")
    return kind


def resolved(
    config: MapperConfig, e: int, rows: int, steps: int = 0, given: bool = False
) -> MapperConfig:
    """Return the settings without "auto" for so many dimensions, training rows, discrete steps."""
    kind = choose(config.kind, e, steps, given)
    settings = {"kind": kind, **MAPS[kind].defaults(e, rows, steps)}
    if given:  # held-out likelihood of two_moons: -1.66 nats with two, -1.73 with one
        settings["layers"] = 2
    auto = {key: to for key, to in settings.items() if getattr(config, key) == "auto"}
    return replace(config, **auto)


def latent_model(
    kind: str,
    clusters: Clusters,
    config: MapperConfig,
    generator: torch.Generator,
    sizes: Sequence[int] = (),
    given: int = 0,
) -> LatentModel:
    """Return the untrained latent model `gaussian` (one cluster), `centers` or resolved `mapper`.

    The map sees discrete steps of so many outcomes [h - 1], those of given columns first, and so
    many given coordinates, which are the first of the clusters'.
    """
    e = clusters.means.shape[1] - given
    ensemble: nn.Module
    if kind == "mapper":
        ensemble = MAPS[choose(config.kind, e)](clusters, config, generator, sizes, given)
    elif kind == "centers":
        variances = clusters.factors.square().sum((1, 2)) / e
        ensemble = Affine(clusters.means, variances.sqrt()[:, None, None] * torch.eye(e))
    else:
        ensemble = Affine(clusters.means, clusters.factors)
    return LatentModel(thresholds(clusters.weights), ensemble, getattr(ensemble, "noise", e))
