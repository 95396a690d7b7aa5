from __future__ import annotations

import json

import pytest
import torch

from benchmarks.gpu.run import Run
from benchmarks.on_gpu import SECTIONS


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, tmp_path / "scratch", "cpu", tiny=True, minutes=10.0, facts={"card": "CPU"})


def kept(run: Run) -> dict:
    return json.loads((run.out / "on_gpu.json").read_text())["sections"]


FINDS = {
    "ceilings": {"tflops_per_s"},
    "steps": {"crops_per_s", "tflops_per_s", "ratio", "rest_ratio"},
    "fed": {"samples_per_s", "data_wait", "read_per_s", "share"},
    "clip": {"mib", "seconds", "loss"},
    "embedding": {"embed_per_s", "forward_per_s", "share"},
    "profile": {"step_s", "device_busy", "waits"},
}


@pytest.mark.parametrize("name", FINDS)
def test_a_section_of_the_card_s_figures_runs_on_a_cpu(run, name):
    pytest.importorskip("lightly")
    run.enter(name, 10.0)
    SECTIONS[name][0](run)
    first = kept(run)[name]["rows"][0]
    assert "error" not in first
    assert FINDS[name] <= set(first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["views", "compiled"])
def test_a_slow_section_runs_on_a_cpu(run, name):
    run.enter(name, 10.0)
    SECTIONS[name][0](run)
    assert not run.failed


def test_a_row_that_fails_is_recorded_and_the_next_one_goes_on(run):
    run.enter("fed", 10.0)
    for number in range(2):
        with run.row(number=number) as record:
            record(quotient=1 / number)
    first, second = kept(run)["fed"]["rows"]
    assert first == {"number": 0, "error": "ZeroDivisionError: division by zero"}
    assert second == {"number": 1, "quotient": 1.0}
    assert run.failed


def test_rows_without_time_left_are_left_out(run):
    run.enter("fed", 0.0)
    assert list(run.timely([("vit_base", "dino")])) == []
    assert kept(run)["fed"]["rows"] == [{"row": "('vit_base', 'dino')", "left_out": "no time left"}]


def test_a_batch_beyond_the_card_s_memory_is_halved_until_it_fits(run):
    chosen = run.settings("vit_base", "mae")
    chosen.batch = 12

    def measure(given):
        if given.batch > 4:
            raise torch.OutOfMemoryError
        return {"crops": given.batch}

    assert run.halving(measure, chosen) == {"batch": 3, "crops": 3}
