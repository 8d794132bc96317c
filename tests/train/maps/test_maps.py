"""Laws of the maps: those of every map walk `MAPS`."""

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from cases import Watcher
from scipy.stats import kstest, norm

from scgan_train.config import ClusterConfig, MapperConfig
from scgan_train.fitting.loop import fit
from scgan_train.graph import argument, const, model, op
from scgan_train.latents import clusters as clustering
from scgan_train.latents.clusters import Clusters
from scgan_train.maps import MAPS
from scgan_train.maps import flow as flows
from scgan_train.maps.base import Affine, Invertible, Mapper, Members, affine_graph, log_normal
from scgan_train.maps.flow import BINS, FlowMapper, Spline, Triangular, coordinate_order
from scgan_train.maps.ot import TransportMapper, optimal_pairs


def settings(kind: str, e: int, rows: int = 4000, **own: Any) -> MapperConfig:
    """The kind's defaults, but for what is given."""
    return MapperConfig(kind=kind, **MAPS[kind].defaults(e, rows) | own)


def of(kind: str, clusters: Clusters, **own: Any) -> Mapper:
    config = settings(kind, clusters.means.shape[1], **own)
    mapper = MAPS[kind](clusters, config, seeded())
    if isinstance(mapper, FlowMapper) and not int(mapper.leading):
        mapper.leading.fill_(3)  # as training would say
    return mapper


def run(mapper: Mapper | Affine, w: torch.Tensor, cluster: torch.Tensor) -> np.ndarray:
    """What onnxruntime makes of the map's graph."""
    noise, choice = argument(("n", w.shape[1])), argument(("n",), np.int64)
    graph = model({"w": noise, "choice": choice}, {"latent": mapper.graph(noise, [choice])})
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {"w": w.numpy(), "choice": cluster.numpy()})[0]


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


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("k", [1, 2, 300])
@pytest.mark.parametrize("e", [1, 2, 4, 5, 16, 20])
def test_a_graph_is_its_map(kind: str, k: int, e: int):
    """To 1e-4 of the spread, also in the farthest rows that noise of 24 bits can reach."""
    clusters = some_clusters(k, e)
    mapper = shaken(of(kind, clusters), 0.05).float()
    w = torch.randn(2000, e, generator=seeded(5))
    w[:4] = torch.tensor([6.77, -6.77, 4.0, -4.0])[:, None]
    cluster = torch.randint(k, (2000,), generator=seeded(6))
    with torch.no_grad():
        latents = mapper(w, cluster).numpy()
    np.testing.assert_allclose(run(mapper, w, cluster), latents, atol=1e-4, rtol=0)
    untrained = of(kind, clusters)
    frame = Affine(clusters.means, clusters.factors)(w, cluster)
    if kind != "flow":  # whose frame has the coordinates in another order
        np.testing.assert_allclose(run(untrained, w, cluster), frame, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("k", "inputs", "outputs"), [(128, 18, 2), (3, 5, 8)])
def test_affine_maps_of_clusters_take_the_fewer_numbers(k: int, inputs: int, outputs: int):
    """A row's own i o numbers, or K i with zeros but at its cluster: planes have K = 128 and o = 2."""
    tables = torch.randn(k, inputs + 1, outputs, generator=seeded())
    x, choice = argument([inputs, "n"]), argument(["n"], np.int64)
    graph = model({"x": x, "choice": choice}, {"y": op.transpose(affine_graph(tables, x, choice))})
    assert ("MatMul" in graph.decode("latin1")) == (k < outputs)
    rows = torch.randn(inputs, 100, generator=seeded(1))
    chosen = torch.randint(k, (100,), generator=seeded(2))
    expected = torch.einsum("in,nio->no", rows, tables[chosen, :-1]) + tables[chosen, -1]
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"x": rows.numpy(), "choice": chosen.numpy()})
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)


def test_a_frame_and_its_inverse_undo_each_other():
    clusters = some_clusters(5, 4)
    frame, cluster = Affine(clusters.means, clusters.factors), torch.arange(50) % 5
    w = torch.randn(50, 4, generator=seeded())
    torch.testing.assert_close(frame.inverse(frame(w, cluster), cluster), w, atol=1e-4, rtol=0)
    np.testing.assert_allclose(run(frame, w, cluster), frame(w, cluster), atol=1e-5)


