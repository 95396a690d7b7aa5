"""Bags of crops as flat batches of crops, for methods and encoders on single crops; views of crops as pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from morphoclip.batch import Batch
from morphoclip.models import Encoder


def as_crops(batch: Batch) -> Batch:
    """Bags (B, N, C, H, W) to crops (B·N, C, H, W), including padding; a batch of crops is returned unchanged.

    Labels of a bag (perturbation, condition, is_control) are repeated for its crops.
    """
    images = batch.tensor("images")
    if images.ndim == 4:
        return batch
    crops = images.shape[1]
    per_bag = {"perturbation", "condition", "is_control"}
    flat = {
        name: value.repeat_interleave(crops) if name in per_bag else value.flatten(0, 1)
        for name, value in batch.tensors().items()
    }
    return Batch(**flat, has_padding=batch.has_padding)


def first_crops(batch: Batch, count: int) -> Batch:
    """The first `count` crops of a batch, for display."""
    return as_crops(batch).map(lambda tensor: tensor[:count])


def framed(encoder: Encoder, *views: Tensor) -> Tensor:
    """Standardised views (B, C, h, w) stacked vertically in [0, 1], small ones in a black frame."""
    side = max(view.shape[-1] for view in views)
    shown = [encoder.unstandardise(view) for view in views]
    return torch.cat([F.pad(view, (0, side - view.shape[-1], 0, side - view.shape[-2])) for view in shown])
