"""What is read when ranks wait in vain: by gloo on two processes, and by the messages of NCCL."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from morphoclip.cli.errors import message_of
from morphoclip.training.timeouts import StallNote, failure_of_ranks, named_timeouts


def run_rank(rank: int, folder: str) -> None:
    """Rank 0 waits for rank 1, which does not come, and then for one that has ended."""
    import os

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=2))
    dist.barrier()
    if rank == 1:
        until = time.monotonic() + 30
        while not (Path(folder) / "timed out").exists() and time.monotonic() < until:
            time.sleep(0.05)
        return
    lines = []
    for _ in range(2):
        try:
            with named_timeouts("00:00:02"):
                dist.all_reduce(torch.ones(1))
        except (TimeoutError, ConnectionError) as error:
            lines.append(f"{type(error).__name__}: {message_of(error)}")
        (Path(folder) / "timed out").touch()
        time.sleep(1.0)
    (Path(folder) / "lines").write_text("\n".join(lines))


def test_a_collective_that_times_out_names_the_rank_the_causes_and_the_remedy(tmp_path):
    torch.multiprocessing.start_processes(run_rank, args=(str(tmp_path),), nprocs=2, start_method="fork")
    lines = (tmp_path / "lines").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        "TimeoutError: rank 0 of 2 waited longer than rank_timeout=00:00:02 for the others: look for"
    )
    assert "raise rank_timeout" in lines[0]
    assert "resume=latest" in lines[0]
    assert "rank 0 of 2 " in lines[1]  # the connection is closed after a time-out


NCCL = "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE) ran for 1800031 milliseconds before timing out."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (dist.DistBackendError(NCCL), "waited longer than rank_timeout=00:30:00"),
        (dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:21, remote process exited or there was a network error"), "lost the connection"),
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"), "lost the connection"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("gloo timed out"), None),
    ],
)  # fmt: skip
def test_only_failures_of_collectives_are_renamed(error, said, monkeypatch):
    monkeypatch.setattr("morphoclip.training.timeouts.world_size", lambda: 4)
    monkeypatch.setattr("morphoclip.training.timeouts.rank", lambda: 3)
    line = failure_of_ranks(error, "00:30:00")
    assert line is None if said is None else line.startswith(f"rank 3 of 4 {said}")
    with pytest.raises(type(error) if said is None else OSError), named_timeouts("00:30:00"):
        raise error


def test_one_process_has_no_others_to_wait_for():
    assert failure_of_ranks(dist.DistBackendError(NCCL), "00:30:00") is None


@pytest.mark.parametrize("steps", [True, False])
def test_a_step_that_does_not_end_is_printed_before_nccl_ends_the_process(steps, monkeypatch, capfd):
    monkeypatch.setattr("morphoclip.training.timeouts.world_size", lambda: 2)
    trainer = type("Trainer", (), {"global_step": 41})()
    note = StallNote(0.4, "00:00:00")
    note.on_train_start(trainer, None)
    for _ in range(10):
        time.sleep(0.08)
        if steps:
            note.on_train_batch_end(trainer, None)
    note.on_train_end(trainer, None)
    said = capfd.readouterr().err
    assert said.startswith("rank 0 of 2: step 41 was the last to end") if not steps else said == ""
