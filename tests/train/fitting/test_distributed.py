"""Several processes train as one does with the batch of them all; whatever dies, the job goes on to the same bytes.

Run by torchrun, this file is the training itself: of every kind of map in double precision, or with a checkpoint
every moment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch.distributed")

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
ONE_HOST = ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file", "--local-addr", "127.0.0.1"]
BATCH = 64


def settings(batch: int, kind: str) -> dict[str, object]:
    return {
        "device": "cpu",
        "encoder": {"kind": "mlp", "width": 32, "steps": 60, "batch": batch, "lr": 5e-4},
        "clusters": {"k": 3},
        "mapper": {"kind": kind, "steps": 15},
        "decoder": {"warm_steps": 30, "steps": 20, "batch": batch, "widths": [32]},
    }


def every_kind(out: str, batch: str, *kinds: str) -> None:
    """Train once for each of these kinds of map, in float64: what is left between two trainings is their difference."""
    import torch

    import scgan_train
    from scgan_train import run_folder as run
    from scgan_train.fitting import distributed
    from scgan_train.maps import latent_model
    from scgan_train.training import stages

    torch.set_default_dtype(torch.float64)
    run.latent_model = lambda *which: latent_model(*which).double()
    stages.Parts.figures = lambda *_: {}  # the judge's rows are float32
    stages.Parts.trained_warnings = lambda *_: []
    rng = np.random.default_rng(0)
    rows = rng.integers(3, size=(600, 1)) * 4.0 + rng.standard_normal((600, 3))
    with distributed.group():
        for kind in kinds:
            scgan_train.train(rows, settings(int(batch), kind), Path(out) / kind)
    if "RANK" in os.environ:
        distributed.leave(0)


def often(pids: str, *arguments: str) -> None:
    """Train with a checkpoint every moment, and say which process has which rank."""
    from scgan_train.__main__ import main
    from scgan_train.training import progress

    progress.CHECKPOINT_SECONDS = 0.05
    Path(f"{pids}.{os.environ['RANK']}").write_text(str(os.getpid()))
    sys.argv[1:] = ["train", *arguments]
    main()


def loses_one(out: str) -> None:
    """Lose process 1 after the third loss, before its gradient is sent; a checkpoint is written at every step."""
    import torch

    from scgan_train.config import Config
    from scgan_train.fitting import distributed
    from scgan_train.fitting.loop import Phase, Player, fit, rows_of
    from scgan_train.run_folder import Run
    from scgan_train.training import progress
    from scgan_train.training.progress import StageObserver
    from scgan_train.watch import Watch

    progress.CHECKPOINT_SECONDS = -1.0
    Path(out, "config.toml").touch()
    rows = torch.randn(600, 50, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(50, 400)
    calls = 0

    def loss(batch: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 3 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": layer(batch).square().mean()}

    run = Run(Path(out), Config(), "", (), {"sha256": ""})
    with distributed.group():
        player = Player("player", list(layer.parameters()), loss, 1e-3)
        phase = Phase("phase", 10, rows_of(rows, batch=64), (player,), share=True)
        observer = StageObserver(run, Watch(False), "stage")
        fit("stage", layer, lambda _: iter([phase]), 0, observer)


def listens(out: str) -> None:
    """Note where this process and its torchrun listen."""
    import psutil

    from scgan_train.fitting import distributed

    with distributed.group():
        distributed.barrier()
        found = [
            connection.laddr.ip
            for process in (psutil.Process(), psutil.Process().parent())
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        Path(out, os.environ["RANK"]).write_text(json.dumps([distributed.exposed(), found]))
        distributed.barrier()


def command(processes: int, *what: object, looks: float = 0.1) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", *ONE_HOST, "--nproc-per-node", str(processes)]
    torchrun += ["--monitor-interval", str(looks)]
    return [sys.executable, *(torchrun if processes > 1 else []), *map(str, what)]


def finished(arguments: list[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stderr


def history(run: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in json.loads(line).items() if isinstance(value, float)}
        for line in (run / "history.jsonl").read_text().splitlines()
    ]


def weights(run: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {
        f"{path.stem}.{name}": tensor
        for path in sorted(run.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(tmp_path: Path) -> None:
    from scgan_train.maps import MAPS

    two, one, half = tmp_path / "two", tmp_path / "one", tmp_path / "half"
    finished(command(2, __file__, "every_kind", two, BATCH, *MAPS))
    finished(command(1, __file__, "every_kind", one, 2 * BATCH, *MAPS))
    finished(command(1, __file__, "every_kind", half, BATCH, "ot"))
    for kind in MAPS:
        ours, theirs = history(two / kind), history(one / kind)
        assert len(ours) > 10
        for line, other in zip(ours, theirs, strict=True):
            assert line == pytest.approx(
                other, rel=1e-9, abs=1.1e-7
            )  # they are written with seven digits
        again = weights(one / kind)
        assert len(again) > 20
        for name, tensor in weights(two / kind).items():
            np.testing.assert_allclose(
                tensor, again[name], rtol=1e-9, atol=1e-10, err_msg=f"{kind} {name}"
            )
    assert history(half / "ot")[-1] != pytest.approx(history(one / "ot")[-1], rel=1e-3)


PROCESSES = 3
LONG = [
    *("abs", "--set", "max_rows=5000", "--set", "encoder.batch=32", "--set", "mapper.steps=20"),
    *("--set", "mapper.kind=aae", "--set", "clusters.k=3", "--set", "decoder.batch=32"),
    *("--set", "encoder.steps=60", "--set", "decoder.warm_steps=30", "--set", "decoder.steps=40"),
    *("--set", "decoder.widths=32"),
    *("--set", "device=cpu", "--out"),
]


@contextmanager
def begun(run: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a job; at the end, all its processes are gone.

    Its torchrun looks after them so seldom that those which lose another see that first.
    """
    files = [run.with_name(f"pid.{rank}") for rank in range(PROCESSES)]
    for file in files:
        file.unlink(missing_ok=True)
    arguments = command(
        PROCESSES, __file__, "often", run.with_name("pid"), *LONG, run, *more, looks=4
    )
    with subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as job:
        wait_for(lambda: all(file.exists() and file.read_text() for file in files))
        pids = [int(file.read_text()) for file in files]
        yield job, pids
        wait_for(lambda: job.poll() is not None and not any(map(alive, pids)))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def says(path: Path, words: bytes) -> bool:
    return path.exists() and words in path.read_bytes()


