"""The rules that make a stranger's graph safe to give to onnxruntime.

A graph is straight-line arithmetic on dense tensors, from the inputs to the outputs of
`interfaces`. Refused:

- bytes that are not one ONNX model in IR 8, opset 18 of the standard operators; nothing is read
  that `onnx_schema` does not list: no functions, no sparse tensors, no training graphs;
- operators off `OPERATORS`: no control flow and so no loops, nothing random, no operator of another
  domain; and what aborts, hangs or traps inside one onnxruntime or another on some inputs:
  GatherND, Einsum, TopK, a division of integers by a computed number, a remainder of real numbers,
  a reduction along computed axes, a shape that depends on data, a tensor without elements;
- tensors outside the file, of another size than their dimensions say, with values that their type
  can't hold (what onnxruntime cuts off: 2^32 would be a divisor 0), or not finite;
- other inputs and outputs than the interface's, by name, order, type and size;
- metadata below the model's own: exporters put source lines and folders there.

Bounds: a file of `MAX_BYTES`, `MAX_FIELDS` protobuf fields, `MAX_NODES` nodes, rank `MAX_RANK`,
dimensions of `MAX_DIMENSION`; and, counted by `shapes`, `MAX_WORK` multiply-adds and `MAX_COMPUTED`
bytes of computed values per row, where a block of rows is computed at a time. The memory that a
graph takes at once is bounded by `sessions`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgan_infer.bundle.interfaces import BLOCK, Interface
from scgan_infer.bundle.onnx_schema import (
    ATTRIBUTE_FIELDS,
    BOOL,
    DOUBLE,
    FLOAT,
    INT64,
    MODEL,
    TYPES,
)
from scgan_infer.bundle.protobuf import MalformedError, Reader
from scgan_infer.bundle.shapes import Call, Value
from scgan_infer.errors import ModelError

IR, OPSET = 8, 18
MAX_BYTES = 64 * 2**20
MAX_FIELDS = 500_000
MAX_NODES = 10_000
MAX_RANK = 8
MAX_DIMENSION = 2**24
MAX_WORK = 2**26
MAX_COMPUTED = 2**22

COMPARISONS = {
    "And", "Equal", "Greater", "GreaterOrEqual", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"
}  # fmt: skip
COUNTS = {"ArgMax", "ArgMin", "Shape", "Size"}
ARITHMETIC = """
    Abs Acos Add Asin Atan BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Clip Concat
    Constant ConstantOfShape Cos Cosh CumSum Div Elu Erf Exp Expand Flatten Floor Gather
    GatherElements Gemm HardSigmoid Identity LayerNormalization LeakyRelu Log LogSoftmax MatMul Max
    Mean Min Mod Mul Neg Pow Reciprocal ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round Selu Sigmoid Sign Sin Sinh Slice Softmax
    Softplus Softsign Split Sqrt Squeeze Sub Sum Tan Tanh Transpose Unsqueeze Where
