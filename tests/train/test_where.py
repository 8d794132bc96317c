from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scgan_infer
import scgan_train
from scgan_infer.errors import UsageError
from scgan_infer.sampling.where import clusters_where
from scgan_train.app import actions

N = 10_000
FOREVER = Path(__file__).parents[1] / "runs" / "version-2"


def test_a_row_is_drawn_again_until_it_has_the_values(mixed_bundle: Path) -> None:
    model = scgan_infer.load(mixed_bundle)
    place = [column.name for column in model.columns].index("species")
    free = model.sample(N, seed=1)
    for value, name in enumerate("abc"):
        rows = model.sample(N, seed=1, where={"species": name})
        assert (rows[:, place] == value).all()
        assert (rows == free).all(1)[free[:, place] == value].all()  # what fits stays
        again = model.sample(100, seed=1, start=5000, where={"species": name})
        np.testing.assert_array_equal(again, rows[5000:5100])


def test_several_values_and_clusters_are_met_together(mixed_bundle: Path) -> None:
    model = scgan_infer.load(mixed_bundle)
    place = [column.name for column in model.columns].index("species")
    rows = model.sample(N, where={"species": ["a", "c"]})
    shares = np.bincount(rows[:, place].astype(int), minlength=3) / N
    free = np.bincount(model.sample(N)[:, place].astype(int), minlength=3) / N
    assert shares[1] == 0
    assert shares[0] == pytest.approx(free[0] / (free[0] + free[2]), abs=0.03)
    cluster = int(np.argmax(np.diff([0, *model.manifest.thresholds])))
    rows = model.sample(2000, cluster=cluster)
    assert np.mean(model.encode(rows)[1] == cluster) > 0.8


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"species": "d"}, "'d' is not one of a, b, c"),
        ({"r": 1}, "r is a column whose values are not drawn outright, .* are those of species"),
        ({"specis": "a"}, "there is no column specis; did you mean species?"),
        ({"q": "a"}, "there is no column q; discrete values are those of species"),
    ],
)
def test_what_can_not_be_asked_is_said(where, message: str, mixed_bundle: Path) -> None:
    with pytest.raises(UsageError, match=message):
        scgan_infer.load(mixed_bundle).sample(10, where=where)


def test_a_bundle_without_a_chain_has_categories_by_clusters(tmp_path: Path) -> None:
    """Runs and bundles of before have clusters that never mix categories."""
    model = scgan_infer.load(scgan_train.export(FOREVER, tmp_path / "bundle"), "cpu")
    seen: list[int] = []
    for value, name in enumerate("abc"):
        clusters = clusters_where(model, f"kind={name}")
        assert (model.sample(4000, seed=1, cluster=clusters)[:, 2] == value).all()
        seen += clusters
    assert sorted(seen) == list(range(model.manifest.sizes["K"]))
    assert actions.conditions(model, None, ["kind=a"]) == {
        "cluster": clusters_where(model, "kind=a")
    }
    either = actions.conditions(model, None, ["kind=a", "kind=c"])[
        "cluster"
    ]  # a union, as elsewhere
    assert set(either) == {*clusters_where(model, "kind=a"), *clusters_where(model, "kind=c")}
    for condition, message in (
        ("kind=d", "one of a, b, c"),
        ("x=1", "category column"),
        ("kind", "NAME=VALUE"),
    ):
        with pytest.raises(UsageError, match=message):
            clusters_where(model, condition)
    with pytest.raises(UsageError, match="--cluster and --where"):
        actions.conditions(model, 0, ["kind=a"])


def test_pictures_and_rates_of_a_bundle_with_a_chain(mixed_bundle: Path) -> None:
    """All that runs the graphs by itself gives a decoder its choice."""
    from scgan_infer.judging.evaluation import latent_picture, noise_picture
    from scgan_infer.sampling.bench import rates

    model = scgan_infer.load(mixed_bundle, "cpu", 1)
    assert latent_picture(model.sample(500), [model])
    assert noise_picture(model)
    assert rates(model, seconds=0.01).decoder > 0
