"""A card shows names as they are, whatever they hold."""

import json
from dataclasses import replace

import pytest
import tiny

from scgan_infer.columns import Column
from scgan_train import datasets
from scgan_train.config import Config
from scgan_train.exporting.card import card
from scgan_train.exporting.exporter import noted
from scgan_train.resolving import resolve

FACTS = {
    "scgan": "0.1.0",
    "rows": 10,
    "source": "rows.csv",
    "config": noted(resolve(Config(), datasets.table("abs", 1000, 0))),
}


def test_names_change_nothing_but_themselves():
    name = "a|b\n# <script>[x](y)`\x1b[8m\u202e\\"
    shown = r"a\|b\\n\# \<script\>\[x\](y)\`\\x1b\[8m\\u202e\\"
    columns = (Column(name, unit=name), Column("y"))
    facts = {**FACTS, "source": name}
    plain, hostile = (
        card(replace(tiny.MANIFEST, **changes))
        for changes in (
            {"provenance": FACTS, "metrics": {"notes": ["fine"]}},
            {"provenance": facts, "columns": columns, "name": name, "metrics": {"notes": [name]}},
        )
    )
    assert f"| {shown} | real | {shown} |" in hostile.splitlines()
    assert f"# {shown}" in hostile.splitlines()
    assert (hostile.splitlines()[0], hostile.splitlines()[5]) == ("---", "---")
    assert f"Note: {shown}." in hostile.splitlines()
    assert len(hostile.splitlines()) == len(plain.splitlines())
    assert "\x1b" not in hostile
    assert "\u202e" not in hostile


def test_the_front_matter_has_keys_and_types_that_model_hubs_know():
    """As huggingface_hub's `ModelCardData` names them; JSON on one line is YAML, too."""
    metrics = {"c2st": 0.51, "mse": 0.1, "notes": []}
    written = card(replace(tiny.MANIFEST, provenance=FACTS, metrics=metrics))
    lines = written.split("---\n")[1].splitlines()
    head = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in lines)}
    assert list(head) == ["library_name", "model_name", "tags", "metrics"]
    assert all(isinstance(head[key], str) for key in ("library_name", "model_name"))
    for key in ("tags", "metrics"):
        assert all(isinstance(entry, str) for entry in head[key])
        assert len(set(head[key])) == len(head[key]) > 0


def test_model_hubs_read_the_front_matter():
    yaml = pytest.importorskip("yaml")
    metrics = {"c2st": 0.51, "mse": 0.1, "notes": []}
    written = card(replace(tiny.MANIFEST, name="a: b\n---", provenance=FACTS, metrics=metrics))
    head = yaml.safe_load(written.split("---\n")[1])
    assert head["library_name"] == "scgan"
    assert head["model_name"] == "a: b\\n---"
    assert head["metrics"] == ["c2st", "mse"]
    assert {"tabular", "onnx", "real"} <= set(head["tags"])
