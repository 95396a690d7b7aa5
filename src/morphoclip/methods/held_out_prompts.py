"""The prompts of held-out conditions, embedded by the towers of a method as they are at that step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from morphoclip.methods.conditions import Conditions

CHUNK = 256  # prompts embedded at a time


class HeldOutPrompts:
    """As `Conditions` for training, with rows among the distinct held-out prompts; never part of a checkpoint.

    Args:
        conditions: the towers. prompts, modalities, doses: one per row of the `PerturbationTable` of the held-out crops.
    """

    def __init__(
        self, conditions: Conditions, prompts: Sequence[str], modalities: Sequence[str], doses: Sequence[str]
    ) -> None:
        self.conditions = conditions
        said = doses if conditions.dose is not None else [""] * len(prompts)
        keys = list(zip(prompts, modalities, said, strict=True))
        self.distinct = sorted({key for key in keys if key[0]})
        number = {key: i for i, key in enumerate(self.distinct)}
        self.rows_on_host = torch.tensor([number.get(key, -1) for key in keys])
        self.embedded = torch.empty(0)

    @torch.no_grad()
    def embed(self) -> Tensor:
        """Embed all distinct prompts (U, E), with the weights of this step, and keep them for `__call__`."""
        found: dict[int, Tensor] = {}
        for group in sorted({key[1:] for key in self.distinct}):
            rows = [row for row, key in enumerate(self.distinct) if key[1:] == group]
            modality, dose = group
            for start in range(0, len(rows), CHUNK):
                part = rows[start : start + CHUNK]
                texts = [self.distinct[row][0] for row in part]
                vectors = self.conditions.embed_texts(texts, modality, float(dose) if dose else None)
                found |= dict(zip(part, vectors, strict=True))
        self.embedded = torch.stack([found[row] for row in range(len(self.distinct))])
        return self.embedded

    @property
    def row(self) -> Tensor:
        """The number of the prompt of each condition, on the device; -1 for empty wells."""
        return self.rows_on_host.to(self.embedded.device)

    def distinct_rows(self, condition: Tensor) -> Tensor:
        """The distinct prompts (U,) of the conditions (B,) of a batch, in order; both on the CPU."""
        return self.rows_on_host[condition].unique()

    def __call__(self, rows: Tensor) -> Tensor:
        """Joint embeddings (U, E) of the prompts at `rows`, as `embed` made them."""
        return self.embedded[rows.to(self.embedded.device)]
