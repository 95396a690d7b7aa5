"""A frozen backbone applied to each channel: the transfer-learning baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.models.hugging_face import rgb_statistics, vision_model
from morphoclip.models.lora import with_lora
from morphoclip.models.weight_files import read_weights
from morphoclip.models.weight_loading import load_weights

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PerChannel(nn.Module):
    """A frozen backbone applied to each channel, (B, C, D); the features of a crop are concatenated to (B, C·D).

    An RGB backbone gets each channel repeated three times and standardised as in its training. A channel-agnostic one
    such as OpenPhenom (Kraus et al. 2024) gets all channels of a crop at once as uint8 and standardises them itself. By
    its model card, huggingface.co/recursionpharma/OpenPhenom, `predict(images (B, C, 256, 256))` gives (B, C·D) features
    if `return_channelwise_embeddings` is set. Any Hugging Face model with these two attributes is used in this way.

    The input is [0, 1] images; crops of other sizes are resized.

    Args:
        in_channels: C.
        backbone: a timm name, or `hf:` and the hub id or local folder of a Hugging Face vision model (DINOv2, DINOv3).
        image_size: input size of the backbone in pixels; None for 224, or 256 for channel-agnostic backbones.
        pretrained: load the weights of that name; otherwise the backbone is random.
        weights: local file of timm weights.
        architecture: a Hugging Face config as a dict, to rebuild without the hub; weights then come from a checkpoint.
        rgb: RGB mean and standard deviation the backbone expects; None looks them up by name (ImageNet's for Hugging
            Face folders without an image processor).
        revision: revision of the hub repository, see `vision_model`.
        trust_remote_code: run a Hugging Face model's own code, see `vision_model`. It is never part of `rebuild`, so it
            must be passed again.

    Attributes:
        rebuild: arguments that rebuild this module without its weights and, unless the model has its own code, without
            the hub.

    Raises:
        ValueError: `weights` for a Hugging Face model (give its folder as `backbone`), or as in `vision_model`.
    """

    model: Any  # a timm or Hugging Face model
    rgb_mean: Tensor
    rgb_std: Tensor
    rebuild: dict[str, Any]

    def __init__(
        self,
        in_channels: int,
        backbone: str,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | Path | None = None,
        architecture: Mapping[str, Any] | None = None,
        rgb: Sequence[Sequence[float]] | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self.is_hugging_face = backbone.startswith("hf:")
        self.sees_all_channels = False
        if self.is_hugging_face:
            if weights:
                raise ValueError(f"weights= is for timm models: give the Hugging Face folder as backbone=hf:{weights}")
            path, trust = backbone.removeprefix("hf:"), {"trust_remote_code": trust_remote_code}
            known = architecture
            self.model, architecture, revision = vision_model(
                path, pretrained, architecture=known, revision=revision, **trust
            )
            self.sees_all_channels = hasattr(self.model, "return_channelwise_embeddings")
            if self.sees_all_channels:
                self.model.return_channelwise_embeddings = True
            elif rgb is None:
                rgb = (None if known else rgb_statistics(path, revision, **trust)) or IMAGENET
        self.image_size = image_size or (256 if self.sees_all_channels else 224)
        if not self.is_hugging_face:
            self.model, named = _timm(backbone, self.image_size, pretrained, weights)
            rgb = rgb or named
        self.rebuild = {"backbone": backbone, "architecture": architecture, "rgb": None}
        if revision is not None:
            self.rebuild["revision"] = revision
        if not self.sees_all_channels:
            mean, std = self.rebuild["rgb"] = [list(map(float, values)) for values in rgb or IMAGENET]
            self.register_buffer("rgb_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
            self.register_buffer("rgb_std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.is_adapted = False
        self.requires_grad_(False).eval()
        width = self.forward_features(torch.zeros(1, 1, self.image_size, self.image_size)).shape[2]
        self.feature_shape = (in_channels, width)
        self.num_features = in_channels * width

    def adapt(self, rank: int, alpha: float, dropout: float) -> PerChannel:
        """Add low-rank updates to the backbone, which then train; see `models.lora`."""
        self.model, self.is_adapted = with_lora(self.model, rank, alpha, dropout), True
        return self.eval()

    def train(self, mode: bool = True) -> PerChannel:
        super().train(False)  # frozen: no dropout and no batch statistics
        for name, part in self.named_modules():
            if "lora_dropout" in name:
                part.train(mode)
        return self

    def describe(self, rgb: Tensor) -> Tensor:
        """Features (N, D) of standardised RGB images (N, 3, S, S): the model's pooled output, or else its first token."""
        if not self.is_hugging_face:
            return self.model(rgb)
        output = self.model(pixel_values=rgb)
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)

    def forward_features(self, x: Tensor) -> Tensor:
        """Features (B, C, D), one vector per channel, of [0, 1] images (B, C, H, W); without gradient unless adapted."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.is_adapted):
            return self.describe_channels(x)

    def describe_channels(self, x: Tensor) -> Tensor:
        """`forward_features`, with a gradient where one is asked for."""
        if x.shape[-2:] != (self.image_size, self.image_size):
            x = F.interpolate(x, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        if self.sees_all_channels:
            return self.model.predict((x * 255).round().to(torch.uint8)).unflatten(1, (x.shape[1], -1))
        grey = x.flatten(0, 1)[:, None]  # (B·C, 1, S, S)
        return self.describe((grey - self.rgb_mean) / self.rgb_std).unflatten(0, x.shape[:2])

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, C, D) to (B, C·D)."""
        return features.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def timm_model(name: str, image_size: int | None, **options) -> nn.Module:
    """`timm.create_model` for an image size; convolutional models take any size and have no such argument."""
    if image_size is not None:
        try:
            return timm.create_model(name, img_size=image_size, **options)
        except TypeError:
            pass
    return timm.create_model(name, **options)


def _timm(name: str, image_size: int, pretrained: bool, weights: str | Path | None):
    """(model, (mean, std))."""
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}: use a name of timm.list_models(), or hf:<hub id or folder>")
    model = timm_model(name, image_size, pretrained=pretrained and not weights, num_classes=0)
    if weights:
        load_weights(model, read_weights(weights), f"backbone {name} from {weights}", name=name)
    expected = timm.data.resolve_model_data_config(model)
    return model, (expected["mean"], expected["std"])
