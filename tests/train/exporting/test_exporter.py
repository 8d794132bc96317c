from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cases import mixed_table, settings
from hypothesis import given
from hypothesis import settings as hypotheses
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import scgan_infer
from scgan_infer import bundle
from scgan_infer.errors import ParityError, UsageError
from scgan_infer.sampling.noise import block_noise
from scgan_infer.sampling.verify import verify
from scgan_train import train
from scgan_train.exporting import exporter
from scgan_train.exporting.exporter import difference, export, parity, to_onnx
from scgan_train.exporting.folded import FoldedDecoder
from scgan_train.graph import argument, model
from scgan_train.head import GRID, LatentModel
from scgan_train.maps.base import Affine
from scgan_train.training.run import Run

GRAPHS = ("encoder", "mappers", "decoder", "generator", "sampler")


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_keep_the_rules(name: str, mixed_bundle: Path) -> None:
    data = (mixed_bundle / f"{name}.onnx").read_bytes()
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert not model.functions
    assert not model.metadata_props
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {
        "If",
        "Loop",
        "Scan",
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
    }
    first = [
        value.type.tensor_type.shape.dim[0] for value in (*model.graph.input, *model.graph.output)
    ]
    assert all(dim.dim_param == "n" for dim in first if dim.dim_value != 1)


def test_nothing_of_the_machine_is_inside(mixed_bundle: Path) -> None:
    machine = re.compile(rb"/root|/home|/tmp|/work|site-packages|\.py\b|stack_trace")
    for path in mixed_bundle.iterdir():
        assert not machine.search(path.read_bytes()), path.name


def test_networks_and_graphs_agree_on_every_column_kind(mixed_run: Run, mixed_bundle: Path) -> None:
    transform = mixed_run.load_transform()
    encoder = mixed_run.load_encoder(transform.dims)
    decoder = mixed_run.load_decoder(encoder.latent_dim, transform.dims)
    rows = mixed_table().values
    with torch.no_grad():
        wanted = transform.inverse(decoder.reconstruct(encoder(transform(torch.from_numpy(rows)))))
    found = scgan_infer.load(mixed_bundle, device="cpu").reconstruct(rows)
    assert difference(wanted.numpy(), found, mixed_run.columns) < 1e-4


def test_samples_obey_their_columns(mixed_bundle: Path) -> None:
    model = scgan_infer.load(mixed_bundle)
    made = dict(zip((c.name for c in model.columns), model.sample(20_000, seed=3).T, strict=True))
    data = dict(zip((c.name for c in model.columns), mixed_table().values.T, strict=True))
    assert ((made["phi"] >= -180) & (made["phi"] < 180)).all()
    assert (made["pt"] > 0).all()
    assert ((made["share"] >= 0) & (made["share"] <= 1)).all()
    assert (made["depth"] >= 2).all()
    assert (made["count"] == np.round(made["count"])).all()
    assert (made["same"] == 7.5).all()
    shares = [
        np.bincount(part["species"].astype(int), minlength=3) / len(part["species"])
        for part in (made, data)
    ]
    assert np.abs(shares[0] - shares[1]).max() < 0.03


def test_same_run_same_bytes(mixed_run: Run, mixed_bundle: Path, tmp_path: Path) -> None:
    again = export(mixed_run, tmp_path / "again")
    for path in mixed_bundle.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_sampler_alone_gives_the_same_rows(mixed_bundle: Path) -> None:
    session = onnxruntime.InferenceSession(
        mixed_bundle / "sampler.onnx", providers=["CPUExecutionProvider"]
    )
    index = np.arange(3000, 8000, dtype=np.int64)
    (alone,) = session.run(["x"], {"seed": np.array([11], np.int64), "index": index})
    rows = scgan_infer.load(mixed_bundle).sample(5000, seed=11, start=3000)
    assert np.abs((alone - rows) / (rows.std(0) + 1e-9)).max() < 1e-4


