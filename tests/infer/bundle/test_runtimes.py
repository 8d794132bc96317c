"""What the rules let pass does not end this onnxruntime: crafted graphs run in a process that may die of them.

`make oldest` runs this with the oldest runtime that is allowed. Each graph is one operator, with constants and
attributes at the ends of their types, whose result reaches the output, since a runtime leaves out what does not.
"""

import json
import os
import subprocess
import sys

import numpy as np
import tiny
from onnx_bytes import TYPES, message, model, node

from scgan_infer.bundle import rules
from scgan_infer.bundle.rules import OPERATORS, TRAPS, check
from scgan_infer.bundle.shapes import Call
from scgan_infer.errors import ModelError

DECODER = tiny.MANIFEST.interfaces["decoder.onnx"]
SECONDS = 300
FIELDS = {"int32": 5, "int8": 5, "uint8": 5, "bool": 5, "int64": 7, "uint32": 11, "uint64": 11}
NUMBERS = (1, 2, 0, 7, -1, 255, 2**31 - 1, -(2**31), 2**31, 2**32, 2**63 - 1, -(2**63))
KEYS = ("axis", "keepdims", "fmod", "num_outputs", "batch_dims", "exclusive", "reverse", "to")
LISTS = ("perm", "axes", "value_ints")


AFTER = 5  # nodes behind r
FOUND = []


class Seen(Call):
    """A call that leaves word of its results."""

    def results(self):
        FOUND.append(super().results())
        return FOUND[-1]


DIVISIONS = [
    (operator, kind, number) for operator in ("Div", "Mod") for kind in FIELDS for number in NUMBERS
]


def crafted(number, *more):
    """Return the bytes of graph `number`, a function of the number alone: first the divisions, then others."""
    if number < len(DIVISIONS):
        operator, kind, divisor = DIVISIONS[number]
        weights = [message((1, 1), (2, TYPES[kind]), (8, "c"), (FIELDS[kind], divisor))]
        return whole(
            [node("Cast", "z", "v", to=TYPES[kind]), node(operator, "v c", "r")], weights, more
        )
    rng = np.random.default_rng([number, 4])
    made, weights = [], []
    kind = str(rng.choice(["float32", *sorted(FIELDS)]))
    for j, own in enumerate((kind if kind in FIELDS else "int64", "int64")):
        size = int(rng.integers(-1, 4))
        near = rng.integers(3) or j  # numbers that most types hold
        values = [int(rng.choice(NUMBERS[: 5 if near else None])) for _ in range(abs(size))]
        dims = [(1, size)] if size >= 0 else []
        data = [(FIELDS[own], value) for value in values]
        weights.append(message(*dims, (2, TYPES[own]), (8, f"c{j}"), *data))
    for j, value in enumerate(("z", "latent")):
        made.append(node("Cast", value, f"v{j}", to=TYPES[kind]))
    made.append(node("Shape", "z", "s"))
    first = str(rng.choice(["v0", "v1", "c0", "c1", "s"], p=[0.5, 0.2, 0.1, 0.1, 0.1]))
    others = rng.choice(["v0", "v1", "c0", "c1", "s"], 3, p=[0.1, 0.1, 0.4, 0.3, 0.1])
    attributes = {}
    for key in rng.choice(KEYS, int(rng.choice(3, p=[0.7, 0.2, 0.1]))):
        attributes[str(key)] = int(rng.choice([-2, -1, 0, 0, 1, 1, 2, 2**31, -(2**63)]))
    if rng.integers(12) == 0:
        attributes[str(rng.choice(LISTS))] = rng.choice([-(2**63), -1, 0, 1, 2**40], 2).tolist()
    if rng.integers(8) == 0:
        attributes["direction"] = str(rng.choice(["LEFT", "RIGHT"]))
    names = " ".join([first, *others[: int(rng.choice(4, p=[0.3, 0.5, 0.1, 0.1]))]])
    operators = sorted(TRAPS if rng.integers(2) else OPERATORS)
    made.append(node(str(rng.choice(operators)), names, "r", **attributes))
    return whole(made, weights, more)


def whole(nodes, weights, more):
    """Return the tiny decoder's bytes with these nodes, whose r is added to x with factor 0, and more fields."""
    ends = [
        node("Cast", "r", "f", to=1),
        node("ReduceSum", "f", "t", keepdims=0),
        node("Mul", "t nought", "o"),
        node("Add", "latent h6", "y"),
        node("Add", "y o", "x"),
    ]
    own = [item for item in tiny.WEIGHTS if item[0] in ("a1", "a2", "b", "a3")]
    own.append(("nought", np.zeros((), np.float32)))
    made = [*tiny.DECODE[:-1], *nodes, *ends]
    return model(tiny.body("decoder.onnx", nodes=made, weights=[*own, *weights], more=more))


def run(numbers):
    """Run those of these graphs that pass, printing each number before; return how many ran.

    The shape that the rules find for r must be the one that it has.
    """
    from scgan_infer.sampling.sessions import failures, session

    rules.Call = Seen
    rng, count = np.random.default_rng(0), 0
    feeds = {key: rng.normal(size=(4096, size)) for key, size in (("latent", 2), ("z", 5))}
    feeds["z"][:4] = [[-(2.0**31)], [-(2.0**63)], [1e30], [-128]]
    feeds = {key: value.astype(np.float32) for key, value in feeds.items()}
    for number in numbers:
        FOUND.clear()
        try:
            check("decoder.onnx", crafted(number), DECODER)
        except ModelError:
            continue
        print(number, flush=True)
        try:
            result = session(crafted(number, (12, message((1, "r")))), "cpu").run(["r"], feeds)[0]
        except failures():
            continue
        expected = FOUND[-1 - AFTER][0].shape
        assert expected == result.shape, (number, expected, result.shape)
        count += 1
    return count


def test_no_graph_that_passes_ends_the_process():
    command = [sys.executable, __file__, "0", "2000"]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env=paths, check=False
    )
    assert ended.returncode == 0, (ended.stdout.splitlines()[-1:], ended.stderr[-2000:])
    assert json.loads(ended.stdout.splitlines()[-1])["ran"] > 50


if __name__ == "__main__":
    print(json.dumps({"ran": run(range(int(sys.argv[1]), int(sys.argv[2])))}))
