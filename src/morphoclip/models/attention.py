"""Attention maps of vision transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from morphoclip.models.covariance_vit import CovarianceViT
from morphoclip.models.encoder import Encoder
from morphoclip.models.features import FeatureEncoder
from morphoclip.models.per_channel import PerChannel


@torch.no_grad()
def attention_maps(encoder: Encoder, x: Tensor, block: int = -1) -> Tensor:
    """The attention to each patch, (B, heads, h, w), scaled to a mean of 1 per map.

    It is the attention from the class token or, without one, the mean over all patches. Other prefix tokens are left
    out, and the channels of `channel_vit` are summed. `per_channel` sees each stain separately and gives one map per
    channel, the mean over its heads: (B, C, h, w).

    Args:
        encoder: a vision transformer of `create_encoder`, in eval mode.
        x: preprocessed crops (B, C, H, W).
        block: number of the transformer block; −1 is the last.

    Raises:
        ValueError: as in `check_attention`, or the blocks have no attention among all patches.
    """
    check_attention(encoder, block)
    backbone, vit = encoder.backbone, _transformer(encoder)
    alone = isinstance(backbone, PerChannel)  # its transformer sees B·C square images
    if isinstance(backbone, PerChannel) and backbone.is_hugging_face:
        matrix, patch_size = _of_hugging_face(vit, block, lambda: encoder(x)), vit.config.patch_size
    else:
        matrix, patch_size = _of_timm(vit.blocks[block].attn, lambda: encoder(x)), vit.patch_embed.patch_size
    if alone and len(matrix) == x.shape[0] * x.shape[1]:
        matrix = matrix.unflatten(0, x.shape[:2]).mean(dim=2)  # (B, C, N, N)
    size = (backbone.image_size,) * 2 if alone else x.shape[-2:]
    patch_size = (patch_size,) * 2 if isinstance(patch_size, int) else patch_size
    grid = [side // patch for side, patch in zip(size, patch_size, strict=True)]
    tokens, patches = matrix.shape[-1], grid[0] * grid[1]
    prefix = getattr(vit, "num_prefix_tokens", tokens - patches)
    if len(matrix) != len(x) or not 0 <= prefix < tokens or (tokens - prefix) % patches:
        raise _unsuited(vit)
    has_class_token = prefix and getattr(vit, "cls_token", True) is not None
    asking = matrix[:, :, :1] if has_class_token else matrix[:, :, prefix:]
    maps = asking.mean(dim=2)[:, :, prefix:].unflatten(2, (-1, *grid)).sum(dim=2)
    return maps / maps.mean(dim=(2, 3), keepdim=True)


def check_attention(encoder: Encoder | FeatureEncoder, block: int = -1) -> Encoder:
    """Return `encoder`; raise ValueError unless it is a vision transformer on pixels and has this block."""
    if isinstance(encoder, FeatureEncoder):
        raise ValueError(
            f"{encoder.config['name']} takes cached features, not pixels: give the encoder that computed them "
            "(per_channel, …). For the weight of each crop use `morphoclip embed … --attention`"
        )
    vit = _transformer(encoder)
    if isinstance(encoder.backbone, PerChannel) and encoder.backbone.is_hugging_face:
        count = getattr(vit.config, "num_hidden_layers", 0)
    else:
        blocks = getattr(vit, "blocks", ())
        count = len(blocks) if all(hasattr(getattr(part, "attn", None), "attn_drop") for part in blocks) else 0
    if not count:
        raise _unsuited(vit)
    if not -count <= block < count:
        raise ValueError(f"block {block} does not exist: the encoder has {count}, 0 to {count - 1}; -1 is the last")
    return encoder


def _transformer(encoder: Encoder) -> Any:
    """The transformer inside an encoder: `vit` of `covariance_vit`, `model` of `per_channel`, else the backbone."""
    backbone = encoder.backbone
    if isinstance(backbone, CovarianceViT):
        return backbone.vit
    return backbone.model if isinstance(backbone, PerChannel) else backbone


def _unsuited(vit: nn.Module) -> ValueError:
    return ValueError(
        f"{type(vit).__name__} has no attention among all patches (convolutions and windowed attention have none): "
        "use a plain vision transformer (ViT, DeiT, DINOv2, DINOv3, BEiT, EVA)"
    )


def _of_timm(attention: Any, run: Callable[[], object]) -> Tensor:
    """The attention probabilities (B, heads, N, N) of a timm layer during `run`."""
    seen: list[Tensor] = []
    hook = attention.attn_drop.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    fused, attention.fused_attn = (
        getattr(attention, "fused_attn", False),
        False,
    )  # the fused kernel has no attention matrix
    try:
        run()
    finally:
        hook.remove()
        attention.fused_attn = fused
    (matrix,) = seen
    if matrix.ndim != 4 or matrix.shape[1] != attention.num_heads or matrix.shape[2] != matrix.shape[3]:
        raise _unsuited(attention)
    return matrix


def _of_hugging_face(model: Any, block: int, run: Callable[[], object]) -> Tensor:
    """As `_of_timm` for a Hugging Face model, which returns the attention of all blocks."""
    seen: list[Tensor] = []
    hooks = [
        model.register_forward_pre_hook(lambda m, a, kw: (a, kw | {"output_attentions": True}), with_kwargs=True),
        model.register_forward_hook(lambda m, a, output: seen.append(output.attentions[block])),
    ]
    usual, model.config._attn_implementation = model.config._attn_implementation, "eager"
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
        model.config._attn_implementation = usual
    (matrix,) = seen
    return matrix
