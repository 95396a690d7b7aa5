"""Prompts longer than a text tower reads: how many are cut, and whether that makes two conditions one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def cut_prompts(tower: Any, prompts: Sequence[str], tokens: Any) -> list[str]:
    """Lines for the log on the prompts of a tower that are cut, or read as others are; empty if there are none.

    Args:
        tower: one with `max_length` and `token_counts` cuts; others read everything.
        prompts: its distinct prompts, (U,).
        tokens: what its `tokenize` gave for them.

    Raises:
        ValueError: prompts that differ only behind the cut.
    """
    if not hasattr(tower, "token_counts"):
        return []
    counts = tower.token_counts(prompts)
    is_cut = [count > tower.max_length for count in counts]
    same: dict[bytes, list[int]] = {}
    for number, key in enumerate(_keys(*tokens)):
        same.setdefault(key, []).append(number)
    shared = [numbers for numbers in same.values() if len({prompts[n] for n in numbers}) > 1]
    by_cut = [numbers for numbers in shared if any(is_cut[n] for n in numbers)]
    if by_cut:
        first, second = (prompts[n] for n in by_cut[0][:2])
        raise ValueError(
            f"{sum(map(len, by_cut))} prompts are equal once they are cut to max_length={tower.max_length} tokens, e.g. "
            f"{_end(first)!r} and {_end(second)!r}; the longest has {max(counts)} tokens: set text.max_length to that if the tower "
            "allows it, or shorten the template"
        )
    lines = []
    if any(is_cut):
        lines.append(
            f"{sum(is_cut)} of {len(prompts)} prompts are cut to {tower.max_length} tokens (the longest has {max(counts)}); none "
            "become equal by that"
        )
    if shared:
        lines.append(
            f"{sum(map(len, shared))} prompts have the same tokens as another, e.g. {_end(prompts[shared[0][0]])!r} and "
            f"{_end(prompts[shared[0][1]])!r}: the tokenizer does not know what differs"
        )
    return lines


def _keys(tokens: Tensor, mask: Tensor) -> list[bytes]:
    """Each row's tokens, without padding, as bytes."""
    return [row[seen].numpy().tobytes() for row, seen in zip(tokens.cpu(), mask.cpu(), strict=True)]


def _end(prompt: str, length: int = 60) -> str:
    return prompt if len(prompt) <= length else f"… {prompt[-length:]}"
