"""Killed, on a full disk, in a read-only folder, with a file cut: outputs are whole or absent.

The killed commands are forks of one process that has imported what they need, so that a kill is quick.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import ENVIRONMENT, FAST, Done, apart

Scgan = Callable[..., Done]
KILLS = 12

FORKS = """
import itertools, os, signal, sys, time
import numpy, scgan_infer.sampling.model
from scgan_infer.rows import writers
from scgan_train import app as cli
writers.CHECKPOINT_SECONDS = 0.01
seed, kills, straight, out, *command = sys.argv[1:]
if command[0] == "train":
    import sklearn.cluster, rich.progress, scgan_train.training.stages
    from scgan_train.training import progress
    progress.CHECKPOINT_SECONDS = 0.05
generator, left = numpy.random.default_rng(int(seed)), int(kills)

def start(path):
    child = os.fork()
    if child == 0:
        sys.argv, sys.stderr = ["scgan", *command, "--out", path], open(os.devnull, "w")
        try:
            cli.main()
        except SystemExit as stop:
            compiler = "torch._dynamo" in sys.modules  # takes a second to import, for nothing
            os._exit(9 if compiler else stop.code)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

began = time.monotonic()
assert ended(start(straight)) == 0
whole = time.monotonic() - began
for attempt in range(40):
    if not left:
        break
    for killed in range(left):
        child = start(out)
        time.sleep(generator.uniform(0, whole * max(0.05, 1 - killed / left)))
        os.kill(child, signal.SIGKILL)
        code = ended(child)
        assert code in (0, -signal.SIGKILL), code
        if code == 0:
            break
    left -= killed + (code != 0)
    assert ended(start(out)) in (0, 7)
    print(*sorted(name for name in os.listdir() if not name.startswith("made-")), flush=True)
    os.rename(out, f"made-{attempt}")
