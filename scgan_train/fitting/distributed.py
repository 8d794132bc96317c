"""Training by several processes of `torchrun`: a step's batch is shared out, its gradient averaged.

    g = 1/N sum_r grad L_r    every process then takes the same step: weights stay equal, unsent

DistributedDataParallel does that around each player's loss (`shared`). Noise is drawn for the whole
batch by every process from equal generators, and each keeps its part: N processes with batch b
compute what one computes with batch N b, up to the order of float sums. Contrastive losses see the
rows of all processes (`gather`).

Anyone who can reach torch's sockets can take part, and torchrun unpickles what its store receives.
On one host, with the command of docs/training.md, process 0 has the store and all sockets are those
of the loopback interface.

A process that loses another or its torchrun ends; the run folder stays as process 0, which alone
writes files, left it. Without torchrun every function here does nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from scgan_train.fitting.guards import TrainingError

Loss = Callable[..., dict[str, Tensor]]
MAX_PATH = 4096


def rank() -> int:
    """Return this process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local() -> int | None:
    """Return this process's number on its machine, None without torchrun."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_initialized() else None


@contextmanager
def group() -> Iterator[None]:
    """Join the processes that torchrun started, over NCCL where each has a GPU, else over gloo."""
    if "RANK" not in os.environ:
        yield
        return
    gpus = torch.cuda.is_available() and torch.cuda.device_count() > int(os.environ["LOCAL_RANK"])
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    Thread(target=_exit_with_parent, args=[os.getppid()], daemon=True).start()
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    store = None if exposed() else _store(number, count)
    dist.init_process_group(backend, store=store, rank=number, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


def exposed() -> bool:
    """Return whether other hosts reach this: members, or since torchrun's store listens to all."""
    host = os.environ["MASTER_ADDR"]
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return not here or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _store(number: int, count: int) -> Any:
    """Return a store of this host's processes, and restrict them to its loopback interface."""
    names = {name for _, name in socket.if_nameindex()}
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[variable] = "lo" if "lo" in names else "lo0"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    listener = socket.create_server((host, port)).detach() if number == 0 else None
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, port, count, number == 0, master_listen_fd=listener
    )


def leave(code: int) -> NoReturn:
    """End this process at once; for processes of torchrun only.

    A thread of gloo may still release a tensor while Python shuts down, which aborts the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_with_parent(parent: int) -> None:
    """End this process once torchrun has: no signal reaches all, as each has its own session."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def translate_lost_process() -> Iterator[None]:
    """Translate the loss of another process into a `TrainingError`; gloo has no class for it.

    Raises:
        TrainingError: another process is lost.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):
            raise
        raise TrainingError(
            "another process of this training was lost; go on by resuming the run"
        ) from error


def local_part(batch: Tensor, dim: int = 0) -> Tensor:
    """Return this process's part of a batch drawn for all."""
    return batch.chunk(size(), dim)[rank()] if size() > 1 else batch


class _Loss(nn.Module):
    """A loss and the parameters that descend it, as one module for DistributedDataParallel."""

    def __init__(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.loss = loss
        self.descend = nn.ParameterList(parameters)

    def forward(self, *arguments: object) -> dict[str, Tensor]:
        return self.loss(*arguments)


def shared(loss: Loss, parameters: Sequence[nn.Parameter]) -> Loss:
    """Return the same loss, whose gradient by these parameters is the mean over all processes."""
    if size() == 1:
        return loss
    parallel = DistributedDataParallel(_Loss(loss, parameters))
    parallel.register_comm_hook(None, lambda _, bucket: _mean_in_order(bucket.buffer()))
    return parallel


def _mean_in_order(gradients: Tensor) -> Future[Tensor]:
    """Return the mean over all processes, summed in the order of their ranks.

    The order of an all-reduce's sums depends on where a number lies, and DistributedDataParallel
    sorts its buckets anew after the first step: with three processes, a resumed training would end
    in other bits.
    """
    parts = [torch.empty_like(gradients) for _ in range(size())]
    dist.all_gather(parts, gradients)
    total: Future[Tensor] = Future()
    total.set_result(sum(parts[1:], parts[0]) / size())
    return total


def gather(rows: Tensor) -> Tensor:
    """Return the rows [b, e] of all processes [N b, e]; gradients flow back to their processes."""
    if size() == 1:
        return rows
    return torch.cat(all_gather(rows.contiguous()))  # type: ignore[no-untyped-call]


def mean(values: Tensor) -> Tensor:
    """Return the mean over all processes."""
    total = values / size()
    if size() > 1:
        dist.all_reduce(total)
    return total


@translate_lost_process()
def barrier() -> None:
    """Wait for all processes: the files of process 0 are written then."""
    if size() > 1:
        dist.all_reduce(torch.zeros(1))


@translate_lost_process()
def broadcast_path(path: Path) -> Path:
    """Return the path of process 0."""
    if size() == 1:
        return path
    name = os.fsencode(path.absolute())[:MAX_PATH]
    sent = torch.zeros(MAX_PATH, dtype=torch.uint8)
    sent[: len(name)] = torch.tensor(list(name), dtype=torch.uint8)
    dist.broadcast(sent, 0)
    return Path(os.fsdecode(bytes(sent.tolist()).rstrip(b"\0")))
