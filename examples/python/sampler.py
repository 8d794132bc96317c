"""Rows from sampler.onnx, which holds its own noise: python sampler.py BUNDLE N [SEED] > rows.csv."""

import sys

import numpy as np
import onnxruntime

bundle, n, seed = sys.argv[1], int(sys.argv[2]), int((*sys.argv, 0)[3])
session = onnxruntime.InferenceSession(f"{bundle}/sampler.onnx", providers=["CPUExecutionProvider"])
for start in range(0, n, 4096):
    index = np.arange(start, min(start + 4096, n), dtype=np.int64)
    (x,) = session.run(["x"], {"seed": np.array([seed], np.int64), "index": index})
    np.savetxt(sys.stdout, x, "%.9g", delimiter=",")
