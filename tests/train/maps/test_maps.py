"""Laws of the maps `ot` and `flow`."""

import math
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.stats import kstest, norm
from test_loop import Watcher

from scgan_train import clusters as clustering
from scgan_train.clusters import Clusters
from scgan_train.config import ClusterConfig, MapperConfig
from scgan_train.exporting.exporter import to_onnx
from scgan_train.maps import MAPPERS
from scgan_train.maps.flow import BINS, FlowMapper, Spline, Triangular, coordinate_order
from scgan_train.maps.ot import TransportMapper, optimal_pairs
from scgan_train.training.loop import fit, generator_for

KINDS = [TransportMapper, FlowMapper]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(module: torch.nn.Module, size: float = 0.3) -> torch.nn.Module:
    """The module in double precision with every parameter moved, as after some training."""
    generator = seeded(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return module.double()


def some_clusters(k: int, e: int) -> Clusters:
    factors = 0.3 * torch.randn(k, e, e, generator=seeded(2)).tril(-1)
    factors += torch.diag_embed(0.2 + torch.rand(k, e, generator=seeded(3)))
    means = 2 * torch.randn(k, e, generator=seeded(4))
    return Clusters(torch.full((k,), 1 / k), means, factors, "em")


def test_a_spline_and_its_inverse_undo_each_other():
    raw = 2 * torch.randn(3000, 3 * BINS - 1, generator=seeded()).double()
    x = 2.5 * torch.randn(3000, 1, generator=seeded(1)).double()
    spline = Spline().double()
    again, _ = spline.inverse(spline(x, raw), raw)
    torch.testing.assert_close(again, x, atol=1e-9, rtol=0)


def test_a_spline_is_smooth_monotone_and_the_identity_outside():
    raw = 2 * torch.randn(20, 1, 3 * BINS - 1, generator=seeded()).double()
    x = torch.linspace(-6, 6, 6001).double()[None, :, None].expand(20, -1, -1)
    spline = Spline().double()
    y = spline(x, raw.expand(-1, 6001, -1)).squeeze(-1)
    outside = x[0, :, 0].abs() >= 4
    torch.testing.assert_close(y[:, outside], x[:, outside, 0])
    slope = y.diff(dim=1) / 0.002
    assert slope.min() > 0
    assert slope.diff(dim=1).abs().max() < 0.1 * slope.max()


def test_a_spline_s_log_derivative_is_autograd_s():
    raw = torch.randn(500, 3 * BINS - 1, generator=seeded()).double()
    y = (2.5 * torch.randn(500, 1, generator=seeded(1)).double()).requires_grad_()
    x, log = Spline().double().inverse(y, raw)
    (derivative,) = torch.autograd.grad(x.sum(), y)
    torch.testing.assert_close(derivative.log(), log)


@pytest.mark.parametrize("sizes", [(4,), (1, 3)])
@pytest.mark.parametrize("e", [1, 2, 5])
def test_a_triangular_layer_inverts_and_counts_its_volume(e: int, sizes: tuple[int, ...]):
    layer = shaken(Triangular(sizes, e, 16, seeded()))
    w = torch.randn(64 * len(sizes), e, generator=seeded(5)).double()
    cluster = torch.cat([sum(sizes[:i]) + torch.arange(64) % size for i, size in enumerate(sizes)])
    v = layer(w, cluster)
    again, log = layer.inverse(v.view(len(sizes), 64, e), cluster.view(len(sizes), 64))
    torch.testing.assert_close(again.view(-1, e), w)
    jacobian = torch.autograd.functional.jacobian(lambda w: layer(w, cluster).sum(0), w).permute(
        1, 0, 2
    )
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, -log.flatten())
    assert torch.equal(jacobian.triu(1), torch.zeros_like(jacobian))


