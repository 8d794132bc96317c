"""What encode writes: latents, discrete columns by name, the cluster."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from scgan_infer.bundle.manifest import Outcomes
from scgan_infer.columns import Column
from scgan_infer.errors import UsageError
from scgan_infer.rows.codecs.text import csv_stream
from scgan_infer.sampling.draw import outcomes
from scgan_infer.sampling.encoded import _column, columns_of, rows_of


def test_discrete_values_are_written_by_name_between_latents_and_cluster():
    manifest = replace(
        tiny.MANIFEST,
        columns=(
            Column("x"),
            Column("gain", "integer", missing=True),
            Column("sex", "category", categories=("m", "f"), missing=True),
            Column("size", decimals=1),
            Column("mass", missing=True),
        ),
        sizes={**tiny.MANIFEST.sizes, "d": 5, "e": 2, "h": 5},
        steps=(
            Outcomes(4, (None,), rest=True),
            Outcomes(2, (0.0, 1.0, None), rest=False),
            Outcomes(3, (0.5, 2.5), rest=False),
            Outcomes(1, (0.0, 99999.0, None), rest=True),
        ),
    )
    latent = np.array([[0.5, 1], [2, 3], [4, 5], [6, 7]], np.float32)
    choice = np.array([[0, 0, 0, 0, 3], [1, 1, 1, 1, 2], [1, 2, 0, 2, 1], [0, 0, 1, 3, 0]])
    columns = columns_of(manifest)
    stream = csv_stream(columns)
    text = (stream.header(4) + stream.encode(rows_of(manifest, latent, choice), 0)).decode()
    assert text.split("\n") == [
        "latent_0,latent_1,mass,sex,size,gain,cluster",
        "0.5,1,missing,m,0.5,0,3",
        "2,3,other,f,2.5,99999,2",
        "4,5,other,,0.5,missing,1",
        "6,7,missing,m,2.5,other,0",
        "",
    ]


def test_without_discrete_values_there_are_latents_and_clusters_alone():
    manifest = tiny.MANIFEST
    e = manifest.sizes["e"]
    names = [column.name for column in columns_of(manifest)]
    assert names == [*(f"latent_{j}" for j in range(e)), "cluster"]
    rows = rows_of(manifest, np.zeros((3, e), np.float32), np.array([2, 0, 1]))
    assert rows[:, -1].tolist() == [2, 0, 1]


def test_a_missing_cell_has_one_name_where_it_is_written_and_asked_for() -> None:
    step = Outcomes(0, (0.0, None), rest=True)
    manifest: Any = SimpleNamespace(columns=(Column("gain", missing=True),), steps=(step,))
    wanted = _column(manifest.columns[0], step).categories[1]
    for value in (wanted, "missing", "", None, np.nan):
        assert outcomes(manifest, "gain", value)[1].tolist() == [False, True, False]
    with pytest.raises(UsageError, match="not one of 0, missing"):
        outcomes(manifest, "gain", 7)
