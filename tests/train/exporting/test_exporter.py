from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

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

import scgan_infer
from scgan_infer import bundle
from scgan_infer.errors import ModelError, ParityError, UsageError
from scgan_infer.sampling.verify import TOLERANCE, verify
from scgan_train import config as configs
from scgan_train import resolving, train
from scgan_train.decoder import Decoder
from scgan_train.exporting import exporter
from scgan_train.exporting.exporter import difference, export, parity
from scgan_train.exporting.parts import Arrays, Parts
from scgan_train.graph import argument, const, model, op
from scgan_train.latents.clusters import Clusters
from scgan_train.latents.head import GRID, LatentModel
from scgan_train.maps import latent_model
from scgan_train.run_folder import Run

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


def test_latents_are_put_into_a_graph_once(mixed_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide flow has thousands of nodes, and making them took a third of its export."""
    calls, made = [], LatentModel.graph
    monkeypatch.setattr(
        LatentModel, "graph", lambda self, *inputs: calls.append(1) or made(self, *inputs)
    )
    names = [name for name, _, _ in Parts.of(mixed_run).graphs()]
    assert {"mappers.onnx", "generator.onnx", "sampler.onnx"} <= set(names)
    assert len(calls) == 1


def test_equal_small_constants_of_a_graph_are_one() -> None:
    x = argument(("n", 2))
    sums = op.add(op.add(x, const([1, 2])), const([1, 2]))
    graph = onnx.load_from_string(model({"x": x}, {"y": op.add(sums, const([1, 3]))})).graph
    assert len(graph.initializer) == 2


def test_nothing_of_the_machine_is_inside(mixed_bundle: Path) -> None:
    machine = re.compile(rb"/root|/home|/tmp|/work|site-packages|\.py\b|stack_trace")
    for path in mixed_bundle.iterdir():
        assert not machine.search(path.read_bytes()), path.name


def test_networks_and_graphs_agree_on_every_column_kind(mixed_run: Run, mixed_bundle: Path) -> None:
    parts, rows = Parts.of(mixed_run), mixed_table().values
    wanted = parts.compute("decoder.onnx", parts.compute("encoder.onnx", {"x": rows}))["x"]
    found = scgan_infer.load(mixed_bundle, device="cpu").reconstruct(rows)
    assert difference(wanted, found, mixed_run.columns, rows.std(0)) < 1e-4


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


ROWS = np.random.default_rng(0).standard_normal((4096, 2)).astype(np.float32)


def graph_of(compute) -> bytes:
    x = argument(("n", 2))
    return model({"x": x}, {"y": compute(x)})


def shifted(shift: float):
    return lambda inputs: {"y": inputs["x"] + inputs["x"].dtype.type(shift)}


def test_a_graph_that_differs_is_caught() -> None:
    graph = graph_of(lambda x: op.add(x, const(0.0)))
    assert parity("same", shifted(0.0), graph, {"x": ROWS}) < 1e-6
    with pytest.raises(ParityError, match="other, batch 1: y differs from torch"):
        parity("other", shifted(0.5), graph, {"x": ROWS})


def test_a_graph_that_returns_a_constant_is_caught_however_large_the_values_are() -> None:
    graph = graph_of(lambda x: op.add(op.mul(x, const(0.0)), const(1e5)))
    with pytest.raises(ParityError, match="y differs from torch"):
        parity("constant", shifted(1e5), graph, {"x": ROWS})


def test_a_single_row_near_zero_is_measured_by_the_spread_of_all() -> None:
    rows = ROWS.copy()
    rows[-1] = 1e-5
    graph = graph_of(lambda x: op.add(x, const(1e-6)))
    assert parity("same", shifted(0.0), graph, {"x": rows}) < 2e-6


def test_a_steep_network_may_differ_by_its_own_rounding_and_no_more() -> None:
    def steep(inputs):
        """A wave so short that the order of two products shows in it."""
        x, kind = inputs["x"], inputs["x"].dtype.type
        return {"y": np.sin(x * kind(3e4) * kind(0.1))}

    def other(shift: float) -> bytes:
        return graph_of(
            lambda x: op.sin(op.add(op.mul(op.mul(x, const(0.1)), const(3e4)), const(shift)))
        )

    assert exporter.TOLERANCE < parity("steep", steep, other(0.0), {"x": ROWS}) < 1e-2
    with pytest.raises(ParityError, match="y differs from torch"):
        parity("wrong", steep, other(0.05), {"x": ROWS})


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
    assert difference(a, b, phi, np.array([90.0])) < 1e-5


def test_the_manifest_says_where_it_came_from(mixed_bundle: Path) -> None:
    manifest = bundle.load(mixed_bundle).manifest
    assert manifest.provenance["source"] == "mixed.csv"
    assert manifest.provenance["rows"] == 1500
    assert manifest.metrics["mse"] < 0.05
    assert (mixed_bundle / "preview.png").read_bytes().startswith(b"\x89PNG")


def head(limits: list[int]) -> LatentModel:
    k = len(limits)
    gaussians = Clusters(torch.full((k,), 1 / k), torch.zeros(k, 1), torch.ones(k, 1, 1), "em")
    ensemble = latent_model("gaussian", gaussians, settings().mapper, torch.Generator()).ensemble
    return LatentModel(torch.tensor(limits), ensemble, 1)


def near(limits: list[int]) -> np.ndarray:
    """Every k at, before and after a limit, and some others."""
    ends = np.array([0, *limits])
    some = np.random.default_rng(0).integers(0, GRID, 1000)
    return np.unique(np.concatenate([ends - 1, ends, ends + 1, some]).clip(0, GRID - 1))


LIMITS = st.lists(
    st.one_of(st.integers(0, GRID), st.integers(GRID // 3, GRID // 3 + 40)), max_size=300
).map(lambda steps: [*sorted(steps), GRID])


@given(limits=LIMITS)
@hypotheses(max_examples=100)
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
    latent, choice = head(limits).graph(inputs["u"], inputs["w"])
    graph = model(inputs, {"latent": latent, "choice": choice[-1]})
    wanted = np.searchsorted(np.array(limits), k, side="right").tolist()
    for runtime in (
        onnxruntime.InferenceSession(graph),
        ReferenceEvaluator(onnx.load_from_string(graph)),
    ):
        assert runtime.run(["choice"], {"u": u, "w": w})[0].tolist() == wanted


@pytest.mark.parametrize(("noise", "restored"), [(0, 0), (3, 0), (0, 2)])
@pytest.mark.parametrize("affine", [None, (np.array([2.0, 1e-3]), np.array([1.0, 1e4]))])
def test_a_decoder_s_graph_is_the_decoder(noise: int, restored: int, affine) -> None:
    generator = torch.Generator().manual_seed(0)
    decoder = Decoder(3, 2, 16, 2, noise, generator, restored)
    torch.nn.init.normal_(decoder.last, generator=generator)
    decoder.wake(torch.tensor(0.5))
    if decoder.residual:
        decoder.residual.start(torch.randn(100, 2, generator=generator) ** 3)
        for weight in decoder.residual.parameters():
            torch.nn.init.normal_(weight, std=0.3, generator=generator)
    inputs = {"latent": torch.randn(4096, 3, generator=generator).numpy()}
    arguments = {"latent": argument(("n", 3))}
    if decoder.noise:
        inputs["z"] = torch.randn(4096, decoder.noise, generator=generator).numpy()
        arguments["z"] = argument(("n", decoder.noise))
    y = decoder.graph(arguments["latent"], arguments.get("z"), affine)
    graph = model(arguments, {"y": y})
    scale, shift = affine or (np.ones(2), np.zeros(2))

    def compute(values):
        tensors = {name: torch.from_numpy(value).float() for name, value in values.items()}
        with torch.no_grad():
            return {"y": decoder(*tensors.values()).numpy() * scale + shift}

    assert parity("decoder", compute, graph, inputs) < 1e-5
    if decoder.noise:
        still = dict(inputs, z=0 * inputs["z"])
        with pytest.raises(ParityError):
            parity("decoder", lambda _: compute(still), graph, inputs)


def test_without_noise_no_graph_has_an_input_for_it(tmp_path: Path) -> None:
    run = train("eight_gaussians", settings(decoder={"steps": 0}), tmp_path / "run")
    path = export(run, tmp_path / "bundle")
    loaded = scgan_infer.load(path, "cpu")
    assert loaded.manifest.sizes["q"] == 0
    for name in GRAPHS:
        graph = onnx.load(path / f"{name}.onnx").graph
        assert "z" not in [value.name for value in graph.input]
    rows = loaded.sample(4096, seed=5)
    index = np.arange(4096, dtype=np.int64)
    alone = loaded.run("sampler.onnx", seed=np.array([5], np.int64), index=index)[0]
    assert np.abs((alone - rows) / rows.std(0)).max() < 1e-5
    with pytest.raises(UsageError, match="no decoder noise"):
        loaded.reconstruct(rows, seed=1)
    assert verify(path).worst < 1e-4


FOREVER = sorted(path.parent for path in (Path(__file__).parents[2] / "runs").glob("*/run.json"))


@pytest.mark.parametrize("run", FOREVER, ids=lambda run: run.name)
def test_a_run_of_this_version_exports_for_ever(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings are its own: other defaults do not change what is exported, nor time its rows."""
    graphs = export(Run.load(run), tmp_path / "bundle")
    for stage, name in (("DecoderConfig", "layers"), ("EncoderConfig", "width")):
        monkeypatch.setattr(getattr(configs, stage), name, 7)
    monkeypatch.setattr(resolving, "MOST_LATENTS", 1)
    again = export(Run.load(run), tmp_path / "again")
    for path in graphs.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    model, rows = scgan_infer.load(graphs, "cpu"), np.load(run.with_suffix(".npy"))
    made = model.sample(len(rows), seed=1, given={"x": 3.0} if model.manifest.sizes["g"] else None)
    same = np.isclose(made, rows, rtol=1e-4, atol=1e-4, equal_nan=True).all(axis=1)
    assert same.mean() >= 0.98  # a number halfway between two may be rounded to either


def test_a_network_that_overflows_is_not_exported() -> None:
    rows = np.array([[0.0], [np.inf]])
    with pytest.raises(ModelError, match=r"decoder\.onnx: the trained network gives infinite"):
        parity("decoder.onnx", lambda inputs: {"x": rows}, b"", {})


def test_a_graph_may_be_as_inexact_as_its_network_where_choices_are_inputs() -> None:
    inputs = {
        "latent": np.ones((4096, 1), np.float32),
        "choice": np.arange(4096, dtype=np.int64)[:, None] % 2,
    }
    arguments = {"latent": argument(("n", 1)), "choice": argument(("n", 1), np.int64)}
    scale = np.array([1.0, 3.0])
    x = op.mul(arguments["latent"], op.gather(const(scale), arguments["choice"]))
    graph = model(arguments, {"x": x})

    def compute(off: float) -> Callable[[Arrays], Arrays]:
        def inner(values: Arrays) -> Arrays:
            rough = off if values["latent"].dtype == np.float32 else 0.0
            return {"x": values["latent"] * scale[values["choice"]].astype(np.float32) + rough}

        return inner

    assert parity("decoder.onnx", compute(1e-3), graph, inputs) > TOLERANCE


def test_few_rows_on_a_grid_are_not_tried_where_rounding_falls_either_way() -> None:
    """Where a decoder is exact, halfway between two numbers is a tie."""
    rows = np.array([[1.3], [1.4], [1.7], [2.6], [3.1]], np.float32)
    parts = SimpleNamespace(
        divided=lambda x: {"x": x},
        coordinates=SimpleNamespace(
            forward=lambda x: x, inverse=lambda y, _: y, choose=lambda x: np.zeros((len(x), 0))
        ),
        compute=lambda _, x: {"latent": x["x"], "choice": np.zeros(len(x["x"]), np.int64)},
        inputs=lambda *_: {},
    )
    latents = exporter._inputs(parts, rows, torch.Generator().manual_seed(0))["latent"]  # type: ignore[arg-type]
    assert len(latents) == 4096
    assert (np.abs(10 * latents % 1 - 0.5) > 1e-3).all()
