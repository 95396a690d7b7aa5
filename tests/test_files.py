"""A file has its final name only when it is whole."""

from __future__ import annotations

import hashlib

import pytest

from morphoclip.files import sha256_of_file, write_atomically


def write_half(path):
    path.write_text("half")
    raise FileNotFoundError


def write_half_a_folder(path):
    path.mkdir()
    write_half(path / "config.json")


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "new folder" / "table.csv.gz"
    with write_atomically(target) as partial:
        assert partial.name.endswith(".csv.gz")  # pandas chooses compression by it
        partial.write_text("old")
    with pytest.raises(FileNotFoundError), write_atomically(target) as partial:
        write_half(partial)
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["table.csv.gz"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "encoder") as partial:
        write_half_a_folder(partial)
    assert list(tmp_path.iterdir()) == []
    with write_atomically(tmp_path / "encoder") as partial:
        partial.mkdir()
        (partial / "config.json").write_text("{}")
    assert (tmp_path / "encoder/config.json").read_text() == "{}"


def test_a_full_folder_is_not_replaced(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    with pytest.raises(OSError, match="kept"), write_atomically(tmp_path / "kept") as partial:
        partial.mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_a_file_has_the_hash_of_its_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256_of_file(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()