@pytest.mark.parametrize("sizes", [(3,), (1, 2)])
@pytest.mark.parametrize("e", [1, 2, 3])
def test_the_flow_s_loss_is_minus_the_log_likelihood_of_what_it_samples(
    e: int, sizes: tuple[int, ...]
):
    """Change of variables, checked from the sampling side: p(g(w)) |det dg/dw| = N(w)."""
    flow = shaken(
        FlowMapper(replace(some_clusters(3, e), sizes=sizes), MapperConfig(width=8), seeded()), 0.2
    )
    losses = torch.zeros(len(sizes)).double()
    latents = torch.zeros(len(sizes), 1, e).double()
    firsts = torch.tensor([0, *np.cumsum(sizes)[:-1]])
    for fit_number, cluster in enumerate(firsts.tolist()):
        w = torch.randn(1, e, generator=seeded(cluster)).double()
        index = torch.tensor([cluster])
        latents[fit_number] = flow(w, index).detach()
        jacobian = torch.autograd.functional.jacobian(lambda w, index=index: flow(w, index), w)[
            0, :, 0
        ]
        volume = torch.linalg.slogdet(flow.clusters.factors[cluster].double()).logabsdet
        normal = 0.5 * float(w.square().sum()) + 0.5 * e * math.log(2 * math.pi)
        losses[fit_number] = normal + float(torch.linalg.slogdet(jacobian).logabsdet - volume)
    v = flow.whitened(latents, firsts[:, None])
    loss = flow.loss(v, firsts[:, None], seeded())["likelihood"].detach()
    assert float(loss) == pytest.approx(float(losses.mean()), abs=1e-4)


def test_a_fit_s_maps_are_its_own():
    """Moving the networks of one fit moves the rows of its clusters and no others."""
    flow = FlowMapper(replace(some_clusters(5, 3), sizes=(2, 3)), MapperConfig(width=8), seeded())
    flow = shaken(flow, 0.2)
    w, cluster = torch.randn(50, 3, generator=seeded()).double(), torch.arange(50) % 5
    before = flow(w, cluster).detach()
    with torch.no_grad():
        for layer in flow.layers:
            layer.second[1].mul_(1.5)
    moved = (flow(w, cluster) - before).abs().sum(1) > 0
    assert torch.equal(moved, cluster >= 2)


def test_pairs_are_optimal():
    """On a line the optimal assignment is the sorted one; in the plane no swap of two pairs helps."""
    line = torch.randn(200, 1, generator=seeded()).double()
    codes, rows, counts = optimal_pairs(line, torch.tensor([120, 80]), seeded())
    for some in (slice(0, 120), slice(counts[0], counts[0] + 80)):
        assert torch.equal(codes[some].argsort(0), rows[some].argsort(0))
    plane = torch.rand(150, 2, generator=seeded()).double()
    codes, rows, _ = optimal_pairs(plane, torch.tensor([150]), seeded())
    cost = torch.cdist(codes[:150], rows[:150]).square()
    swapped = cost + cost.T - cost.diag()[:, None] - cost.diag()
    assert swapped.min() > -1e-4


def test_codes_of_pairs_are_normal_and_every_row_is_used():
    rows = torch.randn(3000, 2, generator=seeded()).double()
    codes, used, counts = optimal_pairs(rows, torch.tensor([2900, 100]), seeded())
    assert kstest(codes[:, 0].numpy(), norm.cdf).pvalue > 0.01
    assert len(torch.unique(used, dim=0)) > 2900
    assert int(counts.sum()) == len(codes) == len(used)


def test_transport_keeps_each_cluster_s_mean_and_covariance():
    """Also where pairs are so few that regression alone loses a fifth of the variance."""
    rows = torch.rand(900, 4, generator=seeded()) ** 2
    clusters, labels, _ = clustering.fit(rows, ClusterConfig(k=9, split=False), seeded())
    mapper = TransportMapper(clusters, MapperConfig(steps=100), seeded())
    fit("map", mapper, lambda g: mapper.phases(rows, labels, g), 0, Watcher())
    for cluster in range(len(clusters)):
        with torch.no_grad():
            w = torch.randn(50_000, 4, generator=seeded(cluster))
            made = mapper(w, torch.full((50_000,), cluster))
        mine = rows[labels == cluster]
        torch.testing.assert_close(made.mean(0), mine.mean(0), atol=0.01, rtol=0)
        torch.testing.assert_close(
            torch.cov(made.T), torch.cov(mine.T, correction=0), atol=0.002, rtol=0.05
        )


