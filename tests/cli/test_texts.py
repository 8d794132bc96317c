"""Texts are true: what they name exists, their blocks run, their numbers were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, blocks
from test_quickstart import TINY, installed

from scgan_train import config
from scgan_train.app.settings import assignment

TEXTS = [ROOT / name for name in ("README.md", "LOG.md", "SECURITY.md", "benchmarks/README.md")]
TEXTS += sorted((ROOT / "docs").glob("*.md"))
FOLDERS = "scgan_infer|scgan_train|tests|docs|examples|benchmarks"
SHORT = '"encoder": {"steps": 20}, "mapper": {"steps": 20}, "decoder": {"warm_steps": 20}, '


def named(pattern: str) -> list[tuple[str, str]]:
    """Each text's name with each match of a pattern in it."""
    return sorted(
        {
            (str(text.relative_to(ROOT)), match)
            for text in TEXTS
            for match in re.findall(pattern, text.read_text("utf-8"))
        }
    )


def test_files_that_texts_name_exist() -> None:
    paths = named(rf"(?<![\w/.])((?:{FOLDERS})/[\w./-]*\w/?|[A-Z]+\.md)")
    assert len(paths) > 20
    assert [(text, path) for text, path in paths if not (ROOT / path).exists()] == []


def test_settings_that_texts_name_exist() -> None:
    settings = named(r"--set ([\w.]+=[^\s`]+)")
    assert len(settings) > 5
    for _, setting in settings:
        config.from_dict(assignment(setting))


def test_the_estimate_of_a_trillion_rows_is_made_of_measured_rates() -> None:
    measured = json.loads((ROOT / "benchmarks" / "sampling.json").read_text("utf-8"))
    text = (ROOT / "docs" / "scale.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", text, re.MULTILINE))
    assert rows == {name: f"{measured[name]:.3g}" for name in rows}
    assert "trillion_minutes" in rows


def test_the_commands_for_own_data_run_as_they_stand(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    (block,) = [block for block in blocks("") if "scgan datasets" in block]
    for line in block.splitlines():
        command = line.partition("#")[0].replace("20000", "2000").replace("100000", "1000").split()
        assert command[0] == "scgan"
        installed(*command[1:], *(TINY if command[1] == "train" else ()), cwd=tmp_path)
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == 1001


def test_python_blocks_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    use, plain, train, estimate = blocks("python")
    monkeypatch.chdir(ROOT)
    model, runtime = {}, {}
    exec(use, model)
    np.testing.assert_array_equal(model["late"], model["rows"][-10:])
    exec(plain, runtime)
    np.testing.assert_allclose(runtime["rows"], model["rows"], atol=1e-4)
    monkeypatch.chdir(tmp_path)
    installed("datasets", "abs", "-n", "2000", "-o", "rows.csv", cwd=tmp_path)
    assert train.count('"seed": 1, ') == 1
    exec(train.replace('"seed": 1, ', f'"seed": 1, {SHORT}'), {})
    assert (tmp_path / "exported" / "rows" / "bundle.json").exists()
    assert estimate.count('{"clusters"') == 1
    fitted = {"frame": pandas.read_csv("rows.csv")}
    exec(estimate.replace('{"clusters"', f'{{{SHORT}"clusters"'), fitted)
    assert list(fitted["rows"].columns) == ["x", "y"]
    assert (tmp_path / "exported" / "frame" / "bundle.json").exists()
