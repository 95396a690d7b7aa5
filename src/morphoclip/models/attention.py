"""How much a vision transformer attends to each patch, to look at."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Attention
from torch import Tensor, nn


@torch.no_grad()
def attention_maps(encoder: nn.Module, x: Tensor, block: int = -1) -> Tensor:
    """How much each patch is attended to, (B, heads, h, w); a map's mean is 1.

    From the class token; of encoders without one, from all patches alike. Other prefix tokens are left out, the
    channels of `channel_vit` are summed.

    Args:
        encoder: a vision transformer of `create_encoder`, in eval mode.
        x: preprocessed crops (B, C, H, W).
        block: which one; −1 is the last.

    Raises:
        TypeError: the encoder's blocks are none of timm's plain vision transformer.
    """
    backbone = getattr(encoder.backbone, "vit", encoder.backbone)  # covariance_vit has one inside
    blocks = getattr(backbone, "blocks", None)
    attention = getattr(blocks[block], "attn", None) if blocks is not None else None
    if not isinstance(attention, Attention):
        raise TypeError(f"{type(backbone).__name__} has no attention to show: take a plain vision transformer")
    seen: list[Tensor] = []
    hook = attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        encoder(x)
    finally:
        hook.remove()
    (tokens,) = seen  # (B, N, D)
    qkv = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(qkv[0]), attention.k_norm(qkv[1])  # (B, heads, N, d)
    prefix = encoder.num_prefix_tokens
    asking = q[:, :, :1] if getattr(backbone, "cls_token", None) is not None else q[:, :, prefix:]
    weights = (asking @ k.transpose(-2, -1) * attention.scale).softmax(dim=-1).mean(dim=2)[:, :, prefix:]
    grid = [side // patch for side, patch in zip(x.shape[-2:], backbone.patch_embed.patch_size, strict=True)]
    maps = weights.unflatten(2, (-1, *grid)).sum(dim=2)
    return maps / maps.mean(dim=(2, 3), keepdim=True)