"""
OPERATORS = COMPARISONS | COUNTS | set(ARITHMETIC.split())
# attributes that the rules read, and the field that holds each
ATTRIBUTES = {
    "perm": "ints",
    "value": "t",
    "value_float": "f",
    "value_floats": "floats",
    "value_ints": "ints",
}
FLAGS = {"allowzero", "keepdims", "noop_with_empty_axes", "transA", "transB"}
NUMBERS = FLAGS | {"axis", "end", "num_outputs", "start", "to", "value_int"}
ATTRIBUTES |= dict.fromkeys(NUMBERS, "i")
DATA = ("raw_data", *dict.fromkeys(field for _, field in TYPES.values()))
TRAPS = {"CumSum", "Div", "Mod", "Split"} | {name for name in OPERATORS if name[:6] == "Reduce"}
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}


def check(name: str, data: bytes, interface: Interface) -> None:
    """Refuse the file of a graph that breaks a rule of this module, or has another interface.

    Raises:
        ModelError: naming the file, the rule and what broke it.
    """
    try:
        if len(data) > MAX_BYTES:
            raise MalformedError(f"{len(data)} bytes, more than {MAX_BYTES}")
        model = Reader(MAX_FIELDS).read(data, MODEL)
        _check_model(model)
        _check_interface(model["graph"], interface)
        _check_nodes(model["graph"])
    except MalformedError as error:
        raise ModelError(f"{name}: {error}; this graph is not run") from None


def _check_model(model: dict[str, Any]) -> None:
    if model["graph"] is None:
        raise MalformedError("not an ONNX model")
    if model["functions"]:
        raise MalformedError("it defines functions of its own")
    imports = [(entry["domain"], entry["version"]) for entry in model["opset_import"]]
    if custom := [domain for domain, _ in imports if domain not in ("", "ai.onnx")]:
        raise MalformedError(f"custom domain {_quote(custom[0])}")
    if model["ir_version"] != IR or [version for _, version in imports] != [OPSET]:
        versions = ", ".join(str(version) for _, version in imports[:4]) or "none"
        raise MalformedError(
            f"IR {model['ir_version']}, opset {versions} instead of IR {IR}, opset {OPSET}"
        )
    for entry in model["metadata_props"]:
        if "stack_trace" in entry["key"] or entry["key"] == "ort_config":
            raise MalformedError(f"metadata {_quote(entry['key'])}")
    graph = model["graph"]
    if graph["sparse_initializer"] or graph["quantization_annotation"]:
        raise MalformedError("sparse or quantized tensors")
    if len(graph["node"]) > MAX_NODES:
        raise MalformedError(f"{len(graph['node'])} nodes, more than {MAX_NODES}")
    values = (*graph["input"], *graph["output"], *graph["value_info"])
    for part in (graph, *graph["node"], *graph["initializer"], *values):
        if part["metadata_props"] or part["doc_string"]:
            name = _quote(part["name"])
            raise MalformedError(f"metadata or a doc_string at {name} (strip it at export)")


def _check_interface(graph: dict[str, Any], interface: Interface) -> None:
    for side, expected in zip(("input", "output"), interface, strict=True):
        names = [value["name"] for value in graph[side]]
        if names != list(expected):
            listed = _quote(", ".join(names))
            raise MalformedError(f"{side}s {listed} instead of {', '.join(expected)}")
        for value in graph[side]:
            dtype, sizes = expected[value["name"]]
            if _declared(value) != (dtype, list(sizes)):
                shape = ", ".join(str(size or "n") for size in sizes)
                kind = np.dtype(TYPES[dtype][0])
                raise MalformedError(f"{side} {value['name']} is not {kind} [{shape}] with n open")
    for value in graph["value_info"]:
        _declared(value)


def _declared(value: dict[str, Any]) -> tuple[int, list[int]]:
    """Return the type and dimensions of a declared value; a dimension that is not fixed is 0."""
    tensor = value["type"] and value["type"]["tensor_type"]
    if not tensor or tensor["elem_type"] not in TYPES:
        raise MalformedError(f"value {_quote(value['name'])} is not a dense tensor of numbers")
    dimensions = [dim["dim_value"] for dim in tensor["shape"]["dim"]] if tensor["shape"] else []
    _check_dimensions(value["name"], dimensions)
    return tensor["elem_type"], dimensions


def _check_dimensions(name: str, dimensions: list[int]) -> None:
    """Refuse dimensions that no tensor of a file may have; a 0 hides no product of the others."""
    valid = len(dimensions) <= MAX_RANK and all(0 <= size <= MAX_DIMENSION for size in dimensions)
    if not valid or math.prod(size or 1 for size in dimensions) > MAX_BYTES:
        raise MalformedError(f"tensor {_quote(name)} has dimensions {_quote(str(dimensions))}")


def _check_nodes(graph: dict[str, Any]) -> None:
    """Check each node, following types, shapes and constants."""
    types: dict[str, int] = {}
    values: dict[str, Value] = {}
    constants: dict[str, NDArray[Any]] = {}
    work = computed = 0

    def define(name: str, dtype: int, value: Value) -> None:
        if name in types:
            raise MalformedError(f"two values are named {_quote(name)}")
        types[name], values[name] = dtype, value

    for value in graph["input"]:
        dtype, sizes = _declared(value)
        define(value["name"], dtype, Value.argument(sizes))
    for tensor in graph["initializer"]:
        constants[tensor["name"]] = _values(tensor)
        define(tensor["name"], tensor["data_type"], Value.of(constants[tensor["name"]]))
    for node in graph["node"]:
        operator = node["op_type"]
        _check_operator(node)
        attributes = _attributes(node)
        if unknown := [name for name in node["input"] if name and name not in types]:
            raise MalformedError(f"{operator} reads {_quote(unknown[0])} before it is made")
        arguments = [types.get(name, 0) for name in node["input"]]
        _check_traps(node, arguments, attributes, constants)
        dtype = _result_type(operator, arguments, attributes)
        if operator == "Constant":
            constants["".join(node["output"])] = _constant(attributes)[1]
            results = [Value.of(_constant(attributes)[1])]
        else:
            inputs = [values.get(name) for name in node["input"]]
            call = Call(operator, inputs, attributes, len(node["output"]))
            results = call.results()
            work += call.work(results, arguments[0])
        for name, result in zip(node["output"], results, strict=False):
            computed += result.elements * np.dtype(TYPES[dtype][0]).itemsize
            if name:
                define(name, dtype, result)
        _check_costs(operator, work, computed)
    if missing := [value["name"] for value in graph["output"] if value["name"] not in types]:
        raise MalformedError(f"output {missing[0]} is not computed")


def _check_costs(operator: str, work: int, computed: int) -> None:
    """Refuse what costs too much up to this operator; both are of a block."""
    for amount, what, most in (
        (work, "multiply-adds", MAX_WORK),
        (computed, "bytes of values", MAX_COMPUTED),
    ):
        if amount > most * BLOCK:
            raise MalformedError(
                f"{amount / BLOCK:.3g} {what} a row up to a {operator}, more than {most}"
            )


def _check_operator(node: dict[str, Any]) -> None:
    kind, subgraphs = node["op_type"], any(a["g"] or a["graphs"] for a in node["attribute"])
    if kind in OPERATORS and node["domain"] in ("", "ai.onnx") and not subgraphs:
        return
    operator = _quote(kind)
    if node["domain"] not in ("", "ai.onnx"):
        raise MalformedError(f"operator {operator} of custom domain {_quote(node['domain'])}")
    if kind in CONTROL_FLOW or subgraphs:
        raise MalformedError(f"control flow (operator {operator})")
    if kind.startswith(("Random", "Bernoulli", "Dropout", "Multinomial")):
        raise MalformedError(f"random operator {operator}")
    raise MalformedError(f"operator {operator} is not on the list of allowed operators")


def _check_traps(
    node: dict[str, Any],
    arguments: list[int],
    attributes: dict[str, Any],
    constants: dict[str, NDArray[Any]],
) -> None:
    """Refuse what ends some onnxruntime process: spare outputs, INT_MIN / -1, empty reductions."""
    operator, outputs = node["op_type"], len(node["output"])
    if operator not in TRAPS:
        return
    second = constants.get("".join(node["input"][1:]))
    if operator == "Split" and attributes.get("num_outputs", outputs) != outputs:
        raise MalformedError(f"Split into {attributes['num_outputs']} has {outputs} outputs")
    real = arguments[:1] in ([FLOAT], [DOUBLE])
    if operator in ("Div", "Mod") and not real and (second is None or not (second > 0).all()):
        raise MalformedError(f"{operator} of integers by something else than a positive constant")
    is_list = second is not None and second.ndim == 1
    if operator == "Mod" and real:
        raise MalformedError(
            "Mod of numbers that are not integers (it takes up to 500 ns an element)"
        )
    if operator.startswith("Reduce") and any(node["input"][1:]) and not is_list:
        raise MalformedError(f"{operator} along axes that are not a constant list")
    if operator == "CumSum" and (second is None or second.size != 1):
        raise MalformedError("CumSum along an axis that is not a constant number")


def _attributes(node: dict[str, Any]) -> dict[str, Any]:
    """Return the node's attributes by name, checked."""
    values: dict[str, Any] = {}
    for attribute in node["attribute"]:
        name, field = attribute["name"], ATTRIBUTE_FIELDS.get(attribute["type"])
        value = attribute[field] if field else None
        wrong = ""
        if field is None or name in values or ATTRIBUTES.get(name, field) != field:
            wrong = "repeated or of a wrong type"
        elif value is None:
            wrong = "empty"
        elif field == "t":
            value = (value["data_type"], _values(value))
        elif field in ("f", "floats") and not np.isfinite(np.frombuffer(value, "<f4")).all():
            wrong = "not finite"
        if wrong:
            raise MalformedError(f"attribute {_quote(name)} of {node['op_type']} is {wrong}")
        if name == "axis" and not -MAX_RANK <= attribute["i"] <= MAX_RANK:
            raise MalformedError(f"{node['op_type']} along axis {attribute['i']}")
        if name in FLAGS and value not in (0, 1):
            raise MalformedError(f"{node['op_type']} with {name} = {value}")
        values[name] = value
    return values


