from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import blocks

SCGAN = [str(Path(sys.executable).parent / "scgan")]
SHARED = Path(__file__).parents[3] / "shared" / "data"
TINY = ["--set", "encoder.steps=60", "--set", "mapper.steps=60", "--set", "decoder.warm_steps=200"]


def scgan(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*SCGAN, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    (block,) = [block for block in blocks("") if block.startswith("scgan train ")]
    for line in block.splitlines():
        command = line.partition("#")[0].split()[1:]
        more = [*TINY, "--clusters", "8"] if command[0] == "train" else []
        done = scgan(*command, *more, cwd=folder)
    assert "exported/eight_gaussians" in done.stderr
    return folder


def test_the_three_commands_of_the_quick_start_work_in_a_row(quickstart: Path) -> None:
    rows = np.load(quickstart / "samples.npy", allow_pickle=False)
    assert rows.shape == (10_000, 2)
    radius = np.hypot(*rows.T)
    assert abs(np.median(radius) - 8**0.5) < 0.15
    assert (radius < 1).mean() < 0.01
    assert sorted(path.name for path in (quickstart / "runs").iterdir()) == ["eight_gaussians"]


def test_start_and_shard_name_the_same_rows(quickstart: Path) -> None:
    whole = scgan("sample", "-n", "30", "--seed", "4", cwd=quickstart).stdout.splitlines()
    tail = scgan(
        "sample", "-n", "10", "--seed", "4", "--start", "20", cwd=quickstart
    ).stdout.splitlines()
    shard = scgan(
        "sample", "-n", "30", "--seed", "4", "--shard", "3/3", cwd=quickstart
    ).stdout.splitlines()
    assert whole[0] == "x,y"
    assert tail == shard == [whole[0], *whole[21:]]


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    import os

    (tmp_path / "c.toml").write_text(
        "seed = 5\nlatents = 'real'\n[encoder]\nsteps = 10\n[decoder]\nwarm_steps = 5\n"
    )
    scgan("datasets", "abs", "-n", "300", "-o", "rows.csv", cwd=tmp_path)
    for flag, wanted in ((["--seed", "7"], "seed = 7"), ([], "seed = 6")):
        out = f"run{len(flag)}"
        command = [*SCGAN, "train", "rows.csv", "-c", "c.toml", "-o", out, "--clusters", "2", *flag]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "SCGAN_SEED": "6"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        config = (tmp_path / out / "config.toml").read_text()
        assert wanted in config
        assert 'latents = "real"' in config


def test_reconstruct_encode_and_info(quickstart: Path) -> None:
    scgan("datasets", "eight_gaussians", "-n", "500", "-s", "9", "-o", "rows.csv", cwd=quickstart)
    scgan("reconstruct", "rows.csv", "-o", "again.csv", cwd=quickstart)
    rows, again = (
        np.loadtxt(quickstart / name, delimiter=",", skiprows=1)
        for name in ("rows.csv", "again.csv")
    )
    assert np.mean((rows - again) ** 2) < 0.01
    lines = scgan("encode", "rows.csv", cwd=quickstart).stdout.splitlines()
    assert lines[0] == "latent_0,latent_1,cluster"
    assert len({line.split(",")[-1] for line in lines[1:]}) == 8
    manifest = json.loads(
        scgan("info", "exported/eight_gaussians", "--json", cwd=quickstart).stdout
    )
    q = manifest["sizes"]["q"]
    assert manifest["sizes"] == {"K": 8, "d": 2, "e": 2, "m": 2, "q": q, "h": 1, "g": 0}
    text = scgan("info", "exported/eight_gaussians", cwd=quickstart).stdout
    assert "generator.onnx" in text
    assert "8 clusters" in text


def test_resume_of_a_finished_run_changes_nothing(quickstart: Path) -> None:
    run = quickstart / "runs" / "eight_gaussians"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    scgan("train", "--resume", "--out", "runs/eight_gaussians", cwd=quickstart)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_a_real_file_trains_exports_samples_and_reconstructs(tmp_path: Path) -> None:
    data = SHARED / "cms_dimuon_10k_dev.csv"
    scgan(
        "train", str(data), "--columns", "pt1,eta1,phi1,pt2,eta2,phi2,M", "--log", "pt1,pt2,M",
        "--periodic", "phi1=6.283185307179586,phi2=6.283185307179586", "--clusters", "16", "-o", "run", *TINY,
        cwd=tmp_path,
    )  # fmt: skip
    scgan("export", "run", "-o", "bundle", cwd=tmp_path)
    scgan("sample", "-m", "bundle", "-n", "5000", "-o", "samples.csv", cwd=tmp_path)
    scgan("reconstruct", str(data), "-m", "bundle", "-o", "again.csv", cwd=tmp_path)
    header = data.read_text().splitlines()[0].removesuffix(",window")
    for name, count in (("samples.csv", 5000), ("again.csv", 10_000)):
        assert (tmp_path / name).read_text().splitlines()[0] == header
        rows = np.loadtxt(tmp_path / name, delimiter=",", skiprows=1)
        assert rows.shape == (count, 7)
        assert np.isfinite(rows).all()
        assert (rows[:, [0, 3, 6]] > 0).all()
        assert (np.abs(rows[:, [2, 5]]) <= np.pi).all()


def test_a_category_of_a_csv_is_asked_for_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centre = {"Adelie": -2.0, "Gentoo": 0.0, "Chinstrap": 2.0}
    lines = [
        f"{name},{value + 0.3 * rng.standard_normal():.4f}"
        for name, value in centre.items()
        for _ in range(300)
    ]
    (tmp_path / "birds.csv").write_text("\n".join(["species,bill", *lines]) + "\n")
    scgan("train", "birds.csv", "-o", "run", *TINY, cwd=tmp_path)
    scgan("export", "run", "-o", "bundle", cwd=tmp_path)
    ask = ("sample", "-m", "bundle", "-n", "500", "--where")
    found = [
        line.split(",") for line in scgan(*ask, "species=Gentoo", cwd=tmp_path).stdout.splitlines()
    ]
    assert found[0] == ["species", "bill"]
    assert {name for name, _ in found[1:]} == {"Gentoo"}
    assert abs(np.mean([float(bill) for _, bill in found[1:]])) < 0.3
    assert "Adelie" in scgan(*ask, "species=Emperor", cwd=tmp_path, code=2).stderr


def test_rows_that_a_bundle_was_trained_on_are_no_judges(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    scgan("datasets", "abs", "-n", "500", "-o", "rows.csv", cwd=tmp_path)
    scgan("datasets", "abs", "-n", "500", "--seed", "1", "-o", "fresh.csv", cwd=tmp_path)
    scgan("train", "rows.csv", "-o", "run", *TINY, cwd=tmp_path)
    scgan("export", "run", "-o", "bundle", cwd=tmp_path)
    told = "100% of the rows of rows.csv were trained on; give rows not trained on"
    assert told in scgan("evaluate", "rows.csv", "-m", "bundle", cwd=tmp_path).stderr
    assert "note" not in scgan("evaluate", "fresh.csv", "-m", "bundle", cwd=tmp_path).stderr
