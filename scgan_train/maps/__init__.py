"""Stage 2: the maps from Gaussian noise to a cluster's latents, all clusters trained together; `MAPPERS` names them.

`AdversarialMapper` is the paper's: an encoder q_i(w|eps) and a map g_i(eps|w), a critic on codes (equation 2) and a
critic on latents (equation 3). Maps work in the cluster's own frame, v = L_i^-1 (eps - mu_i), and start as the identity
there, so that a cluster begins as its own Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scgan_infer.errors import UsageError
from scgan_train.clusters import Clusters
from scgan_train.config import MapperConfig
from scgan_train.head import Affine, LatentModel, Mapper, Members, thresholds
from scgan_train.maps.flow import FlowMapper
from scgan_train.maps.ot import TransportMapper
from scgan_train.nets import ClusterMLP, critic_loss, generator_loss, gradient_penalty
from scgan_train.training.loop import Phase, Player

MOST_TRANSPORTED = (
    3  # dimensions; above, transport pairs say more about the sample than about the cluster
)


class AdversarialMapper(Mapper):
    """Adversarial autoencoders (equations 2 and 3), one a cluster, every layer a batched product over clusters.

    g(w) = w + MLP(w), q(v) = v + MLP(v), last layers zero at the start; critics on codes and on whitened latents.
    """

    BATCH = 64

    def __init__(
        self, clusters: Clusters, config: MapperConfig, generator: torch.Generator
    ) -> None:
        super().__init__(clusters, config, generator)
        k, e = clusters.means.shape
        width = 32 if config.width == "auto" else config.width
        self.map = ClusterMLP(k, [e, width, e], generator, zero=True)
        self.code = ClusterMLP(k, [e, width, e], generator, zero=True)
        self.critics = nn.ModuleList(ClusterMLP(k, [e, 24, 24, 1], generator) for _ in range(2))
        self.frame = Affine(clusters.means, clusters.factors)

    def forward(self, w: Tensor, cluster: Tensor) -> Tensor:
        """Return latents [n, e]."""
        latent: Tensor = self.frame(w + self.map.rows(w, cluster), cluster)
        return latent

    def loss(self, v: Tensor, w: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the autoencoder's terms on whitened latents v and codes w, both [K, b, e]."""
        on_codes, on_latents = self.critics
        code = v + self.code(v)
        again = code + self.map(code)
        return {
            "reconstruction": (again - v).square().mean(),
            "codes": 0.2 * generator_loss(on_codes(code)),
            "latents": generator_loss(on_latents(w + self.map(w))),
        }

    def critic_loss(self, v: Tensor, w: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the two critics' terms, with R1 at a quarter of the real codes and latents."""
        on_codes, on_latents = self.critics
        with torch.no_grad():
            code, fake = v + self.code(v), w + self.map(w)
        few_w, few_v = (real[:, : self.BATCH // 4].clone().requires_grad_() for real in (w, v))
        slopes = gradient_penalty(on_codes(few_w), few_w) + gradient_penalty(
            on_latents(few_v), few_v
        )
        return {
            "critic_codes": critic_loss(on_codes(w), on_codes(code)),
            "critic_latents": critic_loss(on_latents(v), on_latents(fake)),
            "penalty": 0.05 * slopes,
        }

    def phases(
        self, latents: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Phase]:
        """Yield one adversarial phase; the maps' average is what stays."""
        members = Members(self.clusters, latents, labels)
        steps = 800 if self.config.steps == "auto" else self.config.steps
        lr = 2e-3 if self.config.lr == "auto" else self.config.lr

        def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            v = members.draw(self.BATCH, generator)
            return v, torch.randn(v.shape, generator=generator).to(v)

        maps = [*self.map.parameters(), *self.code.parameters()]
        players = (
            Player(
                "critics",
                list(self.critics.parameters()),
                self.critic_loss,
                1.5 * lr,
                betas=(0.0, 0.99),
            ),
            Player("maps", maps, self.loss, lr, betas=(0.0, 0.99)),
        )
        yield Phase("adversarial autoencoders", steps, draw, players, average=self.map, decay=0.99)


def choose(kind: str, dims: int) -> type[Mapper]:
    """Return the kind of map by name, or by the latents' dimension for `auto`.

    Raises:
        UsageError: for an unknown name, listing the known ones.
    """
    if kind == "auto":
        kind = "ot" if dims <= MOST_TRANSPORTED else "flow"
    if kind not in MAPPERS:
        raise UsageError(f"--mapper {kind!r} is unknown; choose from auto, {', '.join(MAPPERS)}")
    return MAPPERS[kind]


def latent_model(
    kind: str, clusters: Clusters, config: MapperConfig, generator: torch.Generator
) -> LatentModel:
    """Return the untrained latent model `gaussian` (given its one cluster), `centers` or `mapper`."""
    e = clusters.means.shape[1]
    ensemble: nn.Module
    if kind == "mapper":
        ensemble = choose(config.kind, e)(clusters, config, generator)
    elif kind == "centers":
        variances = clusters.factors.square().sum((1, 2)) / e
        ensemble = Affine(clusters.means, variances.sqrt()[:, None, None] * torch.eye(e))
    else:
        ensemble = Affine(clusters.means, clusters.factors)
    return LatentModel(thresholds(clusters.weights), ensemble, getattr(ensemble, "noise", e))


MAPPERS: dict[str, type[Mapper]] = {
    "aae": AdversarialMapper,
    "ot": TransportMapper,
    "flow": FlowMapper,
}
