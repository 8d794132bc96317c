"""A reproduction in miniature: every cell, what cells have in common, and going on after an end."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from scgan_infer.columns import Table
from scgan_infer.errors import UsageError
from scgan_train.datasets import DATASETS, table
from scgan_train.reproduce import LATENTS, MAPS, PAPER, Cell, Plan, begin, measured, reproduce, work
from scgan_train.run_folder import Run

TINY = {
    "encoder": {"steps": 30},
    "clusters": {"k": 5},
    "mapper": {"steps": 20},
    "decoder": {"warm_steps": 60, "widths": [16]},
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return Plan(tmp_path_factory.mktemp("reproduce") / "out", 1, "quick", TINY, ("abs",), 1500, 100)


@pytest.fixture(scope="module")
def lines(plan):
    """The whole table, with few steps of the critics."""
    kept = MAPS["paper"]["decoder"]
    MAPS["paper"]["decoder"] = {"steps": 10}
    begin(plan, resume=False)
    for cell in plan.cells():
        work(plan, cell)
    yield reproduce(plan, resume=True)
    MAPS["paper"]["decoder"] = kept


def run_of(plan, maps, latents):
    return Run.load(plan.out / "runs" / Cell(maps, "abs", latents, 0).name)


def bytes_of(plan, maps, latents, stage):
    return (run_of(plan, maps, latents).path / f"{stage}.safetensors").read_bytes()


def test_every_cell_has_a_line_beside_the_papers_number(plan, lines):
    keys = [(line["maps"], line["plane"], line["latents"]) for line in lines]
    assert keys == [(maps, "abs", latents) for maps in MAPS for latents in LATENTS]
    assert [line["paper"] for line in lines[:4]] == [0.133, 0.021, 0.029, 0.019]
    with (plan.out / "table.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(row["c2st"]) for row in written] == [line["c2st"] for line in lines]
    text = (plan.out / "table.md").read_text()
    assert text.count("| abs |") == 5 * len(MAPS)
    assert "(0.133)" in text


def test_a_row_beyond_what_was_seen_does_not_make_the_error_of_reconstructions(plan, lines):
    rows = table("abs", 1500, 1)
    far = Table(rows.columns, np.vstack([rows.values, [[300, 300]]]).astype(np.float32))
    found = measured(run_of(plan, "default", "real"), far, 100)[0]
    assert found["mse_raw"]["value"] < 1e-3


def test_one_gaussian_is_worse_than_real_latents(lines):
    off = {line["latents"]: line["off"] for line in lines if line["maps"] == "default"}
    assert off["gaussian"] > 0.05 > off["real"]


def test_cells_have_in_common_what_they_train_alike(plan, lines):
    for maps in MAPS:
        assert len({bytes_of(plan, maps, latents, "encoder") for latents in LATENTS}) == 1
        assert len({bytes_of(plan, maps, latents, "clusters") for latents in LATENTS[1:]}) == 1
    assert len({bytes_of(plan, "default", latents, "decoder") for latents in LATENTS}) == 1
    assert len({bytes_of(plan, "paper", latents, "decoder") for latents in LATENTS}) == 4


def test_figures_are_pictures_of_all_latent_models(plan, lines):
    for number in (2, 3):
        for maps in MAPS:
            assert (plan.out / f"figure{number}-{maps}.png").read_bytes().startswith(b"\x89PNG")
            assert (plan.out / f"figure{number}-{maps}.pdf").read_bytes().startswith(b"%PDF")


def test_a_lost_cell_alone_is_made_again_to_the_same_figures(plan, lines):
    lost, kept = (
        Cell("default", "abs", latents, 0).result(plan.out) for latents in ("mapper", "real")
    )
    before, time = json.loads(lost.read_text()), kept.stat().st_mtime_ns
    lost.unlink()
    assert reproduce(plan, jobs=1, resume=True) == lines
    again = json.loads(lost.read_text())
    assert again["c2st"] == before["c2st"]
    assert again["note"] == "5 clusters, as asked"
    assert kept.stat().st_mtime_ns == time


def test_a_folder_is_not_taken_over(plan, lines):
    with pytest.raises(UsageError, match="resume=true"):
        reproduce(plan)
    with pytest.raises(UsageError, match="other settings"):
        reproduce(replace(plan, rows=plan.rows + 1), resume=True)


def test_the_paper_has_a_line_for_every_plane():
    assert list(PAPER) == list(DATASETS)
