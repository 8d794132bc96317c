"""Ctrl-C is one line and 130 from the first import on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ENVIRONMENT, Done

AT_IMPORT = """
import os, signal, sys

class Interrupt:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt)
{start}
"""
SCGAN = "from scgan_train.app import main; sys.argv[1:] = {arguments!r}; main()"
TORCHRUN = "from scgan_train.__main__ import main; sys.argv[1:] = {arguments!r}; main()"

AFTER_A_WHILE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from scgan_train.app import command, guarded

def program():
    os.write(1, b"ready")
    return command()

guarded(program)
"""


@pytest.mark.parametrize(
    "module",
    [
        *("scgan_train.app.exits", "typer", "scgan_train.app.commands", "scgan_infer.names"),
        *("scgan_infer.sampling.engines", "numpy", "numpy.linalg", "onnxruntime"),
        "scgan_infer.rows.formats",
    ],
)
def test_while_a_module_is_imported(model: Path, tmp_path: Path, module: str) -> None:
    arguments = ["sample", "--model", str(model), "--out", str(tmp_path / "rows.npy")]
    interrupted(SCGAN, module, arguments, tmp_path)


@pytest.mark.parametrize("module", ["scgan_train.fitting.distributed", "torch", "typer"])
def test_while_a_module_of_a_training_is_imported(tmp_path: Path, module: str) -> None:
    interrupted(TORCHRUN, module, ["train", "abs", "--out", str(tmp_path / "run")], tmp_path)


def interrupted(start: str, module: str, arguments: list[str], folder: Path) -> None:
    code = AT_IMPORT.format(module=module, start=start.format(arguments=arguments))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60
    )
    Done(done.returncode, done.stdout, done.stderr).failed(130, "interrupted")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("seconds", [0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
def test_after_a_while(model: Path, tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, "-c", AFTER_A_WHILE, "sample", "-m", model, "-n", 10**10, "-o"]
    with subprocess.Popen(
        [*map(str, command), str(tmp_path / "rows.npy")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == "ready"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    Done(process.returncode, "", err).failed(130, "interrupted")
    assert list(tmp_path.iterdir()) == []


IN_A_STRING = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from scgan_train.app import guarded

def program():
    try:
        exec("os.kill(os.getpid(), signal.SIGINT); signal.pause()", globals())
    except KeyboardInterrupt:
        return 143

guarded(program)
"""


def test_in_code_compiled_from_a_string(tmp_path: Path) -> None:
    """As dataclasses are made of: `python -m` would end by SIGINT, whatever the exit code."""
    (tmp_path / "program.py").write_text(IN_A_STRING, "utf-8")
    paths = f"{tmp_path}{os.pathsep}{ENVIRONMENT.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "program"], env=ENVIRONMENT | {"PYTHONPATH": paths}, timeout=60
    )
    assert done.returncode == 143


IN_NATIVE_CODE = """
import sys
from scgan_train.app import exits, main
exits.PATIENCE = 0.3
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_in_a_graph_that_takes_long(slow: Path, number: int, code: int) -> None:
    """Python's own handler would run when the graph's first block is done, ten seconds later."""
    command = [sys.executable, "-c", IN_NATIVE_CODE, "sample", "--model", str(slow), "-n", "1"]
    command.append("--verbose")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "sample: 0 of 1\n"
        process.send_signal(number)
        asked = time.monotonic()
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert time.monotonic() - asked < 5
    lines = [line for line in err.splitlines(True) if not line.startswith("sample: ")]
    Done(process.returncode, "", "".join(lines)).failed(code)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose generator takes nearly as long as the rules allow."""
    import numpy as np
    import tiny
    from onnx_bytes import model, node

    nodes = [
        *tiny.MAP,
        *tiny.DECODE[:-1],
        node("Add", "latent h6", "y"),
        node("MatMul", "h5 wide", "wider"),
        node("Unsqueeze", "wider two", "s0"),
        *(node("Softmax", f"s{i}", f"s{i + 1}", axis=2) for i in range(60)),
        node("ReduceMax", "s60", "most", keepdims=0),
        node("Add", "y most", "x"),
    ]
    weights = [item for item in tiny.WEIGHTS if item[0] not in ("twice", "squares", "first")]
    weights += [("wide", np.ones((32, 2000), np.float32)), ("two", np.array([2]))]
    graph = model(tiny.body("generator.onnx", nodes=nodes, weights=weights))
    folder = tmp_path_factory.mktemp("slow") / "b"
    return tiny.save(folder, tiny.MANIFEST, {**tiny.GRAPHS, "generator.onnx": graph})


IN_A_CALLBACK = """
import signal, sys, weakref
from scgan_train.app import guarded

class Thing: pass

def program():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    for _ in range(10**9):
        pass

signal.signal(signal.SIGINT, signal.default_int_handler)
guarded(program)
"""


def test_in_a_callback_that_drops_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK], capture_output=True, text=True, env=ENVIRONMENT
    )
    Done(done.returncode, done.stdout, done.stderr).failed(130, "interrupted")


WHILE_PYTHON_ENDS = """
import os, signal, sys
from scgan_train.app import guarded

class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), number={number}):
        kill(process, number)

def program():
    return 130

late = Late()
signal.signal(signal.SIGINT, signal.default_int_handler)
guarded(program)
"""


@pytest.mark.parametrize("number", [int(signal.SIGINT), int(signal.SIGTERM)])
def test_again_while_python_ends(number: int) -> None:
    code = WHILE_PYTHON_ENDS.format(number=number)
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT)
    assert done.returncode == 130


def test_nothing_is_imported_before_it_has_an_answer() -> None:
    code = "import sys; known = set(sys.modules); import scgan_train.app; "
    code += "print(*set(sys.modules) - known)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {
        "scgan_train",
        "scgan_train.api",
        "scgan_train.app",
        "__future__",
    }
