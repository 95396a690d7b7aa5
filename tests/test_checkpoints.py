"""Checkpoints are whole or not there, frozen weights are kept once, and a torn one falls back to the one before."""

from __future__ import annotations

import resource

import pytest
import torch

from morphoclip.checkpoints import last_checkpoint, read_checkpoint, step_of, write_checkpoint

SIZE = 200_000  # float32 values: much more than the headers of the file


def checkpoint(step: int, frozen: tuple[str, ...] = ()) -> dict:
    state = {"moving": torch.full((SIZE,), float(step)), "still": torch.ones(SIZE)}
    return {"state_dict": state, "global_step": step, "frozen": list(frozen)}


@pytest.fixture
def run(tmp_path):
    for step in (1, 2):
        write_checkpoint(checkpoint(step), tmp_path / "checkpoints/last.ckpt")
    return tmp_path


def test_the_checkpoint_before_is_kept(run):
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert step_of(last_checkpoint(run)) == 2
    assert step_of(run / "checkpoints/previous.ckpt") == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_torn_checkpoint_is_named_and_the_one_before_taken(run, share):
    torn = run / "checkpoints/last.ckpt"
    torn.write_bytes(torn.read_bytes()[: int(share * torn.stat().st_size)])
    with pytest.warns(UserWarning, match=r"checkpoints/last\.ckpt is torn"):
        assert last_checkpoint(run) == run / "checkpoints/previous.ckpt"


def test_a_checkpoint_with_a_changed_byte_is_passed_over(run):
    path = run / "checkpoints/last.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        assert last_checkpoint(run) == run / "checkpoints/previous.ckpt"


def test_a_missing_checkpoint_is_named_and_the_one_before_taken(run):
    (run / "checkpoints/last.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"last\.ckpt is missing"):
        assert last_checkpoint(run) == run / "checkpoints/previous.ckpt"


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert last_checkpoint(tmp_path) is None


def test_frozen_weights_are_written_once_and_read_back(tmp_path):
    for step in (1, 2, 3):
        write_checkpoint(checkpoint(step, ("still",)), tmp_path / "last.ckpt")
    frozen = list(tmp_path.glob("frozen-*.pt"))
    assert len(frozen) == 1
    assert (tmp_path / "last.ckpt").stat().st_size < 1.5 * 4 * SIZE
    assert read_checkpoint(tmp_path / "last.ckpt")["state_dict"].keys() == {"moving", "still"}
    frozen[0].unlink()
    with pytest.raises(ValueError, match=f"{frozen[0].name} beside it"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_write_beyond_the_limit_of_the_disk_leaves_the_last_one_whole(run):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * SIZE, hard))
    try:
        with pytest.raises(OSError, match=r"last\.ckpt|too large"):
            write_checkpoint(checkpoint(3), run / "checkpoints/last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert step_of(last_checkpoint(run)) == 2
