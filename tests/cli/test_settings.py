"""Settings: --set and flags > environment > TOML file > preset."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Done

from scgan_infer.columns import quoted
from scgan_infer.errors import UsageError
from scgan_train.app.settings import assignment, layers
from scgan_train.config import from_dict, merge

Scgan = Callable[..., Done]
BRIEF = [
    *("--set", "encoder.steps=5", "--set", "decoder.warm_steps=5", "--set", "max_rows=500"),
    *("--latents", "gaussian", "--device", "cpu"),
]


@pytest.fixture(autouse=True)
def nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEED", "LATENTS", "MAPPER", "CLUSTERS", "DEVICE", "PRESET", "CONFIG"):
        monkeypatch.delenv(f"SCGAN_{name}", raising=False)


def settings(run: Path) -> dict[str, object]:
    return tomllib.loads((run / "config.toml").read_text("utf-8"))


@pytest.mark.parametrize(
    ("given", "seed"), [(["--set", "seed=3"], 3), (["--seed", "4"], 4), ([], 5)]
)
def test_who_wins(
    scgan: Scgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], seed: int
) -> None:
    monkeypatch.setenv("SCGAN_SEED", "5")
    (tmp_path / "c.toml").write_text("seed = 6\nmax_rows = 400\n")
    run = tmp_path / "run"
    done = scgan("train", "abs", "-c", tmp_path / "c.toml", "-o", run, *BRIEF, *given)
    assert done.code == 0, done.err
    assert (settings(run)["seed"], settings(run)["max_rows"]) == (seed, 500)


def test_layers(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("seed = 6\n[mapper]\nkind = 'aae'\nwidth = 32\n[clusters]\nmin_rows = 5\n")
    options = {"seed": 5, "mapper": "flow", "clusters": "auto", "log": ["a,b"], "latents": None}
    wanted, defaults = layers("quick", file, ["mapper.lr=0.1"], options, ["seed", "mapper"])
    assert from_dict(merge(defaults, wanted)) == from_dict(
        {
            "seed": 5,
            "mapper": {"kind": "flow", "width": 32, "lr": 0.1, "steps": 400},
            "clusters": {"min_rows": 5, "k": "auto"},
            "decoder": {"warm_steps": 500},
            "columns": {"a": {"kind": "log"}, "b": {"kind": "log"}},
        }
    )
    assert "seed" not in wanted
    assert "kind" not in wanted["mapper"]


def test_a_column_of_two_kinds_is_refused() -> None:
    for again, refused in (("drop", True), ("log", False)):
        given = "quick", None, [f"columns.b.kind={again}"], {"log": ["a,b"]}, []
        if refused:
            with pytest.raises(UsageError, match="'b' is log by an option, and drop by --set"):
                layers(*given)
        else:
            assert layers(*given)[0]["columns"]["b"] == {"kind": "log"}


def test_a_file_without_names(scgan: Scgan, tmp_path: Path) -> None:
    data, run = tmp_path / "rows.csv", tmp_path / "run"
    data.write_text("".join(f"{i},5;{i * i % 97},25\n" for i in range(400)))
    scgan("train", data, "-o", run, *BRIEF).failed(7, str(data), "--no-header")
    done = scgan("train", data, "-o", run, *BRIEF, "--no-header")
    assert done.code == 0, done.err
    assert "note: numbers have decimal commas" in done.err
    assert settings(run)["header"] is False
    assert scgan("train", data, "-o", run, "--resume").code == 0


def test_a_run_is_resumed_with_its_own_settings(
    scgan: Scgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scgan("datasets", "abs", "-n", 400, "-o", tmp_path / "rows.csv").code == 0
    (tmp_path / "c.toml").write_text("[clusters]\nk = 'auto'\n")
    for data in ("abs", tmp_path / "rows.csv"):
        run = tmp_path / f"run of {Path(data).stem}"
        begin = ["train", data, "--out", run, *BRIEF, "--seed", 3, "--clusters", 3]
        assert scgan(*begin, "--resume").code == 0
        monkeypatch.setenv("SCGAN_SEED", "5")
        monkeypatch.setenv("SCGAN_PRESET", "quick")
        for again in (["train", "--out", run], begin, [*begin, "-c", tmp_path / "c.toml"]):
            done = scgan(*again, "--resume")
            assert done.code == 0, done.err
        scgan(*begin, "--seed", 4, "--resume").failed(2, str(run), "other settings")
        other = ["--set", "encoder.width=7"]
        scgan("train", "--out", run, "--resume", *other).failed(2, str(run), "other settings")
        monkeypatch.delenv("SCGAN_SEED")
        monkeypatch.delenv("SCGAN_PRESET")


def test_python_resumes_as_the_command_does(tmp_path: Path) -> None:
    import scgan_train

    brief = {
        "latents": "gaussian",
        "device": "cpu",
        "max_rows": 500,
        "encoder": {"steps": 5},
        "decoder": {"warm_steps": 5},
    }
    said: list[str] = []
    run = scgan_train.train("abs", {**brief, "seed": 2}, tmp_path / "run", say=said.append)
    assert said[-1].startswith(f"run: {run.path} (")
    again = scgan_train.train(out=run.path, resume=True, defaults={"seed": 9})
    assert (again.source, again.config) == ("abs", run.config)
    with pytest.raises(UsageError, match="other settings"):
        scgan_train.train("abs", {"seed": 3}, run.path, resume=True)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("seed=3", {"seed": 3}),
        ("encoder.kind=mlp", {"encoder": {"kind": "mlp"}}),
        ('columns."Sepal.Length".kind=real', {"columns": {"Sepal.Length": {"kind": "real"}}}),
        ("columns.'a b'.low=-1.5", {"columns": {"a b": {"low": -1.5}}}),
        ('columns."a=b".unit="m=n"', {"columns": {"a=b": {"unit": "m=n"}}}),
        ('columns.a.categories=["x", "y"]', {"columns": {"a": {"categories": ["x", "y"]}}}),
        ("columns.a.unit=", {"columns": {"a": {"unit": ""}}}),
    ],
)
def test_assignments(text: str, settings: dict[str, object]) -> None:
    assert assignment(text) == settings


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=3", "a b.kind=real", "a=1\nb=2", '"a=3'])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(UsageError, match="KEY=VALUE"):
        assignment(text)


@pytest.mark.parametrize("text", ["columns.my col.kind=drop", "columns.kürz.kind=drop"])
def test_what_was_written_is_said_as_it_was_and_the_advice_works(scgan: Scgan, text: str) -> None:
    done = scgan("train", "abs", "--set", text)
    done.failed(2, repr(text))
    [advice] = [word for word in shlex.split(done.err) if word.startswith("--set=")]
    assert assignment(advice.removeprefix("--set=")) == {
        "columns": {"Sepal.Length": {"kind": "real"}}
    }


@pytest.mark.parametrize("name", ["x", "Sepal.Length", "a b", 'say "x"', "é", "a=b", "\\", "😀"])
def test_a_quoted_name_is_that_name_again(name: str) -> None:
    assert assignment(f"columns.{quoted(name)}.kind=log") == {"columns": {name: {"kind": "log"}}}


def test_the_advice_of_a_note_works(scgan: Scgan, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=400)  # no walls, not rounded
    rows = "".join(f"{i % 7},{number}\n" for i, number in enumerate(numbers))
    (tmp_path / "rows.csv").write_text('"Sepal.Length of",y\n' + rows)
    done = scgan("train", tmp_path / "rows.csv", "-o", tmp_path / "run", *BRIEF)
    [note] = [line for line in done.err.splitlines() if "kinds were guessed" in line]
    [advice] = [word for word in shlex.split(note) if word.startswith("--set=columns.")]
    done = scgan("train", tmp_path / "rows.csv", "-o", tmp_path / "again", *BRIEF, advice)
    assert done.code == 0, done.err
    assert "guessed" not in done.err
    assert settings(tmp_path / "again")["columns"] == {"Sepal.Length of": {"kind": "real"}}
