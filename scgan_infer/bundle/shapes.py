"""The shapes of a graph's values for a block of rows, and the work that follows from them.

Shapes are those of a batch of n = `BLOCK`, the only one that a model runs. They must follow from
constants and from other shapes: a graph that reshapes, expands or slices by what it computes from
its data is refused, and so is a value of no elements.

The unit of work is a multiply-add of a matrix product in float32, of which onnxruntime does 2 to 5
x 10^10 a second on one core (1.18 and 1.32, AMD EPYC); in the same units

    a matrix product     the result's elements times the length summed over, times 16 if not float32
    anything else        the elements it gives, times its number of inputs if it combines them one
                         by one, and what it takes; all times 16, 256 if in `SLOW`, and 4 in float64
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scgan_infer.bundle.interfaces import BLOCK
from scgan_infer.bundle.onnx_schema import DOUBLE, FLOAT
from scgan_infer.bundle.protobuf import MalformedError

Shape: TypeAlias = tuple[int, ...]

ELEMENT, SLOW_ELEMENT, WIDE, OTHER_PRODUCT = 16, 256, 4, 16
SLOW = {
    "Acos", "Asin", "Atan", "Cos", "Cosh", "CumSum", "Elu", "Gather", "LayerNormalization",
    "LeakyRelu", "Log", "LogSoftmax", "Pow", "ReduceLogSumExp", "Selu", "Sin", "Sinh", "Softmax",
    "Softplus", "Tan",
}  # fmt: skip
FOLDED = 64  # elements of an integer tensor that is followed, since it may hold a shape


class Value(NamedTuple):
    """A tensor before it is computed.

    Attributes:
        shape: its dimensions for a block.
        known: its values, where they are a few integers which follow from constants and shapes.
    """

    shape: Shape
    known: NDArray[Any] | None = None

    @classmethod
    def of(cls, values: NDArray[Any]) -> Value:
        """Return what is known of a constant."""
        few = values.dtype.kind in "iu" and values.size <= FOLDED
        return cls(values.shape, values if few else None)

    @classmethod
    def argument(cls, sizes: Iterable[int]) -> Value:
        """Return what is known of a graph's input; a size of 0 is the batch."""
        return cls(tuple(size or BLOCK for size in sizes))

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.shape)


