"""Which patches of an image stay visible."""

from __future__ import annotations

import torch
from torch import Tensor

from morphoclip.augment.draws import Source, uniform


def draw_visible(count: int, patches: int, visible: int, source: Source) -> Tensor:
    """int64 (count, patches): a random permutation per image, its first `visible` entries sorted.

    The argsort of uniform noise (He et al. 2022). Columns before `visible` are the visible patches, the others are
    masked.

    Raises:
        ValueError: `visible` is not between 1 and `patches`.
    """
    if not 1 <= visible <= patches:
        raise ValueError(f"{visible} of {patches} patches visible: choose a mask ratio that leaves at least one")
    order = uniform(source, count, patches).argsort(dim=1, stable=True)  # equal numbers: the same order on every device
    return torch.cat([order[:, :visible].sort(dim=1).values, order[:, visible:]], dim=1)
