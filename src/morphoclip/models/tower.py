"""The interface of towers: what reads prompts or structures into one vector each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn


class Tower(nn.Module):
    """Base of the towers of the perturbation side; one of your own subclasses it.

    Attributes:
        embed_dim: size of an embedding.
        is_frozen: nothing of it trains, so that its embeddings are computed once.
        rebuild: keywords that, with a folder that `save_architecture` wrote, rebuild it but for its weights.
    """

    embed_dim: int
    is_frozen: bool = False
    rebuild: dict[str, Any] = {}  # noqa: RUF012  # read only; a tower that needs some sets its own

    def tokenize(self, texts: Sequence[str]) -> tuple[Any, ...]:
        """What `take` picks rows from: the texts read once, by the tower's own tokenizer."""
        raise NotImplementedError

    def take(self, tokens: tuple[Any, ...], rows: Tensor) -> tuple[Tensor, ...]:
        """Arguments of `forward` for the texts at `rows` (U,) of what `tokenize` gave."""
        raise NotImplementedError

    def save_architecture(self, folder: str | Path) -> None:
        """Write the files, other than weights, that rebuilding needs; a tower without such writes none."""
