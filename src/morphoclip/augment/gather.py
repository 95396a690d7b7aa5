"""Pixels of each image of a batch, chosen by index: one kernel on a GPU, whatever each image's choice is."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_pixels(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Pixel (y, x) of every channel for each output pixel.

    Args:
        images: (B, C, H, W).
        y, x: int64, broadcast to (B, h, w), the row and the column in the image of each output pixel.

    Returns:
        (B, C, h, w).
    """
    b, c = (torch.arange(length, device=images.device) for length in images.shape[:2])
    return images[b[:, None, None, None], c[:, None, None], y[:, None], x[:, None]]
