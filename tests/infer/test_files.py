"""Files that appear whole or not at all."""

import os

import pytest

from scgan_infer.errors import DataError
from scgan_infer.files import atomic, open_own, write_bytes


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "rows.bin"
    path.write_bytes(b"old")
    with atomic(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["rows.bin"]


def half_written(path, error):
    with atomic(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "rows.bin"
    write_bytes(path, b"old")
    with pytest.raises(error):
        half_written(path, error)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["rows.bin"]


def test_a_link_in_the_way_is_never_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr("os.urandom", bytes)
    name = f".rows.bin.{bytes(8).hex()}.new"
    (tmp_path / name).symlink_to(victim)
    with pytest.raises(DataError, match="can't write"):
        write_bytes(tmp_path / "rows.bin", b"mine")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / name).is_symlink()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_at_the_target_is_neither_followed_nor_replaced(tmp_path, there):
    victim = tmp_path / "victim"
    if there:
        victim.write_bytes(b"precious")
    (tmp_path / "rows.bin").symlink_to(victim)
    with pytest.raises(DataError, match=r"rows\.bin: is a link to .*victim"):
        write_bytes(tmp_path / "rows.bin", b"mine")
    assert (tmp_path / "rows.bin").is_symlink()
    assert victim.exists() == there


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_at_the_target_stays(tmp_path):
    os.mkfifo(tmp_path / "rows.bin")
    with pytest.raises(DataError, match="is a pipe or device; name a file, or write to -"):
        write_bytes(tmp_path / "rows.bin", b"mine")
    assert (tmp_path / "rows.bin").is_fifo()


def planted(path, kind):
    """Put something in a name's way, as another user of the folder could, and return what must not change."""
    victim = path.with_name("victim")
    victim.write_bytes(b"precious")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "second name":
        path.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root may give files away")
        path.write_bytes(b"")
        os.chown(path, 12345, -1)
    return victim


@pytest.mark.skipif(os.name != "posix", reason="links and owners are those of POSIX")
@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "another's"])
@pytest.mark.parametrize("create", [True, False])
def test_only_a_file_of_ones_own_is_opened_at_a_known_name(tmp_path, kind, create):
    victim = planted(tmp_path / "part", kind)
    with pytest.raises(DataError, match="part: is "):
        open_own(tmp_path / "part", create=create)
    assert victim.read_bytes() == b"precious"
    (tmp_path / "part").unlink()
    with open_own(tmp_path / "part", create=True) as file:
        file.write(b"mine")
    with open_own(tmp_path / "part") as file:
        assert file.read() == b"mine"


def test_temporary_names_are_not_to_be_guessed(tmp_path):
    names = set()
    for _ in range(20):
        with atomic(tmp_path / "rows.bin"):
            names |= set(os.listdir(tmp_path)) - {"rows.bin"}
    assert len(names) == 20


def test_what_a_killed_writer_left_at_a_name_of_its_own_is_removed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    left = tmp_path / "left"
    left.symlink_to(victim)
    write_bytes(tmp_path / "rows.bin", b"mine", new=left)
    assert victim.read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["rows.bin", "victim"]


def test_an_error_names_the_target(tmp_path):
    with pytest.raises(DataError, match=r"can't write .*rows\.bin: No such file"):
        write_bytes(tmp_path / "nowhere" / "rows.bin", b"")
