"""Output appears complete or not at all, and an interrupted writer's successor ends in the same bytes."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
import pytest
from suffixes import PACKAGES, READY, SUFFIXES

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, ModelError, UsageError
from scgan_infer.rows.formats import open_writer, read_table
from scgan_infer.rows.opening import FORMATS
from scgan_infer.rows.shards import ShardWriter

COLUMNS = (
    Column("x"),
    Column("n", "integer"),
    Column("k", "category", categories=("one", "two, three")),
)
N = 5000


def rows(n=N):
    rng = np.random.default_rng(5)
    return np.column_stack(
        [rng.standard_normal(n), rng.integers(-9, 9, n), rng.integers(0, 2, n)]
    ).astype(np.float32)


def whole(path, job=""):
    with open_writer(path, COLUMNS, N, job=job) as writer:
        writer.write(rows())


def stop(writer, saved=0, more=0, error=KeyboardInterrupt):
    """Write some rows, save them (None: don't), write some more, and be stopped."""
    values, safe = rows(), saved or 0
    with suppress(error), writer:
        writer.write(values[:safe])
        file = writer if hasattr(writer, "checkpoint") else writer.part
        if saved is not None and file is not None:
            file.checkpoint()
        writer.write(values[safe : safe + more])
        raise error


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def same(a, b):
    return a.read_bytes() == b.read_bytes()


def test_no_format_stamps_the_time(tmp_path):
    paths = [(tmp_path / f"one{suffix}", tmp_path / f"two{suffix}") for suffix in READY]
    for one, _ in paths:
        whole(one)
    time.sleep(2.1)  # a zip's clock ticks every two seconds
    for one, two in paths:
        whole(two)
        assert same(one, two), one.suffix


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_appears_only_when_it_is_complete(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b"what was there before")
    with open_writer(path, COLUMNS, N) as writer:
        writer.write(rows())
        assert path.read_bytes() == b"what was there before"
    assert names(tmp_path) == [path.name]
    assert len(read_table(path, columns=COLUMNS)) == N


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_what_was_stopped_early(tmp_path, suffix, error):
    stop(open_writer(tmp_path / f"rows{suffix}", COLUMNS, N), saved=None, more=100, error=error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("announced", [N, None])
def test_the_bytes_do_not_depend_on_how_rows_come(tmp_path, suffix, announced):
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    whole(one)
    with open_writer(two, COLUMNS, announced) as writer:
        for piece in np.array_split(rows(), [1, 1, 700, 4096]):
            writer.write(piece)
    assert same(one, two)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("saved", [0, 1234, N])
def test_resuming_ends_in_the_same_bytes(tmp_path, suffix, saved):
    straight, path, values = tmp_path / f"straight{suffix}", tmp_path / f"rows{suffix}", rows()
    whole(straight, job="seed 1")
    stop(open_writer(path, COLUMNS, N, job="seed 1"), saved, more=77)
    assert not path.exists()
    with open_writer(path, COLUMNS, N, resume=True, job="seed 1") as writer:
        assert writer.done == saved
        writer.write(values[saved:])
    assert same(path, straight)
    assert names(tmp_path) == sorted([path.name, straight.name])


def test_an_error_leaves_something_to_resume_only_where_that_was_asked_for(tmp_path):
    path = tmp_path / "rows.npy"
    stop(open_writer(path, COLUMNS, N), 100, error=ValueError)
    assert names(tmp_path) == []
    stop(open_writer(path, COLUMNS, N, resume=True), 100, error=ValueError)
    assert names(tmp_path) == [".rows.npy.part", ".rows.npy.state"]


def test_only_the_beginning_of_the_same_job_is_gone_on_with(tmp_path):
    path = tmp_path / "rows.npy"
    stop(open_writer(path, COLUMNS, N, job="seed 1"))
    for count, columns, job in (
        (N, COLUMNS, "seed 2"),
        (N + 1, COLUMNS, "seed 1"),
        (N, COLUMNS[:2], "seed 1"),
    ):
        with pytest.raises(DataError, match="is the beginning of other rows"):
            open_writer(path, columns, count, resume=True, job=job).__enter__()
    whole(path, job="seed 2")
    assert names(tmp_path) == [path.name]


def test_a_state_that_lies_is_refused(tmp_path):
    path, part, state = (
        tmp_path / name for name in ("rows.npy", ".rows.npy.part", ".rows.npy.state")
    )
    stop(open_writer(path, COLUMNS, N), N)
    os.truncate(part, 1000)
    with pytest.raises(DataError, match="shorter than"):
        open_writer(path, COLUMNS, N, resume=True).__enter__()
    part.touch()
    state.write_text("{")
    with pytest.raises(DataError, match="can't be read"):
        open_writer(path, COLUMNS, N, resume=True).__enter__()


@pytest.mark.parametrize("shards", [False, True])
def test_resuming_goes_on_with_no_part_that_has_changed(tmp_path, shards):
    """Its size alone tells nothing: another's part may be as long."""
    if shards:
        begun_shards(tmp_path / "out")
        part = tmp_path / "out" / ".part-000002.npy.part"
        again = ShardWriter(tmp_path / "out", COLUMNS, N, 2000, resume=True)
    else:
        stop(open_writer(tmp_path / "rows.npy", COLUMNS, N), 1000)
        part = tmp_path / ".rows.npy.part"
        again = open_writer(tmp_path / "rows.npy", COLUMNS, N, resume=True)
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with pytest.raises(DataError, match=r"part: has changed; remove it and .*state"):
        again.__enter__()


WRITE = """
import sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from test_formats_write import COLUMNS, N, open_writer, rows
import scgan_infer.rows.writers
scgan_infer.rows.writers.CHECKPOINT_SECONDS = 0.0
with open_writer(Path({file!r}), COLUMNS, N, resume=True) as writer:
    print(writer.done, flush=True)
    for first in range(writer.done, N, 100):
        writer.write(rows()[first : first + 100])
        time.sleep({pause})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
@pytest.mark.parametrize("suffix", [".npy", ".csv", ".npz"])
def test_killed_again_and_again_it_ends_in_the_same_bytes(tmp_path, suffix):
    straight, path = tmp_path / f"straight{suffix}", tmp_path / f"rows{suffix}"
    whole(straight)
    rng, reached = np.random.default_rng(len(suffix)), []
    for pause in (0.01, 0.01, 0.0):
        code = WRITE.format(path=sys.path, file=str(path), pause=pause)
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with writer:
            reached.append(int(writer.stdout.readline()))
            if pause:
                time.sleep(0.05 + 0.1 * rng.random())
                writer.kill()
                assert not path.exists()
    assert reached == sorted(reached)
    assert reached[-1] > 0
    assert same(path, straight)
    assert names(tmp_path) == sorted([path.name, straight.name])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk(tmp_path, suffix):
    pytest.importorskip("resource")
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from test_formats_write import COLUMNS, DataError, open_writer, rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
values = rows(60_000)
try:
    with open_writer(Path({str(tmp_path)!r}) / "rows{suffix}", COLUMNS, len(values)) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        writer.write(values)
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "can't be written" in done.stdout
    assert done.stdout.count("\n") == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_places_that_cannot_be_written(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    for path in (
        tmp_path / f"folder{suffix}",
        tmp_path / "none" / f"rows{suffix}",
        tmp_path / (300 * "x" + suffix),
    ):
        with pytest.raises(DataError, match=str(tmp_path)), open_writer(path, COLUMNS, N):
            pass
    assert names(tmp_path) == [f"folder{suffix}"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(DataError, match="Permission denied"),
        open_writer(tmp_path / "rows.npy", COLUMNS, N),
    ):
        pass


def test_values_that_are_no_numbers_are_never_written(tmp_path):
    values = rows()
    values[3, 1] = np.nan
    with (
        pytest.raises(ModelError, match="column 'n': the model gave nan"),
        open_writer(tmp_path / "rows.npy", COLUMNS, N) as writer,
    ):
        writer.write(values)
    assert names(tmp_path) == []


def test_an_unknown_suffix(tmp_path):
    with pytest.raises(UsageError, match=r"'\.txt'"):
        open_writer(tmp_path / "rows.txt", COLUMNS, N)


@pytest.mark.parametrize("count", [N - 1, N + 1])
def test_another_number_of_rows_than_announced(tmp_path, count):
    writer = open_writer(tmp_path / "rows.npy", COLUMNS, count).__enter__()
    writer.write(rows())
    with pytest.raises(DataError, match=f"{N} rows came where {count} were announced"):
        writer.__exit__(None, None, None)
    assert names(tmp_path) == []


@pytest.mark.skipif(not find_spec("fcntl"), reason="no file locks")
def test_two_writers_of_one_file(tmp_path):
    path = tmp_path / "rows.npy"
    with open_writer(path, COLUMNS, N) as writer:
        with pytest.raises(DataError, match="another process is writing it"):
            open_writer(path, COLUMNS, N).__enter__()
        writer.write(rows())
    np.testing.assert_array_equal(np.load(path), rows())


@pytest.mark.parametrize(
    ("suffix", "name"), [(".h5", "a/b"), (".h5", "."), (".fits", "Länge"), (".fits", "x" * 100)]
)
def test_names_that_a_format_cannot_hold_fail_at_once(tmp_path, suffix, name):
    pytest.importorskip(PACKAGES[FORMATS[suffix].extra])
    with pytest.raises(DataError, match="rename"):
        open_writer(tmp_path / f"rows{suffix}", (Column("x"), Column(name)), N)
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "name", ["pt (GeV), lead", "a.b", "a:b", "x[0]", "1e3", "*", "E", 'a"b', "a'b"]
)
def test_odd_names_come_back(tmp_path, suffix, name):
    path, columns = tmp_path / f"rows{suffix}", (Column("e"), Column(name), Column("other"))
    with open_writer(path, columns, N) as writer:
        writer.write(rows())
    table = read_table(path, columns=columns)
    assert table.names == ("e", name, "other")
    np.testing.assert_array_equal(table.values, rows())


def test_standard_output_is_csv(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    with open_writer("-", COLUMNS, 2) as writer:
        writer.write(np.array([[0.5, 3, 1], [-1, 4, 0]], np.float32))
    assert out.buffer.getvalue().decode() == 'x,n,k\n0.5,3,"two, three"\n-1,4,one\n'
    with pytest.raises(UsageError, match="standard output"):
        open_writer("-", COLUMNS, 2, resume=True)


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".npz"])
@pytest.mark.parametrize("announced", [N, None])
def test_shards_hold_the_rows_and_their_hashes(tmp_path, suffix, announced):
    folder = tmp_path / "out"
    with ShardWriter(folder, COLUMNS, announced, 2000, suffix=suffix, start=10**9) as writer:
        for piece in np.array_split(rows(), 7):
            writer.write(piece)
        assert not (folder / "manifest.json").exists()
    files = manifest(folder)["files"]
    assert [(file["start"] - 10**9, file["rows"]) for file in files] == [
        (0, 2000),
        (2000, 2000),
        (4000, 1000),
    ]
    assert names(folder) == sorted(["manifest.json", *(file["name"] for file in files)])
    for file in files:
        content = (folder / file["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        part = read_table(folder / file["name"], columns=COLUMNS).values
        first = file["start"] - 10**9
        np.testing.assert_array_equal(part, rows()[first : first + file["rows"]])


def test_shards_take_numbers_of_any_width(tmp_path):
    with ShardWriter(tmp_path / "a", COLUMNS, 300, 200, start=200) as writer:
        writer.write(rows(300))
    few, many = np.uint8(200), np.int16(300)
    with ShardWriter(tmp_path / "b", COLUMNS, many, few, start=few) as writer:
        writer.write(rows(300))
    assert manifest(tmp_path / "b") == manifest(tmp_path / "a")
    for fault in ({"start": 1.5}, {"start": True}):
        with pytest.raises(UsageError, match="start must be a whole number"):
            ShardWriter(tmp_path / "c", COLUMNS, 300, 200, **fault)


@pytest.mark.parametrize("saved", [0, 1000, 2000, 4500, N])
def test_shards_resume_to_the_same_bytes(tmp_path, saved):
    straight, folder, values = tmp_path / "straight", tmp_path / "out", rows()
    with ShardWriter(straight, COLUMNS, N, 2000) as writer:
        writer.write(values)
    stop(ShardWriter(folder, COLUMNS, N, 2000, resume=True), saved)
    with ShardWriter(folder, COLUMNS, N, 2000, resume=True) as writer:
        assert writer.done == saved
        writer.write(values[saved:])
    assert names(folder) == names(straight)
    for name in names(straight):
        assert (folder / name).read_bytes() == (straight / name).read_bytes()


def begun_shards(folder):
    """Leave two complete files of 2000 rows and a checkpoint of the third."""
    stop(ShardWriter(folder, COLUMNS, N, 2000, resume=True), 4500)
    assert ".part-000002.npy.state" in names(folder)


@pytest.mark.parametrize("gone", [0, 1])
def test_resuming_makes_the_files_that_are_gone(tmp_path, gone):
    straight, folder, values = tmp_path / "straight", tmp_path / "out", rows()
    with ShardWriter(straight, COLUMNS, N, 2000) as writer:
        writer.write(values)
    begun_shards(folder)
    (folder / f"part-{gone:06d}.npy").unlink()
    with ShardWriter(folder, COLUMNS, N, 2000, resume=True) as writer:
        assert writer.done == 2000 * gone
        writer.write(values[writer.done :])
    assert names(folder) == names(straight)
    assert all(same(folder / name, straight / name) for name in names(straight))


@pytest.mark.parametrize("fault", ["emptied", "cut", "swapped", "a bit", "link", "folder"])
def test_resuming_certifies_no_file_that_has_changed(tmp_path, fault):
    folder = tmp_path / "out"
    begun_shards(folder)
    first, second = (folder / f"part-00000{k}.npy" for k in range(2))
    whole_bytes = first.read_bytes()
    if fault == "swapped":
        first.rename(tmp_path / "kept")
        second.rename(first)
        (tmp_path / "kept").rename(second)
    elif fault == "link":
        first.rename(tmp_path / "kept")
        first.symlink_to(tmp_path / "kept")
    elif fault == "folder":
        first.unlink()
        first.mkdir()
    else:
        cut = {"emptied": 0, "cut": 1000, "a bit": -1}[fault]
        last = bytes([whole_bytes[-1] ^ 1]) if fault == "a bit" else b""
        first.write_bytes(whole_bytes[:cut] + last)
    before = names(folder)
    with pytest.raises(
        DataError, match=r"part-000000\.npy: (has changed|can't be read).*; remove it"
    ):
        ShardWriter(folder, COLUMNS, N, 2000, resume=True).__enter__()
    assert names(folder) == before


@pytest.mark.parametrize("files", [None, 3, [3], [{"name": "part-000000.npy"}]])
def test_a_note_of_files_that_is_none_is_refused(tmp_path, files):
    folder = tmp_path / "out"
    begun_shards(folder)
    state = folder / ".manifest.json.state"
    state.write_text(json.dumps({**json.loads(state.read_text()), "files": files}))
    with pytest.raises(DataError, match="can't be read"):
        ShardWriter(folder, COLUMNS, N, 2000, resume=True).__enter__()


def test_shards_leave_nothing_behind_an_error_and_touch_nothing_that_was_there(tmp_path):
    folder = tmp_path / "out"
    stop(ShardWriter(folder, COLUMNS, N, 100), saved=None, more=550, error=ValueError)
    assert names(tmp_path) == []
    folder.mkdir()
    (folder / "thesis.tex").touch()
    with pytest.raises(DataError, match="not empty"):
        ShardWriter(folder, COLUMNS, N, 100).__enter__()
    assert names(folder) == ["thesis.tex"]


def test_a_complete_folder_is_left_alone(tmp_path):
    with ShardWriter(tmp_path / "out", COLUMNS, N, 2000) as writer:
        writer.write(rows())
    with pytest.raises(DataError, match="is complete"):
        ShardWriter(tmp_path / "out", COLUMNS, N, 2000, resume=True).__enter__()


def test_a_planted_link_is_never_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for planted in (".rows.npz.part", ".rows.npz.new"):
        (tmp_path / planted).symlink_to(victim)
    with pytest.raises(DataError, match="is a link to"):
        whole(tmp_path / "rows.npz")
    (tmp_path / ".rows.npz.part").unlink()
    (tmp_path / ".rows.npz.part").hardlink_to(victim)
    with pytest.raises(DataError, match="not a file that you alone have"):
        whole(tmp_path / "rows.npz")
    (tmp_path / ".rows.npz.part").unlink()
    whole(tmp_path / "rows.npz")
    assert victim.read_bytes() == b"precious"


def test_a_row_is_tried_where_nobody_could_have_planted_a_link(tmp_path):
    pytest.importorskip("pyarrow")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".rows.parquet.new.parquet").symlink_to(victim)
    whole(tmp_path / "rows.parquet")
    assert victim.read_bytes() == b"precious"
    assert names(tmp_path) == [".rows.parquet.new.parquet", "rows.parquet", "victim"]


def test_a_link_or_pipe_at_the_target_is_neither_followed_nor_replaced(tmp_path):
    (tmp_path / "rows.npy").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "rows.csv")
    for name, words in (("rows.npy", "is a link to"), ("rows.csv", "is a pipe or device")):
        with pytest.raises(DataError, match=words):
            whole(tmp_path / name)
    assert names(tmp_path) == ["rows.csv", "rows.npy"]


def test_a_planted_state_is_not_gone_on_with(tmp_path):
    path, state = tmp_path / "rows.npy", tmp_path / ".rows.npy.state"
    stop(open_writer(path, COLUMNS, N), 1000)
    state.rename(tmp_path / "elsewhere")
    state.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link to"):
        open_writer(path, COLUMNS, N, resume=True).__enter__()
