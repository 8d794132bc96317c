from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import mixed_table
from torch import Tensor, nn

import scgan_infer
from scgan_infer import bundle
from scgan_infer.errors import ParityError
from scgan_train import exporter
from scgan_train.exporter import difference, export, parity, to_onnx
from scgan_train.run import Run

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
    assert not operators & {"If", "Loop", "Scan", "RandomNormal", "RandomUniform", "RandomNormalLike"}
    first = [value.type.tensor_type.shape.dim[0] for value in (*model.graph.input, *model.graph.output)]
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
        np.bincount(part["species"].astype(int), minlength=3) / len(part["species"]) for part in (made, data)
    ]
    assert np.abs(shares[0] - shares[1]).max() < 0.03


def test_same_run_same_bytes(mixed_run: Run, mixed_bundle: Path, tmp_path: Path) -> None:
    again = export(mixed_run, tmp_path / "again")
    for path in mixed_bundle.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_sampler_alone_gives_the_same_rows(mixed_bundle: Path) -> None:
    session = onnxruntime.InferenceSession(mixed_bundle / "sampler.onnx", providers=["CPUExecutionProvider"])
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


def test_failed_parity_leaves_no_bundle(
    mixed_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "TOLERANCE", 0.0)
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