def test_a_pass_forward_computes_the_spline_of_one_coordinate(monkeypatch: pytest.MonkeyPatch):
    """All of them in each of e passes took most of an export of 16 columns."""
    computed = []

    class Counted(Spline):
        def __init__(self, raw: torch.Tensor) -> None:
            computed.append(raw.shape[:-1].numel())
            super().__init__(raw)

    monkeypatch.setattr(flows, "Spline", Counted)
    layer = Triangular(2, 6, 8, seeded())
    layer(torch.randn(10, 6, generator=seeded()), torch.zeros(10).long())
    assert sum(computed) == 10 * 6


def invertible(k: int, e: int, sizes: tuple[int, ...] = ()) -> list[Invertible]:
    """Every map that can be undone."""
    clusters = some_clusters(k, e)
    maps = [kind(clusters, settings(name, e), seeded(), sizes) for name, kind in MAPS.items()]
    for a_map in maps:
        if isinstance(a_map, FlowMapper) and not int(a_map.leading):
            a_map.leading.fill_(3)
    maps = [shaken(a_map, 0.05) for a_map in maps if isinstance(a_map, Invertible)]
    return [Affine(clusters.means, clusters.factors).double(), *maps]


@pytest.mark.parametrize("e", [1, 2, 5])
def test_the_density_of_a_latent_is_that_of_its_noise_by_the_slope(e: int):
    w = torch.randn(40, e, generator=seeded()).double()
    choice = torch.randint(3, (40, 2), generator=seeded(1))
    for a_map in invertible(3, e, (3,)):

        def one(w: torch.Tensor, own: torch.Tensor, a_map: Invertible = a_map) -> torch.Tensor:
            return a_map(w[None], own[None])[0]

        latents, jacobians = a_map(w, choice), torch.func.vmap(torch.func.jacrev(one))(w, choice)
        wanted = log_normal(w) - torch.linalg.slogdet(jacobians).logabsdet
        found = a_map.log_densities(latents, choice[:, :1])
        own = found.gather(1, choice[:, 1:]).squeeze(1)
        torch.testing.assert_close(own, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize("sizes", [(), (4, 2)])
@pytest.mark.parametrize("e", [5, 20])
def test_the_graph_of_densities_is_their_map_s(k: int, sizes: tuple[int, ...], e: int):
    """More clusters than are computed together, and latents far out."""
    w = torch.randn(500, e, generator=seeded())
    choice = torch.stack([torch.arange(500) % size for size in (*sizes, k)], 1)
    for a_map in invertible(k, e, sizes):
        with torch.no_grad():
            latents = a_map.float()(w, choice)
        latents[:2] = torch.tensor([[1e15], [-1e15]])
        latent, own = argument(("n", e)), argument(("n", choice.shape[1]), np.int64)
        steps = [op.gather(own, const(j, np.int64), axis=1) for j in range(choice.shape[1])]
        logs = op.transpose(a_map.log_densities_graph(latent, steps))
        graph = model({"latent": latent, "own": own}, {"logs": logs, "last": steps[-1]})
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        found = session.run(["logs"], {"latent": latents.numpy(), "own": choice.numpy()})[0]
        with torch.no_grad():
            wanted = a_map.log_densities(latents, choice).numpy()
        near = wanted > -10 - 2 * e  # farther out float32 rounds as it likes
        assert near.sum() > 450
        gap = np.abs(found - wanted)[near]
        assert np.quantile(gap, 0.99) < 2e-3
        assert gap.max() < 0.1
        assert (found[:2] < -1e28).all()


def test_a_spline_and_its_inverse_undo_each_other():
    spline = Spline(2 * torch.randn(3000, 3 * BINS - 1, generator=seeded()).double())
    x = 2.5 * torch.randn(3000, generator=seeded(1)).double()
    again, _ = spline.inverse(spline.forward(x))
    torch.testing.assert_close(again, x, atol=1e-8, rtol=0)


def test_a_spline_is_smooth_monotone_and_the_identity_outside():
    raw = torch.randn(20, 1, 3 * BINS - 1, generator=seeded()).double()
    x = torch.linspace(-6, 6, 6001).double().expand(20, -1)
    y = Spline(raw.expand(-1, 6001, -1)).forward(x)
    outside = x[0].abs() >= 4
    torch.testing.assert_close(y[:, outside], x[:, outside])
    slope = y.diff(dim=1) / 0.002
    assert slope.min() > 0
    assert slope.diff(dim=1).abs().max() < 0.1 * slope.max()


def test_a_spline_without_numbers_is_the_identity():
    x = torch.linspace(-6, 6, 101).double()
    y = Spline(torch.zeros(101, 3 * BINS - 1).double()).forward(x)
    torch.testing.assert_close(y, x)


def test_a_spline_s_log_derivative_is_autograd_s():
    raw = torch.randn(500, 3 * BINS - 1, generator=seeded()).double()
    y = (2.5 * torch.randn(500, generator=seeded(1)).double()).requires_grad_()
    x, log = Spline(raw).inverse(y)
    (derivative,) = torch.autograd.grad(x.sum(), y)
    torch.testing.assert_close(derivative.log(), log)


@pytest.mark.parametrize("e", [1, 2, 5])
def test_a_triangular_layer_inverts_and_counts_its_volume(e: int):
    layer = shaken(Triangular(4, e, 16, seeded()))
    w = torch.randn(64, e, generator=seeded(5)).double()
    cluster = torch.arange(64) % 4
    v = layer(w, cluster)
    again, log = layer.inverse(v, cluster)
    torch.testing.assert_close(again, w)
    jacobian = torch.autograd.functional.jacobian(lambda w: layer(w, cluster).sum(0), w).permute(
        1, 0, 2
    )
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, -log)
    assert torch.equal(jacobian.triu(1), torch.zeros_like(jacobian))