assert not left
"""


def killed(folder: Path, seed: int, kills: int, straight: str, out: str, *command: object) -> int:
    """Run a command straight, then again and again until it was killed so often; each time it ends, as `made-I`.

    Return how often it was ended; nothing else was left then.
    """
    arguments = map(str, (seed, kills, straight, out, *command))
    done = subprocess.run(
        [sys.executable, "-c", FORKS, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(set(lines)) == 1
    names = {*lines[0].split(), *(f"made-{attempt}" for attempt in range(len(lines)))}
    assert {path.name for path in folder.iterdir()} == names - {out}
    return len(lines)


def contents(run: Path) -> dict[str, bytes]:
    """Return the files of a run or bundle, without the seconds that stages took."""
    found = {path.name: path.read_bytes() for path in sorted(run.iterdir()) if path.is_file()}
    if "run.json" in found:
        facts = json.loads(found["run.json"])
        assert set(facts.pop("seconds")) == {
            "coordinates",
            "encoder",
            "clusters",
            "mapper",
            "decoder",
            "figures",
        }
        found["run.json"] = json.dumps(facts).encode()
    return found


TRAINING = [
    *("train", "rows.npy", *FAST, "--set", "encoder.steps=30", "--set", "mapper.steps=20"),
    *("--set", "decoder.warm_steps=30", "--set", "decoder.steps=20", "--resume"),
]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("seed", [1])
def test_a_training_killed_again_and_again_ends_in_the_same_bytes(
    tmp_path: Path, seed: int
) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(1000, 2)) ** 3)
    ends = killed(tmp_path, seed, KILLS, "straight", "run", *TRAINING)
    for attempt in range(ends):
        assert contents(tmp_path / f"made-{attempt}") == contents(tmp_path / "straight")
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("made-")}
    assert left == {"rows.npy", "straight"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(("suffix", "kills"), [(".npy", 9), (".csv", 6), (".npz", 6)])
def test_a_sampling_killed_again_and_again_ends_in_the_same_bytes(
    model: Path, tmp_path: Path, suffix: str, kills: int
) -> None:
    straight, out = f"straight{suffix}", f"rows{suffix}"
    command = ["sample", "--model", model, "--n", 300_000, "--threads", 1, "--resume"]
    ends = killed(tmp_path, kills, kills, straight, out, *command)
    for attempt in range(ends):
        made = tmp_path / f"made-{attempt}"
        assert made.read_bytes() == (tmp_path / straight).read_bytes()
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("made-")}
    assert left == {straight}


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small file system in memory, or skip."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user can't mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    assert apart("train", "abs", "--out", run, *FAST).code == 0
    return run


def test_a_full_disk(finished: Path, model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.npy"
    np.save(rows, np.ones((300_000, 2), np.float32))
    with small_disk(tmp_path / "disk", "size=128k") as disk:
        for suffix in (".npy", ".csv", ".npz"):
            out = disk / f"rows{suffix}"
            done = apart("sample", "--model", model, "--n", 300_000, "--out", out)
            done.failed(7, str(out), "No space left")
            assert files(disk) == []
            apart("encode", rows, "--model", model, "--out", out).failed(7, str(out))
            assert files(disk) == []
        subprocess.run(["mount", "-o", "remount,size=24k", str(disk)], check=True)
        apart("train", "abs", "--out", disk / "run", *FAST).failed(7, "run", "No space left")
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert apart("train", "abs", "--out", disk / "run", *FAST, "--resume").code == 0
        assert contents(disk / "run") == contents(finished)
        shutil.rmtree(disk / "run")
        subprocess.run(["mount", "-o", "remount,size=128k", str(disk)], check=True)
        (disk / "filler").write_bytes(bytes(100_000))
        apart("export", finished, "--out", disk / "bundle").failed(
            7, str(disk / "bundle"), "No space left"
        )
        assert files(disk) == ["filler"]


@pytest.mark.parametrize("limit", [0, 4096, 20_000])
def test_files_that_may_not_grow(finished: Path, model: Path, tmp_path: Path, limit: int) -> None:
    """The portable stand-in for a full disk."""
    resource = pytest.importorskip("resource")

    def hold() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = tmp_path / "out"
    out.mkdir()
    done = apart("sample", "--model", model, "--out", out / "rows.npy", preexec_fn=hold)
    done.failed(7, "rows.npy", "File too large")
    if limit:  # torch itself writes small files when it exports
        apart("export", finished, "--out", out / "bundle", preexec_fn=hold).failed(
            7, "File too large"
        )
    assert files(out) == []
    done = apart("train", "abs", "--out", out / "run", *FAST, preexec_fn=hold)
    done.failed(7, "run", "File too large")
    assert not [name for name in files(out) if name.endswith(".part")]


def test_a_read_only_folder(finished: Path, model: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m,ro") as disk:
        for command in (["sample", "--model", model], ["datasets", "abs"]):
            apart(*command, "--out", disk / "rows.npy").failed(7, str(disk), "Read-only")
        apart("train", "abs", "--out", disk / "run", *FAST).failed(7, str(disk), "Read-only")
        apart("export", finished, "--out", disk / "bundle").failed(7, str(disk), "Read-only")


NEEDED = {
    *(
        "run.json",
        "config.toml",
        "coordinates.safetensors",
        "encoder.safetensors",
        "clusters.safetensors",
    ),
    *("mapper.safetensors", "decoder.safetensors", "held_out.npy"),
}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_every_file_of_a_run_folder_cut(
    scgan: Scgan, finished: Path, tmp_path: Path, share: float
) -> None:
    assert {path.name for path in finished.iterdir()} - {"history.jsonl"} == NEEDED
    for name in sorted(NEEDED):
        run = tmp_path / name
        shutil.copytree(finished, run)
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[: int(share * len(whole))])
        scgan("export", run, "--out", tmp_path / "bundle").failed(
            3, str(run), name.partition(".")[0]
        )
        scgan("train", "--out", run, "--resume").failed(3, str(run))
    assert not (tmp_path / "bundle").exists()


def test_a_cut_history_and_checkpoint(scgan: Scgan, finished: Path, tmp_path: Path) -> None:
    """A history is for people; a checkpoint that can't be read is not trained over."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    facts = json.loads((run / "run.json").read_text())
    del facts["seconds"]["decoder"]
    (run / "run.json").write_text(json.dumps(facts))
    (run / "history.jsonl").write_bytes((run / "history.jsonl").read_bytes()[:-30])
    (run / "checkpoint.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    scgan("train", "--out", run, "--resume").failed(3, "checkpoint.safetensors")
    (run / "checkpoint.safetensors").unlink()
    assert scgan("train", "--out", run, "--resume").code == 0
    assert contents(run) == contents(finished)
