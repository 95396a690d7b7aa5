"""Reconstruction of masked patches (He et al. 2022)."""

from __future__ import annotations

from torch import Tensor, nn

from morphoclip.distributed import all_reduced_sum, world_size
from morphoclip.losses.precision import full_precision


class MAELoss(nn.Module):
    """Mean squared error on masked patches over normalised pixels (He et al. 2022).

    Args:
        norm_pix: subtract each patch's mean and divide by the root of its unbiased variance + 1e-6.
        per_channel: normalise each channel of a patch separately, so that a bright stain does not dominate.
        channels: C; a patch is ordered as (p, p, C), channels last.
    """

    def __init__(self, norm_pix: bool = True, per_channel: bool = False, channels: int = 5) -> None:
        super().__init__()
        self.norm_pix = norm_pix
        self.per_channel = per_channel
        self.channels = channels

    @full_precision
    def forward(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Loss of pred against target, both (B, L, p²C), on the patches where mask (B, L) is 1 (or True).

        The mean is over the masked patches of all ranks, whose numbers may differ; without masked patches it is 0.

        Raises:
            ValueError: shapes that do not match.
        """
        if pred.shape != target.shape or mask.shape != pred.shape[:2]:
            raise ValueError(
                f"pred and target must be (B, L, p²C) and mask (B, L), not {tuple(pred.shape)}, {tuple(target.shape)} "
                f"and {tuple(mask.shape)}"
            )
        if self.norm_pix:
            target = self.normalise(target)
        mask = mask.to(pred.dtype)
        errors = (pred - target).square().mean(dim=2)  # (B, L)
        return world_size() * (errors * mask).sum() / all_reduced_sum(mask.sum()).clamp_min(1)

    def normalise(self, patches: Tensor) -> Tensor:
        """Normalise patches (B, L, p²C) to mean 0 and variance 1 per patch, or per patch and channel."""
        pixels, mean, deviation = self._moments(patches)
        return ((pixels - mean) / deviation).flatten(2)

    def to_pixels(self, pred: Tensor, target: Tensor) -> Tensor:
        """Predicted patches (B, L, p²C) in the units of the target's pixels, for display."""
        if not self.norm_pix:
            return pred
        pixels, mean, deviation = self._moments(target)
        return (pred.view_as(pixels) * deviation + mean).flatten(2)

    def _moments(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (B, L, pixels, groups) with mean and standard deviation (B, L, 1, groups); a group is one channel or all."""
        pixels = patches.unflatten(2, (-1, self.channels)) if self.per_channel else patches[..., None]
        return pixels, pixels.mean(dim=2, keepdim=True), (pixels.var(dim=2, keepdim=True) + 1e-6).sqrt()
