from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Done

import scgan_train
from scgan_infer.columns import Column

Scgan = Callable[..., Done]
COLUMNS = (Column("energy"),)

CONDITIONS = """energy,eta,event,side,count
0.10,-1.50,7,left,3
5e-1,0.250,8,right,4
0.9000000000001,1,9,"a, b",5
"""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    energy, eta = rng.random(300), rng.normal(size=300)
    rows = np.column_stack([energy, energy + eta + 0.1 * rng.normal(size=300), eta])
    data = dict(zip(("energy", "response", "eta"), rows.T, strict=True))
    config = {
        "given": ["energy", "eta"],
        "encoder": {"steps": 20},
        "clusters": {"k": 2},
        "mapper": {"steps": 20},
        "decoder": {"warm_steps": 60},
    }
    run = scgan_train.train(data, config, folder / "run")
    return scgan_train.export(run, folder / "bundle")


@pytest.fixture
def conditions(tmp_path: Path) -> Path:
    (tmp_path / "c.csv").write_text(CONDITIONS)
    return tmp_path / "c.csv"


def test_text_is_copied_as_it_was(
    scgan: Scgan, bundle: Path, conditions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    scgan(
        *("sample", "-m", bundle, "--given", conditions, "--each", 2, "-o", out),
        *("--keep", "event,side"),
    )
    lines = out.read_text().splitlines()
    assert lines[0] == "energy,response,eta,event,side"
    cut = [line.split(",") for line in lines[1:]]
    assert [(row[0], row[2], row[3]) for row in cut[::2]] == [
        ("0.10", "-1.50", "7"),
        ("5e-1", "0.250", "8"),
        ("0.9000000000001", "1", "9"),
    ]
    assert [row[:1] + row[2:] for row in cut[1::2]] == [row[:1] + row[2:] for row in cut[::2]]
    assert lines[5].endswith('9,"a, b"')


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet", ".h5"])
def test_numbers_are_copied_in_float64(
    scgan: Scgan, bundle: Path, conditions: Path, tmp_path: Path, suffix: str
) -> None:
    from scgan_infer.rows.formats import read_raw

    out = tmp_path / f"rows{suffix}"
    scgan("sample", "-m", bundle, "--given", conditions, "-o", out, "--keep", "count")
    energy = np.load(out)[:, 0] if suffix == ".npy" else read_raw(out, COLUMNS)["energy"]
    assert energy.tolist() == [0.1, 0.5, 0.9000000000001]


def test_parts_and_starts_are_parts_of_the_whole(
    scgan: Scgan, bundle: Path, conditions: Path, tmp_path: Path
) -> None:
    def rows(*options: object) -> list[str]:
        scgan(
            *("sample", "-m", bundle, "--given", conditions, "--each", 5, "-o", tmp_path / "r.csv"),
            *("--force", *options),
        )
        return (tmp_path / "r.csv").read_text().splitlines()[1:]

    whole = rows()
    assert len(whole) == 15
    assert rows("--start", 4) == whole[4:]
    assert [line for i in (1, 2, 3, 4) for line in rows("--shard", f"{i}/4")] == whole
    scgan(
        *("sample", "-m", bundle, "--given", conditions, "--each", 5, "-o", tmp_path / "parts"),
        *("--rows-per-file", 4),
    )
    parts = [np.load(path) for path in sorted((tmp_path / "parts").glob("*.npy"))]
    assert [len(part) for part in parts] == [4, 4, 4, 3]
    np.testing.assert_allclose(
        np.concatenate(parts), [[float(x) for x in line.split(",")] for line in whole], rtol=1e-6
    )


def test_one_condition_has_as_many_rows_as_are_asked_for(scgan: Scgan, bundle: Path) -> None:
    out = scgan("sample", "-m", bundle, "--given", "energy=0.50,eta=7", "-n", 3).out
    assert [line.split(",")[::2] for line in out.splitlines()[1:]] == [["0.50", "7"]] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "rows are generated given energy, eta"),
        (["--given", "C", "-n", "3"], "leave --n out"),
        (["--given", "energy=1,eta=2", "--each", "3"], "one condition has --n rows"),
        (["--given", "energy=1,eta", "-n", "3"], "write it as a=1,b=2"),
        (["--each", "3"], "--each is for the conditions of a file"),
        (["--given", "-"], "name a file"),
        (["--given", "C", "--keep", "response"], "the bundle has a column of that name"),
    ],
)
def test_options_that_do_not_go_together(
    scgan: Scgan, bundle: Path, conditions: Path, options: list[str], words: str
) -> None:
    given = [str(conditions) if option == "C" else option for option in options]
    scgan("sample", "-m", bundle, *given).failed(2, words)


def test_conditions_are_judged_as_rows_are(scgan: Scgan, bundle: Path, tmp_path: Path) -> None:
    asked = ("sample", "-m", bundle, "--given", tmp_path / "c.csv")
    (tmp_path / "c.csv").write_text("energy,eta\n1,2\n3,\n")
    scgan(*asked).failed(7, "c.csv: column 'eta', row 2 (line 3): '' is missing")
    (tmp_path / "c.csv").write_text("energy,et\n1,2\n")
    scgan(*asked).failed(7, "has no column 'eta'")
    (tmp_path / "c.csv").write_text("energy,eta\n0.5,2\n77,0\n")
    assert "energy lies beyond its training range in 1 of 2 conditions" in scgan(*asked).err
