"""Published weights under their authors' names ▶ an encoder folder.

The names and the architecture are read from the authors' code; the files themselves were not at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from morphoclip.export.folder import export_encoder
from morphoclip.models import Encoder, FeatureEncoder, create_encoder
from morphoclip.models.weight_files import read_weights
from morphoclip.models.weight_loading import load_weights
from morphoclip.models.weight_names import below, plain, prefix_of

# Kim et al. 2025: DNA is the last channel in their code; the others are taken in the order of JUMP's files.
KIM_CHANNELS = ("Mito", "AGP", "RNA", "ER", "DNA")
KIM_MEAN = (0.12528631, 0.17596765, 0.14736995, 0.13445823, 0.08349566)
KIM_STD = (0.12594905, 0.15605405, 0.16031352, 0.15751939, 0.15773378)
KIM_SCALING = {"scale_by": "field", "low_percentile": 0.1, "high_percentile": 99.9}
CLIP_HEADS = 8  # of CellCLIP; the weights do not tell
HEAD_WIDTH = 64  # of an attention head in ViT-S and ViT-B


def import_published(kind: str, file: str | Path, to: str | Path, channels: Sequence[str] | None = None) -> Path:
    """Write an encoder folder from a published file of weights.

    Args:
        kind: `cellpaintssl` (DINO, MAE and SimCLR of Kim et al. 2025) or `cellclip` (image side of Lu et al. 2025).
        file: their checkpoint or .safetensors file; no code in it is run.
        to: folder to make.
        channels: names of the channels in the order of their training; `cellclip` needs them.

    Raises:
        FileExistsError: `to` is not empty.
        ValueError: an unknown kind, another file than expected, or no channels.
    """
    if kind not in KINDS:
        raise ValueError(f"import {kind}: choose {' or '.join(KINDS)}; other files start a training by init=FILE")
    encoder, facts = KINDS[kind](read_weights(file), Path(file), channels)
    return export_encoder(encoder, to, trained_on={"imported_from": Path(file).name, **facts})


def cellpaintssl(
    weights: Mapping[str, Tensor], file: Path, channels: Sequence[str] | None
) -> tuple[Encoder | FeatureEncoder, dict[str, Any]]:
    """The ViT of a checkpoint of Kim et al. and facts of its training.

    DINO's is its teacher. Features are the class token; of MAE the mean of the patch tokens before the last norm, as their
    code computes them.
    """
    given = {plain(name): value for name, value in weights.items()}
    prefix = prefix_of(("cls_token", "pos_embed", "patch_embed.proj.weight", "norm.weight"), given)
    vit = below(given, prefix)
    if "patch_embed.proj.weight" not in vit or "pos_embed" not in vit:
        raise ValueError(
            f"{file} is not a checkpoint of Kim et al.: it has no vision transformer, but {', '.join(list(given)[:3])}, …"
        )
    is_mae = any(name.startswith("decoder_embed.") for name in vit)
    method = "MAE" if is_mae else "DINO" if "teacher" in prefix.split(".") else "SimCLR"
    width, count, patch, _ = vit["patch_embed.proj.weight"].shape
    side = round((vit["pos_embed"].shape[1] - 1) ** 0.5)
    names = list(channels or (KIM_CHANNELS if count == len(KIM_CHANNELS) else ()))
    if len(names) != count:
        raise ValueError(f"{file} has {count} input channels: name them in order by --channels")
    statistics: dict[str, Any] = {"mean": list(KIM_MEAN), "std": list(KIM_STD)} if count == len(KIM_MEAN) else {}
    pooled: dict[str, Any] = {"global_pool": "avg", "fc_norm": False, "final_norm": False} if is_mae else {}
    encoder = create_encoder(
        "vit_base_patch16_224" if width >= 768 else "vit_small_patch16_224",
        in_channels=count,
        channels=names,
        image_size=side * patch,
        **statistics,
        patch_size=patch,
        embed_dim=width,
        depth=len({name.split(".")[1] for name in vit if name.startswith("blocks.")}),
        num_heads=max(1, width // HEAD_WIDTH),
        dynamic_img_size=True,
        **pooled,
    )
    assert isinstance(encoder, Encoder)
    load_weights(encoder.backbone, vit, f"{method} of Kim et al. from {file}")
    facts = {
        "method": f"{method} (Kim et al. 2025)",
        "crop_size": side * patch,
        **KIM_SCALING,
        "licence": "CC BY-NC 4.0",
    }
    return encoder, facts


def cellclip(
    weights: Mapping[str, Tensor], file: Path, channels: Sequence[str] | None
) -> tuple[Encoder | FeatureEncoder, dict[str, Any]]:
    """The image side of CellCLIP: gated pooling of channel features, CrossChannelFormer; its text side is left out."""
    given = {plain(name): value for name, value in weights.items()}
    own = below(given, prefix_of(("visual.channel_embed", "visual.proj", "image_pool.V.weight"), given))
    visual, pool = below(own, "visual."), below(own, "image_pool.")
    if "channel_embed" not in visual or "proj" not in visual:
        raise ValueError(
            f"{file} is not a checkpoint of CellCLIP: it has no visual.channel_embed, but {', '.join(list(given)[:3])}, …"
        )
    count, width = visual["channel_embed"].shape
    if channels is None or len(channels) != count:
        raise ValueError(
            f"{file} has {count} channels without names: give them in the order of its training by --channels"
        )
    encoder = create_encoder(
        "cross_channel_former",
        channels=list(channels),
        feature_dim=width,
        embed_dim=visual["proj"].shape[1],
        pool="gated" if pool else "mean",
        pool_hidden=pool["V.weight"].shape[0] if pool else 128,
        pool_bias=bool(pool),
        depth=len({name.split(".")[2] for name in visual if name.startswith("transformer.resblocks.")}),
        heads=CLIP_HEADS,
        layout="clip",
    )
    assert isinstance(encoder, FeatureEncoder)
    what = f"CellCLIP from {file}"
    load_weights(encoder.body, dict(_renamed(name, value) for name, value in visual.items()) | _no_bias(visual), what)
    if pool:
        parts = {"V": "value", "U": "gate", "attention": "score"}
        named = {f"{parts[name.partition('.')[0]]}.{name.partition('.')[2]}": value for name, value in pool.items()}
        load_weights(encoder.pool, named, f"pool of {what}")
    return encoder, {"method": "CellCLIP (Lu et al. 2025)"}


KINDS: dict[str, Callable[..., tuple[Encoder | FeatureEncoder, dict[str, Any]]]] = {
    "cellpaintssl": cellpaintssl,
    "cellclip": cellclip,
}
OF_CLIP = {  # CLIP's names of the parts of a block -> timm's
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "transformer.resblocks.": "blocks.",
    "channel_ln": "norm_input",
    "ln_pre": "norm_pre",
    "ln_post": "norm",
    "channel_embed": "channel_embedding",
}


def _renamed(name: str, value: Tensor) -> tuple[str, Tensor]:
    """A weight of CellCLIP's CrossChannelFormer under the name and in the shape of ours."""
    if name == "proj":
        return "projection.weight", value.T
    if name == "cls_token":
        return name, value[None]
    for old, new in OF_CLIP.items():
        name = name.replace(old, new)
    return name, value


def _no_bias(visual: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"projection.bias": visual["proj"].new_zeros(visual["proj"].shape[1])}
