from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from cases import mixed_table, settings
from safetensors.torch import load, load_file, save, save_file

import scgan_infer
import scgan_train
from scgan_infer.columns import Column, Table
from scgan_infer.errors import DataError, DeviceError, ModelError, UsageError
from scgan_train import config as configs
from scgan_train.coordinates.transform import Coordinates
from scgan_train.inspecting import inspect
from scgan_train.latents import chain_stage
from scgan_train.latents.clusters import Clusters
from scgan_train.maps import latent_model
from scgan_train.maps.flow import FlowMapper
from scgan_train.resolving import resolve
from scgan_train.run_folder import Run, locked
from scgan_train.training import stages
from scgan_train.training.progress import StageObserver
from scgan_train.training.stages import _create, train
from scgan_train.watch import Watch

STAGES = ("encoder", "clusters", "head", "mapper", "decoder")


def weights(run: Run) -> dict[str, bytes]:
    return {
        name: (run.path / f"{name}.safetensors").read_bytes() for name in ("coordinates", *STAGES)
    }


def test_a_run_holds_what_design_says(mixed_run: Run) -> None:
    names = {path.name for path in mixed_run.path.iterdir()}
    wanted = {f"{name}.safetensors" for name in ("coordinates", *STAGES, "margins")}
    assert names == wanted | {"run.json", "config.toml", "held_out.npy", "history.jsonl"}
    lines = [
        json.loads(line) for line in (mixed_run.path / "history.jsonl").read_text().splitlines()
    ]
    assert {line["stage"] for line in lines} == {"encoder", "head", "mapper", "decoder"}
    watched = {line["stage"] for line in lines if "held_out" in line}
    assert watched == {line["stage"] for line in lines}
    assert Run.load(mixed_run.path) == mixed_run


def test_held_out_rows_are_rows_and_are_few(mixed_run: Run) -> None:
    held = mixed_run.load_held_out()
    rows = {tuple(row) for row in mixed_table().values.tolist()}
    assert len(held) == 75
    assert all(tuple(row) in rows for row in held.tolist())


FEW = settings(
    encoder={"kind": "mlp", "steps": 20},
    mapper={"steps": 20},
    decoder={"warm_steps": 20, "steps": 10, "widths": [16], "batch": 64, "critic_width": 16},
)


@pytest.fixture(scope="module")
def few_steps() -> Iterator[None]:
    """Short bursts of the chain, and few draws for the margins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain_stage, "BURSTS", (10, 20))
        patch.setattr(stages, "DRAWS", 4)
        yield


@pytest.fixture(scope="module")
def short_run(few_steps: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every stage and phase, few steps of each."""
    return train(mixed_table(600), FEW, tmp_path_factory.mktemp("runs") / "short", "mixed.csv")


def test_what_is_held_out_trains_nothing(short_run: Run, tmp_path: Path) -> None:
    """Other rows in the place of those: every stage ends in the same weights."""
    table = mixed_table(600)
    held = {tuple(row) for row in short_run.load_held_out().tolist()}
    out = np.array([tuple(row) in held for row in table.values.tolist()])
    values = table.values.copy()
    values[out] = values[~out][: out.sum()]
    other = train(replace(table, values=values), FEW, tmp_path / "other")
    assert weights(other) == weights(short_run)


def test_same_seed_same_weights_and_another_seed_others(short_run: Run, tmp_path: Path) -> None:
    table = mixed_table(600)
    again = train(table, FEW, tmp_path / "again", "mixed.csv")
    assert weights(again) == weights(short_run)
    other = train(table, replace(FEW, seed=1), tmp_path / "other", "mixed.csv")
    assert weights(other)["decoder"] != weights(short_run)["decoder"]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [3, 38, 68, 93, 113, 128])
