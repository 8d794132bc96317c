"""The tables of benchmarks/README.md are those of the JSON files beside it."""

import sys

import pytest


@pytest.fixture(scope="module")
def tables(pytestconfig):
    folder = str(pytestconfig.rootpath / "benchmarks")
    sys.path.insert(0, folder)
    import tables

    yield tables
    sys.path.remove(folder)


def test_every_committed_table_is_that_of_its_json(tables):
    text = (tables.HERE / "README.md").read_text("utf-8")
    made = {(found[2], found[3]) for found in tables.BLOCK.finditer(text)}
    assert {kind for kind, _ in made} >= {"scale", "planes", "curves", "real", "ablation", "mixed"}
    assert tables.refreshed(text) == text


def test_no_table_of_results_stands_outside_its_marks(tables):
    text = (tables.HERE / "README.md").read_text("utf-8")
    outside = tables.BLOCK.sub("", text)
    assert "| C2ST |" not in outside
    assert "| set |" not in outside


def test_a_median_counts_equal_values_as_often_as_they_are_there(tables):
    assert tables.cell([0.1, 0.1, 0.4], ".2f") == "0.10 (0.40)"
    assert tables.cell([None, 0.2], ".2f") == "0.20"
    assert tables.cell([], ".2f") == ""


def test_a_table_has_real_rows_first_and_the_figures_of_each_model(tables):
    def row(model, value):
        figures = {"c2st": {"value": value, "floor": 0.5}, "off": {"value": 0.001, "floor": 0.002}}
        of = {"set": "abs", "model": model, "seconds": 9, "figures": figures}
        return of | {"checks": {"tail": value}, "checks_real": {"tail": 0.25}}

    lines = tables.grid([row("scgan", 0.51), row("scgan", 0.53), row("flow", 0.6)])
    assert lines == [
        ["set", "model", "C2ST", "off", "tail", "training, s"],
        ["abs", "real rows", "0.500", "0.20%", "0.25", ""],
        ["abs", "flow", "0.600", "0.10%", "0.6", "9"],
        ["abs", "scgan", "0.520 (0.530)", "0.10%", "0.52 (0.53)", "9"],
    ]


def test_the_worst_of_a_share_that_should_be_a_half_is_the_farthest_from_it(tables):
    def row(nearer, c2st):
        real = {"c2st": 0.5}
        figures = {"c2st": c2st, "nearer": nearer, "real": real}
        return {"set": "adult", "seconds": 60, "export": 4, "figures": figures}

    lines = tables.mixed([row(0.46, 0.54), row(0.53, 0.52), row(0.5, 0.52)])
    assert lines == [
        ["set", "rows", "seeds", "LightGBM AUC", "nearer to training", "training, s", "export, s"],
        ["adult", "real", "3", "0.500", "", "", ""],
        ["adult", "scgan", "3", "0.520 (0.540)", "0.500 (0.460)", "60", "4.0"],
    ]


def test_posteriors_stand_beside_what_was_published(tables):
    def row(c2st, ranks):
        of = {"set": "two_moons", "seconds": 60, "processor": 20.0, "export": 1.5}
        return of | {"c2st": c2st, "ranks": ranks}

    lines = tables.posterior([row([0.5, 0.6], [0.3, 0.2]), row([0.5, 0.5], [0.9, 0.1])])
    assert lines[1] == (
        ["two_moons", "2", "0.525 (0.550)", "0.606", "0.554", "0.150 (0.100)", "60", "20", "1.5"]
    )


def test_conditions_have_the_slowest_rate_of_all_seeds_behind_the_median(tables):
    ours = {"set": "dimuon", "model": "scgan", "processor": 40.0, "free": 300.0}
    flow = {"set": "dimuon", "model": "spline flow", "c2st": 0.62, "processor": 90.0}
    rows = [{**ours, "c2st": 0.52, "rate": 200.0}, flow, {**ours, "c2st": 0.54, "rate": 100.0}]
    scgan, other = tables.conditions(rows)[1:]
    assert scgan == ["dimuon", "scgan", "2", "0.530 (0.540)", "40", "150 (100)", "300"]
    assert other == ["dimuon", "spline flow", "1", "0.620", "90", "", ""]


def test_noise_is_shown_beside_none_with_the_least_share_of_spread_that_it_restores(tables):
    def row(seed, value, restored):
        figures = {"noise": {"value": value, "floor": 0.5}, "without": {"value": 0.8, "floor": 0.5}}
        return {"set": "dimuon", "seed": seed, "restored": restored, "processor": 50} | figures

    (line,) = tables.noise([row(0, 0.7, [0.9, 1.1]), row(1, 0.74, [0.8, 1.0])])[1:]
    assert line == ["dimuon", "2", "0.720 (0.740)", "0.800", "0.500", "85% (80%)", "50"]
