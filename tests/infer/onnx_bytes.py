"""ONNX files written byte by byte, so that these tests need no onnx and can write what onnx would not."""

import struct

import numpy as np

TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}


def varint(number):
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """Return one field: an int as a varint, text or bytes with their length, a float in 4 bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(*fields):
    return b"".join(field(number, value) for number, value in fields)


def tensor(name, values, *more):
    values = np.asarray(values)
    dims = [(1, size) for size in values.shape]
    return message(*dims, (2, TYPES[values.dtype.name]), (8, name), (9, values.tobytes()), *more)


def value(name, dtype, dims):
    shape = message(
        *((1, message((1, size) if isinstance(size, int) else (2, size))) for size in dims)
    )
    return message((1, name), (2, message((1, message((1, TYPES[dtype]), (2, shape))))))


def attribute(name, value):
    """Return an attribute of type FLOAT, INT, STRING, TENSOR or INTS."""
    if isinstance(value, float):
        return message((1, name), (2, value), (20, 1))
    if isinstance(value, int):
        return message((1, name), (3, value), (20, 2))
    if isinstance(value, str):
        return message((1, name), (4, value), (20, 3))
    if isinstance(value, np.ndarray):
        return message((1, name), (5, tensor("", value)), (20, 4))
    return message((1, name), *((8, item) for item in value), (20, 7))


def node(operator, inputs, outputs, domain="", more=(), **attributes):
    ends = [(1, name) for name in inputs.split()] + [(2, name) for name in outputs.split()]
    values = [(5, attribute(name, value)) for name, value in attributes.items()]
    return message(*ends, (4, operator), *values, *([(7, domain)] if domain else []), *more)


def graph(nodes, weights, inputs, outputs, more=()):
    """Return a GraphProto; inputs and outputs are (name, dtype, dims)."""
    return message(
        *((1, item) for item in nodes),
        (2, "g"),
        *((5, item if isinstance(item, bytes) else tensor(*item)) for item in weights),
        *((11, value(*item)) for item in inputs),
        *((12, value(*item)) for item in outputs),
        *more,
    )


def model(body, ir=8, opsets=(("", 18),), more=()):
    imports = [
        (8, message(*([(1, domain)] if domain else []), (2, version))) for domain, version in opsets
    ]
    return message((1, ir), (7, body), *imports, *more)
