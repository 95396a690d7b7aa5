"""Schedules against torch's own and against their end points."""

import math
import re
from functools import partial

import pytest
import torch

from morphoclip.training.schedules import (
    constant,
    cosine,
    linear,
    one_cycle,
    ramp,
    stretched,
    warmup_cosine,
    warmup_restarts,
)


@pytest.mark.parametrize("total", [10, 600])
def test_one_cycle_is_torchs(total):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total)
    for step in range(total):
        assert one_cycle(step, total) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        if step < total - 1:
            scheduler.step()


def test_warmup_is_linear_then_cosine():
    assert [warmup_cosine(s, 100, warmup_steps=10) for s in (0, 5, 10)] == pytest.approx([0, 0.5, 1])
    assert warmup_cosine(55, 100, warmup_steps=10, end=0.2) == pytest.approx(0.6)
    assert warmup_cosine(100, 100, warmup_steps=10, end=0.2) == pytest.approx(0.2)


def test_a_warmup_is_given_in_steps_or_as_a_share():
    for step in range(100):
        assert warmup_cosine(step, 100, warmup_share=0.1) == warmup_cosine(step, 100, warmup_steps=10)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"warmup_share": 10.0},
            "warmup_share=10.0 must be a number from 0 to 1; for a number of steps use warmup_steps",
        ),
        ({"warmup_share": math.nan}, "warmup_share=nan"),
        ({"warmup_share": -0.1}, "warmup_share=-0.1"),
        ({"warmup_share": True}, "warmup_share=True"),
        ({"warmup_share": "0.1"}, "warmup_share='0.1'"),
        ({"warmup_steps": 0.1}, "warmup_steps=0.1 must be an integer"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"warmup_steps": True}, "warmup_steps=True"),
        ({"warmup_steps": 10, "warmup_share": 0.1}, "give one of them"),
    ],
)
@pytest.mark.parametrize("schedule", [warmup_cosine, warmup_restarts, one_cycle, partial(ramp, start=0.0, end=1.0)])
def test_a_warmup_that_means_nothing_is_refused(schedule, given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        schedule(0, 100, **given)


def test_linear_cosine_and_constant_ends():
    for schedule in (linear, cosine):
        assert schedule(0, 10, start=0.2, end=0.8) == pytest.approx(0.2)
        assert schedule(5, 10, start=0.2, end=0.8) == pytest.approx(0.5)
        assert schedule(10, 10, start=0.2, end=0.8) == pytest.approx(0.8)
        assert schedule(12, 10, start=0.2, end=0.8) == pytest.approx(0.8)
    assert constant(7, 10, value=0.3) == 0.3


def test_a_ramp_rises_and_stays():
    assert [ramp(s, 100, warmup_share=0.2, start=0.01, end=0.04) for s in (0, 10, 20, 90)] == pytest.approx(
        [0.01, 0.025, 0.04, 0.04]
    )


def test_a_stretched_schedule_is_cut_off_before_its_end():
    for step in (0, 40, 80):
        assert stretched(step, 80, schedule=cosine, factor=1.25) == cosine(step, 100)


def test_restarts_begin_again_at_the_peak():
    schedule = [warmup_restarts(step, 110, warmup_steps=10, cycles=4) for step in range(110)]
    assert schedule[5] == pytest.approx(0.5)
    assert [step for step in range(110) if schedule[step] == 1.0] == [10, 35, 60, 85]
    assert schedule[34] < 0.01
    assert schedule[22] == pytest.approx((1 + math.cos(math.pi * 12 / 25)) / 2)
