"""Several processes train as one does with the batch of them all; killed, they go on to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch.distributed")

SETTINGS = {
    "max_rows": 3000,
    "encoder.steps": 80,
    "encoder.batch": 64,
    "encoder.lr": 5e-4,
    "mapper.steps": 30,
    "mapper.kind": "aae",
    "decoder.batch": 64,
    "decoder.warm_steps": 60,
    "decoder.steps": 30,
    "decoder.width": 32,
    "clusters.k": 3,
    "device": "cpu",
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(out: Path, processes: int, *more: str, **changes: object) -> list[str]:
    sets = [word for key, value in {**SETTINGS, **changes}.items() for word in ("--set", f"{key}={value}")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    first = [sys.executable, *(torchrun if processes > 1 else []), "-m", "scgan_train"]
    return [*first, "abs", "--out", str(out), *sets, *more]


def trained(out: Path, processes: int, *more: str, **changes: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(out, processes, *more, **changes),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def history(run: Path, stage: str) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in line.items() if isinstance(v, float)} for line in lines if line["stage"] == stage
    ]


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.iterdir()) if path.name != "run.json"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("distributed") / "two"
    return out, trained(out, 2)


def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(
    pair: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    two, done = pair
    one = tmp_path / "one"
    trained(one, 1, **{"encoder.batch": 128, "decoder.batch": 128})
    half = tmp_path / "half"
    trained(half, 1)
    for stage, tolerance in (("encoder", 1e-4), ("mapper", 0.05), ("decoder", 0.05)):
        ours, theirs = history(two, stage), history(one, stage)
        assert len(ours) == len(theirs) > 1
        for line, other in zip(ours, theirs, strict=True):
            assert line.keys() == other.keys()
            for name in line:
                assert np.isclose(line[name], other[name], rtol=tolerance, atol=2e-4), (stage, name)
    assert not np.isclose(
        history(two, "encoder")[-1]["info_nce"], history(half, "encoder")[-1]["info_nce"], 0.05
    )
    assert done.stderr.count("run: ") == 1


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_a_killed_job_resumes_to_the_same_bytes(
    pair: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(
        command(run, 2), env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL
    ) as job:
        end = time.monotonic() + 90
        while not (run / "history.jsonl").exists() and job.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGKILL)
    assert not (run / "decoder.safetensors").exists()
    time.sleep(0.2)
    trained(run, 2, "--resume")
    assert weights(run) == weights(pair[0])


def test_without_torchrun_nothing_is_shared_out() -> None:
    import torch

    from scgan_train import distributed

    rows = torch.arange(6.0).reshape(3, 2)
    assert distributed.rank() == 0
    assert distributed.size() == 1
    assert distributed.mine(rows) is rows
    assert distributed.gather(rows) is rows
    assert torch.equal(distributed.mean(rows), rows)
    with distributed.group():
        assert distributed.size() == 1
