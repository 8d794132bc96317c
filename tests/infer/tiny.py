"""A whole bundle of a few hundred weights, written by hand: four clusters in the plane, one of weight 0."""

from dataclasses import replace

import numpy as np
from onnx_bytes import graph, model, node

from scgan_infer import bundle
from scgan_infer.bundle import Manifest
from scgan_infer.bundle.manifest import Outcomes
from scgan_infer.columns import Column
from scgan_infer.sampling.noise import BLOCK, block_noise

SIZES = {"d": 2, "e": 2, "m": 3, "q": 5, "K": 4, "h": 1, "g": 0}
THRESHOLDS = (5_000_000, 9_000_001, 9_000_001, 2**24)
CENTERS = np.array([[-4, 0], [4, 0], [0, 9], [0, -4]], np.float32)

_rng = np.random.Generator(np.random.PCG64(7))


def _weights(*shape):
    return (_rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


BOUNDS = (np.array(THRESHOLDS[:-1]) / 2**24).astype(np.float32)
WEIGHTS = [
    ("bounds", BOUNDS),
    ("last", np.array([-1], np.int64)),
    ("first", np.array([0], np.int64)),
    ("centers", CENTERS),
    ("twice", 2 * CENTERS.T),
    ("squares", (CENTERS**2).sum(1)),
    ("spread", 0.3 * _weights(3, 2)),
    ("a1", _weights(2, 32)),
    ("a2", _weights(5, 32)),
    ("b", _weights(32)),
    ("a3", 0.2 * _weights(32, 2)),
]

ENCODE = [
    node("Identity", "x", "latent"),
    node("MatMul", "x twice", "dots"),
    node("Sub", "squares dots", "distances"),
    node("ArgMin", "distances", "choice", axis=1, keepdims=0),
]
MAP = [
    node("Unsqueeze", "u last", "column"),
    node("GreaterOrEqual", "column bounds", "beyond"),
    node("Cast", "beyond", "steps", to=7),
    node("ReduceSum", "steps last", "choice", keepdims=0),
    node("Gather", "centers choice", "center", axis=0),
    node("MatMul", "w spread", "around"),
    node("Add", "center around", "latent"),
]
DECODE = [
    node("MatMul", "latent a1", "h1"),
    node("MatMul", "z a2", "h2"),
    node("Add", "h1 h2", "h3"),
    node("Add", "h3 b", "h4"),
    node("Tanh", "h4", "h5"),
    node("MatMul", "h5 a3", "h6"),
    node("Add", "latent h6", "x"),
]
SAMPLE = [
    node("Add", "seed index", "sum"),
    node("Cast", "sum", "number", to=1),
    node("Unsqueeze", "number last", "column"),
    node("Concat", "column column", "x", axis=1),
]
NAMES = {
    "encoder.onnx": (ENCODE, "twice squares"),
    "mappers.onnx": (MAP, "bounds last centers spread"),
    "decoder.onnx": (DECODE, "a1 a2 b a3"),
    "generator.onnx": (MAP + DECODE, "bounds last centers spread a1 a2 b a3"),
    "sampler.onnx": (SAMPLE, "last"),
}
ENDS = {
    "encoder.onnx": (
        [("x", "float32", "nd")],
        [("latent", "float32", "ne"), ("choice", "int64", "n")],
    ),
    "mappers.onnx": (
        [("u", "float32", "n"), ("w", "float32", "nm")],
        [("latent", "float32", "ne"), ("choice", "int64", "n")],
    ),
    "decoder.onnx": (
        [("latent", "float32", "ne"), ("z", "float32", "nq")],
        [("x", "float32", "nd")],
    ),
    "generator.onnx": (
        [("u", "float32", "n"), ("w", "float32", "nm"), ("z", "float32", "nq")],
        [("x", "float32", "nd")],
    ),
    "sampler.onnx": ([("seed", "int64", "1"), ("index", "int64", "n")], [("x", "float32", "nd")]),
}


def ends(name):
    """Return the inputs and outputs of a graph as `graph` takes them."""
    sides = []
    for side in ENDS[name]:
        sides.append(
            [
                (key, dtype, [SIZES.get(s, 1 if s == "1" else s) for s in dims])
                for key, dtype, dims in side
            ]
        )
    return sides


def body(name, **changes):
    """Return a graph's bytes; `changes` replace arguments of `graph`."""
    nodes, used = NAMES[name]
    inputs, outputs = ends(name)
    weights = [item for item in WEIGHTS if item[0] in used.split()]
    return graph(
        **{"nodes": nodes, "weights": weights, "inputs": inputs, "outputs": outputs, **changes}
    )


GRAPHS = {name: model(body(name)) for name in NAMES}
MANIFEST = Manifest(
    name="tiny",
    columns=(Column("x", unit="cm"), Column("y")),
    sizes=SIZES,
    latents="mapper",
    mapper="adversarial",
    thresholds=THRESHOLDS,
    provenance={"scgan": "0.1.0"},
)


def head():
    """Return the bytes of a head.onnx, which chooses as mappers.onnx does."""
    bounds = [item for item in WEIGHTS if item[0] in ("bounds", "last")]
    return graph(MAP[:4], bounds, [("u", "float32", ["n"])], [("choice", "int64", ["n"])])


def density(output):
    """Return the bytes of a density.onnx that gives a row's last cell under this name."""
    nodes = [node("Gather", "x first", "cell", axis=1), node("Squeeze", "cell last", output)]
    first = [item for item in WEIGHTS if item[0] in ("first", "last")]
    return graph(nodes, first, [("x", "float32", ["n", 2])], [(output, "float32", ["n"])])


def without_noise():
    """Return the manifest and graphs of a bundle whose decoder has no noise z."""
    first, _, _, *others = DECODE
    decode = [first, node("Identity", "h1", "h3"), *others]
    graphs = dict(GRAPHS)
    for name, nodes in (("decoder.onnx", decode), ("generator.onnx", MAP + decode)):
        inputs = [item for item in ends(name)[0] if item[0] != "z"]
        graphs[name] = model(body(name, nodes=nodes, inputs=inputs))
    return replace(MANIFEST, sizes={**SIZES, "q": 0}), graphs


def chained(bounds, head=None):
    """Return the manifest and graphs of a bundle that draws a category a or b, then one of two clusters.

    Args:
        bounds: the number from which on a uniform says b, and the second cluster.
        head: nodes of head.onnx instead, from u to choice.
    """
    draw = [node("GreaterOrEqual", "u bounds", "beyond"), node("Cast", "beyond", "choice", to=7)]
    place = [node("MatMul", "w spread", "latent")]
    decode = [
        node("Cast", "choice", "chosen", to=1),
        node("Gather", "latent first", "number", axis=1),
        node("Gather", "chosen first", "kind", axis=1),
        node("Concat", "number kind", "x", axis=1),
    ]
    encode = [
        node("Identity", "x", "latent"),
        node("GreaterOrEqual", "x bounds", "beyond"),
        draw[1],
    ]
    sample = [
        node("Add", "seed index", "sum"),
        node("Cast", "sum", "number", to=1),
        node("Unsqueeze", "number last", "column"),
        node("Sub", "column column", "nought"),
        node("Concat", "column nought", "x", axis=1),
    ]
    u, w, x = (("u", "float32", "nh"), ("w", "float32", "nm"), ("x", "float32", "nd"))
    latent, choice = ("latent", "float32", "ne"), ("choice", "int64", "nh")
    parts = {
        "encoder.onnx": (encode, [x], [latent, choice]),
        "head.onnx": (head or draw, [u], [choice]),
        "mappers.onnx": (draw + place, [u, w], [latent, choice]),
        "decoder.onnx": (decode, [latent, choice], [x]),
        "generator.onnx": (draw + place + decode, [u, w], [x]),
        "sampler.onnx": (sample, ENDS["sampler.onnx"][0], [x]),
    }
    sizes = {**SIZES, "q": 0, "K": 2, "h": 2}
    own = [item for item in WEIGHTS if item[0] in ("first", "last", "spread")]
    own.append(("bounds", np.array(bounds, np.float32)))

    def end(name, dtype, dims):
        return name, dtype, [sizes.get(s, 1 if s == "1" else s) for s in dims]

    graphs = {
        name: model(graph(nodes, own, [end(*i) for i in takes], [end(*o) for o in gives]))
        for name, (nodes, takes, gives) in parts.items()
    }
    manifest = replace(
        MANIFEST,
        columns=(Column("x"), Column("y", "category", categories=("a", "b"))),
        sizes=sizes,
        thresholds=(2**23, 2**24),
        steps=(Outcomes(1, (0.0, 1.0), False),),
    )
    return manifest, graphs


EXTRAS = {"card.md": b"# tiny\n", "preview.png": b"\x89PNG"}


def save(path, manifest=MANIFEST, graphs=GRAPHS):
    """Write a bundle with a card and a picture."""
    return bundle.save(path, manifest, graphs, EXTRAS)


def uniforms(seed, start, n):
    """Return the numbers [n] that choose the clusters of samples from `start` on."""
    blocks = range(start // BLOCK, (start + max(n, 1) - 1) // BLOCK + 1)
    made = [block_noise(seed, block, 0, 0)[0] for block in blocks]
    return np.concatenate(made)[start % BLOCK :][:n]
