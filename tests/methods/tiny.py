"""Batches and methods small enough to train in a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from morphoclip.batch import Batch
from morphoclip.methods.clip import CLIP
from morphoclip.methods.cwa_msn import CWAMSN
from morphoclip.methods.dino import DINO
from morphoclip.methods.mae import MAE
from morphoclip.methods.simclr import SimCLR

ENCODER = {"name": "vit_demo", "image_size": 16, "embed_dim": 16, "depth": 1, "heads": 2, "stem_widths": [4]}
LINEAR_VIT = {  # a linear patch embedding, as MAE needs
    **{"name": "vit_tiny_patch16_224", "image_size": 16, "patch_size": 4},
    **{"embed_dim": 16, "depth": 1, "num_heads": 2},
}
OPTIMIZER = {
    "_target_": "morphoclip.training.optimizers.AdamW",
    "lr": 1e-2,
    "lr_schedule": {"_target_": "morphoclip.training.schedules.one_cycle", "_partial_": True},
}
AUGMENT = {
    "_target_": "morphoclip.augment.Compose",
    "transforms": [{"_target_": "morphoclip.augment.Flip"}, {"_target_": "morphoclip.augment.Color"}],
}
# Conditions 0 and 1 are two doses whose prompt says the same; condition 4 is held out.
PROMPTS = ["paracetamol in U2OS", "paracetamol in U2OS", "aspirin in U2OS", "DMSO", None]
MIXED_PROMPTS = ["CCO", "c1ccccc1", "loss of PLK1", "gain of PLK1", None]
MIXED = ["compound", "compound", "crispr", "orf", "compound"]
CONDITION = torch.tensor([0, 2, 3, 1, 0, 3])
PERTURBATION = torch.tensor([0, 1, 2, 0, 0, 2])


def simclr(**kw: Any) -> SimCLR:
    torch.manual_seed(0)
    loss = {"_target_": "morphoclip.losses.NTXentLoss"}
    return SimCLR(kw.pop("encoder", ENCODER), OPTIMIZER, AUGMENT, **{"loss": loss, "head": [16, 8], **kw})


TEXT = {
    "_target_": "morphoclip.models.SmallTextEncoder",
    **{"width": 8, "depth": 1, "heads": 2, "vocabulary_size": 300, "dropout": 0.0},
}
MORGAN = {"_target_": "morphoclip.models.MorganEncoder", "bits": 64, "widths": [16]}
TOWERS = {"towers": [{"modalities": ["compound"], "tower": MORGAN}, {"modalities": ["crispr", "orf"], "tower": TEXT}]}


def clip(**kw: Any) -> CLIP:
    torch.manual_seed(0)
    settings = {
        "prompts": PROMPTS,
        "text": TEXT,
        "loss": {"_target_": "morphoclip.losses.InfoNCELoss"},
        "image_loss": {"loss": {"_target_": "morphoclip.losses.SupConLoss"}, "weight": 0.5},
        "embed_dim": 8,
        "image": {"pool_hidden": 4},
    }
    return CLIP(kw.pop("encoder", ENCODER), OPTIMIZER, AUGMENT, **(settings | kw))


FORMER = {"name": "cross_channel_former", "channels": ["DNA", "ER"], "feature_dim": 6, "depth": 1, "heads": 2}
PROFILE_MLP = {"name": "profile_mlp", "channels": ["DNA", "ER"], "feature_dim": 6, "width": 8, "blocks": 1}


def feature_clip(**kw: Any) -> CLIP:
    """CLIP on cached features of two channels, with compounds and reagents read by their own towers."""
    return clip(**({"encoder": FORMER, "prompts": MIXED_PROMPTS, "modalities": MIXED, "text": TOWERS} | kw))


def view(size: int) -> dict[str, Any]:
    crop = {"_target_": "morphoclip.augment.RandomCrop", "size": size}
    return {"_target_": "morphoclip.augment.Compose", "transforms": [crop, *AUGMENT["transforms"]]}


CHANNEL_VIT = {"name": "channel_vit", "image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "heads": 2}
TWO_SIZES = ENCODER | {"dynamic_img_size": True}
MOMENTUM = {"_target_": "morphoclip.training.schedules.cosine", "_partial_": True, "start": 0.9, "end": 1.0}
RAMP = {
    "_target_": "morphoclip.training.schedules.ramp",
    "_partial_": True,
    "warmup_steps": 2,
    "start": 0.02,
    "end": 0.04,
}


def dino(**kw: Any) -> DINO:
    torch.manual_seed(0)
    settings = {"local_views": 2, "out_dim": 12, "head": {"hidden": 16, "bottleneck": 8}, "koleo_weight": 0.1}
    return DINO(kw.pop("encoder", TWO_SIZES), OPTIMIZER, view(12), view(8), RAMP, MOMENTUM, **(settings | kw))


def mae(**kw: Any) -> MAE:
    torch.manual_seed(0)
    settings = {"decoder": {"width": 8, "depth": 1, "heads": 2}}
    return MAE(kw.pop("encoder", LINEAR_VIT), OPTIMIZER, AUGMENT, **(settings | kw))


def cwa_msn(**kw: Any) -> CWAMSN:
    torch.manual_seed(0)
    settings = {"local_views": 2, "mask_ratio": 0.3, "prototypes": 5, "head": [16, 8]}
    return CWAMSN(kw.pop("encoder", TWO_SIZES), OPTIMIZER, view(12), view(8), MOMENTUM, **(settings | kw))


METHODS = {"simclr": simclr, "clip": clip, "dino": dino, "mae": mae, "cwa_msn": cwa_msn}


def bags(own: slice = slice(None), size: int = 4) -> Batch:
    """Six bags of four crops on two plates, the last crop of bag 1 padding; or of the last `size` crops of each."""
    draws = torch.Generator().manual_seed(3)
    images = torch.randint(0, 1000, (6, 4, 5, 16, 16), generator=draws).to(torch.uint16)
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[1, 3] = False
    batch = Batch(
        perturbation=PERTURBATION,
        condition=CONDITION,
        is_control=CONDITION == 3,
        images=images,
        mask=mask,
        low=torch.zeros(6, 4, 5),
        high=torch.full((6, 4, 5), 1000.0),
        plate=torch.tensor([0, 1, 0, 1]).repeat(6, 1),
    )
    return batch.map(lambda tensor: (tensor[own, -size:] if tensor.ndim > 1 else tensor[own]).clone())


def feature_bags(own: slice = slice(None)) -> Batch:
    """The same six bags as cached features of two channels and six numbers."""
    batch = bags(own)
    features = torch.randn(6, 4, 2, 6, generator=torch.Generator().manual_seed(4))[own]
    return replace(batch, images=None, low=None, high=None, features=features)


def batch_of(method: str, own: slice = slice(None)) -> Batch:
    """What a method is fed with: CWA-MSN with pairs, the others with bags."""
    return bags(own, size=2 if method == "cwa_msn" else 4)


class Gradients(pl.Callback):
    """Keeps the names of parameters whose gradient was never there or always zero."""

    def __init__(self):
        self.silent = None
        self.losses = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
        assert all(p.grad is not None for p in trainable.values())
        zero = {n for n, p in trainable.items() if not p.grad.any()}
        self.losses.append(module.last_loss.item())
        self.silent = zero if self.silent is None else self.silent & zero


def trainer(max_steps: int, **kw: Any) -> pl.Trainer:
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(max_steps=max_steps, **(settings | quiet | {"use_distributed_sampler": False} | kw))


def exact(method):
    """A method in float64, its Adam with a larger eps: 1e-8 would raise the rounding of gradients near 0 to 1e-6."""
    method.recipe = replace(method.recipe, eps=1e-4)
    return method.double()


def loader(*batches: Batch) -> DataLoader:
    return DataLoader(list(batches), batch_size=None)


def save_bert(folder: Path) -> Path:
    """A random BERT with a word tokenizer in `folder`, as save_pretrained leaves one on disk."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "cells", "treated", "with", "DMSO", "compound"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    return folder


def trained(folder: Path, method):
    """A run folder as train.py leaves it, and the method."""
    run = trainer(2)
    run.fit(method, loader(feature_bags()))
    run.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    return method.eval()


def changed(checkpoint: Path, change) -> None:
    """Write a checkpoint again with a change to what it holds."""
    saved = torch.load(checkpoint, weights_only=True)
    change(saved)
    torch.save(saved, checkpoint)
