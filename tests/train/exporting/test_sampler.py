import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from tiny import uniforms

from scgan_infer.sampling import noise
from scgan_train.exporting.sampler import noise as noise_graph
from scgan_train.graph import argument, const, model, op

LAST = 2**63 - 1


def sampler(m, q):
    """A sampler whose rows are its own noise."""
    seed, index = argument((1,), np.int64), argument(("n",), np.int64)
    u, w, z = noise_graph(seed, index, m, q)
    column = op.unsqueeze(u, const([1], np.int64))
    x = op.concat([column, w, *([z] if q else [])], axis=1)
    return model({"seed": seed, "index": index}, {"x": x})


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


ENGINES = {
    "onnxruntime": session,
    "onnx reference": lambda model: ReferenceEvaluator(onnx.load_model_from_string(model)),
}


def run(engine, seed, index):
    return engine.run(
        None, {"seed": np.array([seed], np.int64), "index": np.asarray(index, np.int64)}
    )[0]


def rows_of(seed, index, m, q):
    """The noise of any indices, from the host: [n, 1 + m + q]."""
    parts = [
        (
            uniforms(seed, i, 1)[:, None],
            *(noise.normals(seed, i, 1, s, c) for s, c in ((1, m), (2, q))),
        )
        for i in index
    ]
    return np.concatenate([np.concatenate(part, axis=1) for part in parts])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("m", "q"), [(1, 1), (2, 6), (3, 12), (8, 5)])
@pytest.mark.parametrize(
    ("seed", "start"), [(0, 0), (2**32 - 1, 2**32 - 4096), (2**40 + 7, 10**12), (LAST, LAST - 5000)]
)
def test_the_graph_makes_the_noise_of_the_host(engine, m, q, seed, start):
    x = run(ENGINES[engine](sampler(m, q)), seed, start + np.arange(5000))
    assert x.dtype == np.float32
    assert (x[:, 0] == uniforms(seed, start, 5000)).all()
    np.testing.assert_allclose(
        x[:, 1 : 1 + m], noise.normals(seed, start, 5000, noise.MAPPER, m), rtol=0, atol=2e-6
    )
    np.testing.assert_allclose(
        x[:, 1 + m :], noise.normals(seed, start, 5000, noise.DECODER, q), rtol=0, atol=2e-6
    )


ANY_ORDER = session(sampler(2, 5))


@settings(max_examples=30)
@given(st.integers(0, LAST), st.lists(st.integers(0, LAST), min_size=1, max_size=20))
def test_indices_come_in_any_order_and_number(seed, index):
    x = run(ANY_ORDER, seed, index)
    expected = rows_of(seed, index, 2, 5)
    assert (x[:, 0] == expected[:, 0]).all()
    np.testing.assert_allclose(x, expected, rtol=0, atol=2e-6)


def test_without_decoder_noise_there_is_none():
    x = run(session(sampler(3, 0)), 9, np.arange(100))
    assert x.shape == (100, 4)
    np.testing.assert_allclose(
        x[:, 1:], noise.normals(9, 0, 100, noise.MAPPER, 3), rtol=0, atol=2e-6
    )


def test_the_model_keeps_the_rules_of_a_bundle():
    model = onnx.load_model_from_string(sampler(2, 6))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert not model.functions
    assert not model.metadata_props
    operators = {node.op_type for node in model.graph.node}
    assert not any(
        operator.startswith(("Random", "Multinomial", "Bernoulli")) for operator in operators
    )
    assert not operators & {"Loop", "If", "Scan", "SequenceMap"}
    assert not any(tensor.external_data for tensor in model.graph.initializer)

    def described(value):
        shape = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        return value.name, value.type.tensor_type.elem_type, shape

    assert [*map(described, model.graph.input)] == [
        ("seed", TensorProto.INT64, [1]),
        ("index", TensorProto.INT64, ["n"]),
    ]
    assert [*map(described, model.graph.output)] == [("x", TensorProto.FLOAT, ["n", 9])]


def test_the_same_generator_gives_the_same_bytes_and_more_noise_no_more_nodes():
    small, same, large = (sampler(m, q) for m, q in ((2, 6), (2, 6), (7, 40)))
    assert small == same
    assert len(onnx.load_model_from_string(small).graph.node) == len(
        onnx.load_model_from_string(large).graph.node
    )
