"""Files that appear whole or not at all."""

import os

import pytest

from scgan_infer.errors import DataError
from scgan_infer.files import atomic, write_bytes


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


def test_a_link_at_the_target_is_replaced_itself(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "rows.bin").symlink_to(victim)
    write_bytes(tmp_path / "rows.bin", b"mine")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "rows.bin").read_bytes() == b"mine"


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
