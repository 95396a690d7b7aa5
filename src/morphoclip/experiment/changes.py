"""What differs between the config of a run and that of a start that goes on with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Not part of a run's config: set by the start itself or by the launcher.
OF_THE_START = (
    "folder",
    "run_id",
    "resume",
    "max_time",
    "dry_run",
    "rank_timeout",
    "trainer.devices",
    "trainer.num_nodes",
)
# Parts that decide what a checkpoint contains and means, and the keys in them that do not.
FIXED = ("encoder", "perturbation", "text", "method")
FREE = ("method.global_view", "method.local_view", "method.monitor_every")
BATCH = "data.loader.global_batch_size"
LISTED = 12


def flat(config: DictConfig) -> dict[str, Any]:
    """Dotted key -> value of the composed config of a run, as JSON would return them; references stay references."""
    content = OmegaConf.to_container(config, resolve=False)
    values = {key: value for key, value in _leaves(content, "") if not _within(key, OF_THE_START)}
    return json.loads(json.dumps(values, default=str))


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict) or not node:
        yield prefix, node
        return
    for key, value in node.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def _within(key: str, parts: tuple[str, ...]) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line "key: old -> new" for each key that differs."""
    keys = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    return [f"{key}: {_shown(before, key)} -> {_shown(now, key)}" for key in keys]


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"


def check_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a change of what a checkpoint contains.

    Raises:
        ValueError: the method, the encoder or the prompts differ.
    """
    refused = [line for line in changes(before, now) if _is_fixed(line.partition(":")[0])]
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise ValueError(
            f"a run cannot go on with another method, encoder or prompts ({'; '.join(refused[:3])}{more}): start a new run, "
            "or leave these out"
        )


def _is_fixed(key: str) -> bool:
    return _within(key, FIXED) and not _within(key, FREE)


def describe(before: Mapping[str, Any], now: Mapping[str, Any], ranks: tuple[int, int]) -> list[str]:
    """Lines for the log: what a run goes on with differently, and what stays exact.

    Args:
        ranks: their number before and now.
    """
    lines = changes(before, now)
    shown = [f"changed: {line}" for line in lines[:LISTED]]
    if len(lines) > LISTED:
        shown.append(f"… and {len(lines) - LISTED} more")
    if ranks[0] != ranks[1]:
        shown.append(
            f"ranks: {ranks[0]} -> {ranks[1]}; batches, random draws, rates and losses stay the same, weights differ by the "
            "rounding of sums"
        )
    if before.get(BATCH) != now.get(BATCH):
        shown.append(
            "the batch size changed: the epoch goes on behind the crops already seen, in the same order; rates by step do not "
            "change by themselves"
        )
    return shown
