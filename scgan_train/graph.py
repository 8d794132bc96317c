"""Helpers for building graphs: every module's `graph` method is its `forward` as a graph.

spox makes a typed value of every operator, so a graph is composed by calling functions, and a
mistake in a shape or a type is an error where it is made. The models are of opset 18 and IR 8,
with the batch open and no name of this machine inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v18 as op
from numpy.typing import ArrayLike
from spox import Var
from torch import Tensor

from scgan_infer.bundle.rules import IR, OPSET
from scgan_infer.errors import ParityError

__all__ = ["Var", "again", "argument", "const", "copied", "minus_infinity", "model", "op", "silu"]

SHARED = 64  # bytes of a constant that is shared: half of a graph's constants are a few numbers


def argument(shape: Sequence[int | str], dtype: type[np.generic] = np.float32) -> Var:
    """Return an input of a graph; a dimension named "n" is open."""
    return spox.argument(spox.Tensor(dtype, tuple(shape)))


def const(array: ArrayLike | Tensor, dtype: type[np.generic] = np.float32) -> Var:
    """Return a constant of numbers or a tensor, float32 by default. Equal small ones are one."""
    numbers = array.numpy(force=True) if isinstance(array, Tensor) else array
    values = np.array(numbers, dtype, order="C")
    if values.nbytes > SHARED:
        return op.const(values)
    return _shared(values.tobytes(), values.dtype.str, values.shape)


@cache
def _shared(content: bytes, dtype: str, shape: tuple[int, ...]) -> Var:
    return op.const(np.frombuffer(content, dtype).reshape(shape).copy())


def minus_infinity() -> Var:
    """Return log 0: a constant must be finite."""
    with np.errstate(divide="ignore"):  # spox evaluates constant expressions
        return op.log(const(0))


def silu(x: Var) -> Var:
    """Return x sigmoid(x)."""
    return op.mul(x, op.sigmoid(x))


def copied(
    *shapes: tuple[int | str, ...],
) -> Callable[[Callable[..., Sequence[Var]]], Callable[..., list[Var]]]:
    """Let a function of float32 arguments of these shapes make its nodes once, then copy them."""

    def copier(function: Callable[..., Sequence[Var]]) -> Callable[..., list[Var]]:
        @cache
        def built() -> onnx.ModelProto:
            values = {f"x{k}": argument(shape) for k, shape in enumerate(shapes)}
            outputs = {f"y{k}": y for k, y in enumerate(function(*values.values()))}
            return spox.build(values, outputs)

        return lambda *values: list(spox.inline(built())(*values).values())

    return copier


def again(
    inputs: Mapping[str, Var], outputs: Mapping[str, Var], values: Mapping[str, Var]
) -> dict[str, Var]:
    """Return a graph's outputs at other inputs: copying nodes is faster than creating them."""
    return dict(spox.inline(spox.build(dict(inputs), dict(outputs)))(**values))


def model(inputs: Mapping[str, Var], outputs: Mapping[str, Var]) -> bytes:
    """Return one ONNX model, weights inside; equal graphs give equal bytes.

    Raises:
        ParityError: the ONNX checker refuses the model.
    """
    built = spox.build(dict(inputs), dict(outputs))
    built.ir_version = IR
    built.producer_name, built.producer_version, built.doc_string = "scgan", "", ""
    (version,) = built.opset_import  # the oldest that holds all operators, which are those of OPSET
    assert version.version <= OPSET
    version.version = OPSET
    del built.metadata_props[:]
    graph = built.graph
    graph.name, graph.doc_string = "scgan", ""
    del graph.value_info[:]
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Constant":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            node.name = f"n{len(graph.node)}"
            node.ClearField("doc_string")
            graph.node.append(node)
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    try:
        onnx.checker.check_model(built, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(f"the exported graph is not valid ONNX: {error}") from error
    return bytes(built.SerializeToString(deterministic=True))
