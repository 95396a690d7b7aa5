"""Encoder folders that timm reads: `timm.create_model("local-dir:FOLDER" | "hf-hub:OWNER/NAME", pretrained=True)`."""

from __future__ import annotations

from typing import Any

import timm

from morphoclip.models import Encoder, FeatureEncoder

PREFIX = "backbone."  # of timm's weights within an encoder's
# Arguments of `create_encoder` that are no arguments of timm's model.
_OF_ENCODER = {"name", "in_channels", "channels", "image_size", "mean", "std", "projection"}


def timm_settings(encoder: Encoder | FeatureEncoder, size: int) -> dict[str, Any]:
    """The entries of config.json by which timm builds the backbone; its weights have timm's names, without `PREFIX`.

    Args:
        size: height and width of the crops in pixels.

    Raises:
        ValueError: a backbone that timm does not know, or a projection behind it.
    """
    config, name = encoder.config, str(encoder.config["name"])
    if not isinstance(encoder, Encoder) or not timm.is_model(name) or ":" in name:
        raise ValueError(
            f"timm and Hugging Face hold timm's own architectures only, and {name} is not one: use --format onnx or torch_export"
        )
    if config.get("projection") is not None:
        raise ValueError(
            f"timm and Hugging Face hold a backbone only, and this encoder ends in a projection to {encoder.embed_dim} numbers: "
            "use --format onnx or torch_export, or train with method.image.export=backbone"
        )
    arguments: dict[str, Any] = {"in_chans": config["in_channels"]}
    arguments |= {key: value for key, value in config.items() if key not in _OF_ENCODER and value is not None}
    if config.get("image_size") is not None and _takes_size(name):
        arguments["img_size"] = config["image_size"]
    return {
        "architecture": name.partition(".")[0],
        "num_classes": 0,
        "num_features": encoder.embed_dim,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [config["in_channels"], size, size],
            "mean": list(config["mean"]),
            "std": list(config["std"]),
            "num_classes": 0,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        },
    }


def _takes_size(name: str) -> bool:
    """Whether timm's model has an image size; convolutional ones take images of any size."""
    usual = timm.get_pretrained_cfg_value(name, "input_size") or (3, 224, 224)
    try:
        timm.create_model(name, img_size=usual[-1], num_classes=0)
    except TypeError:
        return False
    return True


def load_timm(folder: str) -> Any:
    """timm's model of an encoder folder, in eval mode."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
