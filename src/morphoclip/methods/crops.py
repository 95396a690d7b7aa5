"""Bags of crops as a flat batch of crops, for methods and encoders that take one crop at a time."""

from __future__ import annotations

from morphoclip.batch import Batch


def as_crops(batch: Batch) -> Batch:
    """Bags (B, N, C, H, W) to crops (B·N, C, H, W), padding included; a batch of crops passes as it is.

    Labels of the bag (perturbation, condition, is_control) are repeated for its crops.
    """
    images = batch.tensor("images")
    if images.ndim == 4:
        return batch
    crops = images.shape[1]
    per_bag = {"perturbation", "condition", "is_control"}
    flat = {
        name: value.repeat_interleave(crops) if name in per_bag else value.flatten(0, 1)
        for name, value in vars(batch).items()
        if value is not None
    }
    return Batch(**flat)


def first_crops(batch: Batch, count: int) -> Batch:
    """The first crops of a batch, to look at."""
    return as_crops(batch).map(lambda tensor: tensor[:count])
