"""Which patches of an image stay visible."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_visible(count: int, patches: int, visible: int, generator: torch.Generator) -> Tensor:
    """int64 (count, patches): a random permutation per image, its first `visible` entries sorted.

    The argsort of uniform noise (He et al. 2022). Columns before `visible` are the visible patches, the others are
    masked. Drawn on the CPU for the global batch, to be sliced by rank.

    Raises:
        ValueError: `visible` is not between 1 and `patches`.
    """
    if not 1 <= visible <= patches:
        raise ValueError(f"{visible} of {patches} patches visible: choose a mask ratio that leaves at least one")
    order = torch.rand(count, patches, generator=generator, dtype=torch.float32).argsort(dim=1)
    return torch.cat([order[:, :visible].sort(dim=1).values, order[:, visible:]], dim=1)
