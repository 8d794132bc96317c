"""Graphs in runtimes that nobody here wrote give the rows of `scgan sample`."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import scgan_infer
from scgan_infer.sampling import noise
from scgan_infer.sampling.verify import differences
from scgan_train.config import ClusterConfig, MapperConfig
from scgan_train.graph import argument
from scgan_train.graph import model as onnx_model
from scgan_train.latents import clusters as clustering
from scgan_train.latents.head import RealLatents
from scgan_train.maps import MAPS, latent_model, resolved

ROOT = Path(__file__).parents[3]
NODE = ROOT / "examples" / "node"
SEED, START, ROWS = 2**40 + 7, 3 * 2**31, 4096
TOLERANCE = 1e-5

JAVASCRIPT = """
import { readFileSync, writeFileSync } from 'node:fs'
const [runtime, folder, graph] = process.argv.slice(1)
const ort = await import(runtime)
ort.env.wasm.numThreads = 1
const arrays = { float32: Float32Array, int64: BigInt64Array }
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(graph)))
const feeds = {}
for (const [name, [type, dims]] of Object.entries(JSON.parse(readFileSync(`${folder}/feeds.json`)))) {
  const bytes = new Uint8Array(readFileSync(`${folder}/${name}`))
  feeds[name] = new ort.Tensor(type, new arrays[type](bytes.buffer), dims)
}
writeFileSync(`${folder}/x`, (await session.run(feeds)).x.data)
"""


@pytest.fixture(scope="module", params=["mixed_bundle", "lossy_bundle", "exported"])
def bundle(request):
    """One with every kind of column, one whose noise restores heavy tails, and one of those that ship."""
    if request.param != "exported":
        return request.getfixturevalue(request.param)
    ready = sorted(path.parent for path in (ROOT / "exported").glob("*/bundle.json"))
    if not ready:
        pytest.skip("exported/ holds no bundle")
    return ready[0]


@pytest.fixture(scope="module")
def model(bundle):
    return scgan_infer.load(bundle, device="cpu")


def feeds(model, graph):
    """What a graph takes to give samples START .. START + ROWS - 1, a whole block."""
    sizes = model.manifest.sizes
    if graph == "sampler.onnx":
        return {"seed": np.array([SEED]), "index": START + np.arange(ROWS)}
    inputs = noise.block_noise(SEED, START // ROWS, sizes["m"], sizes["q"], h=sizes["h"])
    return dict(zip(model.manifest.interfaces[graph][0], inputs, strict=False))


def gap(x, model):
    """The largest difference from `scgan sample`, in units of a column's spread; ties may fall either way."""
    expected = model.sample(ROWS, seed=SEED, start=START).astype(float)
    assert x.shape == expected.shape
    worst = differences(expected, x, model.columns, expected.std(axis=0)).max()
    print(f"{worst:.1e} of a column's spread")
    return worst


def javascript(runtime, path, inputs, folder):
    if (
        not (node := shutil.which("node"))
        or not (NODE / "node_modules" / runtime.split("/")[0]).is_dir()
    ):
        pytest.skip(f"{runtime} is not installed: make node")
    for name, value in inputs.items():
        (folder / name).write_bytes(value.tobytes())
    kinds = {name: (str(value.dtype), value.shape) for name, value in inputs.items()}
    (folder / "feeds.json").write_text(json.dumps(kinds))
    code = ["--input-type=module", "--eval", JAVASCRIPT]
    run = subprocess.run(
        [node, *code, "--", runtime, folder, path], cwd=NODE, stderr=subprocess.PIPE, timeout=120
    )
    assert run.returncode == 0, run.stderr[-500:].decode()
    return np.fromfile(folder / "x", np.float32).reshape(ROWS, -1)


def openvino(graph, inputs):
    core = pytest.importorskip("openvino").Core()
    model = core.read_model(graph)
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)


@pytest.mark.parametrize("graph", ["generator.onnx", "sampler.onnx"])
def test_onnx_reference_evaluator(bundle, model, graph):
    evaluator = ReferenceEvaluator(onnx.load(bundle / graph))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # its sigmoid computes a branch that it does not take
        (x,) = evaluator.run(["x"], feeds(model, graph))
    assert gap(x, model) <= TOLERANCE


@pytest.mark.parametrize(
    ("runtime", "graph"),
    [
        ("onnxruntime-node", "generator.onnx"),
        ("onnxruntime-node", "sampler.onnx"),
        ("onnxruntime-web/wasm", "sampler.onnx"),
    ],
)
def test_javascript(bundle, model, runtime, graph, tmp_path):
    x = javascript(runtime, bundle / graph, feeds(model, graph), tmp_path)
    assert gap(x, model) <= TOLERANCE


def test_openvino_runs_the_generator(bundle, model):
    assert (
        gap(openvino(bundle / "generator.onnx", feeds(model, "generator.onnx"))["x"], model)
        <= TOLERANCE
    )


def test_openvino_computes_64_bits_in_32_and_so_no_sampler(bundle, model):
    """docs/runtimes.md warns of it; when this fails, the warning can go."""
    assert not gap(openvino(bundle / "sampler.onnx", feeds(model, "sampler.onnx"))["x"], model) < 1


@pytest.mark.parametrize("kind", ["real", "centers", *MAPS])
def test_openvino_runs_every_latent_model(kind):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5000) % 7
    latents = torch.randn(5000, 3, generator=generator) + 5.0 * labels[:, None]
    found, labels, _ = clustering.fit(latents, ClusterConfig(k=7), generator)
    if kind == "real":
        model = RealLatents.of(latents, labels, generator)
    else:
        config = resolved(MapperConfig(kind=kind if kind in MAPS else "auto"), 3, 5000)
        model = latent_model("mapper" if kind in MAPS else kind, found, config, generator)
    inputs = {"u": torch.randint(2**24, (ROWS,), generator=generator).float() / 2**24}
    inputs["w"] = torch.randn(ROWS, model.noise, generator=generator)
    u, w = argument(("n",)), argument(("n", model.noise))
    latent, choice = model.graph(u, w)
    graph = onnx_model({"u": u, "w": w}, {"latent": latent, "choice": choice[-1]})
    with torch.no_grad():
        latent, cluster = (tensor.numpy() for tensor in model(*inputs.values()))
    made = openvino(graph, {name: tensor.numpy() for name, tensor in inputs.items()})
    assert (made["choice"] == cluster).all()
    np.testing.assert_allclose(made["latent"], latent, rtol=0, atol=TOLERANCE * latent.std())
