"""The interface of towers, which embed prompts or structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn


class Tower(nn.Module):
    """Base class of the towers of the perturbation side, including your own.

    Attributes:
        embed_dim: size of an embedding.
        is_frozen: the tower is not trained, so that its embeddings are computed once.
        rebuild: arguments that rebuild it, without weights, from a folder of `save_architecture`.
    """

    embed_dim: int
    is_frozen: bool = False
    rebuild: dict[str, Any] = {}  # noqa: RUF012  # read only; subclasses set their own

    def tokenize(self, texts: Sequence[str]) -> tuple[Any, ...]:
        """Tokenize all texts once; `take` then selects rows."""
        raise NotImplementedError

    def take(self, tokens: tuple[Any, ...], rows: Tensor) -> tuple[Tensor, ...]:
        """Arguments of `forward` for the texts at `rows` (U,) of the result of `tokenize`."""
        raise NotImplementedError

    def save_architecture(self, folder: str | Path) -> None:
        """Write the files needed for rebuilding, other than weights; by default there are none."""