def test_a_killed_run_resumes_to_the_same_bytes(
    at: int, short_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the encoder, the chain whole and by steps, the map, the decoder and its critics."""
    whole = short_run
    calls = 0

    def due(self: StageObserver) -> bool:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KilledError
        return calls % 5 == 0

    monkeypatch.setattr(StageObserver, "due", due)
    with pytest.raises(KilledError):
        train(mixed_table(600), whole.config, tmp_path / "run", "mixed.csv")
    calls = 10**6
    run = train(mixed_table(600), whole.config, tmp_path / "run", "mixed.csv", resume=True)
    assert weights(run) == weights(whole)
    assert (run.path / "history.jsonl").read_bytes() == (whole.path / "history.jsonl").read_bytes()


def test_a_checkpoint_that_this_run_did_not_leave_is_not_gone_on_with(tmp_path: Path) -> None:
    """One of another run has the same names and shapes; a bit of this run's may have changed."""
    runs = [Run(tmp_path / name, configs.Config(), "rows.csv", ()) for name in "ab"]
    for number, run in enumerate(runs):
        run.path.mkdir()
        (run.path / "config.toml").touch()
        run.facts["sha256"] = str(number)
        StageObserver(run, Watch(), "encoder").save({"weight": torch.zeros(3)})
    own, other = (run.path / "checkpoint.safetensors" for run in runs)
    observer, kept = StageObserver(runs[0], Watch(), "encoder"), own.read_bytes()
    assert torch.equal(observer.restore()["weight"], torch.zeros(3))
    damaged = load(kept) | {"weight": torch.ones(3)}
    for content in (other.read_bytes(), save(damaged)):
        own.write_bytes(content)
        with pytest.raises(ModelError, match=r"checkpoint.*is not as this run left it; remove it"):
            observer.restore()


@pytest.mark.parametrize("chosen", [False, True])
def test_a_flow_is_laid_out_as_its_run_holds_it(tmp_path: Path, chosen: bool) -> None:
    """Whether the leading directions are chosen hangs on a number that has changed, and may again."""
    e, generator = 16, torch.Generator().manual_seed(0)
    factors = torch.linalg.cholesky(torch.cov(torch.randn(e, 99, generator=generator)))[None]
    clusters = Clusters(torch.ones(1), torch.randn(1, e, generator=generator), factors, "em")
    config = configs.Config(mapper=configs.MapperConfig("flow", **FlowMapper.defaults(e, 999)))
    model = latent_model("mapper", clusters, config.mapper, generator)
    assert isinstance(model.ensemble, FlowMapper)
    model.ensemble.lay_out(chosen=chosen)
    model.ensemble.leading.fill_(3 if chosen else e)
    columns = tuple(Column(f"x{j}") for j in range(e))
    run = Run(tmp_path, config, "rows.csv", columns)
    w, choice = torch.randn(5, e, generator=generator), torch.zeros(5, dtype=torch.int64)
    run.save_tensors("coordinates", Coordinates.fit(Table(columns, w.numpy())).state())
    run.save_clusters(clusters, choice, None)
    run.save_tensors("mapper", model.state_dict())
    torch.testing.assert_close(run.load_mapper().ensemble(w, choice), model.ensemble(w, choice))


def test_a_folder_that_is_taken_is_left_alone(mixed_run: Run) -> None:
    before = weights(mixed_run)
    with pytest.raises(UsageError, match="exists; resume that run"):
        train(mixed_table(), settings(), mixed_run.path)
    assert weights(mixed_run) == before


def test_resuming_with_other_rows_or_settings_is_refused(mixed_run: Run) -> None:
    with pytest.raises(DataError, match="begun with other rows"):
        train(mixed_table(1000), settings(), mixed_run.path, resume=True)
    with pytest.raises(UsageError, match="begun with other settings"):
        train(mixed_table(), settings(seed=9), mixed_run.path, resume=True)


HOLD = """
import sys, time
from pathlib import Path
from scgan_train.run_folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not find_spec("fcntl"), reason="no file locks")
def test_one_training_at_a_time_works_in_a_folder(mixed_run: Run, tmp_path: Path) -> None:
    """Another process has the folder until it is killed; what it leaves keeps nobody out."""
    run = tmp_path / "run"
    shutil.copytree(mixed_run.path, run)
    held = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(held, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        before = contents(run)
        with pytest.raises(UsageError, match="another training is at work there"):
            train(mixed_table(), settings(), run, resume=True)
        assert contents(run) == before
        other.kill()
    assert (run / ".lock").exists()
    assert weights(train(mixed_table(), settings(), run, resume=True)) == weights(mixed_run)
    assert not (run / ".lock").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(not find_spec("fcntl"), reason="no file locks")
def test_of_two_that_begin_a_folder_at_once_one_does(tmp_path: Path) -> None:
    run, new = tmp_path / "run", tmp_path / ".run.new"
    new.mkdir()
    with locked(new), pytest.raises(UsageError, match="another training"):
        train(mixed_table(), settings(), run)
    assert not run.exists()
    barrier = Barrier(2)

    def begin(_: int) -> object:
        barrier.wait()
        try:
            return _create(run, mixed_table(), settings(), "mixed.csv", force=False)
        except (UsageError, DataError) as error:
            return error

    for _ in range(20):
        shutil.rmtree(run, ignore_errors=True)
        with ThreadPoolExecutor(2) as pool:
            ends = list(pool.map(begin, range(2)))
        assert ends.count(None) == 1, ends
        assert Run.load(run).source == "mixed.csv"
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_trained_has_no_auto(mixed_run: Run) -> None:
    assert '"auto"' not in (mixed_run.path / "config.toml").read_text()
    assert mixed_run.config.encoder.latent_dim == 6
    assert mixed_run.config.mapper.kind == "flow"
    loaded = Run.load(mixed_run.path)
    assert resolve(loaded.config, mixed_table()) == loaded.config


def test_a_run_of_version_1_asks_to_train_again(mixed_run: Run, tmp_path: Path) -> None:
    shutil.copytree(mixed_run.path, tmp_path / "old")
    text = (tmp_path / "old" / "run.json").read_text().replace('"version": 2', '"version": 1')
    (tmp_path / "old" / "run.json").write_text(text)
    with pytest.raises(ModelError, match=r"version 1.*train again"):
        Run.load(tmp_path / "old")


def test_what_no_bundle_could_hold_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """A chain's weights grow with the square of its steps; 100 columns of 30 names still fit."""
    names, rng = tuple(f"n{k}" for k in range(30)), np.random.default_rng(0)
    columns = tuple(Column(f"c{j}", "category", categories=names) for j in range(130))
    values = np.stack([rng.permutation(np.arange(300) % 30) for _ in columns], 1)
    table = Table(columns, values.astype(np.float32))
    with pytest.raises(DataError, match=r"130 columns are drawn outright.*75 MiB"):
        train(table, configs.Config(), tmp_path / "run", "survey.csv")
    assert not (tmp_path / "run").exists()
    assert "130 columns are drawn outright" in inspect(table, configs.Config()).notes[-1]
    assert not inspect(Table(columns[:100], table.values[:, :100]), configs.Config()).notes
    given = configs.Config(given=tuple(column.name for column in columns[30:]))  # not drawn
    assert not inspect(table, given).notes


def test_fewer_rows_than_clusters_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="5 rows are too few for 6 clusters"):
        train(mixed_table(5), settings(), tmp_path / "run", "mixed.csv")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_is_never_silently_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no CUDA device"):
        train(mixed_table(), settings(device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("latents", ["gaussian", "centers", "mapper", "real"])
def test_every_latent_model_trains_and_exports(latents: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = (
        np.array([[-2.0], [2.0]])[rng.integers(2, size=800)] + 0.1 * rng.standard_normal((800, 2))
    ).astype(np.float32)
    table = Table((Column("x"), Column("y")), values)
    run = train(table, settings(latents=latents, clusters={"k": 2}), tmp_path / "run")
    bundle = scgan_train.export(run, tmp_path / "bundle")
    made = scgan_infer.load(bundle).sample(4000)
    between = (np.abs(made[:, 0]) < 1).mean()
    assert (between > 0.2) if latents == "gaussian" else (between < 0.01)


def test_the_paper_s_own_method_trains_and_exports_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = 4.0 * rng.integers(2, size=(800, 1)) + rng.standard_normal((800, 2))
    few = {"encoder": {"steps": 20}, "clusters": {"k": 2}, "mapper": {"steps": 20}}
    decoder = {"warm_steps": 40, "steps": 10, "widths": [16], "batch": 64, "critic_width": 16}
    config = configs.merge(configs.PRESETS["paper"], few, {"decoder": decoder})
    run = scgan_train.train(values.astype(np.float32), config, tmp_path / "run")
    assert run.config.encoder.kind == "mlp"
    assert not run.config.clusters.refine
    bundle = scgan_train.export(run, tmp_path / "bundle")
    model = scgan_infer.load(bundle)
    assert model.bundle.manifest.mapper == "aae"
    assert model.bundle.manifest.sizes["q"] > 0
    assert "it has the whole" in (bundle / "card.md").read_text()
    assert np.isfinite(model.sample(1000)).all()


@pytest.mark.parametrize("width", [2, 4])
def test_a_rare_category_keeps_its_share_and_its_place(width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kind = rng.permutation(np.repeat([0, 1, 2], [1500, 12, 1488]))
    centre = np.array([0.0, 5.0, 2.0])[kind, None]
    values = np.column_stack([centre + 0.3 * rng.standard_normal((3000, width)), kind]).astype(
        np.float32
    )
    columns = (
        *(Column(f"x{j}") for j in range(width)),
        Column("kind", "category", categories=tuple("abc")),
    )
    run = train(Table(columns, values), settings(), tmp_path / "run")
    import scgan_infer

    made = scgan_infer.load(scgan_train.export(run, tmp_path / "bundle")).sample(60_000)
    rare = made[made[:, -1] == 1]
    labels = run.load_clusters()[1]
    assert 10 <= len(labels) * len(rare) / 60_000 <= 13
    assert np.abs(rare[:, :-1].mean(axis=0) - 5).max() < 0.5
    assert np.abs(rare[:, :-1] - 5).max() < 3


def test_a_damaged_run_says_which_file(mixed_run: Run, tmp_path: Path) -> None:
    for name in (
        "run.json",
        "config.toml",
        "encoder.safetensors",
        "decoder.safetensors",
        "held_out.npy",
    ):
        copy = tmp_path / name
        shutil.copytree(mixed_run.path, copy)
        (copy / name).write_bytes((copy / name).read_bytes()[:-20])
        with pytest.raises((ModelError, UsageError), match=name.partition(".")[0]):
            scgan_train.export(copy, tmp_path / "bundle")
        assert not (tmp_path / "bundle").exists()


def test_weights_that_this_run_did_not_leave_are_refused(mixed_run: Run, tmp_path: Path) -> None:
    for path in mixed_run.path.glob("*.safetensors"):
        copy = tmp_path / path.stem
        shutil.copytree(mixed_run.path, copy)
        tensors = load_file(path)
        first = next(key for key in tensors if tensors[key].is_floating_point())
        tensors[first].view(-1)[0] = float("nan")
        save_file(tensors, copy / path.name)
        with pytest.raises(ModelError, match=rf"{path.name} is not as this run left it"):
            scgan_train.export(copy, tmp_path / "bundle")
        assert not (tmp_path / "bundle").exists()
