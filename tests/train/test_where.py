from __future__ import annotations

from pathlib import Path

import pytest

import scgan_infer
from scgan_infer.errors import UsageError
from scgan_infer.sampling.where import clusters_where


def test_a_category_alone_is_sampled_without_rejection(mixed_bundle: Path) -> None:
    model = scgan_infer.load(mixed_bundle)
    place = [column.name for column in model.columns].index("species")
    seen: list[int] = []
    for value, name in enumerate(("a", "b", "c")):
        clusters = clusters_where(model, f"species={name}")
        rows = model.sample(20_000, seed=1, cluster=clusters)
        assert (rows[:, place] == value).all()
        seen += clusters
    assert sorted(seen) == list(range(model.manifest.sizes["K"]))


@pytest.mark.parametrize(
    ("condition", "message"),
    [("species=d", "one of a, b, c"), ("r=1", "category column"), ("species", "NAME=VALUE")],
)
def test_what_can_not_be_asked_is_said(condition: str, message: str, mixed_bundle: Path) -> None:
    with pytest.raises(UsageError, match=message):
        clusters_where(scgan_infer.load(mixed_bundle), condition)
