"""Starts the commands a user types as child processes, waits for a step, and reads what a run left."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
STEPS = 24
# A demo of a few wells with three epochs of eight steps, a row of curves and no score.
TINY = [
    "data.screen.n_genes=4",
    "data.screen.compounds_per_gene=4",
    "data.screen.dmso_wells=8",
    "data.screen.nontargeting_wells=6",
    "data.screen.lacz_wells=6",
    "data.screen.field_size=128",
    "data.loader.global_batch_size=8",
    "data.loader.sampler_options.bag_size=2",
    "data.loader.sampler_options.steps_per_epoch=8",
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=1",
    "score=none",
]
PATIENCE = 240  # seconds


def command(*arguments: str, ranks: int = 1, restarts: int = 0) -> list[str]:
    """The command line of a start on one or several ranks."""
    strategy = [] if any(argument.startswith("trainer=") for argument in arguments) else ["trainer=ddp"]
    if ranks == 1:
        return [sys.executable, "train.py", *arguments]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={ranks}",
        f"--max-restarts={restarts}",
    ]
    return [*torchrun, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "train.py", *strategy, *arguments]


def environment() -> dict[str, str]:
    """That of a user outside of a cluster; with one thread, since the rounding of sums depends on their number."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "TORCHELASTIC_"))}
    return {**own, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def begin(*arguments: str, env: dict[str, str] | None = None, **launch: int) -> subprocess.Popen[str]:
    """Start training; its output is read by `end`."""
    return subprocess.Popen(
        command(*arguments, **launch),
        cwd=ROOT,
        env={**environment(), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit status, output) of a process that ends by itself."""
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def start(*arguments: str, **options) -> str:
    """Train to the end and return the output."""
    status, output = end(begin(*arguments, **options))
    assert status == 0, output
    return output


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Return when the run has logged `step`."""
    until = time.monotonic() + PATIENCE
    while last_step(run) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, f"{run} did not reach step {step}"
        time.sleep(0.01)


def last_step(run: Path) -> int:
    rows = curves(run)
    return int(rows[-1]["step"]) if rows else -1


def curves(run: Path) -> list[dict[str, str]]:
    """The rows of a run's curves without what depends on time."""
    path = run / "logs/metrics.csv"
    if not path.is_file():
        return []
    text = path.read_text()
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [{k: v for k, v in row.items() if k and not k.startswith("speed/")} for row in rows]


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def assert_same_weights(run: Path, straight: Path) -> None:
    expected, found = weights(straight), weights(run)
    assert expected.keys() == found.keys()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []
