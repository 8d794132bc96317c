"""Facts that follow from the definitions by hand: moments, supports, symmetries."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import scgan_infer
from scgan_infer.columns import Column
from scgan_infer.errors import DataError, UsageError
from scgan_infer.rows.formats import open_writer, read_table
from scgan_train import datasets
from scgan_train.config import Config
from scgan_train.datasets import BUILT_IN_ROWS, DATASETS, load, table

N = 100_000


@pytest.fixture(params=list(DATASETS))
def name(request):
    return request.param


def draw(name):
    return DATASETS[name](N, np.random.default_rng(7)).T


T = 3 * np.pi  # the spirals' longest t; E t^2 = T^2 / 2, the rest by parts

# E x, E y, var x, var y, cov(x, y), worked out on paper from the definitions with E|N| = sqrt(2 / pi),
# E N^6 = 15, E sin(5N)^2 = (1 - e^-50) / 2, E N sin(5N) = 5 e^-12.5, E N^3 sin(5N) = -110 e^-12.5.
MOMENTS = {
    "eight_gaussians": (0, 0, 4.125, 4.125, 0),
    "checkerboard": (0, 0, 16 / 3, 16 / 3, 1),
    "two_spirals": (
        0,
        0,
        (T**2 / 4 + 3 / 4 + 2 / T + 1 / 12) / 9 + 0.01,
        (T**2 / 4 - 3 / 4 + 1 - 4 / T**2 + 1 / 12) / 9 + 0.01,
        (T / 2 - 3 / (4 * T) + 1 / T + 1 / 2 - 2 / T**2 + 1 / 16) / 9,
    ),
    "abs": (0, np.sqrt(2 / np.pi) - 1, 1, 1 - 2 / np.pi + np.exp(-3), 0),
    "sine_wave": (0, 0, 1, 0.5 + np.exp(-2), 0),
    "crescent_cubed": (0, 0, 1.6, 1, 0.6),
    "sinewaved_cube": (0, 0, 1, 1.1 + np.exp(-2), 0.6),
    "four_circles": (0, 0, 3.01, 3.01, 0),
}


def test_moments_are_those_of_the_definition(name):
    x, y = draw(name)
    sample = (x.mean(), y.mean(), x.var(), y.var(), np.cov(x, y)[0, 1])
    assert np.allclose(sample, MOMENTS[name], rtol=0.02, atol=0.02)


def test_eight_gaussians_fill_eight_equal_sectors_away_from_the_axes():
    x, y = draw("eight_gaussians")
    sector = np.floor(np.arctan2(y, x) / (np.pi / 4)).astype(int)
    counts = np.unique(sector, return_counts=True)[1]
    assert len(counts) == 8
    assert np.ptp(counts / N) < 0.01
    assert abs(np.hypot(x, y).mean() - np.sqrt(8)) < 0.05
    assert np.mean(np.abs(y) < 0.2) < 0.03


def test_checkerboard_covers_eight_of_sixteen_squares_evenly_and_never_the_others():
    x, y = draw("checkerboard")
    counts = np.histogram2d(x, y, bins=4, range=[[-4, 4], [-4, 4]])[0]
    assert counts.sum() == N
    assert np.array_equal(counts > 0, np.add.outer(np.arange(4), np.arange(4)) % 2 == 0)
    assert np.ptp(counts[counts > 0]) / N < 0.01


def test_two_spirals_are_two_opposite_arms_out_to_radius_pi():
    x, y = draw("two_spirals")
    radius = np.hypot(x, y)
    assert 3.2 < np.quantile(radius, 0.999) < 3.8
    assert radius.max() < 4.2
    density = np.histogram2d(x, y, bins=20, range=[[-4, 4], [-4, 4]])[0] / N
    assert np.abs(density - density[::-1, ::-1]).max() < 0.002
    assert np.abs(density - density[::-1]).max() > 0.005
    assert np.mean(density == 0) > 0.3


def test_abs_is_a_wedge_with_a_thin_edge():
    x, y = draw("abs")
    assert abs(np.std(y - np.abs(x)) - 0.22313) < 0.003
    assert abs(np.corrcoef(np.abs(x), y)[0, 1] - 0.938) < 0.01


@pytest.mark.parametrize(("name", "middle"), [("sine_wave", 1.0), ("sinewaved_cube", 1.0062)])
def test_waves_crest_at_pi_tenths(name, middle):
    x, y = draw(name)
    crest = np.abs(x - np.pi / 10) < 0.05
    assert abs(y[crest].mean() - middle) < 0.05
    assert abs(y[crest].std() - 0.36788) < 0.03
    assert abs(y[np.abs(x + np.pi / 10) < 0.05].mean() + middle) < 0.05


def test_crescent_cubed_bends_with_the_cube_of_y():
    x, y = draw("crescent_cubed")
    assert abs(x[np.abs(y - 2) < 0.05].mean() - 1.6) < 0.15
    assert abs(x[np.abs(y) < 0.1].mean()) < 0.05
    assert abs(np.std(x[np.abs(y) < 0.1]) - 1) < 0.05


def test_four_circles_are_rings_of_radius_two_about_four_corners():
    x, y = draw("four_circles")
    gaps = [np.abs(np.hypot(x - a, y - b) - 2) for a in (-1, 1) for b in (-1, 1)]
    assert np.min(gaps, axis=0).max() < 0.6
    assert 0.06 < np.mean(np.min(gaps, axis=0)) < 0.08
    assert abs(np.mean((x > 0) == (y > 0)) - 0.5) < 0.01


def test_the_same_seed_gives_the_same_rows_and_another_seed_independent_ones(name):
    rows = table(name, 2000, 3)
    assert rows.names == ("x", "y")
    assert np.array_equal(rows.values, table(name, 2000, 3).values)
    fresh = table(name, 2000, 4).values
    assert np.intersect1d(rows.values[:, 0], fresh[:, 0]).size < 20
    assert abs(np.corrcoef(rows.values[:, 0], fresh[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize("arguments", [("moons", 10, 0), ("abs", 0, 0), ("abs", 10, -1)])
def test_what_cannot_be_drawn_is_a_usage_error(arguments):
    with pytest.raises(UsageError, match=str(arguments[0])[:4] if arguments[2] >= 0 else "-1"):
        table(*arguments)


def test_of_an_array_larger_than_memory_only_a_sample_is_read(tmp_path):
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (2**23, 2))
    rows[-(2**15) :] = 1
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    tracemalloc.start()
    kept = load(mapped, Config(max_rows=20_000))[1].values
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()
    assert kept.shape == (20_000, 2)
    assert abs(kept[:, 0].mean() - 2**-8) < 0.002
    assert (np.diff(kept[:, 0]) >= 0).all()


def test_built_in_rows_are_sampled_and_guessed_like_a_file_s(tmp_path):
    config = Config(max_rows=5000)
    rows = table("checkerboard", BUILT_IN_ROWS, 0)
    with open_writer(tmp_path / "rows.csv", rows.columns, len(rows)) as writer:
        writer.write(rows.values)
    built_in = load("checkerboard", config)[1]
    for column in built_in.columns:
        assert column.kind == "bounded"
        assert {column.low, column.high} <= {-4.0, 4.0, None}
    memory = datasets.draw("checkerboard", BUILT_IN_ROWS, 0)
    for source in (tmp_path / "rows.csv", memory):
        other = load(source, config)[1]
        assert other.columns == built_in.columns
        assert np.array_equal(other.values, built_in.values)
    assert len(built_in) == 5000


def test_importing_the_datasets_does_not_import_torch():
    code = "import sys, scgan_train.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_rows_beyond_a_wall_judge_nothing_and_are_counted(tmp_path):
    columns = (
        Column("share", "bounded", low=0.0, high=1.0, slack=0.05, decimals=2),
        Column("n", "integer", low=3.0),
        Column("x", missing=True),
        Column("k", "category", categories=("a", "b"), missing=True),
    )
    rows = tmp_path / "rows.csv"
    rows.write_text("share,n,x,k\n0.5,3,1,b\n1.02,4,,\n1.5,5,1,a\n0.2,2,1,a\n")
    found = datasets.judges(str(rows), columns, 100, 0)
    assert found.columns == columns
    assert np.array_equal(found.values, [[0.5, 3, 1, 1], [1, 4, np.nan, np.nan]], equal_nan=True)
    (note,) = found.notes
    assert note.startswith(f"2 of 4 rows of {rows} are left out")
    assert note.endswith("share in 1, n in 1")
    rows.write_text("share,n,x,k\n5,3,1,a\n")
    with pytest.raises(DataError, match=r"1 of 1 rows .* like those that were trained on"):
        datasets.judges(str(rows), columns, 100, 0)


def test_names_that_look_like_numbers_are_no_values_with_walls(tmp_path):
    columns = (Column("zip", "category", categories=("00501", "10", "94105")), Column("x"))
    rows = tmp_path / "rows.csv"
    rows.write_text("zip,x\n94105,1\n00501,2\n")
    assert np.array_equal(datasets.judges(str(rows), columns, 100, 0).values, [[2, 1], [0, 2]])


def test_what_training_never_saw_is_judged_and_counted(mixed_bundle, tmp_path):
    model, held = scgan_infer.load(mixed_bundle), tmp_path / "held.csv"
    with open_writer(held, model.columns, 300) as writer:
        writer.write(model.sample(300, seed=3))
    lines = held.read_text().splitlines()
    for row, old, new in ((5, ",c,", ",new,"), (8, ",a,", ",odd,"), (9, ",c,", ",new,")):
        at = next(k for k in range(20 * row, 301) if old in lines[k])
        lines[at] = lines[at].replace(old, new)
    lines[200] = lines[200].replace(",7.5", ",")
    held.write_text("\n".join(lines))
    judged = datasets.subject(str(held), model, None, None, 100, 0)
    assert judged.real.notes == (
        "cells that the model doesn't know, and its rows miss: "
        "3 of species ('new', 'odd'), 1 of same (missing)",
    )
    assert judged.real.columns[6].categories == ("a", "b", "c", "new", "odd")
    assert len(judged.inputs) == len(judged.reconstructed) == len(judged.encoded[1]) == 296
    found = judged.figures().columns
    assert found["species"]["shape"].value > 0
    with open_writer(tmp_path / "made.csv", judged.real.columns, 300) as writer:
        writer.write(judged.samples)
    made = tmp_path / "made.csv"
    made.write_text(made.read_text().replace(",b,", ",other,", 1))
    other = datasets.subject(str(held), None, made, held, 100, 0)
    assert other.real.notes == (
        f"{made}: cells that the judging rows don't know: 1 of species ('other')",
    )
    assert set(other.real.columns[6].categories) == {"a", "b", "c", "new", "odd", "other"}
    with pytest.raises(DataError, match="'new' is none of its categories"):
        datasets.judges(str(held), model.columns, 100, 0)


def test_numbers_that_are_names_may_be_new_in_a_typed_table():
    columns = (Column("gears", "category", categories=("3", "4.0")),)
    found = read_table({"gears": np.array([4, 5, 3, 7, 5])}, columns=columns, grow=True)
    assert found.columns[0].categories == ("3", "4.0", "5", "7")
    assert found.values[:, 0].tolist() == [1, 2, 0, 3, 2]