class Call:
    """A node with what is known of its inputs."""

    def __init__(
        self,
        operator: str,
        inputs: list[Value | None],
        attributes: dict[str, Any],
        outputs: int,
    ) -> None:
        self.operator, self.inputs, self.attributes = operator, inputs, attributes
        self.outputs = outputs
        self.values = [value for value in inputs if value is not None]

    def results(self) -> list[Value]:
        """Return what is known of the outputs.

        Raises:
            MalformedError: the inputs do not fit each other, or their data would decide.
        """
        try:
            shapes, known = SHAPES.get(self.operator, _elementwise)(self), _known(self)
        except (IndexError, TypeError, ValueError) as error:
            shown = ", ".join(str(list(value.shape)) for value in self.values[:4])
            why = f": {error}" if isinstance(error, MalformedError) else ""
            raise MalformedError(f"{self.operator} of {shown} can't be computed{why}") from None
        if any(0 in shape for shape in shapes):
            raise MalformedError(f"{self.operator} gives a tensor without elements")
        return [Value(shape, known if index == 0 else None) for index, shape in enumerate(shapes)]

    def work(self, results: list[Value], dtype: int) -> int:
        """Return the work of the node on elements of this type, for a block."""
        out = sum(value.elements for value in results)
        if self.operator in ("Gemm", "MatMul"):
            axis = 0 if self.get("transA", 0) else -1
            return out * self.shape(0)[axis] * (1 if dtype == FLOAT else OTHER_PRODUCT)
        accessed = out * (1 if self.operator in SHAPES else len(self.values))
        accessed += sum(value.elements for value in self.values)
        cost = SLOW_ELEMENT if self.operator in SLOW else ELEMENT
        return accessed * cost * (WIDE if dtype == DOUBLE else 1)

    def shape(self, index: int) -> Shape:
        """Return the shape of an input that must be there."""
        value = self.inputs[index]
        if value is None:
            raise MalformedError("an input is missing")
        return value.shape

    def get(self, name: str, default: int) -> int:
        """Return an attribute that is a number."""
        value: int = self.attributes.get(name, default)
        return value

    def numbers(self, index: int) -> list[int] | None:
        """Return the integers of an input; None if it is left out."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            return None
        if value.known is None:
            raise MalformedError("its data would decide on shapes")
        return [int(number) for number in value.known.ravel()]

    def axis(self, default: int) -> int:
        """Return the attribute axis, counted from the front."""
        return _normalise_axis(self.get("axis", default), len(self.shape(0)))


def broadcast(shapes: Iterable[Shape]) -> Shape:
    """Return the shape of an operation on each element.

    >>> broadcast([(4096, 1), (1, 3), ()])
    (4096, 3)
    """
    shapes = list(dict.fromkeys(shapes))
    if len(shapes) == 1:
        return shapes[0]
    rank = max(map(len, shapes))
    result = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        wide = set(sizes) - {1}
        if len(wide) > 1:
            raise MalformedError("sizes differ")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def _elementwise(call: Call) -> list[Shape]:
    return [broadcast(value.shape for value in call.values)]


def _normalise_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise MalformedError(f"axis {axis} of {rank}")
    return axis % rank


def _normalise_axes(axes: list[int], rank: int) -> set[int]:
    normalised = {_normalise_axis(axis, rank) for axis in axes}
    if len(normalised) != len(axes):
        raise MalformedError("an axis occurs twice")
    return normalised


def _product(call: Call) -> list[Shape]:
    a, b = call.shape(0), call.shape(1)
    left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    if left[-1] != right[-2]:
        raise MalformedError("lengths differ")
    rows, columns = left[-2:-1] * (len(a) > 1), right[-1:] * (len(b) > 1)
    return [broadcast([left[:-2], right[:-2]]) + rows + columns]


def _gemm(call: Call) -> list[Shape]:
    (m, k), (length, n) = call.shape(0), call.shape(1)
    if call.get("transA", 0):
        m, k = k, m
    if call.get("transB", 0):
        length, n = n, length
    if k != length:
        raise MalformedError("lengths differ")
    return [broadcast([(m, n), *(value.shape for value in call.values[2:])])]


def _concat(call: Call) -> list[Shape]:
    axis, first = call.axis(0), call.shape(0)
    shapes = [value.shape for value in call.values]
    if any(len(s) != len(first) or _without(s, axis) != _without(first, axis) for s in shapes):
        raise MalformedError("sizes differ")
    return [(*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])]


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _gather(call: Call) -> list[Shape]:
    axis, shape = call.axis(0), call.shape(0)
    return [shape[:axis] + call.shape(1) + shape[axis + 1 :]]


def _reduction(call: Call) -> list[Shape]:
    axes, shape = call.numbers(1), call.shape(0)
    if not axes and call.get("noop_with_empty_axes", 0):
        return [shape]
    reduced = _normalise_axes(axes, len(shape)) if axes else set(range(len(shape)))
    return [_dropped(call, reduced)]


def _arg_reduction(call: Call) -> list[Shape]:
    return [_dropped(call, {call.axis(0)})]


def _dropped(call: Call, axes: set[int]) -> Shape:
    kept = (1,) if call.get("keepdims", 1) else ()
    sizes = [kept if axis in axes else (size,) for axis, size in enumerate(call.shape(0))]
    return sum(sizes, ())


def _layer_normalization(call: Call) -> list[Shape]:
    axis, shape = call.axis(-1), call.shape(0)
    means = shape[:axis] + (1,) * (len(shape) - axis)
    return [broadcast(value.shape for value in call.values), means, means]


def _sizes(call: Call) -> Shape:
    shape = call.shape(0)
    return shape[call.get("start", 0) : call.get("end", len(shape))]


def _reshape(call: Call) -> list[Shape]:
    old, sizes = call.shape(0), call.numbers(1) or []
    if 0 in sizes and call.get("allowzero", 0):
        raise MalformedError("it would be empty")
    new = [size or old[axis] for axis, size in enumerate(sizes)]
    rest = math.prod(size for size in new if size != -1)
    if new.count(-1) == 1 and rest > 0:
        new[new.index(-1)] = math.prod(old) // rest
    if min(new, default=1) < 1 or math.prod(new) != math.prod(old):
        raise MalformedError(f"it has not as many elements as {sizes}")
    return [tuple(new)]


def _slice(call: Call) -> list[Shape]:
    shape, starts, ends = call.shape(0), call.numbers(1) or [], call.numbers(2) or []
    axes = call.numbers(3) or list(range(len(starts)))
    steps = call.numbers(4) or [1] * len(starts)
    sizes, normalised = list(shape), [_normalise_axis(axis, len(shape)) for axis in axes]
    _normalise_axes(axes, len(shape))
    for axis, start, end, step in zip(normalised, starts, ends, steps, strict=True):
        sizes[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
    return [tuple(sizes)]


def _split(call: Call) -> list[Shape]:
    axis, shape = call.axis(0), call.shape(0)
    parts = call.numbers(1)
    if parts is None:
        each = -(-shape[axis] // call.outputs)
        parts = [min(each, shape[axis] - k * each) for k in range(call.outputs)]
    if len(parts) != call.outputs or min(parts) < 1 or sum(parts) != shape[axis]:
        raise MalformedError(f"not into {parts}")
    return [(*shape[:axis], part, *shape[axis + 1 :]) for part in parts]


def _squeeze(call: Call) -> list[Shape]:
    shape, axes = call.shape(0), call.numbers(1)
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    squeezed = _normalise_axes(ones if axes is None else axes, len(shape))
    if not squeezed <= set(ones):
        raise MalformedError(f"axes {axes} are not of size 1")
    return [tuple(size for axis, size in enumerate(shape) if axis not in squeezed)]


def _unsqueeze(call: Call) -> list[Shape]:
    old, axes = iter(call.shape(0)), call.numbers(1) or []
    rank = len(call.shape(0)) + len(axes)
    new = _normalise_axes(axes, rank)
    return [tuple(1 if axis in new else next(old) for axis in range(rank))]


def _transpose(call: Call) -> list[Shape]:
    shape = call.shape(0)
    order = call.attributes.get("perm", list(range(len(shape)))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise MalformedError(f"order {order}")
    return [tuple(shape[axis] for axis in order)]


def _flatten(call: Call) -> list[Shape]:
    axis, shape = call.get("axis", 1), call.shape(0)
    axis += len(shape) if axis < 0 else 0
    if not 0 <= axis <= len(shape):
        raise MalformedError(f"axis {axis}")
    return [(math.prod(shape[:axis]), math.prod(shape[axis:]))]


def _known(call: Call) -> NDArray[Any] | None:
    """Return the values of the first output, if shapes and constants determine them."""
    if call.operator == "Shape":
        return np.array(_sizes(call), np.int64)
    if call.operator not in ("Concat", "Gather", "Identity"):
        return None
    known = [value.known for value in call.values if value.known is not None]
    if len(known) != len(call.inputs):
        return None
    if call.operator == "Concat":
        return np.concatenate(known, call.axis(0))
    return known[0].take(known[1], call.axis(0)) if len(known) > 1 else known[0]


SHAPES: dict[str, Callable[[Call], list[Shape]]] = {
    "ArgMax": _arg_reduction,
    "ArgMin": _arg_reduction,
    "Concat": _concat,
    "ConstantOfShape": lambda call: [tuple(call.numbers(0) or [])],
    "Expand": lambda call: [broadcast([call.shape(0), tuple(call.numbers(1) or [])])],
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": lambda call: [call.shape(1)],
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "MatMul": _product,
    "ReduceL2": _reduction,
    "ReduceLogSumExp": _reduction,
    "ReduceMax": _reduction,
    "ReduceMean": _reduction,
    "ReduceMin": _reduction,
    "ReduceProd": _reduction,
    "ReduceSum": _reduction,
    "ReduceSumSquare": _reduction,
    "Reshape": _reshape,
    "Shape": lambda call: [(len(_sizes(call)),)],
    "Size": lambda call: [()],
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
