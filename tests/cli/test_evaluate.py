import json
import re
import subprocess
import sys

import numpy as np
import pytest

from scgan_infer.judging.figures import FIGURES
from scgan_train.datasets import fresh, table

SHIPPED = "exported/eight_gaussians"


@pytest.fixture
def rows(tmp_path):
    np.save(tmp_path / "rows.npy", table("eight_gaussians", 2000, 5).values)
    return tmp_path / "rows.npy"


@pytest.fixture
def bundle(pytestconfig):
    return pytestconfig.rootpath / SHIPPED


def test_real_rows_pass_for_samples_and_a_wide_gaussian_does_not(scgan, tmp_path, rows):
    pytest.importorskip("sklearn")
    wide = np.random.default_rng(0).normal(0, 2, (1000, 2)).astype(np.float32)
    np.save(tmp_path / "wide.npy", wide)
    scores = {}
    for file in (rows, tmp_path / "wide.npy"):
        done = scgan("evaluate", "eight_gaussians", "--samples", file, "-n", 1000, "--json")
        assert done.code == 0, done.err
        scores[file.stem] = json.loads(done.out)
    assert abs(scores["rows"]["c2st"]["value"] - 0.5) < 0.04
    assert scores["rows"]["off"]["value"] < 0.01
    assert scores["wide"]["c2st"]["value"] > 0.7
    assert scores["wide"]["off"]["value"] > 0.3
    assert "mse" not in scores["rows"]


def test_a_bundle_is_judged_with_reconstructions_clusters_and_a_page(scgan, tmp_path, bundle):
    page = tmp_path / "page.html"
    done = scgan("evaluate", "eight_gaussians", "-m", bundle, "-n", 600, "--report", page)
    assert done.code == 0, done.err
    names = [FIGURES[key].title for key in FIGURES if not key.startswith("nearest")]
    assert all(re.search(f"^{re.escape(name)} ", done.out, re.M) for name in names)
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=['\"](?!data:|#)", text)
    assert not list(tmp_path.glob(".*"))


def test_a_page_shows_every_column(scgan, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("real", "made"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(300, 8)).astype(np.float32))
    command = ("evaluate", tmp_path / "real.npy", "--samples", tmp_path / "made.npy", "-n", 200)
    done = scgan(*command, "--report", tmp_path / "page.html")
    assert done.code == 0, done.err
    text = (tmp_path / "page.html").read_text()
    for caption in ("Data and samples", "Columns 1 to 6 of 8", "Columns 7 to 8 of 8"):
        assert f"<h2>{caption}</h2>" in text
    assert text.count("data:image/png;base64,") == 3


def test_copies_of_training_rows_are_seen(scgan, tmp_path):
    known = table("abs", 1000, 3).values
    near = known + np.random.default_rng(0).normal(0, 1e-3, known.shape)
    np.save(tmp_path / "known.npy", known)
    np.save(tmp_path / "copies.npy", near.astype(np.float32))
    command = ("evaluate", "abs", "--samples", tmp_path / "copies.npy", "-n", 500, "--json")
    found = json.loads(scgan(*command, "--train", tmp_path / "known.npy").out)
    assert found["nearest_ratio"]["value"] < 0.3 < 0.8 < found["nearest_ratio"]["floor"]
    assert "nearest_ratio" not in json.loads(scgan(*command).out)
    known = tmp_path / "known.npy"
    assert "100% of the rows" in scgan("evaluate", known, *command[2:], "--train", known).err


def test_samples_that_break_walls_are_judged_not_refused(scgan, tmp_path):
    rng = np.random.default_rng(1)
    real = np.column_stack([rng.random(400), rng.integers(0, 5, 400)])
    np.savetxt(tmp_path / "real.csv", real, "%.6g", ",", header="share,count", comments="")
    made = np.column_stack([rng.normal(0.5, 1, 300), rng.normal(2, 2, 300)])
    np.savetxt(tmp_path / "made.csv", made, "%.6g", ",", header="share,count", comments="")
    done = scgan("evaluate", tmp_path / "real.csv", "--samples", tmp_path / "made.csv", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["c2st"]["value"] > 0.7


def test_measuring_and_drawing_need_no_torch(tmp_path, bundle):
    code = (
        "import atexit, sys; from scgan_train import app as cli; "
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); "
        "cli.main()"
    )
    for command in (
        ["evaluate", "eight_gaussians", "-m", str(bundle), "-n", "50", "--json"],
        [
            "plot",
            "samples",
            "eight_gaussians",
            "-m",
            str(bundle),
            "-n",
            "50",
            "-o",
            str(tmp_path / "p.png"),
        ],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "False"), done.stderr


def test_no_training_sees_the_rows_that_judge_it():
    trained = {row.tobytes() for row in table("abs", 2000, 0).values}
    assert not trained & {row.tobytes() for row in fresh("abs", 2000, 0).values}
    assert (fresh("abs", 50, 1).values == fresh("abs", 50, 1).values).all()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("evaluate", "eight_gausians"), 2, ("eight_gausians", "eight_gaussians")),
        (("evaluate", "gone.csv"), 7, ("gone.csv",)),
        (("evaluate", "abs", "--samples", "gone.npy"), 7, ("gone.npy",)),
    ],
)
def test_what_is_not_there_is_named(scgan, arguments, code, words):
    scgan(*arguments).failed(code, *words)


def test_other_columns_than_the_bundles_are_refused(scgan, tmp_path, bundle):
    (tmp_path / "other.csv").write_text("a,b\n" + "1.5,2.5\n" * 60)
    scgan("evaluate", tmp_path / "other.csv", "-m", bundle).failed(7, "other.csv", "'x'")


def test_too_few_rows_are_refused(scgan, tmp_path):
    (tmp_path / "few.csv").write_text("x,y\n" + "".join(f"{i}.5,{i}.25\n" for i in range(9)))
    scgan("evaluate", tmp_path / "few.csv", "--samples", tmp_path / "few.csv").failed(7, "too few")