def test_the_lumpiest_coordinate_comes_first():
    rng = np.random.default_rng(0)
    lumps = rng.choice(3, 3000) * 2.0 + 0.02 * rng.standard_normal(3000)
    spikes = np.where(rng.random(3000) < 0.5, 0.0, 2.0) + 1e-4 * rng.standard_normal(3000)
    rows = np.column_stack([2 * rng.random(3000), lumps, rng.standard_normal(3000), spikes])
    clusters, _, _ = clustering.fit(
        torch.from_numpy(rows).float(), ClusterConfig(k=24, split=False), seeded()
    )
    assert coordinate_order(clusters)[:2].tolist() == [3, 1]


def ring(n: int, e: int) -> torch.Tensor:
    rows = torch.randn(n, e, generator=seeded())
    rows[:, :2] *= (1 + 0.05 * torch.randn(n, 1, generator=seeded(1))) / rows[:, :2].norm(
        dim=1, keepdim=True
    )
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("e", [2, 4])
def test_a_trained_map_paints_the_ring_and_exports(kind: type, e: int):
    rows = ring(4000, e)
    clusters, labels, _ = clustering.fit(rows, ClusterConfig(k=8, split=False), seeded())
    mapper = kind(clusters, MapperConfig(steps=300), seeded())
    index = torch.multinomial(clusters.weights, 20_000, True, generator=seeded(1))
    w = torch.randn(20_000, e, generator=seeded(2))

    def off_ring() -> float:
        with torch.no_grad():
            return float(((mapper(w, index)[:, :2].norm(dim=1) - 1).abs() > 0.15).float().mean())

    before = off_ring()
    fit("map", mapper, lambda g: mapper.phases(rows, labels, g), 0, Watcher())
    with torch.no_grad():
        latents = mapper(w, index)
    assert off_ring() < 0.7 * before
    torch.testing.assert_close(latents.mean(0), rows.mean(0), atol=0.08, rtol=0)
    torch.testing.assert_close(torch.cov(latents.T), torch.cov(rows.T), atol=0.2, rtol=0)

    graph = to_onnx(mapper, {"w": w, "cluster": index}, ("latent",))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {"w": w[:4096].numpy(), "cluster": index[:4096].numpy()})
    np.testing.assert_allclose(exported, latents[:4096].numpy(), atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_coordinate_stays_constant(kind: type):
    rows = torch.randn(800, 3, generator=seeded())
    rows[:, 1] = (rows[:, 0] > 0).float() * 2
    clusters, labels, _ = clustering.fit(rows, ClusterConfig(k=6), seeded())
    mapper = kind(clusters, MapperConfig(steps=60), seeded())
    fit("map", mapper, lambda g: mapper.phases(rows, labels, g), 0, Watcher())
    index = torch.multinomial(clusters.weights, 5000, True, generator=seeded(1))
    with torch.no_grad():
        latents = mapper(torch.randn(5000, 3, generator=seeded(2)), index)
    assert float(torch.minimum(latents[:, 1].abs(), (latents[:, 1] - 2).abs()).max()) < 2e-3
    share = float((latents[:, 1] > 1).float().mean())
    assert share == pytest.approx(float((rows[:, 1] > 1).float().mean()), abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_training_depends_on_the_seed_alone(kind: type):
    rows = ring(600, 2)
    clusters, labels, _ = clustering.fit(rows, ClusterConfig(k=4), seeded())

    def weights() -> list[torch.Tensor]:
        mapper = kind(clusters, MapperConfig(steps=5), generator_for(0, "init"))
        fit("map", mapper, lambda g: mapper.phases(rows, labels, g), 0, Watcher())
        return [parameter.detach() for parameter in mapper.parameters()]

    state = torch.get_rng_state()
    first, second = weights(), weights()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_maps_are_chosen_by_name():
    assert MAPPERS["ot"] is TransportMapper
    assert MAPPERS["flow"] is FlowMapper
