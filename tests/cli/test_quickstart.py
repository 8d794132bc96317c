from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Done, blocks

import scgan_infer

Scgan = Callable[..., Done]
SCGAN = [str(Path(sys.executable).parent / "scgan")]
SHARED = Path(__file__).parents[3] / "shared" / "data"
TINY = [
    "--set",
    "encoder.steps=60",
    "--set",
    "mapper.steps=60",
    "--set",
    "decoder.warm_steps=200",
    "--set",
    "decoder.widths=16",
]


def installed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own, and check that it succeeds."""
    done = subprocess.run([*SCGAN, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    (block,) = [block for block in blocks("") if block.startswith("scgan train ")]
    for line in block.splitlines():
        command = line.partition("#")[0].split()[1:]
        more = [*TINY, "--clusters", "8"] if command[0] == "train" else []
        done = installed(*command, *more, cwd=folder)
    assert "exported/eight_gaussians" in done.stderr
    return folder


def test_the_three_commands_of_the_quick_start_work_in_a_row(quickstart: Path) -> None:
    rows = np.load(quickstart / "samples.npy", allow_pickle=False)
    assert rows.shape == (10_000, 2)
    radius = np.hypot(*rows.T)
    assert abs(np.median(radius) - 8**0.5) < 0.15
    assert (radius < 1).mean() < 0.01
    assert sorted(path.name for path in (quickstart / "runs").iterdir()) == ["eight_gaussians"]


def done(scgan: Scgan, *arguments: object) -> Done:
    """Run a command in this process, which has imported torch, and check that it succeeds."""
    ended = scgan(*arguments)
    assert ended.code == 0, ended.err
    return ended


def test_start_and_shard_name_the_same_rows(scgan: Scgan, quickstart: Path) -> None:
    ask = ("sample", "-m", quickstart / "exported" / "eight_gaussians", "--seed", "4", "-n")
    whole = done(scgan, *ask, 30).out.splitlines()
    tail = done(scgan, *ask, 10, "--start", 20).out.splitlines()
    shard = done(scgan, *ask, 30, "--shard", "3/3").out.splitlines()
    assert whole[0] == "x,y"
    assert tail == shard == [whole[0], *whole[21:]]


def test_reconstruct_encode_and_info(
    scgan: Scgan, quickstart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(quickstart)
    done(scgan, "datasets", "eight_gaussians", "-n", 500, "-s", 9, "-o", "rows.csv")
    done(scgan, "reconstruct", "rows.csv", "-o", "again.csv")
    rows, again = (np.loadtxt(f, delimiter=",", skiprows=1) for f in ("rows.csv", "again.csv"))
    assert np.mean((rows - again) ** 2) < 0.01
    lines = done(scgan, "encode", "rows.csv").out.splitlines()
    assert lines[0] == "latent_0,latent_1,cluster"
    assert len({line.split(",")[-1] for line in lines[1:]}) == 8
    manifest = json.loads(done(scgan, "info", "exported/eight_gaussians", "--json").out)
    q = manifest["sizes"]["q"]
    assert manifest["sizes"] == {"K": 8, "d": 2, "e": 2, "m": 2, "q": q, "h": 1, "g": 0}
    text = done(scgan, "info", "exported/eight_gaussians").out
    assert "generator.onnx" in text
    assert "8 clusters" in text


def test_random_noise_is_that_of_the_seed_s_samples(
    scgan: Scgan, model: Path, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    loaded = scgan_infer.load(model, "cpu")

    def again(*more: object) -> np.ndarray:
        ask = ("reconstruct", tmp_path / "rows.npy", "-m", model, "-o", tmp_path / "again.npy")
        done(scgan, *ask, "--force", *more)
        return np.load(tmp_path / "again.npy")

    still, moved = again(), again("--noise", "random", "--seed", 3, "--start", 70)
    assert np.array_equal(still, again("--noise", "fixed", "--seed", 3))
    assert np.array_equal(still, loaded.reconstruct(rows))
    assert np.array_equal(moved, loaded.reconstruct(rows, seed=3, start=70))
    assert (moved != still).all()


def test_resume_of_a_finished_run_changes_nothing(scgan: Scgan, quickstart: Path) -> None:
    run = quickstart / "runs" / "eight_gaussians"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    done(scgan, "train", "--resume", "--out", run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_a_real_file_trains_exports_samples_and_reconstructs(
    scgan: Scgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SHARED / "cms_dimuon_10k_dev.csv"
    monkeypatch.chdir(tmp_path)
    columns = ["--columns", "pt1,eta1,phi1,pt2,eta2,phi2,M", "--log", "pt1,pt2,M"]
    columns += ["--periodic", "phi1=6.283185307179586,phi2=6.283185307179586"]
    done(scgan, "train", data, *columns, "--clusters", 16, "-o", "run", *TINY)
    done(scgan, "export", "run", "-o", "bundle")
    done(scgan, "sample", "-m", "bundle", "-n", 5000, "-o", "samples.csv")
    done(scgan, "reconstruct", data, "-m", "bundle", "-o", "again.csv")
    header = data.read_text().splitlines()[0].removesuffix(",window")
    for name, count in (("samples.csv", 5000), ("again.csv", 10_000)):
        assert (tmp_path / name).read_text().splitlines()[0] == header
        rows = np.loadtxt(tmp_path / name, delimiter=",", skiprows=1)
        assert rows.shape == (count, 7)
        assert np.isfinite(rows).all()
        assert (rows[:, [0, 3, 6]] > 0).all()
        assert (np.abs(rows[:, [2, 5]]) <= np.pi).all()


def test_categories_of_a_csv_are_asked_for_by_name(
    scgan: Scgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    centre = {"Adelie": -2.0, "Gentoo": 0.0, "Chinstrap": 2.0}
    lines = [
        f"{name},{sex},{value + 0.3 * rng.standard_normal():.4f}"
        for name, value in centre.items()
        for sex in ("female", "male")
        for _ in range(200)
    ]
    Path("birds.csv").write_text("\n".join(["species,sex,bill", *lines]) + "\n")
    done(scgan, "train", "birds.csv", "-o", "run", *TINY)
    done(scgan, "export", "run", "-o", "bundle")
    ask = ("sample", "-m", "bundle", "-n", 500, "--where", "species=Gentoo")
    found = [line.split(",") for line in done(scgan, *ask).out.splitlines()]
    assert found[0] == ["species", "sex", "bill"]
    assert {tuple(row[:2]) for row in found[1:]} == {("Gentoo", "female"), ("Gentoo", "male")}
    assert abs(np.mean([float(row[2]) for row in found[1:]])) < 0.3
    both = done(scgan, *ask, "--where", "sex=male").out.splitlines()[1:]
    assert {tuple(row.split(",")[:2]) for row in both} == {("Gentoo", "male")}
    either = done(scgan, *ask, "--where", "species=Adelie").out.splitlines()[1:]
    assert {row.split(",")[0] for row in either} == {"Gentoo", "Adelie"}
    scgan(*ask[:-1], "species=Emperor").failed(2, "'Emperor' is not one of Adelie, Chinstrap")
    scgan(*ask[:-1], "species=Adelie,Gentoo").failed(2, "--where NAME=A --where NAME=B")
    scgan(*ask[:-1], "bill=1").failed(2, "bill is a column", "not drawn outright", "species")
    scgan(*ask[:-1], "species").failed(2, "NAME=VALUE")


def test_rows_that_a_bundle_was_trained_on_are_no_judges(
    scgan: Scgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    done(scgan, "datasets", "abs", "-n", 500, "-o", "rows.csv")
    done(scgan, "datasets", "abs", "-n", 500, "--seed", 1, "-o", "fresh.csv")
    done(scgan, "train", "rows.csv", "-o", "run", *TINY)
    done(scgan, "export", "run", "-o", "bundle")
    note = "100% of the rows of rows.csv were trained on; give rows not trained on"
    known = done(scgan, "evaluate", "rows.csv", "-m", "bundle", "--train", "rows.csv", "--json")
    assert note in known.err
    assert json.loads(known.out)["off"]["value"] < 0.2
    assert "note" not in done(scgan, "evaluate", "fresh.csv", "-m", "bundle").err
