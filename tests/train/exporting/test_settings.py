"""The bundles that are shipped were made by the settings of now."""

from __future__ import annotations

from pathlib import Path

import pytest

from scgan_infer import bundle
from scgan_train.config import Config
from scgan_train.datasets import load
from scgan_train.exporting.exporter import noted
from scgan_train.resolving import resolve

EXPORTED = Path(__file__).parents[3] / "exported"


@pytest.mark.parametrize("path", sorted(EXPORTED.iterdir()), ids=lambda path: path.name)
def test_an_exported_bundle_is_what_the_defaults_of_now_give(path: Path) -> None:
    provenance = bundle.load(path).manifest.provenance
    _, table = load(path.name, Config())
    assert provenance["sha256"] == table.fingerprint()
    assert provenance["config"] == noted(resolve(Config(device="cpu"), table))