class Shifted(nn.Module):
    """Computes one thing and, once exported, another."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def test_a_graph_that_differs_is_caught() -> None:
    x = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    graph = to_onnx(Shifted(0.0), {"x": x}, ("y",))
    assert parity("same", Shifted(0.0), graph, {"x": x}, ("y",), ()) < 1e-6
    with pytest.raises(ParityError, match="other, batch 1: y differs from torch"):
        parity("other", Shifted(0.5), graph, {"x": x}, ("y",), ())


def test_a_single_row_near_zero_is_measured_by_the_spread_of_all() -> None:
    x = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    x[-1] = 1e-5
    graph = to_onnx(Shifted(1e-6), {"x": x}, ("y",))
    assert parity("same", Shifted(0.0), graph, {"x": x}, ("y",), ()) < 2e-6


class Steep(nn.Module):
    """A wave so short that the order of two products shows in it."""

    def __init__(self, first: float, second: float, shift: float = 0.0) -> None:
        super().__init__()
        self.first, self.second, self.shift = first, second, shift

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x * self.first * self.second + self.shift)


def test_a_steep_network_may_differ_by_its_own_rounding_and_no_more() -> None:
    x = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    network = Steep(3e4, 0.1)
    graphs = [to_onnx(Steep(0.1, 3e4, shift), {"x": x}, ("y",)) for shift in (0.0, 0.05)]
    assert exporter.TOLERANCE < parity("steep", network, graphs[0], {"x": x}, ("y",), ()) < 1e-2
    with pytest.raises(ParityError, match="y differs from torch"):
        parity("wrong", network, graphs[1], {"x": x}, ("y",), ())


def test_failed_parity_leaves_no_bundle(
    mixed_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "TOLERANCE", 0.0)
    monkeypatch.setattr(exporter, "ROUNDING", 0)
    with pytest.raises(ParityError):
        export(mixed_run, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_difference_wraps_around_periods(mixed_run: Run) -> None:
    phi = tuple(column for column in mixed_run.columns if column.name == "phi")
    a, b = np.array([[179.9999], [0.0]]), np.array([[-179.9999], [0.0]])
    assert difference(a, b, phi) < 1e-5


def test_the_manifest_says_where_it_came_from(mixed_bundle: Path) -> None:
    manifest = bundle.load(mixed_bundle).manifest
    assert manifest.provenance["source"] == "mixed.csv"
    assert manifest.provenance["rows"] == 1500
    assert manifest.metrics["mse"] < 0.05
    assert (mixed_bundle / "preview.png").read_bytes().startswith(b"\x89PNG")


def head(limits: list[int]) -> LatentModel:
    clusters = len(limits)
    return LatentModel(
        torch.tensor(limits), Affine(torch.zeros(clusters, 1), torch.ones(clusters, 1, 1)), 1
    )


def near(limits: list[int]) -> np.ndarray:
    """Every k at, before and after a limit, and some others."""
    ends = np.array([0, *limits])
    some = np.random.default_rng(0).integers(0, GRID, 1000)
    return np.unique(np.concatenate([ends - 1, ends, ends + 1, some]).clip(0, GRID - 1))


LIMITS = st.lists(
    st.one_of(st.integers(0, GRID), st.integers(GRID // 3, GRID // 3 + 40)), max_size=300
).map(lambda steps: [*sorted(steps), GRID])


@given(limits=LIMITS)
@hypotheses(max_examples=100, deadline=None)
def test_every_u_selects_the_cluster_that_the_thresholds_name(limits: list[int]) -> None:
    k = near(limits)
    found = head(limits).select(torch.from_numpy(k).float() / GRID)
    assert found.tolist() == np.searchsorted(np.array(limits), k, side="right").tolist()


@pytest.mark.parametrize(
    "limits",
    [
        [GRID],
        [1, GRID],
        [GRID // 2, GRID // 2, GRID // 2 + 1, GRID // 2 + 2, GRID],
        [*np.sort(np.random.default_rng(1).integers(0, GRID, 127)).tolist(), GRID],
        np.linspace(1, GRID, 5000).astype(int).tolist(),
    ],
    ids=["one", "two", "narrow", "128", "5000"],
)
def test_graphs_select_the_cluster_that_the_thresholds_name(limits: list[int]) -> None:
    k = near(limits)
    u, w = (k / GRID).astype(np.float32), np.zeros((len(k), 1), np.float32)
    inputs = {"u": argument(("n",)), "w": argument(("n", 1))}
    latent, choice = head(limits).graph(*inputs.values())
    graph = model(inputs, {"latent": latent, "choice": choice})
    wanted = np.searchsorted(np.array(limits), k, side="right").tolist()
    for runtime in (
        onnxruntime.InferenceSession(graph),
        ReferenceEvaluator(onnx.load_from_string(graph)),
    ):
        assert runtime.run(["choice"], {"u": u, "w": w})[0].tolist() == wanted


@pytest.mark.parametrize("moved", [False, True])
def test_a_folded_decoder_is_the_decoder(moved: bool, mixed_run: Run) -> None:
    transform = mixed_run.load_transform()
    decoder = mixed_run.load_decoder(
        mixed_run.load_encoder(transform.dims).latent_dim, transform.dims
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for place, subspace in enumerate(decoder.subspaces):
            importance = subspace.get_parameter("importance")
            importance.copy_(torch.full_like(importance, 0.1 * place * moved))
    latent = torch.randn(500, decoder.skip.in_features, generator=generator)
    z = torch.randn(500, decoder.noise, generator=generator)
    with torch.no_grad():
        found = FoldedDecoder(decoder, transform)(latent, z)
        still = FoldedDecoder(decoder, transform)(latent, torch.zeros_like(z))
        wanted = transform.inverse(decoder(latent, z))
    assert difference(wanted.numpy(), found.numpy(), mixed_run.columns) < 1e-4
    assert torch.equal(found, still) != moved


def test_a_decoder_without_noise_has_no_z(tmp_path: Path) -> None:
    run = train("eight_gaussians", settings(decoder={"steps": 0}), tmp_path / "run")
    path = export(run, tmp_path / "bundle")
    model = scgan_infer.load(path, "cpu")
    assert model.manifest.sizes["q"] == 0
    assert list(model.manifest.interfaces["generator.onnx"][0]) == ["u", "w"]
    u, w, _ = block_noise(5, 0, model.manifest.sizes["m"], 0)
    rows = model.sample(4096, seed=5)
    assert np.array_equal(rows, model.run("generator.onnx", u=u, w=w)[0])
    index = np.arange(4096, dtype=np.int64)
    alone = model.run("sampler.onnx", seed=np.array([5], np.int64), index=index)[0]
    assert np.abs((alone - rows) / rows.std(0)).max() < 1e-5
    with pytest.raises(UsageError, match="no decoder noise"):
        model.reconstruct(rows, seed=1)
    assert verify(path).worst < 1e-4
