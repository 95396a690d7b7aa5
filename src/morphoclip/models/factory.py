"""`create_encoder`: own backbones, fixed extractors, frozen backbones per channel, feature encoders, any timm model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import timm
from torch import nn

from morphoclip.models.channel_vit import ChannelViT
from morphoclip.models.classical import ClassicalFeatures, IntensityStatistics
from morphoclip.models.covariance_vit import CovarianceViT
from morphoclip.models.encoder import Encoder
from morphoclip.models.features import FEATURE_ENCODERS, FeatureEncoder
from morphoclip.models.lora import with_lora
from morphoclip.models.norm import over_ranks
from morphoclip.models.per_channel import PerChannel, timm_model
from morphoclip.models.vit_demo import vit_demo
from morphoclip.models.weight_files import read_weights
from morphoclip.models.weight_loading import load_weights
from morphoclip.schema import CHANNELS

OWN_BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "vit_demo": vit_demo,
    "covariance_vit": CovarianceViT,
    "channel_vit": ChannelViT,
}


FIXED = {"intensity_statistics": IntensityStatistics, "classical_features": ClassicalFeatures}


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
    options: Mapping[str, Any] | None = None,
    lora: Mapping[str, Any] | None = None,
    **backbone_kw: Any,
) -> Encoder | FeatureEncoder:
    """Build an encoder by name.

    Args:
        name: one of `OWN_BACKBONES`, `per_channel`, a `FIXED` extractor, one of `FEATURE_ENCODERS` on cached features, any
            timm model (ViT, ResNet, ConvNeXt, …), or `package.module:Name` of your own backbone: a module with
            `num_features`, built with `in_channels`.
        in_channels: C.
        channels: names of the channels; None for the first C of DNA, ER, RNA, AGP, Mito.
        image_size: crop size in pixels, for backbones with position embeddings.
        mean, std: statistics of [0, 1] images, one number or one per channel; `per_channel` uses those of its backbone.
        projection: size of a `JointProjection` as the last layer; None for the backbone's own features.
        pretrained: load the timm weights of that name; RGB kernels are repeated over C channels and rescaled.
        weights: local file of timm weights, used in the same way; all of the backbone's must be there.
        options: further arguments of the backbone as a mapping, as configs/encoder/timm.yaml gives them.
        lora: `{rank, alpha, dropout}` of low-rank updates of the backbone's linear layers, the only weights of it that train
            (Hu et al. 2021; needs the `peft` extra); alpha is 16 and dropout 0 by default. Export merges them.
        backbone_kw: further arguments of the backbone (e.g. `drop_path_rate`, `global_pool`, `dynamic_img_size`; for
            `per_channel` those of `PerChannel`). `trust_remote_code` is never stored in the config, so that no file can
            set it.

    Raises:
        ValueError: unknown name, or the lengths of `channels`, `mean` or `std` differ from `in_channels`.
    """
    backbone_kw |= options or {}
    if channels is None:
        channels = CHANNELS[:in_channels]
    if lora and (name in FEATURE_ENCODERS or name in FIXED):
        raise ValueError(f"encoder.lora is for networks on images, not for {name}")
    if name in FEATURE_ENCODERS:
        return FeatureEncoder(name, channels=channels, mean=mean, std=std, **backbone_kw)
    if name in FIXED:
        return FIXED[name](channels=channels, **backbone_kw)
    mean, std = ([float(v)] * in_channels if isinstance(v, int | float) else [float(x) for x in v] for v in (mean, std))
    for what, values in {"channels": channels, "mean": mean, "std": std}.items():
        if len(values) != in_channels:
            raise ValueError(f"encoder {name!r} has in_channels={in_channels} but {what} lists {len(values)}: {values}")
    for channel, deviation in zip(channels, std, strict=True):
        if not (deviation > 0 and math.isfinite(deviation)):
            raise ValueError(
                f"channel {channel} has standard deviation {deviation} and cannot be standardised: leave a constant channel "
                "out of the dataset, or correct the statistics"
            )
    backbone: nn.Module
    if name == "per_channel":
        sized: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
        frozen = PerChannel(in_channels, pretrained=pretrained, weights=weights, **sized, **backbone_kw)
        backbone, mean, std, backbone_kw = frozen, [0.0] * in_channels, [1.0] * in_channels, frozen.rebuild
    elif name in OWN_BACKBONES:
        if pretrained or weights:
            raise ValueError(
                f"there are no pretrained weights for {name!r}: start from a run of this project by init=RUN"
            )
        backbone_kw = _defaults(OWN_BACKBONES[name]) | backbone_kw
        usual = backbone_kw.pop("image_size")
        image_size = usual if image_size is None else image_size
        backbone = _built(name, OWN_BACKBONES[name], in_channels, image_size=image_size, **backbone_kw)
    elif is_foreign(name):
        backbone = _built(name, imported(name), in_channels, **backbone_kw)
    elif timm.is_model(name):
        by_name = pretrained and not weights
        settings = {"pretrained": by_name, "in_chans": in_channels, "num_classes": 0, **backbone_kw}
        backbone = over_ranks(_built(name, timm_model, name, image_size, **settings))
        if weights:
            what = f"encoder {name} from {weights}"
            load_weights(backbone, read_weights(weights), what, channels=channels, name=name)
    else:
        raise ValueError(
            f"no encoder {name!r}: use one of {sorted([*OWN_BACKBONES, 'per_channel', *FIXED, *FEATURE_ENCODERS])}, a name "
            "of timm.list_models(), or package.module:Name of your own backbone"
        )
    check_patches(name, backbone, image_size)
    if lora:
        lora = {"alpha": 16.0, "dropout": 0.0, **lora}
        backbone = backbone.adapt(**lora) if isinstance(backbone, PerChannel) else with_lora(backbone, **lora)
        backbone_kw = {**backbone_kw, "lora": lora}
    # A rebuilt encoder gets its weights from the checkpoint, so the config never sets `pretrained`.
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


def check_patches(name: str, backbone: Any, image_size: int | None) -> None:
    """Raise ValueError if patches do not divide the image, whose border the network would not see."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if image_size is not None and patch is not None and any(image_size % side for side in patch):
        raise ValueError(
            f"encoder {name} has patches of {patch[0]} pixels, which do not divide image_size={image_size}: set "
            f"encoder.image_size={image_size // patch[0] * patch[0]}, or encoder.patch_size to a divisor of the crop size"
        )


