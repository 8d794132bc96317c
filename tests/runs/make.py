"""Make a run folder of this version, once: `python tests/runs/make.py version-2-head BUNDLE`.

Later versions of the code must export it as it is, to the rows beside it; it is never made again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import scgan_infer
import scgan_train
from scgan_infer.columns import Column, Table
from scgan_train import config as configs
from scgan_train.training.stages import train

SETTINGS = {
    "device": "cpu",
    "clusters": {"k": 6},
    "encoder": {"steps": 50},
    "mapper": {"kind": "flow", "steps": 100, "width": 8},
    "decoder": {"widths": [8], "warm_steps": 200, "steps": 20},
}
GIVEN = {**SETTINGS, "given": ["x"], "decoder": {"widths": [8], "warm_steps": 200}}


def rows() -> Table:
    """Return 400 rows: a real column of three pieces, a whole number, a name."""
    rng = np.random.default_rng(0)
    piece = rng.integers(3, size=400)
    columns = (
        Column("x"),
        Column("count", "integer", low=0.0, high=90.0),
        Column("kind", "category", categories=("a", "b", "c")),
    )
    values = [3.0 * piece + 0.1 * rng.standard_normal(400), rng.poisson(40, 400), piece]
    return Table(columns, np.column_stack(values).astype(np.float32))


def gaps() -> Table:
    """Return those rows and a column that is missing, exactly 0 or a curve of the first."""
    table, rng = rows(), np.random.default_rng(1)
    curve = np.sin(table.values[:, 0]) + 0.2 * rng.standard_normal(400)
    cell = np.choose(rng.integers(4, size=400), [curve, curve, np.zeros(400), np.full(400, np.nan)])
    values = np.column_stack([table.values, cell]).astype(np.float32)
    return Table((*table.columns, Column("cell", missing=True)), values)


RUNS = {
    "version-2": (rows, SETTINGS),  # of before, without a head
    "version-2-head": (gaps, SETTINGS),
    "version-2-given": (gaps, GIVEN),
}


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(__file__).parent
    table, settings = RUNS[name]
    run = train(table(), configs.from_dict(settings), folder / name, "rows.csv")
    model = scgan_infer.load(scgan_train.export(run, Path(sys.argv[2])), "cpu")
    given = {"x": 3.0} if model.manifest.sizes["g"] else None
    np.save(folder / f"{name}.npy", model.sample(50, seed=1, given=given))
