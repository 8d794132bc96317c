"""Rounded values are the float32 nearest to their decimals, however large they are beside a step."""

import numpy as np
import onnxruntime
import pytest

from scgan_infer.columns import Column
from scgan_infer.rows.codecs.text import csv_stream
from scgan_train import graph
from scgan_train.coordinates.rounding import Rounding


@pytest.mark.parametrize("decimals", range(1, 7))
def test_values_are_nearest_to_their_decimals_in_arrays_graphs_and_text(decimals):
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.uniform(-decimals, 9, 20_000)
    x = (rng.uniform(-1, 1, 20_000) * size).astype(np.float32)[:, None]
    column = Column("x", decimals=decimals)
    rounding = Rounding.of([column])
    assert rounding is not None
    rows = rounding.apply(x)
    meant = [float(f"{value:.{decimals}f}") for value in x[:, 0].astype(float).tolist()]
    assert np.array_equal(rows[:, 0], np.array(meant, np.float32))
    assert np.array_equal(rounding.apply(rows), rows)
    values = graph.argument(["k", "n"])
    session = onnxruntime.InferenceSession(
        graph.model({"x": values}, {"y": rounding.graph(values)})
    )
    assert np.array_equal(session.run(None, {"x": x.T.copy()})[0].T, rows)
    cells = np.array(csv_stream([column]).encode(rows, 0).split(), float)
    assert np.array_equal(cells.astype(np.float32), rows[:, 0])
    assert cells.tolist() == [float(f"{cell:.{decimals}f}") for cell in cells.tolist()]
