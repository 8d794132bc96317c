"""Sessions of onnxruntime: one thread a call, the device chosen and no other, bounded memory.

Whatever a graph tries, the tensors that it computes share one arena of `memory_limit` bytes a
process; a graph that wants more fails and takes nothing else with it. Constant folding is off: it
allocates beside it. So is the search for transposed products, a third of the time that a flow's
session takes to make: it finds one node of 800, and rows come no faster.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from types import ModuleType
from typing import Any, TypeAlias

from scgan_infer.errors import DeviceError, UsageError, install

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
Session: TypeAlias = Any  # of onnxruntime; its `run` may be called from several threads at once
FATAL = 4
FORK_SECONDS = 10.0


class Calls:
    """Calls of onnxruntime by this process's threads; a fork waits until none is under way.

    All sessions share one arena. A child that is born while a thread of its parent holds the
    arena's lock would wait for that lock for ever.
    """

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._stop, after_in_parent=self._go_on, after_in_child=self._reset
            )

    def _reset(self) -> None:
        self._quiet, self._running = threading.Condition(), 0

    def _stop(self) -> None:
        self._quiet.acquire()
        self._quiet.wait_for(lambda: not self._running, FORK_SECONDS)

    def _go_on(self) -> None:
        self._quiet.release()

    def __enter__(self) -> None:
        with self._quiet:
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._quiet:
            self._running -= 1
            if not self._running:
                self._quiet.notify_all()


CALLS = Calls()


def session(graph: bytes, device: str) -> Session:
    """Return a session of a checked graph, run by its caller's thread, on this device alone.

    Raises:
        DeviceError: CUDA is not there or does not work.
        One of `failures()`: onnxruntime can't take the graph.
    """
    runtime = onnxruntime()
    if not offers(device):
        raise DeviceError(
            "this onnxruntime has no CUDA: take device cpu,"
            f" or pip uninstall onnxruntime and {install('gpu')}"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    if device == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        created = runtime.InferenceSession(
            graph,
            options,
            providers=[PROVIDERS[device]],
            enable_fallback=0,
            disabled_optimizers=["ConstantFolding", "GemmTransposeFusion"],
        )
    except failures() as error:
        if device == "cpu":
            raise
        raise DeviceError(
            f"CUDA does not work here ({first_line(error)}): take device cpu"
        ) from None
    if PROVIDERS[device] not in created.get_providers():
        raise DeviceError(
            "CUDA does not work here (onnxruntime left it out): "
            "take device cpu, or see scgan doctor"
        )
    return created


def offers(device: str) -> bool:
    """Return whether this onnxruntime was built for a device, "cpu" or "cuda"."""
    return PROVIDERS[device] in onnxruntime().get_available_providers()


def memory_limit() -> int:
    """Return the bytes of tensors this process's graphs may hold: 1 GiB and 1/4 GiB a core."""
    return 2**30 + cores() * 2**28


def cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def onnxruntime() -> ModuleType:
    """Import onnxruntime, once a process, and bound its memory.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnxruntime as runtime
    except ImportError as error:
        raise UsageError(f"onnxruntime can't be imported ({error}): {install('cpu')}") from None
    runtime.set_default_logger_severity(FATAL)
    memory = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    arena = runtime.OrtArenaCfg(memory_limit(), -1, -1, -1)  # the rest is as onnxruntime has it
    runtime.create_and_register_allocator(memory, arena)
    module: ModuleType = runtime
    return module


@cache
def failures() -> tuple[type[Exception], ...]:
    """Return the errors that onnxruntime raises; they have no common base."""
    onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = [
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    return (*errors, RuntimeError, ValueError, MemoryError)


def first_line(error: Exception) -> str:
    """Return an error's first line, not too long."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