def _result_type(operator: str, arguments: list[int], attributes: dict[str, Any]) -> int:
    """Return the type of the operator's (first) result."""
    if operator in COMPARISONS:
        return BOOL
    if operator in COUNTS:
        return INT64
    if operator == "Constant":
        return _constant(attributes)[0]
    if operator == "ConstantOfShape":
        return int(attributes["value"][0]) if "value" in attributes else FLOAT
    if operator == "Cast":
        if attributes.get("to") not in TYPES:
            raise MalformedError(f"Cast to type {attributes.get('to')}")
        return int(attributes["to"])
    source = 1 if operator == "Where" else 0
    if len(arguments) <= source or arguments[source] == 0:
        raise MalformedError(f"{operator} has too few inputs")
    return arguments[source]


def _constant(attributes: dict[str, Any]) -> tuple[int, NDArray[Any]]:
    if len(attributes) != 1:
        raise MalformedError(f"Constant with {len(attributes)} attributes")
    ((name, value),) = attributes.items()
    if name == "value":
        return int(value[0]), value[1]
    if name in ("value_float", "value_floats"):
        return FLOAT, np.frombuffer(value, "<f4")
    if name in ("value_int", "value_ints"):
        return INT64, np.array(value, np.int64)
    raise MalformedError(f"Constant of {_quote(name)}")


