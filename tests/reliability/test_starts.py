"""Starts of every kind: sweeps in a job, wrong ones, two at once, and one beside a running one."""

from __future__ import annotations

import hashlib
import re
import shutil

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


def test_a_sweep_in_a_slurm_job_gives_one_encoder_a_run(outputs, straight):
    sweep = [
        "-m",
        *TINY,
        f"output_dir={outputs}",
        "name=sweep",
        "trainer.max_steps=2",
        "seed=0,1",
        "optimizer.lr=1e-3,1e-2",
    ]
    start(*sweep, env={"SLURM_JOB_ID": "17", "SLURM_NTASKS": "1"})
    runs = [outputs / "sweep/slurm-17-1" / str(number) for number in range(4)]
    hashes = {hashlib.sha256((run / "encoder/model.safetensors").read_bytes()).hexdigest() for run in runs}
    assert len(hashes) == 4
    assert len({tuple(record(run)["arguments"]) for run in runs}) == 4
    again = start(f"resume={runs[2]}", "trainer.max_steps=3")  # one run of the sweep
    assert f"{runs[2]} goes on at step 2" in again
    assert "changed: trainer.max_steps: 2 -> 3" in again


def test_a_finished_run_says_so(outputs, straight):
    output = start(f"resume={straight}")
    assert f"{straight} is finished at step {STEPS}: nothing is left to do" in output
    assert record(straight)["state"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resume=straigth"], r"error: there is no run 'straigth' in \S+; nearest: demo/straight"),
        (["resume=straight", "encoder=vit_tiny"], "error: a run cannot go on with another method, encoder or prompts"),
        (["resume=straight", "text.width=8"], "error: a run cannot go on with another method, encoder or prompts"),
        (["resume=straight", "-m", "seed=1,2"], "error: resume= goes on with one run: leave out -m"),
        (["run_id=straight", "resume=straight"], "error: give either resume="),
        (["max_time=soon"], "error: max_time='soon': give HH:MM:SS"),
    ],
)
def test_a_wrong_start_is_one_line_and_leaves_no_folder(outputs, straight, arguments, said):
    before = sorted(path.name for path in (outputs / "demo").iterdir())
    kept = record(straight)
    status, output = end(begin(f"output_dir={outputs}", *arguments))
    assert status in (1, 2)
    lines = [line for line in output.splitlines() if line]
    assert len(lines) == 1, output
    assert re.match(said, lines[0]), output
    assert sorted(path.name for path in (outputs / "demo").iterdir()) == before
    assert record(straight) == kept


def test_a_failed_start_leaves_its_state_and_reason(outputs, straight):
    status, _ = end(begin(*TINY, f"output_dir={outputs}", "run_id=wrong", "optimizer.betas=[2.0,2.0]"))
    assert status == 1
    known = record(outputs / "demo/wrong")
    assert known["state"] == "failed"
    assert "beta" in known["reason"]


def test_a_torn_checkpoint_falls_back_to_the_one_before(outputs, straight):
    run = outputs / "demo/torn"
    shutil.copytree(straight, run)
    torn = run / "checkpoints/last.ckpt"
    torn.write_bytes(torn.read_bytes()[:100_000])
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"failed"'))
    output = start(f"resume={run}")
    assert f"{torn} is torn: it is passed over" in output
    assert "demo/torn goes on at step 16" in output
    assert_same_weights(run, straight)
    assert curves(run) == curves(straight)


def test_a_second_process_in_a_run_is_refused(outputs, straight):
    run = outputs / "demo/busy"
    process = begin(*TINY, f"output_dir={outputs}", "run_id=busy", "trainer.max_steps=100000")
    wait_for_step(process, run, 1)
    status, output = end(begin(*TINY, f"output_dir={outputs}", "run_id=busy"))
    process.kill()
    process.wait()
    assert status == 1
    assert f"error: process {process.pid} on" in output


def test_two_first_starts_at_once_share_one_screen(tmp_path):
    both = [begin(*TINY, f"output_dir={tmp_path}", "trainer.max_steps=2", f"run_id={name}") for name in "ab"]
    outputs = [end(process) for process in both]
    assert [status for status, _ in outputs] == [0, 0], outputs
    assert sum("simulating screen" in output for _, output in outputs) == 1
    assert sum("waiting for process" in output for _, output in outputs) == 1