@pytest.mark.parametrize("e", [1, 3, 5])
def test_the_flow_s_loss_is_minus_the_log_likelihood_of_what_it_samples(e: int):
    """Change of variables, checked from the sampling side: p(g(w)) |det dg/dw| = N(w)."""
    flow = shaken(of("flow", some_clusters(3, e), width=8), 0.2)
    losses, latents = [], []
    for cluster in range(3):
        w, index = torch.randn(1, e, generator=seeded(cluster)).double(), torch.tensor([cluster])
        latents.append(flow(w, index).detach())
        jacobian = torch.autograd.functional.jacobian(lambda w, index=index: flow(w, index), w)
        volume = torch.linalg.slogdet(flow.clusters.factors[cluster].double()).logabsdet
        normal = 0.5 * float(w.square().sum()) + 0.5 * e * math.log(2 * math.pi)
        losses.append(normal + float(torch.linalg.slogdet(jacobian[0, :, 0]).logabsdet - volume))
    v = flow.whitened(torch.cat(latents), torch.arange(3))
    loss = flow.loss(v, torch.arange(3), seeded())["minus_log_likelihood"].detach()
    assert float(loss) == pytest.approx(np.mean(losses), abs=1e-4)


def test_pairs_are_optimal():
    """On a line the best assignment is the sorted one; in the plane no swap of two pairs helps."""
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
    mapper = TransportMapper(clusters, settings("ot", 4, steps=100), seeded())
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


def test_most_clusters_that_are_gaussians_stay_so():
    """Of nine clusters the last is a square: regression would shorten the tails of the others."""
    n, generator = 2500, seeded()
    rows = torch.randn(9, n, 2, generator=generator)
    rows[8] = 3**0.5 * (2 * torch.rand(n, 2, generator=generator) - 1)
    labels = torch.arange(9).repeat_interleave(n)
    factors = torch.stack([torch.linalg.cholesky(torch.cov(own.T)) for own in rows])
    clusters = Clusters(torch.full((9,), 1 / 9), rows.mean(1), factors, "em")
    mapper = TransportMapper(clusters, settings("ot", 2), seeded())
    fit("map", mapper, lambda g: mapper.phases(rows.reshape(-1, 2), labels, g), 0, Watcher())
    gaussian = (mapper.map.weights[-1] == 0).all(2).all(1)
    assert gaussian[:8].sum() >= 4
    assert not gaussian[8]


@pytest.mark.parametrize("kind", ["ot", "flow"])
@pytest.mark.parametrize("e", [2, 4])
def test_a_trained_map_paints_the_ring(kind: str, e: int):
    rows = ring(4000, e)
    clusters, labels, _ = clustering.fit(rows, ClusterConfig(k=8, split=False), seeded())
    mapper = of(kind, clusters, steps=300)
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
    np.testing.assert_allclose(run(mapper, w, index), latents, atol=2e-4)


