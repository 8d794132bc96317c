"""The model repository, held to the rules by which Triton's onnxruntime backend loads a model and takes requests."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest

import scgan_infer
from scgan_infer import bundle as bundles
from scgan_infer.errors import DataError
from scgan_infer.sampling.noise import BLOCK, block_noise
from scgan_train.exporting.triton import repository

DTYPES = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}
TOKEN = re.compile(r'#[^\n]*|\s+|,|("(?:[^"\\]|\\.)*"|[\w.+-]+|[\[\]{}:])')


def parse(text):
    """A protobuf message in text form as a dict of lists; every field may repeat."""
    tokens = [match[1] for match in TOKEN.finditer(text) if match[1]]
    assert "".join(tokens) == re.sub(r"#[^\n]*|[\s,]", "", text)
    tokens.append("}")
    message = read_message(tokens)
    assert not tokens
    return message


def read_message(tokens):
    message = {}
    while (name := tokens.pop(0)) != "}":
        assert name.isidentifier()
        if tokens[0] == ":":
            tokens.pop(0)
        else:
            assert tokens[0] in "[{"
        message.setdefault(name, []).extend(read_values(tokens))
    return message


def read_values(tokens):
    token = tokens.pop(0)
    if token == "{":
        return [read_message(tokens)]
    if token != "[":
        return [
            token.strip('"')
            if token[0] == '"'
            else int(token)
            if token.lstrip("-").isdigit()
            else token
        ]
    values = []
    while tokens[0] != "]":
        values += read_values(tokens)
    tokens.pop(0)
    return values


@pytest.fixture(scope="module")
def models(mixed_bundle, tmp_path_factory):
    """The repository's models by name: configuration and folder."""
    out = repository(mixed_bundle, tmp_path_factory.mktemp("triton") / "models")
    return {
        folder.name: (parse((folder / "config.pbtxt").read_text()), folder)
        for folder in out.iterdir()
    }


def shape_in_model(tensor, batched):
    """What Triton takes for the shape that the graph must have: reshape, if there is one, behind the batch."""
    dims = tensor["reshape"][0].get("shape", []) if "reshape" in tensor else tensor["dims"]
    return [-1] * batched + dims


def shape_in_request(tensor, batched, n):
    return [n] * batched + [n if dim == -1 else dim for dim in tensor["dims"]]


def serve(config, folder, requests):
    """Answer as Triton does: check shapes and types, join and reshape, run, reshape back and part."""
    batched = config["max_batch_size"][0] > 0
    assert batched or len(requests) == 1
    sizes = [len(request[config["input"][-1]["name"][0]]) for request in requests]
    feeds = {}
    for tensor in config["input"]:
        name, dtype = tensor["name"][0], DTYPES[tensor["data_type"][0]]
        for request, n in zip(requests, sizes, strict=True):
            assert list(request[name].shape) == shape_in_request(tensor, batched, n)
            assert request[name].dtype == dtype
        joined = np.concatenate([request[name] for request in requests])
        shape = shape_in_model(tensor, batched)
        feeds[name] = joined.reshape([len(joined), *shape[1:]] if batched else joined.shape)
    assert not batched or sum(sizes) <= config["max_batch_size"][0]
    outputs = [tensor["name"][0] for tensor in config["output"]]
    session = onnxruntime.InferenceSession(
        folder / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    answers = []
    for tensor, answer in zip(config["output"], session.run(outputs, feeds), strict=True):
        assert answer.dtype == DTYPES[tensor["data_type"][0]]
        answers.append(answer.reshape(shape_in_request(tensor, batched, sum(sizes))))
    ends = np.cumsum(sizes)[:-1]
    return [
        dict(zip(outputs, parts, strict=True))
        for parts in zip(*(np.split(answer, ends) for answer in answers), strict=True)
    ]


def test_every_graph_is_a_model_with_the_bundle_s_bytes(models, mixed_bundle):
    graphs = bundles.load(mixed_bundle).graphs
    assert set(models) == {f"mixed_{name.removesuffix('.onnx')}" for name in graphs}
    for name, (config, folder) in models.items():
        assert config["name"] == [name]
        assert config["backend"] == ["onnxruntime"]
        assert (folder / "1" / "model.onnx").read_bytes() == graphs[
            f"{name.removeprefix('mixed_')}.onnx"
        ]
        assert sorted(path.name for path in folder.rglob("*")) == [
            "1",
            "config.pbtxt",
            "model.onnx",
        ]


def test_configured_shapes_and_types_are_those_of_the_graphs(models):
    types = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.INT64: "TYPE_INT64"}
    for config, folder in models.values():
        graph = onnx.load(folder / "1" / "model.onnx").graph
        batched = config["max_batch_size"][0] > 0
        assert ("dynamic_batching" in config) == batched
        for field in ("input", "output"):
            described = [
                (
                    value.name,
                    types[value.type.tensor_type.elem_type],
                    [
                        -1 if dim.dim_param else dim.dim_value
                        for dim in value.type.tensor_type.shape.dim
                    ],
                )
                for value in getattr(graph, field)
            ]
            assert described == [
                (tensor["name"][0], tensor["data_type"][0], shape_in_model(tensor, batched))
                for tensor in config[field]
            ]
            for tensor in config[field]:
                assert tensor["dims"]
                assert batched or "reshape" not in tensor
                assert np.prod(tensor["dims"]) == np.prod(shape_in_model(tensor, batched)[batched:])


def test_joined_requests_get_their_rows_and_the_sampler_its_own(models, mixed_bundle):
    model = scgan_infer.load(mixed_bundle, device="cpu")
    expected = model.sample(BLOCK, seed=5)
    spread = 1e-5 * expected.std(axis=0) + 1e-5
    sizes = model.manifest.sizes
    inputs = block_noise(5, 0, sizes["m"], sizes["q"], h=sizes["h"])
    noise = dict(zip(model.manifest.interfaces["generator.onnx"][0], inputs, strict=False))
    requests = [
        {name: value[low:high] for name, value in noise.items()}
        for low, high in ((0, 1), (1, 96), (96, BLOCK))
    ]
    made = np.concatenate([answer["x"] for answer in serve(*models["mixed_generator"], requests)])
    assert (np.abs(made - expected) <= spread).all()
    (answer,) = serve(
        *models["mixed_sampler"], [{"seed": np.array([5]), "index": np.arange(BLOCK)}]
    )
    assert (np.abs(answer["x"] - expected) <= spread).all()
    (answer,) = serve(*models["mixed_encoder"], [{"x": expected}])
    assert (answer["choice"][:, -1] == model.encode(expected)[1]).all()


def test_writing_again_replaces_these_models_and_no_other(mixed_bundle, tmp_path):
    other = tmp_path / "other" / "config.pbtxt"
    other.parent.mkdir()
    other.write_text('name: "other"')
    repository(mixed_bundle, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "mixed_sampler" / "1" / "model.onnx").write_bytes(b"old")
    repository(mixed_bundle, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert other.read_text() == 'name: "other"'


def test_a_repository_that_can_t_be_written_is_one_line(mixed_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"can't write the model repository .*file: Not a directory"
    ):
        repository(mixed_bundle, tmp_path / "file")
