"""Every exit code is reached; what goes wrong is said in one line that names the value at fault.

0 done; 1 unexpected or out of memory; 2 usage; 3 bad model; 4 no such device; 5 parity failed; 6 checksum mismatch;
7 bad data or output that can't be written; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from commands import ENVIRONMENT, FAST, Done, apart, spawn
from suffixes import SUFFIXES
from test_formats_bad import cells

from scgan_infer import bundle
from scgan_infer.columns import Column
from scgan_infer.errors import ModelError

Scgan = Callable[..., Done]
COMMANDS = ("train", "reconstruct", "encode")


def taking(command: str, data: object, model: Path, out: Path, *more: object) -> list[object]:
    """Return the arguments of a command that takes rows."""
    if command == "train":
        return ["train", data, "--out", out, "--missing", "refuse", *FAST, *more]
    return [command, data, "--model", model, "--out", out / "rows.npy"]


@contextmanager
def no_output(folder: Path) -> Iterator[Path]:
    """Check that a folder is as empty afterwards as before."""
    folder.mkdir(exist_ok=True)
    yield folder
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert left == []


def test_0_done(scgan: Scgan, model: Path, tmp_path: Path) -> None:
    done = scgan("sample", "--model", model, "--n", 5, "--out", tmp_path / "a.npy")
    assert done.code == 0
    assert np.load(tmp_path / "a.npy").shape == (5, 2)
    for command in ("--help", "--version", "sample --help"):
        assert scgan(*command.split()).code == 0
    assert "Commands:" in scgan().out
    assert "default: 10000.  [x>=0]" in scgan("sample", "--help").out


UNEXPECTED = (
    "import sys, scgan_train.app as app, scgan_infer.bundle as b; "
    "b.load = lambda path: 1 / 0; sys.argv = {}; app.main()"
)


def test_1_unexpected(model: Path) -> None:
    def run(*arguments: str) -> Done:
        code = UNEXPECTED.format(["scgan", *arguments, "info", str(model)])
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT
        )
        return Done(done.returncode, done.stdout, done.stderr)

    run().failed(1, "unexpected ZeroDivisionError", "--debug")
    debug = run("--debug")
    assert debug.code == 1
    assert "Traceback" in debug.err


def test_1_a_training_that_diverges(scgan: Scgan, tmp_path: Path) -> None:
    settings = ["--set", "encoder.lr=1e38", "--set", "encoder.kind=mlp", *FAST]
    done = scgan("train", "abs", "--out", tmp_path / "run", *settings)
    done.failed(1, "stage encoder", "learning rate")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("sample --n minus", ["--n", "'minus' is not a whole number"]),
        ("sample --temperature hot", ["'hot' is not a number"]),
        ("sample --n -1", ["-1"]),
        ("sample --bogus", ["--bogus"]),
        ("sample --shard 9/8", ["9/8"]),
        ("sample --engine gpu", ["'gpu'", "local, dask"]),
        ("sample --cluster 4", ["4"]),
        ("sample --seed 9223372036854775808", ["9223372036854775808"]),
        ("sample --temperature nan", ["nan"]),
        ("sample --out rows.xls", [".xls", ".npy"]),
        ("sample --resume", ["standard output"]),
        ("nonsense", ["nonsense"]),
        ("train nowhere", ["'nowhere'", "eight_gaussians"]),
        ("train abs --clusters 0", ["--clusters", "'0'"]),
        ("train abs --mapper magic", ["'magic'"]),
        ("train abs --set encoder.stepz=3", ["encoder.stepz"]),
        ("train abs --set encoder.steps=many", ["encoder.steps", "'many'"]),
        ("train abs --set encoder", ["'encoder'", "KEY=VALUE"]),
        ("train abs --config none.toml", ["none.toml: No such file"]),
        ("train --resume", ["no such run"]),
        ("train abs --columns z", ["'z'"]),
        ("train abs --periodic x", ["--periodic", "phi=360"]),
        ("train abs --bounded x=a:b", ["--bounded", "a:b"]),
        ("train abs --set columns.x.kind=odd", ["'odd'"]),
        ("datasets nope", ["'nope'"]),
    ],
)
def test_2_usage(
    scgan: Scgan, model: Path, tmp_path: Path, arguments: str, words: list[str]
) -> None:
    command, *more = arguments.split()
    if command == "train":
        more += ["--out", str(tmp_path / "run")]
    if command == "sample":
        more += ["--model", str(model)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        scgan(command, *more).failed(2, *words)
    assert list(tmp_path.iterdir()) == []


def test_2_a_taken_run_folder(scgan: Scgan, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    scgan("train", "abs", "--out", tmp_path, *FAST).failed(2, str(tmp_path), "no run")
    mine = tmp_path / "thesis.tex"
    scgan("train", "abs", "--out", mine, *FAST, "--force").failed(2, str(mine), "no run")
    assert mine.read_text() == "years of work"
    scgan("export", mine).failed(3, str(mine), "not a run")


def test_3_bad_model(scgan: Scgan, model: Path, tmp_path: Path) -> None:
    for command in ("sample --model", "info", "verify", "export"):
        scgan(*command.split(), tmp_path / "none").failed(3, str(tmp_path / "none"))
    newer = tmp_path / "newer"
    newer.mkdir()
    text = (model / "bundle.json").read_text().replace('"format": 2', '"format": 3')
    (newer / "bundle.json").write_text(text)
    scgan("sample", "--model", newer).failed(3, "format 3", "install a newer scgan")
    loop = tiny.model(tiny.body("generator.onnx", nodes=[tiny.node("Loop", "u w", "x")]))
    graphs = {**tiny.GRAPHS, "generator.onnx": loop}
    with pytest.raises(ModelError, match="control flow"):
        tiny.save(tmp_path / "loop", tiny.MANIFEST, graphs)


def test_4_no_such_device(scgan: Scgan, model: Path, tmp_path: Path) -> None:
    import onnxruntime
    import torch

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with no_output(tmp_path):
            done = scgan(
                "sample", "--model", model, "--device", "cuda", "--out", tmp_path / "x.npy"
            )
            done.failed(4, "CUDA", "device cpu")
    if not torch.cuda.is_available():
        done = scgan("train", "abs", "--out", tmp_path / "run", *FAST, "--device", "cuda")
        done.failed(4, "device cuda")
        assert not (tmp_path / "run").exists()


def test_5_parity(scgan: Scgan, tmp_path: Path) -> None:
    parity = {"seed": 0, "index": [0], "x": [[1e6, 1e6]]}
    wrong = tiny.save(tmp_path / "wrong", replace(tiny.MANIFEST, parity=parity), tiny.GRAPHS)
    scgan("verify", wrong).failed(5, str(wrong), "1000000", "column '")


def test_6_checksum(scgan: Scgan, tiny_copy: Path) -> None:
    with (tiny_copy / "decoder.onnx").open("r+b") as file:
        file.seek(900)
        file.write(b"\x01\x02\x03")
    for command in ("sample --model", "verify", "info"):
        scgan(*command.split(), tiny_copy).failed(6, "decoder.onnx", "SHA-256")


def test_6_signature(scgan: Scgan, tiny_copy: Path, tmp_path: Path) -> None:
    key = tmp_path / "public.pem"
    key.write_text(
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
        "-----END PUBLIC KEY-----\n"
    )
    scgan("verify", tiny_copy, "--key", key).failed(6, "not signed")
    (tiny_copy / "bundle.sig").write_bytes(bytes(64))
    scgan("verify", tiny_copy, "--key", key).failed(6, "bundle.sig")
    scgan("verify", tiny_copy, "--key", tmp_path / "none.pem").failed(2, "none.pem")
    assert scgan("verify", tiny_copy).code == 0


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    return tiny.save(tmp_path / "tiny")


BAD_CELLS = [
    (np.nan, "missing"),
    (-np.inf, "infinite"),
    (1e39, "float32"),
    (2.0**24 + 1, "too large"),  # in training, names or numbers kept to seven digits
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("command", "cell", "why"),
    [(c, *bad) for c in COMMANDS for bad in BAD_CELLS if (c, bad[1]) != ("train", "too large")],
)
def test_7_bad_cells(
    scgan: Scgan, model: Path, tmp_path: Path, command: str, suffix: str, cell: float, why: str
) -> None:
    data, values = tmp_path / f"rows{suffix}", np.ones((40, 2))
    values[:, 0] = np.arange(40)
    values[30, 1] = cell
    cells(data, values, ("x", "y"))
    with no_output(tmp_path / "out") as out:
        scgan(*taking(command, data, model, out)).failed(7, str(data), "column 'y'", "row 31", why)


def test_nothing_is_printed_of_a_file_that_is_not_there(
    scgan: Scgan, model: Path, tmp_path: Path
) -> None:
    done = scgan("reconstruct", tmp_path / "none.csv", "--model", model)
    assert (done.code, done.out) == (7, "")


def test_a_run_is_told_from_a_bundle(scgan: Scgan, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    scgan("sample", "--model", tmp_path).failed(3, f"scgan export {tmp_path}")


def pickled(path: Path) -> None:
    np.save(path, np.array([{"x": 1}], object), allow_pickle=True)


def a_real_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(os.getcwd))


def too_few(path: Path) -> None:
    np.save(path, np.ones((4, 2)))
    path.write_bytes(path.read_bytes().replace(b"(4, 2), }", b"(9, 2), }"))


def far_too_few(path: Path) -> None:
    np.save(path, np.ones((4, 2)))
    claim = b"(%d, 2), }" % 2**60
    path.write_bytes(path.read_bytes().replace(b"(4, 2), }".ljust(len(claim)), claim))


def zeros(path: Path) -> None:
    np.savez_compressed(path, x=np.zeros(2**25), y=np.zeros(2**25))


FILES: dict[str, tuple[str, bytes | Callable[[Path], None], tuple[str, ...]]] = {
    "text": ("rows.csv", b"x,y\n1,2\n3,4\n5,oops\n", ("'oops'", "column 'y'", "row 3")),
    "empty cell": ("rows.csv", b"x,y\n1,2\n,4\n5,6\n", ("column 'x'", "row 2", "missing")),
    "no rows": ("rows.csv", b"x,y\n", ("no rows",)),
    "empty": ("rows.csv", b"", ("column names",)),
    "empty array": ("rows.npy", b"", ()),
    "not text": ("rows.csv", b"x,y\n1,\xff\n", ("utf-8",)),
    "ragged": ("rows.csv", b"x,y\n1,2\n2\n", ("row 2", "1 cells")),
    "open quote": ("rows.csv", b'x,y\n1,2\n"3,4\n', ("row 2", "never closed")),
    "pickled": ("rows.npy", pickled, ()),
    "a pickle": ("rows.npy", a_real_pickle, ()),
    "claims 9 of 4": ("rows.npy", too_few, ("claims", "4")),
    "claims 2^60": ("rows.npy", far_too_few, ("claims", "4")),
    "bomb": ("rows.npz", zeros, ("bomb",)),
    "missing file": ("none.csv", lambda path: None, ("no such file",)),
    "unknown suffix": ("rows.xls", b"x", (".xls", ".npy")),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", FILES)
def test_7_bad_files(scgan: Scgan, model: Path, tmp_path: Path, command: str, case: str) -> None:
    name, content, words = FILES[case]
    data = tmp_path / name
    if isinstance(content, bytes):
        data.write_bytes(content)
    else:
        content(data)
    with no_output(tmp_path / "out") as out:
        scgan(*taking(command, data, model, out)).failed(7, str(data), *words)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("command", ["reconstruct", "encode"])
def test_7_other_columns_than_the_bundles(
    scgan: Scgan, model: Path, tmp_path: Path, command: str, suffix: str
) -> None:
    data = tmp_path / f"rows{suffix}"
    cells(data, np.ones((5, 2)), ("x", "z"))
    with no_output(tmp_path / "out") as out:
        scgan(*taking(command, data, model, out)).failed(7, str(data), "'y'", "x, z")


def test_7_a_value_outside_the_bundles_columns(scgan: Scgan, tmp_path: Path) -> None:
    columns = (
        Column("x", "bounded", low=0.0, high=1.0),
        Column("y", "category", categories=("a", "b")),
    )
    path = tiny.save(tmp_path / "b", replace(tiny.MANIFEST, columns=columns), tiny.GRAPHS)
    data = tmp_path / "rows.csv"
    for text, words in (
        ("0.5,a\n7.5,b\n", ("column 'x'", "row 2", "7.5", "[0.0, 1.0]")),
        ("0.5,a\n0.5,a\n0.5,c\n", ("column 'y'", "row 3", "'c'")),
    ):
        data.write_text("x,y\n" + text)
        with no_output(tmp_path / "out") as out:
            for command in ("reconstruct", "encode"):
                scgan(*taking(command, data, path, out)).failed(7, str(data), *words)


def test_7_a_built_in_distribution_outside_the_domain_described(
    scgan: Scgan, tmp_path: Path
) -> None:
    with no_output(tmp_path / "out") as out:
        scgan("train", "abs", "--log", "x", "--out", out, *FAST).failed(
            7, "column 'x'", "not positive"
        )


def test_7_fewer_rows_than_clusters(scgan: Scgan, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("x,y\n1,2\n2,1\n3,3\n")
    with no_output(tmp_path / "out") as out:
        scgan(*taking("train", data, model, out, "--clusters", 5)).failed(
            7, str(data), "3 rows", "5 clusters"
        )
        data.write_text("x,y\n1,2\n")
        scgan(*taking("train", data, model, out, "--clusters", "auto")).failed(
            7, str(data), "1 rows"
        )


@pytest.mark.parametrize("command", ["sample", "reconstruct", "encode"])
def test_7_output_that_cannot_be_written(
    scgan: Scgan, model: Path, tmp_path: Path, command: str
) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("x,y\n1,2\n")
    rows = [] if command == "sample" else [data]
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "file").write_text("")
    for out in ("folder.npy", "none/rows.npy", "file/rows.npy", f"{300 * 'x'}.npy"):
        scgan(command, *rows, "--model", model, "--out", tmp_path / out).failed(7, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npy", "rows.csv"]


def test_7_a_run_or_bundle_that_cannot_be_written(scgan: Scgan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    scgan("train", "abs", "--out", tmp_path / "file" / "run", *FAST).failed(
        7, str(tmp_path / "file")
    )


def test_7_stdout_that_takes_no_more(model: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    for command in (
        ["sample", "--model", model],
        ["datasets"],
        ["info", model],
        ["datasets", "abs"],
    ):
        with open("/dev/full", "w") as full:
            apart(*command, stdout=full).failed(7, "No space left")


def shell(folder: Path, before: str, *words: object) -> Done:
    """Run a command by way of a shell, which can close its streams and limit its memory."""
    line = " ".join([before, f'"{sys.executable}" -m scgan_train', *map(str, words)])
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, capture_output=True, text=True, env=ENVIRONMENT
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="streams and limits of Linux")
@pytest.mark.parametrize(
    ("closed", "code", "err"),
    [
        ("2>&-", 0, ""),
        ("0<&- 1>&- 2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("1>&-", 0, "3 rows: rows.csv\n"),
        ("--out - 1>&-", 7, "scgan: output: Bad file descriptor\n"),
        ("--out - 1>&- 2>&-", 7, ""),
        ("--cluster 99 2>&-", 2, ""),
    ],
)
def test_no_message_goes_where_a_stream_is_closed(
    model: Path, tmp_path: Path, closed: str, code: int, err: str
) -> None:
    """The next file to be opened would have its number."""
    done = shell(tmp_path, "", "sample --model", model, "-n 3 --out rows.csv", closed)
    assert done == Done(code, "", err)
    assert [path.name for path in tmp_path.iterdir()] == ([] if code else ["rows.csv"])
    if code == 0:
        assert np.loadtxt(tmp_path / "rows.csv", delimiter=",", skiprows=1).shape == (3, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="streams and limits of Linux")
def test_1_out_of_memory(tmp_path: Path) -> None:
    """While numpy is imported, and later."""
    rows = "datasets abs --out rows.npy --n"
    for done in (shell(tmp_path, "ulimit -v 60000;", rows, 10), shell(tmp_path, "", rows, 10**13)):
        done.failed(1, "out of memory", "ulimit -v")
        assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_error(model: Path) -> None:
    with spawn("sample", "-q", "--model", model, "--n", 10**9) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "x,y\n"
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("suffix", [".npy", ".csv", ".npz"])
def test_130_and_143_interrupted_sampling(
    model: Path, tmp_path: Path, number: int, code: int, word: str, suffix: str
) -> None:
    out = tmp_path / f"rows{suffix}"
    with spawn("sample", "--model", model, "--n", 10**10, "--out", out) as process:
        wait_for(lambda: any(path.stat().st_size > 10**5 for path in tmp_path.iterdir()))
        process.send_signal(number)
        done = Done(process.wait(30), "", process.stderr.read())  # type: ignore[union-attr]
    done.failed(code, word)
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_130_and_143_interrupted_training(tmp_path: Path, number: int, code: int) -> None:
    run = tmp_path / "run"
    settings = [*FAST, "--set", "encoder.steps=1000000"]
    with spawn("train", "abs", "--out", run, *settings) as process:
        wait_for(lambda: (run / "history.jsonl").exists())
        process.send_signal(number)
        done = Done(process.wait(30), "", process.stderr.read())  # type: ignore[union-attr]
    done.failed(code)
    assert f"go on with scgan train --resume --out {run}\n" in done.err
    assert not (run / "encoder.safetensors").exists()
    assert not list(run.glob(".*.part"))


def test_130_in_this_process(scgan: Scgan, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "load", interrupted)
    scgan("info", "anything").failed(130, "interrupted")


def test_130_from_within_a_lock(scgan: Scgan, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise RuntimeError("cannot release un-acquired lock")

    monkeypatch.setattr(bundle, "load", torn)
    scgan("info", "anything").failed(130, "interrupted")


def test_debug_shows_the_traceback_and_keeps_the_code(scgan: Scgan, tmp_path: Path) -> None:
    done = scgan("--debug", "info", tmp_path / "none")
    assert done.code == 3
    assert "Traceback" in done.err
    assert "ModelError" in done.err


def test_nothing_is_written_to_stdout_but_data(scgan: Scgan, model: Path) -> None:
    done = scgan("sample", "--model", model, "--n", 3, "--out", "-")
    assert np.loadtxt(io.StringIO(done.out), delimiter=",", skiprows=1).shape == (3, 2)
    assert done.err == ""
