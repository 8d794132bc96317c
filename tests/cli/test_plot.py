import json

import numpy as np
import pytest

PNG, PDF = b"\x89PNG\r\n\x1a\n", b"%PDF-"


@pytest.fixture
def bundle(pytestconfig):
    return pytestconfig.rootpath / "exported" / "checkerboard"


def drawn(path):
    """Read a PNG and return its pixels' colours, of which a picture has many."""
    from PIL import Image

    assert path.read_bytes().startswith(PNG)
    with Image.open(path) as image:
        return len(image.convert("RGB").getcolors(1 << 24))


def test_samples_from_a_file_or_a_bundle(scgan, tmp_path, bundle):
    np.save(
        tmp_path / "samples.npy", np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    )
    for arguments in (("--samples", tmp_path / "samples.npy"), ("--model", bundle, "-n", 500)):
        done = scgan("plot", "samples", "checkerboard", *arguments, "--out", tmp_path / "p.png")
        assert done.code == 0, done.err
        assert done.out == ""
        assert drawn(tmp_path / "p.png") > 50
        (tmp_path / "p.png").unlink()


def test_every_picture_of_a_bundle(scgan, tmp_path, bundle, model):
    for name, arguments in {
        "clusters": ("checkerboard", "-m", bundle),
        "latents": ("checkerboard", "-m", bundle, "-m", bundle),
        "noise": ("-m", model),
    }.items():
        done = scgan("plot", name, *arguments, "-o", tmp_path / f"{name}.png")
        assert done.code == 0, done.err
        assert drawn(tmp_path / f"{name}.png") > 20


def test_rows_beyond_a_wall_are_left_out_and_said_to_be(scgan, tmp_path, bundle):
    rows = np.random.default_rng(0).uniform(-3, 3, (200, 2)).astype(np.float32)
    rows[7] = 50
    np.save(tmp_path / "rows.npy", rows)
    for name in ("samples", "clusters", "latents"):
        done = scgan(
            *("plot", name, tmp_path / "rows.npy", "-m", bundle, "-o", tmp_path / f"{name}.png")
        )
        assert done.code == 0, done.err
        assert "1 of 200 rows" in done.err


def test_curves_of_a_run_as_pdf(scgan, tmp_path):
    lines = [
        {"stage": "encoder", "phase": "contrast", "step": step, "info_nce": 3 / step}
        for step in (1, 2, 3)
    ]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = scgan("plot", "curves", tmp_path, "-o", tmp_path / "curves.pdf")
    assert done.code == 0, done.err
    assert (tmp_path / "curves.pdf").read_bytes().startswith(PDF)


def test_models_of_different_encoders_do_not_share_axes(scgan, tmp_path, bundle):
    one, other = bundle.with_name("abs"), bundle.with_name("two_spirals")
    done = scgan("plot", "latents", "abs", "-m", one, "-m", other, "-o", tmp_path / "p.png")
    done.failed(2, "encoder", str(other))
    assert not list(tmp_path.iterdir())


def test_bad_requests_are_one_line(scgan, tmp_path, bundle, model, monkeypatch):
    scgan("plot", "noise", "-m", bundle).failed(2, "no decoder noise")
    scgan("plot", "noise", "-m", model, "-o", tmp_path / "p.gif").failed(2, "p.gif", ".png")
    scgan("plot", "noise", "-m", model, "-o", tmp_path / "no" / "p.png").failed(7, "p.png")
    scgan("plot", "curves", tmp_path / "gone").failed(7, "gone")
    monkeypatch.chdir(tmp_path)
    scgan("plot", "curves").failed(2, "runs/")


def test_every_column_is_reached_in_pages(scgan, tmp_path):
    rng = np.random.default_rng(0)
    names = ",".join(f"c{k}" for k in range(8))
    for name in ("real.csv", "made.csv"):
        np.savetxt(
            tmp_path / name, rng.normal(size=(60, 8)), delimiter=",", header=names, comments=""
        )
    ask = ("plot", "samples", tmp_path / "real.csv", "--samples", tmp_path / "made.csv")
    done = scgan(*ask, "--columns", "all", "--out", tmp_path / "p.png")
    assert done.code == 0, done.err
    assert drawn(tmp_path / "p-1.png") > 50
    assert drawn(tmp_path / "p-2.png") > 50
    assert scgan(*ask, "--columns", "c3,c1", "--out", tmp_path / "q.svg").code == 0
    assert b"<svg" in (tmp_path / "q.svg").read_bytes()[:400]
    scgan(*ask, "--columns", "c9", "--out", tmp_path / "r.png").failed(2, "c9")
