from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Done

import scgan_infer
import scgan_train
from scgan_infer.columns import Column
from scgan_infer.sampling.draw import Draw
from scgan_infer.sampling.engines import ENGINES, Job
from scgan_infer.sampling.given import given_of
from scgan_infer.sampling.model import Model

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
    quoted = scgan("sample", "-m", bundle, "--given", '"energy=0.50",eta=7', "-n", 3).out
    assert quoted == out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "rows are generated given energy, eta"),
        (["--given", "C", "-n", "3"], "leave --n out"),
        (["--given", "energy=1,eta=2", "--each", "3"], "one condition has --n rows"),
        (["--given", "energy=1,eta", "-n", "3"], "write it as a=1,b=2"),
        (["--given", "energy=1,eta=2,eta=3", "-n", "3"], "names eta twice"),
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


def test_the_report_has_ranks_and_slices(scgan: Scgan, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(5)
    energy, eta = rng.random(600), rng.normal(size=600)
    response = energy + eta + 0.1 * rng.normal(size=600)
    np.savez(tmp_path / "rows.npz", energy=energy, response=response, eta=eta)
    page = tmp_path / "page.html"
    done = scgan("evaluate", tmp_path / "rows.npz", "-m", bundle, "-n", 300, "--report", page)
    assert done.code == 0, done.err
    assert "<th>p of uniform ranks</th>" in page.read_text()
    assert "<td>response</td>" in page.read_text()


def interrupted(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Let a sampling checkpoint what it has written, and be interrupted after so many pieces."""
    from scgan_infer.rows import writers

    compute, made = Model.compute, []

    def dying(self: Model, *of: Any) -> Any:
        made.append(of)
        if len(made) > calls:
            raise KeyboardInterrupt
        return compute(self, *of)

    monkeypatch.setattr(writers, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(Model, "compute", dying)


@pytest.mark.parametrize("more", [(), ("--shard", "2/3"), ("--rows-per-file", 20_000)])
def test_an_interrupted_sampling_goes_on_with_the_same_conditions_alone(
    scgan: Scgan, bundle: Path, tmp_path: Path, more: tuple[object, ...]
) -> None:
    rng = np.random.default_rng(1)
    for name in ("c", "other"):
        np.save(tmp_path / f"{name}.npy", rng.random((20_000, 2), np.float32))
    asked = ("sample", "-m", bundle, "--each", 5, "--threads", 1, *more, "--given")
    straight, out = tmp_path / "straight", tmp_path / "out"
    if not more or more[0] == "--shard":
        straight, out = tmp_path / "straight.csv", tmp_path / "out.csv"
    assert scgan(*asked, tmp_path / "c.npy", "-o", straight).code == 0
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, 2)
        assert scgan(*asked, tmp_path / "c.npy", "-o", out, "--resume").code == 130
    again = ("-o", out, "--resume")
    scgan(*asked, tmp_path / "other.npy", *again).failed(7, "conditions")
    done = scgan(*asked, tmp_path / "c.npy", *again)
    assert done.code == 0, done.err
    assert "going on after" in done.err
    files = [straight] if straight.is_file() else sorted(straight.iterdir())
    for file in files:
        same = out if file == straight else out / file.name
        assert same.read_bytes() == file.read_bytes()


def test_a_worker_that_is_killed_changes_no_conditional_row(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("scgan_infer.sampling.engines.TASK_BYTES", 2**17)
    model = scgan_infer.load(bundle, "cpu", 1)
    c = np.random.default_rng(1).random((100_000, 2), np.float32)
    given = given_of(model.manifest, c)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        job = Job(model, draw=Draw(len(c)), scheduler=cluster.scheduler_address, given=given)
        stream = ENGINES["dask"](job)
        parts = [next(stream)]
        os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)
        parts += stream
    np.testing.assert_array_equal(np.concatenate(parts), model.sample(given=c))