def contents(run: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(run.iterdir()) if path.name != "run.json"
    }


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_job_that_loses_a_worker_then_torchrun_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    from scgan_train.run_folder import Run

    straight, run = tmp_path / "straight", tmp_path / "run"
    told = finished(command(PROCESSES, "-m", "scgan_train", "train", *LONG, straight))
    assert told.count("run: ") == 1

    with begun(run) as (job, pids):
        wait_for((run / "checkpoint.safetensors").exists)
        os.kill(pids[1], signal.SIGKILL)
        assert job.wait(120) == 1
        assert job.stderr is not None
        assert (
            "scgan: another process of this training was lost; go on by resuming the run\n"
            in job.stderr.read()
        )
    assert not Run.load(run).finished("encoder")

    with begun(run, "--resume") as (job, _):
        wait_for(lambda: says(run / "history.jsonl", b'"phase": "critics", "step": 0,'))
        job.kill()
    assert not Run.load(run).finished("decoder")

    finished(command(PROCESSES, "-m", "scgan_train", "train", *LONG, run, "--resume"))
    assert contents(run) == contents(straight)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_no_step_is_taken_by_what_a_lost_process_did_not_send(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    done = subprocess.run(
        command(2, __file__, "loses_one", tmp_path), env=ENVIRONMENT, timeout=300, check=False
    )
    assert done.returncode == 1
    assert load_file(tmp_path / "checkpoint.safetensors")["step"] == 2


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="sockets of others are not shown")
def test_the_documented_command_listens_on_this_host_alone(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    documented = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun " + " ".join(ONE_HOST) in documented
    finished(command(2, __file__, "listens", tmp_path))
    for rank in range(2):
        exposed, found = json.loads((tmp_path / str(rank)).read_text())
        assert not exposed
        assert set(found) == {"127.0.0.1"}


def test_another_command_is_warned_of(tmp_path: Path) -> None:
    open_to_all = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    asked = ["-m", "scgan_train", "none.csv", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, *open_to_all, *asked], capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert done.stderr.count("note: torchrun listens on every network") == 1


def test_without_torchrun_nothing_is_shared_out() -> None:
    import torch

    from scgan_train.fitting import distributed

    rows = torch.arange(6.0).reshape(3, 2)
    assert distributed.rank() == 0
    assert distributed.size() == 1
    assert distributed.local_part(rows) is rows
    assert distributed.gather(rows) is rows
    assert torch.equal(distributed.mean(rows), rows)
    with distributed.group():
        assert distributed.size() == 1


if __name__ == "__main__":
    modes = (every_kind, often, loses_one, listens)
    {mode.__name__: mode for mode in modes}[sys.argv[1]](*sys.argv[2:])
