"""Encoding of doses, concatenated to the embedding of the molecule (Fradkin et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class DoseEncoding(nn.Module):
    """Doses in µM (U,) to (U, D); a missing dose (NaN) gives zeros. It has no parameters.

    With `kind` none, or without dose encoding, the same molecule at two doses is two classes with the same embedding.

    Args:
        kind: `one_hot` over `levels`; `log10`, one number; `sigmoid` of log10, one number between 0 and 1.
        levels: doses in µM for one_hot; any other dose gives zeros.
    """

    levels: Tensor

    def __init__(self, kind: Literal["none", "one_hot", "log10", "sigmoid"], levels: Sequence[float] = ()) -> None:
        super().__init__()
        if kind not in ("none", "one_hot", "log10", "sigmoid"):
            raise ValueError(f"dose encoding {kind!r}: use none, one_hot, log10 or sigmoid")
        if kind == "one_hot" and not levels:
            raise ValueError("dose encoding one_hot needs levels: list the doses in µM")
        self.kind = kind
        self.register_buffer("levels", torch.tensor(sorted(levels), dtype=torch.float32), persistent=False)
        self.embed_dim = {"none": 0, "one_hot": len(levels)}.get(kind, 1)

    def forward(self, dose: Tensor) -> Tensor:
        known = dose.isfinite() & (dose > 0)
        if self.kind == "none":
            return dose.new_zeros(len(dose), 0)
        if self.kind == "one_hot":
            return torch.isclose(dose[:, None], self.levels.to(dose.dtype), rtol=1e-3).to(dose.dtype)
        value = dose.where(known, 1).log10()
        value = value.sigmoid() if self.kind == "sigmoid" else value
        return value.where(known, 0)[:, None]
