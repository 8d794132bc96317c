"""Make the run folder of this version, once: `python tests/runs/make.py tests/runs/version-2`.

Later versions of the code must export it as it is; it is never made again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

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


if __name__ == "__main__":
    train(rows(), configs.from_dict(SETTINGS), Path(sys.argv[1]), "rows.csv")
