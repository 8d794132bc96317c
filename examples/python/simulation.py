"""Rows given conditions, as simulations ask for them: python simulation.py BUNDLE CONDITIONS.npy > rows.csv.

Geant4 asks for one particle at a time, so every call has batch 1; FastCaloSim and CMSSW ask for those of an event at
once. Both ways give the same rows here, as a row's noise depends on its number alone. CONDITIONS.npy is an
array [n, g] of the bundle's given columns, a category as its index and a missing cell as NaN.
"""

import sys
import time

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(
    f"{sys.argv[1]}/generator.onnx", options, providers=["CPUExecutionProvider"]
)
conditions = np.load(sys.argv[2]).astype(np.float32)
shapes = {tensor.name: tensor.shape[1:] for tensor in session.get_inputs()}


def noise(row: int) -> dict[str, np.ndarray]:
    """Return u, w and maybe z of one row, as batches of one."""
    stream = np.random.default_rng([7, row])
    return {
        name: (stream.integers(2**24, size=(1, *shape)) / 2**24).astype(np.float32)
        if name == "u"
        else stream.standard_normal((1, *shape), np.float32)
        for name, shape in shapes.items()
        if name != "c"
    }


def one_at_a_time(rows: np.ndarray) -> np.ndarray:
    """Return the rows, a call each."""
    calls = [noise(row) | {"c": conditions[row : row + 1]} for row in rows]
    start = time.perf_counter()
    made = [session.run(["x"], feeds)[0] for feeds in calls]
    print(f"{(time.perf_counter() - start) / len(calls) * 1e3:.3f} ms a call", file=sys.stderr)
    return np.concatenate(made)


def batch(rows: np.ndarray) -> np.ndarray:
    """Return the rows of one call."""
    own = [noise(row) for row in rows]
    feeds = {name: np.concatenate([each[name] for each in own]) for name in own[0]}
    return session.run(["x"], feeds | {"c": conditions[rows]})[0]


every = np.arange(len(conditions))
single = one_at_a_time(every)
together = np.concatenate([batch(rows) for rows in np.array_split(every, -(-len(every) // 256))])
far = np.abs(single - together) > 1e-3 * (1 + np.abs(together))
print(f"{far.any(1).mean():.2%} of the rows differ between the two ways", file=sys.stderr)
np.savetxt(sys.stdout, single, "%.9g", delimiter=",")
