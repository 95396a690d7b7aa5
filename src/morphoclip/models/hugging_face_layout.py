"""Weights of Hugging Face's vision transformers under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Part of a name in transformers (on disk, and in memory from version 5 on) -> in timm; the first that matches.
NAMES = [
    (r"^.*embeddings\.cls_token$", "cls_token"),
    (r"^.*embeddings\.register_tokens$", "reg_token"),
    (r"^.*embeddings\.position_embeddings$", "pos_embed"),
    (r"^.*embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^.*layers?\.(\d+)\.(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (r"^.*layers?\.(\d+)\.(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (r"^.*layers?\.(\d+)\.attention\.(?:attention\.)?(query|key|value)\.", r"blocks.\1.attn.\2."),
    (r"^.*layers?\.(\d+)\.attention\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"^.*layers?\.(\d+)\.attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
    (r"^.*layers?\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^.*layers?\.(\d+)\.(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.", r"blocks.\1.mlp.fc1."),
    (r"^.*layers?\.(\d+)\.(?:output\.dense|mlp\.fc2|mlp\.weights_out)\.", r"blocks.\1.mlp.fc2."),
    (r"^(?:[^.]+\.)?(?:layernorm|norm)\.", "norm."),
]
QKV = (("query", "key", "value"), ("q", "k", "v"))


def timm_layout(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a ViT or DINOv2 of transformers as timm's vision transformer holds them; other names are kept.

    Queries, keys and values become one matrix. The position of the class token is added to that token where there are
    register tokens, as timm has no position for these.
    """
    named = {_named(name): value for name, value in weights.items()}
    for attention in {match[1] for name in named if (match := re.match(r"(blocks\.\d+\.attn\.)(?:query|q)\.", name))}:
        for kind in ("weight", "bias"):
            for parts in QKV:
                if all(f"{attention}{part}.{kind}" in named for part in parts):
                    named[f"{attention}qkv.{kind}"] = torch.cat(
                        [named.pop(f"{attention}{part}.{kind}") for part in parts]
                    )
    if "reg_token" in named and "pos_embed" in named:
        named["cls_token"] = named["cls_token"] + named["pos_embed"][:, :1]
        named["pos_embed"] = named["pos_embed"][:, 1:]
    return named


def _named(name: str) -> str:
    for pattern, into in NAMES:
        renamed, count = re.subn(pattern, into, name)
        if count:
            return renamed
    return name
