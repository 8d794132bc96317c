"""Rows from generator.onnx and noise of one's own: python generator.py BUNDLE N [SEED] > rows.csv."""

import sys

import numpy as np
import onnxruntime

bundle, n, noise = sys.argv[1], int(sys.argv[2]), np.random.default_rng(int((*sys.argv, 0)[3]))
session = onnxruntime.InferenceSession(
    f"{bundle}/generator.onnx", providers=["CPUExecutionProvider"]
)
uniform, *others = session.get_inputs()  # u is [n, h] where the bundle has discrete values
normals = {tensor.name: tensor.shape[1] for tensor in others}  # w, maybe z
for rows in (min(4096, n - start) for start in range(0, n, 4096)):
    shape = (rows, *uniform.shape[1:])
    feeds = {"u": (noise.integers(2**24, size=shape) / 2**24).astype(np.float32)}
    for name, width in normals.items():
        feeds[name] = noise.standard_normal((rows, width), np.float32)
    np.savetxt(sys.stdout, session.run(["x"], feeds)[0], "%.9g", delimiter=",")
