"""Schedules: pure functions of (step, total steps), so that a resumed run needs no scheduler's state.

Those of learning rate and weight decay give a factor of the peak value. `warmup` is a number of steps if an int, a share of the run if a float.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def as_steps(span: int | float, total: int) -> float:
    """Steps of a span that is a number of them if an int, a share of the run if a float."""
    return span if isinstance(span, int) else span * total


def constant(step: int, total: int, *, value: float = 1.0) -> float:
    """The same value at every step."""
    return value


def linear(step: int, total: int, *, start: float = 1.0, end: float = 0.0) -> float:
    """From `start` at step 0 to `end` at step `total`."""
    return start + (end - start) * min(step / total, 1.0)


def cosine(step: int, total: int, *, start: float = 1.0, end: float = 0.0) -> float:
    """Half a cosine from `start` at step 0 to `end` at step `total`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(step / total, 1.0))) / 2


def ramp(step: int, total: int, *, warmup: int | float, start: float, end: float) -> float:
    """Linear from `start` to `end` during the warm-up, then constant."""
    rise = as_steps(warmup, total)
    return linear(step, rise, start=start, end=end) if step < rise else end


def warmup_cosine(step: int, total: int, *, warmup: int | float, start: float = 0.0, end: float = 0.0) -> float:
    """Linear from `start` to 1 during the warm-up, then half a cosine to `end` at step `total`."""
    rise = as_steps(warmup, total)
    if step < rise:
        return linear(step, rise, start=start, end=1.0)
    return cosine(step - rise, max(total - rise, 1), start=1.0, end=end)


def one_cycle(step: int, total: int, *, warmup: int | float = 0.3, start: float = 0.04, end: float = 4e-6) -> float:
    """Half a cosine up from `start` to 1, half a cosine down to `end` at the last step (Smith 2018, as torch's)."""
    rise = as_steps(warmup, total) - 1
    if step < rise:
        return cosine(step, rise, start=start, end=1.0)
    return cosine(step - rise, max(total - 1 - rise, 1), start=1.0, end=end)


def stretched(step: int, total: int, *, schedule: Callable[[int, int], float], factor: float) -> float:
    """The first part of a schedule made for `factor` times as many steps, cut off at `total`."""
    return schedule(step, round(total * factor))


def warmup_restarts(step: int, total: int, *, warmup: int | float, cycles: int = 4, end: float = 0.0) -> float:
    """Linear from 0 to 1 during the warm-up, then `cycles` equal half cosines from 1 to `end` (Loshchilov & Hutter 2017)."""
    rise = as_steps(warmup, total)
    if step < rise:
        return linear(step, rise, start=0.0, end=1.0)
    length = max(total - rise, 1) / cycles
    return cosine((step - rise) % length, length, start=1.0, end=end)