def test_a_wide_flow_moves_the_directions_that_are_bent_and_no_others():
    """A parabola turned into 20 columns: its two directions are moved, those of the noise stay Gaussian."""
    t = torch.randn(3000, 1, generator=seeded())
    bent = torch.cat([2 * t, t.square() - 1, 0.05 * torch.randn(3000, 18, generator=seeded(1))], 1)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=seeded(2))).Q
    rows = bent @ turn
    labels = torch.zeros(3000, dtype=torch.int64)
    factor = torch.linalg.cholesky(torch.cov(rows.T))[None]
    clusters = Clusters(torch.ones(1), rows.mean(0)[None], factor, "em")
    flow = MAPS["flow"](clusters, settings("flow", 20, steps=300), seeded())
    fit("map", flow, lambda g: flow.phases(rows, labels, g), 0, Watcher())
    assert int(flow.leading) == 2
    with torch.no_grad():
        made = flow(torch.randn(5000, 20, generator=seeded(3)), torch.zeros(5000).long()) @ turn.T
    off = (made[:, 1] - ((made[:, 0] / 2).square() - 1)).abs()
    assert float(off.median()) < 0.15  # of the Gaussian alone 1
    torch.testing.assert_close(made[:, 2:].std(0), bent[:, 2:].std(0), rtol=0.1, atol=0)


@pytest.mark.parametrize("kind", MAPS)
def test_a_constant_coordinate_stays_constant(kind: str):
    rows = torch.randn(800, 3, generator=seeded())
    rows[:, 1] = (rows[:, 0] > 0).float() * 2
    clusters, labels, _ = clustering.fit(rows, ClusterConfig(k=6), seeded())
    mapper = of(kind, clusters, steps=60)
    fit("map", mapper, lambda g: mapper.phases(rows, labels, g), 0, Watcher())
    index = torch.multinomial(clusters.weights, 5000, True, generator=seeded(1))
    with torch.no_grad():
        latents = mapper(torch.randn(5000, 3, generator=seeded(2)), index)
    assert float(torch.minimum(latents[:, 1].abs(), (latents[:, 1] - 2).abs()).max()) < 2e-3
    share = float((latents[:, 1] > 1).float().mean())
    assert share == pytest.approx(float((rows[:, 1] > 1).float().mean()), abs=0.03)


@pytest.mark.parametrize("kind", MAPS)
def test_training_depends_on_the_seed_alone(kind: str):
    rows = ring(600, 2)
    clusters, labels, _ = clustering.fit(rows, ClusterConfig(k=4), seeded())

    def weights() -> list[torch.Tensor]:
        mapper = of(kind, clusters, steps=5)
        fit("map", mapper, lambda g: mapper.phases(rows, labels, g), 0, Watcher())
        return [parameter.detach() for parameter in mapper.parameters()]

    state = torch.get_rng_state()
    first, second = weights(), weights()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", MAPS)
def test_a_cluster_of_two_rows_is_no_trouble(kind: str):
    rows = torch.cat([ring(500, 3), torch.tensor([[9.0, 9.0, 9.0], [9.1, 9.0, 9.2]])])
    labels = (torch.arange(502) >= 500).long()
    means = torch.stack([rows[labels == i].mean(0) for i in (0, 1)])
    factors = torch.stack([torch.eye(3), 0.1 * torch.eye(3)])
    clusters = Clusters(torch.tensor([500 / 502, 2 / 502]), means, factors, "em")
    assert torch.isfinite(Members(clusters, rows, labels).draw(10, seeded())).all()
    mapper = of(kind, clusters, steps=20)
    fit("map", mapper, lambda g: mapper.phases(rows, labels, g), 0, Watcher())
    with torch.no_grad():
        latents = mapper(torch.randn(1000, 3, generator=seeded()), torch.arange(1000) % 2)
    assert torch.isfinite(latents).all()
    assert (latents[1::2] - 9).abs().max() < 2


@pytest.mark.parametrize("count", [200, 1200])
def test_few_rows_that_differ_in_discrete_values_are_not_copied(count):
    """Noise that depends on nothing: other rows are as likely as it allows."""
    sizes, e = (3, 2, 3, 4), 5
    clusters = Clusters(torch.ones(1), torch.zeros(1, e), torch.eye(e)[None], "em")
    config = MapperConfig(kind="flow", **MAPS["flow"].defaults(e, count, len(sizes)))
    mapper = MAPS["flow"](clusters, config, seeded(), sizes)

    def rows(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        choice = [
            torch.randint(size, (n,), generator=seeded(seed + k)) for k, size in enumerate(sizes)
        ]
        latents = torch.randn(n, e, generator=seeded(seed + 10))
        return latents, torch.stack([*choice, torch.zeros(n, dtype=torch.int64)], 1)

    latents, choice = rows(count, 100)
    fit("mapper", mapper, lambda g: mapper.phases(latents, choice, g), 0, Watcher())
    entropy = e / 2 * math.log(2 * math.pi * math.e)
    assert mapper.judge(*rows(4000, 200)) < entropy + 0.4
