"""Classical image features without training: the baseline of trained encoders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.filters import binomial_blur
from morphoclip.models.encoder import Encoder
from morphoclip.schema import CHANNELS

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
# Variance below which a crop is flat and its texture is noise, in units of the field's squared intensity range.
FLAT = 1e-8


class IntensityStatistics(Encoder):
    """Mean, standard deviation, percentiles and foreground fraction of each channel (D = 10 C).

    Pixels are scaled intensities in [0, 1]. The features do not change when the pixels of a crop are permuted.
    """

    def __init__(self, channels: Sequence[str] = CHANNELS) -> None:
        super().__init__(IntensityStatisticsBackbone(len(channels)), **_description("intensity_statistics", channels))


class ClassicalFeatures(Encoder):
    """Texture, localisation and correlation between channels by fixed filters (D = 257 for five channels).

    At four scales: energy, sparsity and skewness of each channel's band, and correlations between the channels' bands
    and between their envelopes. Also granularity, orientation coherence, radial distribution about the crop's centre,
    distribution about the nucleus, and its size and shape. The features are invariant to flips and quarter turns.
    """

    def __init__(self, channels: Sequence[str] = CHANNELS, nuclear_channel: str = "DNA") -> None:
        if nuclear_channel not in channels:
            raise ValueError(f"nuclear_channel={nuclear_channel!r} is not one of the channels {list(channels)}")
        super().__init__(
            ClassicalFeaturesBackbone(len(channels), list(channels).index(nuclear_channel)),
            **_description("classical_features", channels, nuclear_channel=nuclear_channel),
        )


def _description(name: str, channels: Sequence[str], **settings: str) -> dict:
    """Arguments of `Encoder` for features computed on [0, 1] images without standardisation."""
    return {
        "channels": channels,
        "mean": [0.0] * len(channels),
        "std": [1.0] * len(channels),
        "config": {"name": name, "channels": list(channels), **settings},
    }


class IntensityStatisticsBackbone(nn.Module):
    """(B, C, H, W) in [0, 1] to (B, 10 C)."""

    bins = 1024

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.num_features = in_channels * (len(PERCENTILES) + 3)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        mean = pixels.mean(-1)
        deviation = (pixels.square().mean(-1) - mean.square()).clamp_min(0).sqrt()
        return torch.cat([mean, deviation, *self.order_statistics(pixels)], dim=1)

    def order_statistics(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Percentiles (B, 7 C) and the fraction of pixels above a fifth of the field's range (B, C).

        Both come from a histogram with a resolution of 1/1024 of the range; sorting the pixels takes twenty times as long.
        """
        b, c, p = pixels.shape
        level = (pixels * self.bins).long().clamp_(0, self.bins - 1).view(b * c, p)
        level += self.bins * torch.arange(b * c, device=pixels.device)[:, None]
        counts = torch.bincount(level.view(-1), minlength=b * c * self.bins).view(b, c, self.bins)
        cumulative = counts.cumsum(-1)
        ranks = torch.tensor(PERCENTILES, device=pixels.device) / 100 * p
        levels = torch.searchsorted(cumulative, ranks.ceil().long().expand(b, c, -1).contiguous())
        share = 1 - cumulative[..., self.bins // 5] / p
        return ((levels + 0.5) / self.bins).flatten(1).to(pixels.dtype), share.to(pixels.dtype)


class ClassicalFeaturesBackbone(nn.Module):
    """(B, C, H, W) in [0, 1], H and W at least 32, to (B, D); `nuclear_channel` is the index of the DNA stain."""

    levels = 4
    rings = 6
    # Intermediate images of a chunk fit a core's cache; larger chunks run at a third of the speed.
    chunk = 32

    pairs: Tensor

    def __init__(self, in_channels: int, nuclear_channel: int = 0) -> None:
        super().__init__()
        self.nuclear_channel = nuclear_channel
        pairs = torch.triu_indices(in_channels, in_channels, 1)
        self.register_buffer("pairs", pairs, persistent=False)
        with torch.no_grad():
            self.num_features = self.describe(torch.zeros(1, in_channels, 32, 32)).shape[1]

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < 32:
            raise ValueError(f"classical features need crops of at least 32 x 32 pixels, got {tuple(x.shape[-2:])}")
        side = 2 ** (self.levels - 1)
        (h, w), (top, left) = x.shape[-2:], (n % side // 2 for n in x.shape[-2:])
        x = x[..., top : top + h // side * side, left : left + w // side * side]
        return torch.cat([self.describe(part) for part in x.split(self.chunk if x.device.type == "cpu" else len(x))])

    def describe(self, x: Tensor) -> Tensor:
        found = [self.around_centre(x)]
        for level in range(self.levels):
            blurred = binomial_blur(x)
            found.append(self.band(x - blurred))
            if level < 3:
                found.append(orientation_coherence(blurred))
                found.append(granularity(x))
            if level == 1:
                found.append(self.around_nucleus(x, blurred))
            x = pool(blurred, 2)
        found.append(log_deviation_and_correlations(x.flatten(2), self.pairs))
        return torch.cat(found, dim=1)

    def band(self, band: Tensor) -> Tensor:
        """Energy, sparsity, skewness and correlations of a band-passed image (B, C, H, W)."""
        band = band.flatten(2)
        envelope = band.abs()
        rms = band.square().mean(-1).add(FLAT).sqrt()
        sparsity = envelope.mean(-1) / rms
        skewness = (band.square() * band).mean(-1) / rms**3
        linear = log_deviation_and_correlations(band, self.pairs)
        envelopes = log_deviation_and_correlations(envelope, self.pairs)[:, band.shape[1] :]
        return torch.cat([linear, envelopes, sparsity, skewness.asinh()], dim=1)

    def around_centre(self, x: Tensor) -> Tensor:
        """Log mean intensity of each channel, and its log intensity in rings about the crop's centre relative to that."""
        h, w = x.shape[-2:]
        y = torch.arange(h, device=x.device, dtype=x.dtype) - (h - 1) / 2
        z = torch.arange(w, device=x.device, dtype=x.dtype) - (w - 1) / 2
        radius = (y[:, None].square() + z.square()).sqrt() / (min(h, w) / 2)
        ring = (radius * self.rings).long().clamp_max(self.rings - 1).view(-1)
        mask = F.one_hot(ring, self.rings).to(x.dtype)
        return ring_profile(x.flatten(2), (mask / mask.sum(0)).expand(len(x), -1, -1))

    def around_nucleus(self, x: Tensor, blurred: Tensor) -> Tensor:
        """Distribution of each channel about the nuclei, and the nuclei's area, perimeter-to-area ratio and elongation."""
        dna = blurred[:, self.nuclear_channel : self.nuclear_channel + 1]
        low, high = dna.amin((-2, -1), keepdim=True), dna.amax((-2, -1), keepdim=True)
        nucleus = (dna > (low + high) / 2).to(x.dtype)
        grown, previous = nucleus, nucleus
        masks = [nucleus, nucleus - shrink(nucleus)]
        for steps in (1, 2, 4):
            for _ in range(steps):
                grown = grow(grown)
            masks.append(grown - previous)
            previous = grown
        masks.append(1 - grown)
        mask = torch.cat(masks, 1).flatten(2).transpose(1, 2)
        size = mask.sum(1, keepdim=True)
        area = size[..., 0] / mask.shape[1]
        outline = (size[..., 1] / size[..., 0].clamp_min(1)).sqrt()
        return torch.cat([ring_profile(x.flatten(2), mask / size.clamp_min(1)), area.sqrt(), outline], dim=1)


def ring_profile(pixels: Tensor, mask: Tensor) -> Tensor:
    """Log mean intensity (B, C), and log intensity in each mask relative to it (B, C R).

    pixels: (B, C, P); mask: (B, P, R), each column summing to 1 (or 0: then the feature is that of a dark ring).
    """
    mean = pixels.mean(-1, keepdim=True)
    inside = torch.log((pixels @ mask + 0.01) / (mean + 0.01))
    return torch.cat([torch.log(mean + 0.01).flatten(1), inside.flatten(1)], dim=1)


def log_deviation_and_correlations(pixels: Tensor, pairs: Tensor) -> Tensor:
    """Log standard deviations (B, C) and the Fisher-transformed correlations of channel pairs (B, C (C - 1) / 2)."""
    pixels = pixels - pixels.mean(-1, keepdim=True)
    covariance = pixels @ pixels.transpose(1, 2) / pixels.shape[-1]
    variance = covariance.diagonal(dim1=1, dim2=2) + FLAT
    a, b = pairs
    correlation = covariance[:, a, b] / (variance[:, a] * variance[:, b]).sqrt()
    return torch.cat([variance.log() / 2, (correlation * 0.999).atanh()], dim=1)


# Shifted slices throughout: on a CPU they are several times faster than padding, pooling and depthwise convolution.


def pool(x: Tensor, size: int) -> Tensor:
    """Means of size x size squares; H and W are multiples of size."""
    x = reduce(torch.add, [x[..., i::size, :] for i in range(size)])
    return reduce(torch.add, [x[..., i::size] for i in range(size)]).mul_(1 / size**2)


def orientation_coherence(x: Tensor) -> Tensor:
    """Energy-weighted mean coherence of gradient orientations within 3 x 3 pixels, 0..1, (B, C)."""
    falling, rising = x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:]
    # The largest centred part that 3 x 3 squares tile, so that a flip maps squares onto squares.
    top, left = (2 * (side % 3) % 3 for side in falling.shape[-2:])
    falling, rising = (t[..., top : t.shape[-2] - top, left : t.shape[-1] - left] for t in (falling, rising))
    a, b, c = pool(falling.square(), 3), pool(rising.square(), 3), pool(falling * rising, 3)
    agreement = ((a - b).square() + 4 * c.square()).sqrt()
    return agreement.sum((-2, -1)) / ((a + b).sum((-2, -1)) + FLAT)


def granularity(x: Tensor) -> Tensor:
    """Log fraction of the intensity in structures smaller than a 3 x 3 square (removed by an opening), (B, C)."""
    removed = x[..., 2:-2, 2:-2] - widen(-widen(-x))
    return torch.log((removed.mean((-2, -1)) + 1e-4) / (x.mean((-2, -1)) + 0.01))


def widen(x: Tensor) -> Tensor:
    """Maximum over each 3 x 3 square inside the image: (..., H, W) to (..., H - 2, W - 2)."""
    x = torch.maximum(torch.maximum(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])
    return torch.maximum(torch.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])


def grow(mask: Tensor) -> Tensor:
    """Dilation of a mask by a 3 x 3 square."""
    return widen(F.pad(mask, (1, 1, 1, 1)))


def shrink(mask: Tensor) -> Tensor:
    """Erosion of a mask by a 3 x 3 square; pixels beyond the border count as foreground."""
    return 1 - grow(1 - mask)
