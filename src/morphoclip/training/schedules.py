"""Schedules: pure functions of (step, total steps), so that a resumed run needs no scheduler state.

Schedules of learning rate and weight decay are factors of the peak value. The length of a warm-up is `warmup_steps`, or
`warmup_share` of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def span_in_steps(name: str, steps: int | None, share: float | None, total: int) -> float:
    """Length in steps of a span given as steps or as a share of the run; 0 if neither is given.

    Args:
        name: name of the arguments in errors: `<name>_steps` and `<name>_share`.
        steps: an integer of at least 0.
        share: a share of the run, from 0 to 1.

    Raises:
        ValueError: both are given, or a value is out of range.
    """
    if steps is not None and share is not None:
        raise ValueError(f"{name}_steps={steps} and {name}_share={share}: give one of them and set the other to null")
    if steps is not None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ValueError(
                f"{name}_steps={steps!r} must be an integer of at least 0; for a share of the run use {name}_share"
            )
        return steps
    if share is None:
        return 0
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"{name}_share={share!r} must be a number from 0 to 1; for a number of steps use {name}_steps")
    return share * total


def constant(step: int, total: int, *, value: float = 1.0) -> float:
    """The same value at every step."""
    return value


def linear(step: float, total: float, *, start: float = 1.0, end: float = 0.0) -> float:
    """From `start` at step 0 to `end` at step `total`."""
    return start + (end - start) * min(step / total, 1.0)


def cosine(step: float, total: float, *, start: float = 1.0, end: float = 0.0) -> float:
    """Half a cosine from `start` at step 0 to `end` at step `total`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(step / total, 1.0))) / 2


def ramp(
    step: int,
    total: int,
    *,
    start: float,
    end: float,
    warmup_steps: int | None = None,
    warmup_share: float | None = None,
) -> float:
    """Linear from `start` to `end` during the warm-up, then constant."""
    rise = span_in_steps("warmup", warmup_steps, warmup_share, total)
    return linear(step, rise, start=start, end=end) if step < rise else end


def warmup_cosine(
    step: int,
    total: int,
    *,
    warmup_steps: int | None = None,
    warmup_share: float | None = None,
    start: float = 0.0,
    end: float = 0.0,
) -> float:
    """Linear from `start` to 1 during the warm-up, then half a cosine to `end` at step `total`."""
    rise = span_in_steps("warmup", warmup_steps, warmup_share, total)
    if step < rise:
        return linear(step, rise, start=start, end=1.0)
    return cosine(step - rise, max(total - rise, 1), start=1.0, end=end)


def one_cycle(
    step: int,
    total: int,
    *,
    warmup_steps: int | None = None,
    warmup_share: float | None = None,
    start: float = 0.04,
    end: float = 4e-6,
) -> float:
    """Half a cosine up from `start` to 1, then half a cosine down to `end` at the last step (Smith 2018, as in torch).

    The warm-up is .3 of the run by default.
    """
    if warmup_steps is None and warmup_share is None:
        warmup_share = 0.3
    rise = span_in_steps("warmup", warmup_steps, warmup_share, total) - 1
    if step < rise:
        return cosine(step, rise, start=start, end=1.0)
    return cosine(step - rise, max(total - 1 - rise, 1), start=1.0, end=end)


def stretched(step: int, total: int, *, schedule: Callable[[int, int], float], factor: float) -> float:
    """The first `total` steps of a schedule for `factor` times as many steps."""
    return schedule(step, round(total * factor))


def warmup_restarts(
    step: int,
    total: int,
    *,
    warmup_steps: int | None = None,
    warmup_share: float | None = None,
    cycles: int = 4,
    end: float = 0.0,
) -> float:
    """Linear from 0 to 1 during the warm-up, then `cycles` equal half cosines from 1 to `end` (Loshchilov & Hutter 2017)."""
    rise = span_in_steps("warmup", warmup_steps, warmup_share, total)
    if step < rise:
        return linear(step, rise, start=0.0, end=1.0)
    length = max(total - rise, 1) / cycles
    return cosine((step - rise) % length, length, start=1.0, end=end)
