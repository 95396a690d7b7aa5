"""Runs that are interrupted or killed end as runs that were not: the same weights to the bit, the same curves."""

from __future__ import annotations

import os
import random
import signal

import pytest

from tests.reliability.commands import (
    STEPS,
    TINY,
    assert_same_weights,
    begin,
    curves,
    end,
    record,
    start,
    wait_for_step,
)

POLITE = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


def disturb(outputs, straight, name: str, seed: int) -> None:
    """Interrupt a run by each signal and kill it once, at random steps; it must end as `straight`.

    The kill may lose the steps since the last checkpoint, which is at most 5 steps old.
    """
    draw, run = random.Random(seed), outputs / "demo" / name
    first = [*TINY, f"output_dir={outputs}", f"run_id={name}", "callbacks.checkpoint.every_n_train_steps=5"]
    at = 0
    for number, sent in enumerate([*draw.sample(POLITE, 3), signal.SIGKILL]):
        process = begin(*(first if number == 0 else [f"resume={run}"]))
        at = draw.randint(at + 1, min(at + 6, STEPS - 4 + number))
        wait_for_step(process, run, at)
        os.kill(process.pid, sent)
        status, output = end(process)
        if sent == signal.SIGKILL:
            assert status == -signal.SIGKILL
            assert record(run)["state"] == "running"
            continue
        assert status == 128 + sent, output
        assert f"uv run train.py resume={run}" in output
        known = record(run)
        assert (known["state"], known["reason"]) == ("interrupted", f"interrupted by {sent.name}")
        assert known["step"] >= at
        at = known["step"]
    output = start(f"resume={run}")
    assert "run.lock was left by process" in output  # of the killed one
    assert int(output.split("goes on at step ")[1].split(":")[0]) >= max(known["step"], (at - 1) // 5 * 5)
    assert record(run)["state"] == "finished"
    assert_same_weights(run, straight)
    assert curves(run) == curves(straight)


def test_a_run_interrupted_three_times_and_killed_once_ends_like_one_that_was_not(outputs, straight):
    disturb(outputs, straight, "disturbed", seed=int.from_bytes(os.urandom(2)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_ten_runs_disturbed_at_random_steps_end_like_one_that_was_not(outputs, straight, seed):
    disturb(outputs, straight, f"disturbed-{seed}", seed)


def test_a_time_limit_saves_and_ends(outputs):
    run = outputs / "demo/limited"
    status, output = end(
        begin(*TINY, f"output_dir={outputs}", "run_id=limited", "trainer.max_steps=100000", "max_time=00:00:12")
    )
    assert status == 124, output
    assert "max_time is over" in output
    assert record(run)["state"] == "interrupted"
    assert record(run)["step"] > 0


def test_two_ranks_end_together_and_go_on(outputs):
    base = [*TINY, f"output_dir={outputs}"]
    start(*base, "run_id=two-straight", ranks=2)
    run = outputs / "demo/two"
    process = begin(*base, "run_id=two", ranks=2)
    wait_for_step(process, run, 7)
    os.kill(process.pid, signal.SIGTERM)  # torchrun passes it on
    _, output = end(process)
    assert record(run)["state"] == "interrupted", output
    assert "torchrun --nproc-per-node 2 train.py resume=" in output
    start(f"resume={run}", ranks=2)
    assert_same_weights(run, outputs / "demo/two-straight")
    assert curves(run) == curves(outputs / "demo/two-straight")


def test_torchrun_restarts_a_run_where_it_was(outputs):
    name = "restarted"
    base = [*TINY, f"output_dir={outputs}", f"name={name}", "callbacks.checkpoint.every_n_train_steps=4"]
    process = begin(*base, ranks=2, restarts=1)
    folder = outputs / name
    while not list(folder.glob("*/run.json")):
        assert process.poll() is None
    run = next(folder.iterdir())
    wait_for_step(process, run, 10)
    os.kill(record(run)["pid"], signal.SIGKILL)  # rank 0; torchrun then starts both again
    status, output = end(process)
    assert status == 0, output
    assert list(folder.iterdir()) == [run]
    assert record(run)["restarts"] == [0, 1]
    assert_same_weights(run, outputs / "demo/two-straight")
