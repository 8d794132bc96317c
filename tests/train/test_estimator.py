"""The estimator keeps scikit-learn's rules, and rows come in the form of those that it was fitted to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import (
    check_estimator,
    check_methods_sample_order_invariance,
    check_methods_subset_invariance,
)

import scgan_infer
import scgan_train
from scgan_infer.judging import plots

pd = pytest.importorskip("pandas")

TINY = {
    "encoder": {"steps": 20},
    "mapper": {"kind": "aae", "steps": 20},
    "decoder": {"warm_steps": 20, "widths": [16]},
    "clusters": {"k": 1},
}
FLOW = {**TINY, "mapper": {"kind": "flow", "steps": 2}}
N = 300


def frame() -> Any:
    rng = np.random.default_rng(0)
    sizes = pd.CategoricalDtype(["S", "M", "L"], ordered=True)
    counts = pd.array(rng.integers(0, 5, N), dtype="Int64")
    counts[:40] = pd.NA
    table = pd.DataFrame(
        {
            "x": rng.normal(size=N),
            "narrow": rng.normal(size=N).astype("f4"),
            "count": rng.integers(0, 9, N),
            "flag": rng.random(N) < 0.3,
            "name": rng.choice(["a", "bb"], N),
            "size": pd.Categorical(rng.choice(["S", "M", "L"], N), dtype=sizes),
            "code": pd.Categorical(rng.choice([10, 20], N)),
            "maybe": counts,
        }
    )
    table.loc[50:90, ["x", "name", "size"]] = None
    return table


@pytest.fixture(scope="module")
def fitted() -> scgan_train.SCGAN:
    return scgan_train.SCGAN(config=TINY).fit(frame())


def test_a_data_frame_comes_back_as_it_went_in(fitted: scgan_train.SCGAN) -> None:
    rows, wanted = fitted.sample(500), frame()
    assert list(rows.columns) == list(wanted.columns)
    assert rows.dtypes.to_dict() == wanted.dtypes.to_dict()
    assert len(rows) == 500
    for name in wanted.columns:
        assert rows[name].isna().any() == wanted[name].isna().any(), name
    assert set(rows["code"]) == {10, 20}
    assert set(rows["name"].dropna()) == {"a", "bb"}


def test_saving_takes_no_pickle_and_loading_gives_the_same_rows(
    fitted: scgan_train.SCGAN, tmp_path: Path
) -> None:
    path = fitted.save(tmp_path / "bundle")
    loaded, model = scgan_train.SCGAN.load(path), scgan_infer.load(path)
    table = model.sample_table(100)
    assert loaded.sample(100).equals(table)
    assert copy.deepcopy(fitted).sample(100)["x"].equals(table["x"])
    assert table["name"].tolist() == fitted.sample(100)["name"].tolist()
    assert (path / "card.md").is_file()


def test_a_clone_has_the_parameters_and_no_fit(fitted: scgan_train.SCGAN) -> None:
    fresh = clone(fitted).set_params(random_state=3)
    assert fresh.get_params()["config"] == TINY
    assert not hasattr(fresh, "sampler_")


def test_rows_of_an_array_are_an_array_and_labels_that_are_numbers_stay() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 2))
    numbered = scgan_train.SCGAN(config=TINY).fit(pd.DataFrame(rows)).sample(7)
    assert list(numbered.columns) == [0, 1]
    first, again = (
        scgan_train.SCGAN(config=TINY, random_state=np.random.default_rng(5)).fit(rows).sample(7)
        for _ in range(2)
    )
    assert first.shape == (7, 2)
    assert np.array_equal(first, again)


def test_rows_have_a_log_density_where_the_map_is_a_flow(fitted: scgan_train.SCGAN) -> None:
    assert not hasattr(fitted, "score_samples")
    rows = np.random.default_rng(0).normal(size=(60, 2))
    flow = scgan_train.SCGAN(config=FLOW).fit(rows)
    wanted = flow.sampler_.model.log_prob(rows)
    np.testing.assert_array_equal(flow.score_samples(rows), wanted)
    assert flow.score(rows) == pytest.approx(wanted.mean(dtype=np.float64))


@pytest.mark.slow
def test_the_checks_of_scikit_learn_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is skipped: arrays of other packages, which `SCIPY_ARRAY_API` asks for."""
    monkeypatch.setattr(plots, "preview", lambda *_: b"")  # half of the time of 60 exports
    results = check_estimator(scgan_train.SCGAN(config=TINY), on_skip=None)
    skipped = {result["check_name"] for result in results if result["status"] != "passed"}
    assert skipped == {"check_array_api_input"}
    for check in (check_methods_subset_invariance, check_methods_sample_order_invariance):
        check("SCGAN", scgan_train.SCGAN(config=FLOW))  # of densities, too
