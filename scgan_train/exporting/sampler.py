"""The graph that samples by itself: counter-based noise in plain operators, in front of the generator.

It computes what `scgan_infer.sampling.noise` specifies, on tensors [G, n] whose rows are the G (group, stream) pairs
that a sample needs. The four words of a counter are held as two numbers of 64 bits,

    A = 2^32 c0 + c1,    B = 2^32 c2 + c3,

for which a round of Philox with multipliers M0, M1 and keys k0, k1 is, modulo 2^64,

    A' = M1 (B div 2^32)  xor  2^32 A  xor  2^32 k0
    B' = M0 (A div 2^32)  xor  2^32 B  xor  2^32 k1

since a product's high half meets the counter's odd word, and its low half becomes the new one: fourteen
operators, whatever G is. In the first round the counter's numbers depend on the row or on the index, not on
both, and broadcast.

Numbers are int64, and uint64 only to shift right: older runtimes multiply no unsigned integers and shift no
signed ones. OpenVINO computes both in 32 bits and returns NaN without a word: give it `generator.onnx` and
noise from outside.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scgan_infer.sampling.noise import DECODER, KEY_STEPS, MAPPER, MULTIPLIERS, ROUNDS, layout

WORD = 2**32


def sampler(generator: bytes, m: int, q: int) -> bytes:
    """Return sampler.onnx: seed [1] int64, index [n] int64 -> x [n, d], rows of the generator's own noise.

    Args:
        generator: generator.onnx, of inputs u [n], w [n, m] and z [n, q], opset 18 or later.
        m: normals for the mapper.
        q: normals for the decoder; none are made for a generator that does not read z.
    """
    model = onnx.load_model_from_string(generator)
    inner, outputs = model.graph, {output.name for output in model.graph.output}

    def rename(name: str) -> str:
        return name if name in ("", "u", "w", "z") or name in outputs else f"generator/{name}"

    for node in inner.node:
        node.input[:] = map(rename, node.input)
        node.output[:] = map(rename, node.output)
    for tensor in inner.initializer:
        tensor.name = rename(tensor.name)

    noise = _Nodes()
    read = {name for node in inner.node for name in node.input}
    _noise(noise, m, q if "z" in read else 0)
    batch = inner.input[0].type.tensor_type.shape.dim[0].dim_param
    graph = helper.make_graph(
        [*noise.nodes, *inner.node],
        "sampler",
        [
            helper.make_tensor_value_info("seed", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("index", TensorProto.INT64, [batch]),
        ],
        inner.output,
        [*noise.constants.values(), *inner.initializer],
    )
    whole = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(whole, full_check=True)
    data: bytes = whole.SerializeToString(deterministic=True)
    return data


class _Nodes:
    """Nodes and constants under construction, under names that no generator uses."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = {}

    def __call__(
        self,
        operator: str,
        *inputs: str | NDArray[Any],
        name: str = "",
        **attributes: int | str | list[int],
    ) -> str:
        """Append a node of one output and return the output's name."""
        output = name or f"noise/{len(self.nodes)}"
        node = helper.make_node(operator, self._names(inputs), [output])
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items()
        )
        self.nodes.append(node)
        return output

    def split(self, value: str, parts: int) -> list[str]:
        """Cut a tensor into equal parts along its first axis."""
        outputs = [f"noise/{len(self.nodes)}/{part}" for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [value], outputs, axis=0, num_outputs=parts))
        return outputs

    def _names(self, inputs: tuple[str | NDArray[Any], ...]) -> list[str]:
        return [value if isinstance(value, str) else self._constant(value) for value in inputs]

    def _constant(self, value: NDArray[Any]) -> str:
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(
                value, f"noise/constant/{len(self.constants)}"
            )
        return self.constants[key].name


def _noise(node: _Nodes, m: int, q: int) -> None:
    """Append the nodes from seed and index to u, w and, unless q is 0, z."""
    rows, pairs = layout(((MAPPER, m), (DECODER, q)))
    a, b = _philox(node, rows)

    bits = _shift(node, node("Gather", a, np.array(0, np.int64), axis=0), 40)
    node("Mul", _float(node, node("Cast", bits, to=TensorProto.INT32)), _real(2.0**-24), name="u")

    places = np.array([row + (len(rows) if word else 0) for row, word in pairs], np.int64)
    words = node("Gather", node("Concat", a, b, axis=0), places, axis=0)
    even = node("Cast", _shift(node, words, 32), to=TensorProto.UINT32)
    # 2^32 times the low word, signed: a chain of casts is shorter, and onnxruntime 1.15 shortens it wrongly
    odd = node("Mul", words, _int(WORD))
    unit = node("Add", node("Mul", _float(node, even), _real(2.0**-32)), _real(2.0**-33))
    radius = node("Sqrt", node("Mul", node("Log", unit), _real(-2.0)))
    angle = node("Mul", _float(node, odd), _real(math.pi * 2.0**-63))
    sides = [node("Mul", radius, node(side, angle)) for side in ("Cos", "Sin")]
    normals = node("Concat", *sides, axis=0)
    for name, first, count in (("w", 0, m), ("z", (m + 1) // 2, q))[: 2 if q else 1]:
        order = np.array([first + j // 2 + len(pairs) * (j % 2) for j in range(count)], np.int64)
        node("Transpose", node("Gather", normals, order, axis=0), perm=[1, 0], name=name)


def _philox(node: _Nodes, rows: list[tuple[int, int]]) -> tuple[str, str]:
    """Append Philox 4x32-10 of every row and index; return A and B, [G, n] int64."""
    group, stream = np.array(rows, np.int64).T[:, :, None]
    seeds = ("seed", _high(node, "seed"))
    keys = [_keys(node, word, step) for word, step in zip(seeds, KEY_STEPS, strict=True)]
    m0, m1 = map(_int, MULTIPLIERS)

    def xor(x: str | NDArray[Any], y: str | NDArray[Any], z: str) -> str:
        return node("BitwiseXor", node("BitwiseXor", x, y), z)

    a = xor(group * m1, keys[0][0], node("BitwiseAnd", "index", _int(-WORD)))
    b = xor(stream * WORD, keys[1][0], node("Mul", node("BitwiseAnd", "index", _int(WORD - 1)), m0))
    for k0, k1 in zip(keys[0][1:], keys[1][1:], strict=True):
        p0, p1 = node("Mul", _high(node, a), m0), node("Mul", _high(node, b), m1)
        a = xor(node("Mul", a, _int(WORD)), k0, p1)
        b = xor(node("Mul", b, _int(WORD)), k1, p0)
    return a, b


def _keys(node: _Nodes, word: str, step: int) -> list[str]:
    """Append the schedule of one key word; return 2^32 times the key of each round, [1] each."""
    steps = np.array([i * step % WORD * WORD for i in range(ROUNDS)], np.uint64).view(np.int64)
    return node.split(node("Add", node("Mul", word, _int(WORD)), steps), ROUNDS)


def _high(node: _Nodes, value: str) -> str:
    return node("Cast", _shift(node, value, 32), to=TensorProto.INT64)


def _shift(node: _Nodes, value: str, places: int) -> str:
    unsigned = node("Cast", value, to=TensorProto.UINT64)
    return node("BitShift", unsigned, np.array([places], np.uint64), direction="RIGHT")


def _float(node: _Nodes, value: str) -> str:
    return node("Cast", value, to=TensorProto.FLOAT)


def _int(value: int) -> NDArray[np.int64]:
    return np.array([value], np.int64)


def _real(value: float) -> NDArray[np.float32]:
    return np.array([value], np.float32)
