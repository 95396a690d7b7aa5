"""Base class of cross-modal losses: which learned scalars and image spaces they use."""

from __future__ import annotations

from torch import nn


class CrossModalLoss(nn.Module):
    """Base of the losses between images and perturbations.

    Called as `loss(image (B, D), other (U, D), logit_scale, logit_bias=None, *, context=None)`.

    Attributes:
        uses_logit_scale: False for a loss with its own temperature.
        uses_logit_bias: True for a loss that takes a learned bias.
        uses_frozen_images: True for a loss that compares images in a space that is not trained
            (`LossContext.image_frozen`).
    """

    uses_logit_scale = True
    uses_logit_bias = False
    uses_frozen_images = False