def is_foreign(name: str) -> bool:
    """Whether `name` is `package.module:Name`, a backbone from another package."""
    return ":" in name


def imported(name: str) -> Callable[..., nn.Module]:
    """The class or function `package.module:Name`, which is called with `in_channels` and further arguments.

    Raises:
        ValueError: it cannot be imported. Importing runs the module's code, so `export.load` asks for consent first.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"encoder {name!r} cannot be imported: put its package on PYTHONPATH ({error})") from error


def _built(name: str, make: Callable[..., nn.Module], *arguments: Any, **options: Any) -> nn.Module:
    """`make(*arguments, **options)`; an unexpected argument raises a ValueError that lists the valid ones."""
    try:
        return make(*arguments, **options)
    except TypeError as error:
        if not any(fault in str(error) for fault in ("unexpected keyword", "multiple values for keyword")):
            raise
        known = f"; it takes {', '.join(_defaults(OWN_BACKBONES[name]))}" if name in OWN_BACKBONES else ""
        wrong = str(error).rpartition("keyword argument ")[2].strip("'\"")
        raise ValueError(
            f"encoder {name} does not take {wrong}{known}, and those of timm's model of its kind"
        ) from error


def _defaults(backbone: Callable[..., nn.Module]) -> dict[str, Any]:
    """Default arguments of a backbone, stored in the config because they may change with the version."""
    given = {name: p.default for name, p in signature(backbone).parameters.items() if p.kind is not p.VAR_KEYWORD}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items() if name != "in_channels"}
