"""Names of weights: wrappers taken off, and the prefix under which a file holds the weights of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from torch import Tensor

# Parts of names that wrappers add: DDP and our teachers, torch.compile, FSDP, activation checkpointing, and peft.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer")
AVERAGED = ("teacher", "ema")  # preferred to the student, which has the same names
OPTIONAL = "num_batches_tracked"  # of batch norm; files of old versions of torch lack it


def plain(name: str) -> str:
    """A name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def prefix_of(own: Collection[str], given: Collection[str]) -> str:
    """The prefix with which most of a network's names occur among those of a file; an average before its student."""
    own, counts = set(own), Counter[str]()
    for name in given:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    if not counts:
        return ""
    return max(counts, key=lambda prefix: (counts[prefix], _is_average(prefix), -len(prefix), prefix))


def _is_average(prefix: str) -> bool:
    return any(word in part.split("_") for part in prefix.split(".") for word in AVERAGED)


def below(given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names start with `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
