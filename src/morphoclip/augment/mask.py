"""Which patches of an image stay visible."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_visible(count: int, patches: int, visible: int, generator: torch.Generator) -> Tensor:
    """int64 (count, patches): for each image the patches in random order, the first `visible` of them in their own.

    The argsort of uniform noise (He et al. 2022). Columns before `visible` are the visible patches, those after are
    masked; drawn on the CPU for the global batch, to be sliced by rank.

    Raises:
        ValueError: not between 1 and `patches` are visible.
    """
    if not 1 <= visible <= patches:
        raise ValueError(f"{visible} of {patches} patches visible: choose a mask ratio that leaves at least one")
    order = torch.rand(count, patches, generator=generator).argsort(dim=1)
    return torch.cat([order[:, :visible].sort(dim=1).values, order[:, visible:]], dim=1)
