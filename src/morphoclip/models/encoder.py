"""The image encoder: any backbone, with the pixels' way into it attached (DESIGN §3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from morphoclip.models.channel_vit import ChannelViT
from morphoclip.models.covariance_vit import CovarianceViT
from morphoclip.models.features import FEATURE_ENCODERS, FeatureEncoder
from morphoclip.models.heads import JointProjection
from morphoclip.models.norm import over_ranks
from morphoclip.models.per_channel import PerChannel, timm_model
from morphoclip.models.vit_demo import vit_demo

OWN_BACKBONES = {"vit_demo": vit_demo, "covariance_vit": CovarianceViT, "channel_vit": ChannelViT}
FIXED = {"intensity_statistics": "IntensityStatistics", "classical_features": "ClassicalFeatures"}


class Encoder(nn.Module):
    """A backbone that knows its channels, its intensity scaling and how to be built again.

    Attributes:
        embed_dim: D, the size of an embedding.
        channels: names of the C channels in the order of `images`.
        config: plain dict such that `create_encoder(**config)` rebuilds this encoder but for its weights.
        num_prefix_tokens: tokens of `forward_tokens` before the first patch (class and register tokens).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        channels: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        config: dict[str, Any],
        projection: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Identity() if projection is None else JointProjection(backbone.num_features, projection)
        self.embed_dim: int = projection or backbone.num_features
        self.channels = tuple(channels)
        self.config = config
        self.num_prefix_tokens: int = getattr(backbone, "num_prefix_tokens", 0)
        # The config holds them; a second copy in the weights could only disagree.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def scale(self, images: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Intensities to [0, 1]: images (B, C, H, W) of any dtype, low and high (B, C); values outside are clipped."""
        low, high = (limit.to(self.mean.dtype)[..., None, None] for limit in (low, high))
        # One copy, then in place: on a CPU half of the time goes into fresh memory. A channel without contrast
        # (high = low) becomes black and white, not infinite.
        return images.to(self.mean.dtype, copy=True).sub_(low).div_((high - low).clamp_min(1e-6)).clamp_(0, 1)

    def standardise(self, x: Tensor) -> Tensor:
        """Subtract the channel means and divide by the channel deviations of [0, 1] images (B, C, H, W)."""
        return (x - self.mean).div_(self.std)

    def unstandardise(self, x: Tensor) -> Tensor:
        """Standardised images (B, C, H, W) back to [0, 1], to look at."""
        return (x * self.std + self.mean).clamp_(0, 1)

    def preprocess(self, images: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """uint16 crops (B, C, H, W) with their limits (B, C) to what `forward` takes."""
        return self.standardise(self.scale(images, low, high))

    def forward(self, x: Tensor, keep: Tensor | None = None, shown: Tensor | None = None) -> Tensor:
        """Embeddings (B, D) of preprocessed crops (B, C, H, W); `keep` and `shown` as in `forward_tokens`."""
        if keep is None and shown is None:
            return self.projection(self.backbone(x))
        return self.projection(self.backbone.forward_head(self.forward_tokens(x, keep, shown)))

    def forward_tokens(self, x: Tensor, keep: Tensor | None = None, shown: Tensor | None = None) -> Tensor:
        """Normalised tokens before pooling and projection.

        Args:
            x: preprocessed crops (B, C, H, W).
            keep: int64 (B, L'), which patches the transformer sees (the others are masked out); None sees all.
            shown: int64 (B, m), which channels `channel_vit` sees; None shows all. No other backbone takes it.

        Returns:
            (B, P + L', width): P prefix tokens, then the patches in the order of `keep`; of `channel_vit`, those of one
            channel after another. A convolutional backbone has no prefix and gives a token for each place of its last
            feature map, `per_channel` a token a channel.

        Raises:
            TypeError: patches are masked but the backbone is not a timm vision transformer, or channels are left out but
                it is not `channel_vit`.
        """
        vit = self.backbone
        if isinstance(vit, ChannelViT):
            return vit.forward_features(x, keep, shown)
        if shown is not None:
            raise TypeError(f"{type(vit).__name__} sees all channels at once: only channel_vit takes a choice of them")
        if keep is None:
            features = vit.forward_features(x)
            return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features
        if not (hasattr(vit, "blocks") and hasattr(vit, "_pos_embed")):
            raise TypeError(f"{type(vit).__name__} has no patch tokens to mask: use a vision transformer")
        tokens = vit._pos_embed(vit.patch_embed(x))
        prefix, patches = tokens.split([self.num_prefix_tokens, tokens.shape[1] - self.num_prefix_tokens], dim=1)
        patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
        return vit.norm(vit.blocks(vit.norm_pre(torch.cat([prefix, patches], dim=1))))


def create_encoder(
    name: str,
    in_channels: int = 5,
    *,
    channels: Sequence[str] | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    projection: int | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    **backbone_kw,
) -> Encoder:
    """Build an encoder by name.

    Args:
        name: one of `OWN_BACKBONES`, `per_channel`, a `FIXED` extractor, one of `FEATURE_ENCODERS` on cached features, or any timm model (ViT, ResNet, ConvNeXt, …; METHODS §6).
        in_channels: C.
        channels: their names; None takes the first C of DNA, ER, RNA, AGP, Mito.
        image_size: side of a crop in pixels, for backbones with position embeddings.
        mean, std: statistics of [0, 1] images, one number or one a channel; `per_channel` has its backbone's own.
        projection: size of a `JointProjection` as the last layer; None leaves the backbone's own features.
        pretrained: fetch the timm weights of that name; RGB kernels are repeated over C channels and rescaled.
        weights: local file of timm weights for the same purpose.
        backbone_kw: passed on to the backbone (e.g. `drop_path_rate`, `global_pool`, `dynamic_img_size`; of `per_channel`
            what `PerChannel` takes). `trust_remote_code` is obeyed and not kept in the config: no file can say it.

    Raises:
        ValueError: unknown name, or `channels`, `mean` or `std` do not number `in_channels`.
    """
    if channels is None:
        channels = ("DNA", "ER", "RNA", "AGP", "Mito")[:in_channels]
    if name in FEATURE_ENCODERS:
        return FeatureEncoder(name, channels=channels, mean=mean, std=std, **backbone_kw)
    if name in FIXED:  # imported here because they are Encoders themselves
        return getattr(import_module("morphoclip.models.classical"), FIXED[name])(channels=channels, **backbone_kw)
    mean, std = ([float(v)] * in_channels if isinstance(v, int | float) else [float(x) for x in v] for v in (mean, std))
    for what, values in {"channels": channels, "mean": mean, "std": std}.items():
        if len(values) != in_channels:
            raise ValueError(f"encoder {name!r} has in_channels={in_channels} but {what} lists {len(values)}: {values}")
    if name == "per_channel":
        sized = {} if image_size is None else {"image_size": image_size}
        backbone = PerChannel(in_channels, pretrained=pretrained, weights=weights, **sized, **backbone_kw)
        mean, std, backbone_kw = [0.0] * in_channels, [1.0] * in_channels, backbone.rebuild
    elif name in OWN_BACKBONES:
        if pretrained or weights:
            raise ValueError(f"there are no pretrained weights of {name!r}: load a checkpoint of this project instead")
        backbone_kw = _defaults(OWN_BACKBONES[name]) | backbone_kw
        usual = backbone_kw.pop("image_size")
        image_size = usual if image_size is None else image_size
        backbone = OWN_BACKBONES[name](in_channels, image_size=image_size, **backbone_kw)
    elif timm.is_model(name):
        source = {"pretrained_cfg_overlay": {"file": str(weights)}} if weights else {}
        pretrained = pretrained or weights is not None
        options = {"pretrained": pretrained, "in_chans": in_channels, "num_classes": 0, **source, **backbone_kw}
        backbone = over_ranks(timm_model(name, image_size, **options))
    else:
        raise ValueError(
            f"no encoder {name!r}: take one of {sorted([*OWN_BACKBONES, 'per_channel', *FIXED, *FEATURE_ENCODERS])} or a name of timm.list_models()"
        )
    # Weights come from the checkpoint when the encoder is rebuilt, so the config never asks for pretrained ones.
    config = {
        "name": name,
        "in_channels": in_channels,
        "channels": list(channels),
        "image_size": image_size,
        "mean": mean,
        "std": std,
        "projection": projection,
        **backbone_kw,
    }
    return Encoder(backbone, channels=channels, mean=mean, std=std, config=config, projection=projection)


def _defaults(backbone: Callable[..., nn.Module]) -> dict[str, Any]:
    """What a backbone is built with if nothing is said, to be kept in the config: another version may choose otherwise."""
    given = {name: p.default for name, p in signature(backbone).parameters.items() if p.kind is not p.VAR_KEYWORD}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items() if name != "in_channels"}
