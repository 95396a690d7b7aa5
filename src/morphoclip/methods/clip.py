"""CLIP: bags of crops or features, and prompts on their perturbations, in one joint space (Radford et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from morphoclip.batch import Batch, to_device
from morphoclip.losses import LossContext
from morphoclip.methods.base import Method, build
from morphoclip.methods.conditions import Conditions
from morphoclip.methods.crops import as_crops
from morphoclip.methods.held_out_prompts import HeldOutPrompts
from morphoclip.methods.image_sides import CropBags, FeatureBags
from morphoclip.methods.towers import describe
from morphoclip.models.features import FEATURE_ENCODERS
from morphoclip.models.pooling import Pool
from morphoclip.training.prompt_retrieval import PromptRetrieval
from morphoclip.training.watched import Metrics


class CLIP(Method):
    """Bag of images ▶ joint space ◀ text or molecule tower ◀ prompt.

    The image side (`image_sides`) takes crops or cached features; the perturbation side is `Conditions`. Each distinct
    prompt is encoded once per step. The loss is the cross-modal loss plus `image_loss.weight` times an image-image loss
    between the sub-bags of each plate (SupCon across plates: cross-well alignment).

    Build it from configs as `hydra.utils.instantiate(config.method, prompts=prompts)`: configs/method/clip.yaml refers
    to the encoder, optimizer and augment groups and passes all of them as plain dicts.

    Args:
        encoder, optimizer, augment, seed, monitor_every: see `Method`.
        prompts: one per row of the `PerturbationTable`: `prompts[batch.condition[i]]` is the prompt of item i; None for
            conditions outside the training split. A text tower learns its tokenizer from these.
        text: `_target_` of a tower, or towers by modality, see `Conditions`.
        loss: `_target_` of a cross-modal loss.
        image: arguments of the image side: `pool`, `pool_hidden`, `export`, `recompute` for `CropBags`; only `recompute`
            for `FeatureBags`, since the pool of features belongs to the encoder.
        conditions: further arguments of `Conditions`: `dose`, `recompute`, `cache`.
        image_loss: `{loss: _target_ of an image-image loss, weight, temperature}`; with weight 0 or None it is left out.
        embed_dim: size of the joint space.
        temperature: initial temperature of the cross-modal loss; its inverse, the logit scale, is learned within
            [1, 100]. None for losses with their own (CLOOB).
        logit_bias: initial value of a learned bias for losses that use one (SigLIP, S2L); None for no bias.
        modalities, doses: modality and dose of each condition, see `Conditions`.

    Attributes:
        held_out: the prompts of the validation split, set before fitting if there is one.

    Raises:
        ValueError: a temperature or bias for a loss that does not use it, or none for a loss that needs it; a loss that
            needs a frozen image space (S2L) with an encoder that trains on crops.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        augment: Mapping[str, Any] | None,
        prompts: Sequence[str | None],
        text: Mapping[str, Any],
        loss: Mapping[str, Any],
        *,
        image: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
        image_loss: Mapping[str, Any] | None = None,
        embed_dim: int = 128,
        temperature: float | None = 0.07,
        logit_bias: float | None = None,
        modalities: Sequence[str] | None = None,
        doses: Sequence[str] | None = None,
        seed: int = 0,
        monitor_every: int = 50,
    ) -> None:
        image = dict(image or {})
        on_features = encoder["name"] in FEATURE_ENCODERS
        if on_features:
            encoder = {**encoder, "embed_dim": embed_dim}
        elif image.get("export", "joint") == "joint":
            encoder = {**encoder, "projection": embed_dim}
        super().__init__(encoder, optimizer, augment, seed, monitor_every)
        self.save_hyperparameters()
        self.image: CropBags | FeatureBags = (
            FeatureBags(image.get("recompute")) if on_features else CropBags(self.encoder.embed_dim, embed_dim, **image)
        )
        self.conditions = Conditions(prompts, text, embed_dim, modalities=modalities, doses=doses, **(conditions or {}))
        self.conditions.spread()
        self.logit_scale = None if temperature is None else nn.Parameter(torch.tensor(-math.log(temperature)))
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(float(logit_bias)))
        self.loss = build(loss)
        self.check_loss()
        aligned = dict(image_loss or {"weight": 0.0})
        self.image_loss_weight: float = aligned["weight"]
        self.image_loss = build(aligned["loss"]) if self.image_loss_weight else None
        self.image_logit_scale = 1 / aligned.get("temperature", 0.1)
        self.held_out: HeldOutPrompts | None = None

    def check_loss(self) -> None:
        """Raise ValueError if the loss does not fit the learned scale, the learned bias or the image side."""
        name, loss = type(self.loss).__name__, self.loss
        if self.logit_scale is not None and not loss.uses_logit_scale:
            raise ValueError(
                f"{name} has its own fixed temperature, so that a learned one would get no gradient "
                "(and stop DDP): set method.temperature=null"
            )
        if self.logit_scale is None and loss.uses_logit_scale:
            raise ValueError(f"{name} needs a logit scale: set method.temperature, e.g. to 0.07")
        if self.logit_bias is not None and not loss.uses_logit_bias:
            raise ValueError(
                f"{name} takes no bias, so that a learned one would get no gradient (and stop DDP): set "
                "method.logit_bias=null"
            )
        if loss.uses_frozen_images and self.image.trains_on_crops:
            raise ValueError(
                f"{name} measures distances between frozen image features, and this encoder trains on crops: cache "
                "features first (data=features)"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["towers"] = self.describe_towers()

    def describe_towers(self) -> dict[str, Any] | None:
        """The perturbation side as plain data, see `towers.describe`; None if the exported encoder is in another space
        (`image.export=backbone`) or a tower cannot be described."""
        return describe(self.conditions) if self.image.is_joint else None

    @property
    def pool(self) -> Pool:
        """The pool of the image side."""
        return self.image.pool_of(self.encoder)

    @property
    def crop_pool(self) -> Pool | None:
        """The pool over crops, which the encoder folder stores next to the encoder; None if features are pooled."""
        return self.pool if self.image.trains_on_crops else None

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.conditions.freeze()

    def embed_prompts(self, rows: Tensor) -> Tensor:
        """Joint embeddings (U, embed_dim) of the distinct training prompts at `rows` (U,); raises as `Conditions` does."""
        return self.conditions(rows)

    def instances(self, batch: Batch, batch_idx: int) -> Tensor:
        """The instances of the bags: crops (B, N, embed_dim) in the joint space, or features (B, N, C, D)."""

        def views() -> tuple[Tensor, Tensor | None]:
            (view,) = self.views(as_crops(batch), batch_idx, "view")
            return view, self.sampled_channels(len(view), batch_idx, "view")

        return self.image.instances(self.encoder, batch, views)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        mask = batch.mask if batch.has_padding else None
        instances = self.instances(batch, batch_idx)
        pooled = self.pool(instances, mask)
        image = self.image.embed(self.encoder, pooled)  # (B, E)
        conditions = self.held_out if self.is_validating and self.held_out else self.conditions
        other_id = conditions.distinct_rows(batch.host("condition"))
        other = conditions(other_id)  # (U, E)
        context = LossContext(
            image_id=conditions.row[batch.condition],
            other_id=to_device(other_id, self.device),
            perturbation=batch.perturbation,
            image_profile=self.image.profiles(pooled),
            image_frozen=self.image.frozen(instances, mask),
        )
        logit_scale = 1.0 if self.logit_scale is None else self.logit_scale.exp()
        loss = cross_modal = self.loss(image, other, logit_scale, self.logit_bias, context=context)
        parts = {"train/cross_modal": cross_modal, "train/logit_scale": logit_scale}
        if self.image_loss is not None:
            parts["train/image_image"] = image_image = self.plate_loss(instances, batch, mask)
            loss = cross_modal + self.image_loss_weight * image_image
        return self.report(loss, image, batch, **parts)

    def plate_loss(self, instances: Tensor, batch: Batch, mask: Tensor | None) -> Tensor:
        """The image-image loss between the sub-bags, one per plate, of instances (B, N, …)."""
        plate = batch.tensor("plate").view(instances.shape[:2])
        sub_bags, is_first = self.pool.pool_groups(instances, plate, mask)  # (B, N, …), (B, N)
        perturbation = batch.perturbation[:, None].expand_as(plate).where(is_first, -1)
        context = LossContext(perturbation=perturbation.flatten(), plate=plate.flatten())
        sub_images = self.image.embed(self.encoder, sub_bags.flatten(0, 1))
        assert self.image_loss is not None  # called only with an image loss
        return self.image_loss(sub_images, None, self.image_logit_scale, context=context)

    def validation_metrics(self) -> Metrics:
        assert self.held_out is not None  # set where there is a validation split
        return {"retrieval": PromptRetrieval(self.held_out.embed())}

    def validate(self, batch: Batch, batch_idx: int, metrics: Metrics) -> Tensor:
        assert self.held_out is not None
        step = self.training_step(batch, batch_idx)
        metrics["retrieval"].update(step["embeddings"], self.held_out.row[batch.condition])
        return step["loss"]

    def after_optimizer_step(self) -> None:
        if self.logit_scale is not None:
            with torch.no_grad():
                self.logit_scale.clamp_(0, math.log(100))
