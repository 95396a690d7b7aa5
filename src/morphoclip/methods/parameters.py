"""Parameter counts of the parts of a method, trainable and total."""

from __future__ import annotations

from torch import nn


def parameter_counts(method: nn.Module) -> dict[str, tuple[int, int]]:
    """Part (`encoder`, `conditions`, …) -> (trainable, total); the last entry is the whole method."""
    parts = {name: list(part.parameters()) for name, part in method.named_children()}
    parts["scalars"] = list(method.parameters(recurse=False))
    parts["whole"] = list(method.parameters())
    return {
        name: (sum(p.numel() for p in values if p.requires_grad), sum(p.numel() for p in values))
        for name, values in parts.items()
        if values
    }


def described(counts: dict[str, tuple[int, int]]) -> str:
    """One line with the trainable and total parameters of each part, in thousands."""
    return "parameters in thousands, trained/total: " + ", ".join(
        f"{name} {trained / 1e3:,.1f}/{total / 1e3:,.1f}" for name, (trained, total) in counts.items()
    )