def _values(tensor: dict[str, Any]) -> NDArray[Any]:
    """Return a tensor's values after checking its size and that they are finite."""
    name, dtype, dims = _quote(tensor["name"]), tensor["data_type"], tensor["dims"]
    if tensor["external_data"] or tensor["data_location"]:
        raise MalformedError(f"tensor {name} is external data, outside the file")
    if dtype not in TYPES:
        raise MalformedError(f"tensor {name} has type {dtype}")
    _check_dimensions(tensor["name"], dims)
    kind, field = TYPES[dtype]
    filled = [key for key in DATA if len(tensor[key])]
    values: NDArray[Any] = np.empty(0, kind)
    if filled in (["raw_data"], [field]):
        data = tensor[filled[0]]
        if isinstance(data, list):
            values = _typed(name, data, np.dtype(kind))
        elif len(data) % values.itemsize == 0:
            values = np.frombuffer(data, kind)
    if len(filled) > 1 or len(values) != math.prod(dims):
        raise MalformedError(f"tensor {name} holds other data than its dimensions {dims} say")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise MalformedError(f"tensor {name} holds NaN or infinity")
    if dtype == BOOL and (values > 1).any():
        raise MalformedError(f"tensor {name} holds other truth values than 0 and 1")
    return values.reshape(dims)


def _typed(name: str, numbers: list[int], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers that were read as int64 as an array of a type, if it holds them all."""
    values = np.array(numbers, np.int64)
    if kind == np.uint64:
        return values.view(np.uint64)
    limits = np.iinfo(kind)
    if beyond := values[(values < limits.min) | (values > limits.max)].tolist():
        raise MalformedError(f"tensor {name} holds {beyond[0]}, which is no {kind}")
    return values.astype(kind)


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
