"""Images against what was done to the cells: bags of crops or features and prompts in one joint space (METHODS §7-§9)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.batch import Batch
from morphoclip.losses import LossContext
from morphoclip.methods.base import Method, build
from morphoclip.methods.conditions import Conditions
from morphoclip.methods.crops import as_crops
from morphoclip.methods.recompute import recomputed
from morphoclip.methods.towers import describe
from morphoclip.models import FeatureEncoder, JointProjection
from morphoclip.models.features import FEATURE_ENCODERS
from morphoclip.models.pooling import POOLS


class CLIP(Method):
    """Bag ▶ joint space, against prompt ▶ text or molecule tower ▶ joint space.

    Crops go through the encoder and a projection, then into a gated attention pool. Cached features are pooled first, a
    channel at a time, then go through the encoder (`cross_channel_former` or `profile_mlp`).

    Each distinct prompt is encoded once a step. To the cross-modal loss comes `image_loss_weight` times an
    image-image loss between the sub-bags of each plate (SupCon across plates: cross-well alignment).

    Build it from configs as `hydra.utils.instantiate(config.method, prompts=prompts)`: configs/method/clip.yaml refers
    to the encoder, optimizer and augment groups and hands all of them over as plain dicts.

    Args:
        prompts: one a row of the `PerturbationTable`, i.e. `prompts[batch.condition[i]]` is the prompt of item i;
            None for conditions outside the training split. A text tower learns its tokenizer from these.
        text: `_target_` of a tower, or towers by modality, see `Conditions`; its `modalities`, `doses` and `dose` too.
        loss: `_target_` of a cross-modal loss.
        image_loss: `_target_` of an image-image loss; its weight is `image_loss_weight`, 0 leaves it out.
        image_temperature: temperature of the image-image loss; the cross-modal one learns its own.
        embed_dim: size of the joint space.
        pool: of crops: `gated` or `mean`; that of features is the encoder's.
        pool_hidden: attention space of the pool.
        export: `joint` makes the projection into the joint space the encoder's last layer, so that a profile is a mean
            of crops in that space; `backbone` exports what lies before it. Feature encoders are always joint.
        temperature: of the cross-modal loss at the start; its inverse, the logit scale, is learned within [1, 100].
            None has none, for losses that ignore it (CLOOB).
        logit_bias: start of a learned bias for losses that use one (SigLIP, S2L); None has none.
        recompute, recompute_prompts: crops (or bags of features), and prompts, a chunk, computed again in the backward
            pass so that any batch fits; None keeps all activations.
        cache: folder that keeps what frozen text towers say of their prompts.
        encoder, optimizer, augment, seed, monitor_every: see `Method`.

    Raises:
        ValueError: a temperature or bias for a loss that ignores it, none for a loss that needs it; a loss that needs
            a frozen image space (S2L) on an encoder that trains on crops.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        augment: Mapping[str, Any] | None,
        prompts: Sequence[str | None],
        text: Mapping[str, Any],
        loss: Mapping[str, Any],
        image_loss: Mapping[str, Any] | None = None,
        image_loss_weight: float = 0.0,
        image_temperature: float = 0.1,
        embed_dim: int = 128,
        pool: Literal["gated", "mean"] = "gated",
        pool_hidden: int = 128,
        export: Literal["joint", "backbone"] = "joint",
        temperature: float | None = 0.07,
        logit_bias: float | None = None,
        modalities: Sequence[str] | None = None,
        doses: Sequence[str] | None = None,
        dose: Mapping[str, Any] | None = None,
        recompute: int | None = None,
        recompute_prompts: int | None = None,
        cache: str | None = None,
        seed: int = 0,
        monitor_every: int = 50,
    ) -> None:
        on_features = encoder["name"] in FEATURE_ENCODERS
        joint = {**encoder, "embed_dim" if on_features else "projection": embed_dim}
        super().__init__(
            joint if on_features or export == "joint" else encoder, optimizer, augment, seed, monitor_every
        )
        self.save_hyperparameters()
        self.recompute = recompute
        if not on_features:
            width = self.encoder.embed_dim
            self.image_projection = nn.Identity() if export == "joint" else JointProjection(width, embed_dim)
            self.crop_pool = POOLS[pool](embed_dim, pool_hidden)
        self.conditions = Conditions(
            prompts,
            text,
            embed_dim,
            modalities=modalities,
            doses=doses,
            dose=dose,
            recompute=recompute_prompts,
            cache=cache,
        )
        self.conditions.spread()
        self.logit_scale = None if temperature is None else nn.Parameter(torch.tensor(-math.log(temperature)))
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(float(logit_bias)))
        self.loss = build(loss)
        self.check_loss(on_features)
        self.image_loss = build(image_loss) if image_loss and image_loss_weight else None
        self.image_loss_weight = image_loss_weight
        self.image_logit_scale = 1 / image_temperature

    def check_loss(self, on_features: bool) -> None:
        """Raise ValueError where the loss and the learned scale, bias or image side do not go together."""
        name = type(self.loss).__name__
        needs_scale = getattr(self.loss, "uses_logit_scale", True)
        if self.logit_scale is not None and not needs_scale:
            raise ValueError(
                f"{name} has its own fixed temperature, so that a learned one would get no gradient "
                "(and stop DDP): set method.temperature=null"
            )
        if self.logit_scale is None and needs_scale:
            raise ValueError(f"{name} needs a logit scale: set method.temperature, e.g. to 0.07")
        if self.logit_bias is not None and not getattr(self.loss, "uses_logit_bias", False):
            raise ValueError(
                f"{name} takes no bias, so that a learned one would get no gradient (and stop DDP): set "
                "method.logit_bias=null"
            )
        if getattr(self.loss, "uses_frozen_images", False) and not on_features:
            raise ValueError(
                f"{name} measures distances between frozen image features, and this encoder trains on crops: cache "
                "features first (data=features)"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["towers"] = self.describe_towers()

    def describe_towers(self) -> dict[str, Any] | None:
        """The perturbation side as plain data, see `towers.describe`; None where the exported encoder does not share
        its space (`export=backbone`) or a tower cannot be described."""
        joint = isinstance(self.encoder, FeatureEncoder) or isinstance(self.image_projection, nn.Identity)
        return describe(self.conditions) if joint else None

    @property
    def pool(self) -> nn.Module:
        """The pool of the image side."""
        return self.encoder.pool if isinstance(self.encoder, FeatureEncoder) else self.crop_pool

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.conditions.freeze()

    def embed_prompts(self, rows: Tensor) -> Tensor:
        """Joint embeddings (U, embed_dim) of the distinct training prompts at `rows` (U,); raises as `Conditions` does."""
        return self.conditions(rows)

    def embed_crops(self, batch: Batch, batch_idx: int) -> Tensor:
        """Joint embeddings (B, N, embed_dim) of a batch's crops, 0 on padding; a batch without bags has bags of one."""
        (view,) = self.views(as_crops(batch), batch_idx, "view")
        shown = self.sampled_channels(len(view), batch_idx, "view")
        if batch.mask is None or batch.mask.all():
            return self.project(view, shown).unflatten(0, (len(batch), -1))
        # Padding costs nothing and has no say in batch statistics.
        present = batch.mask.flatten()
        crops = self.project(view[present], None if shown is None else shown[present])
        return (
            crops.new_zeros(len(view), crops.shape[1])
            .masked_scatter(present[:, None], crops)
            .unflatten(0, (len(batch), -1))
        )

    def project(self, view: Tensor, shown: Tensor | None = None) -> Tensor:
        """Joint embeddings (n, embed_dim) of preprocessed crops (n, C, H, W); `shown` as in `Encoder.forward_tokens`."""
        if self.recompute is None:
            return self.image_projection(self.encoder(view, shown=shown))
        # The projection normalises over the batch, so only what lies before it runs in chunks.
        backbone = self.encoder.backbone
        inputs = (view,) if shown is None else (view, shown)
        features = recomputed(backbone, lambda rows: backbone(*(x[rows] for x in inputs)), len(view), self.recompute)
        return self.image_projection(self.encoder.projection(features))

    def instances(self, batch: Batch, batch_idx: int) -> Tensor:
        """What bags are pooled from: crops (B, N, embed_dim) in the joint space, or features (B, N, C, D)."""
        if batch.features is None:
            return self.embed_crops(batch, batch_idx)
        return self.encoder.preprocess(batch.features)

    def embed_pooled(self, pooled: Tensor) -> Tensor:
        """Joint embeddings (B, embed_dim) of pooled instances (B, embed_dim) or (B, C, D)."""
        if pooled.ndim == 2:
            return pooled
        body = self.encoder.body
        return self.encoder.norm(recomputed(body, lambda chunk: body(pooled[chunk]), len(pooled), self.recompute))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        instances = self.instances(batch, batch_idx)
        pooled = self.pool(instances, batch.mask)
        image = self.embed_pooled(pooled)  # (B, E)
        image_id = self.conditions.row[batch.condition]
        other_id = image_id.unique()
        other = self.embed_prompts(other_id)  # (U, E)
        context = LossContext(
            image_id=image_id,
            other_id=other_id,
            perturbation=batch.perturbation,
            image_profile=pooled if pooled.ndim == 3 else pooled[:, None],
            image_frozen=None if batch.features is None else frozen_images(instances, batch.mask),
        )
        logit_scale = 1.0 if self.logit_scale is None else self.logit_scale.exp()
        loss = cross_modal = self.loss(image, other, logit_scale, self.logit_bias, context=context)
        parts = {"train/cross_modal": cross_modal, "train/logit_scale": logit_scale}
        if self.image_loss is not None:
            parts["train/image_image"] = image_image = self.plate_loss(instances, batch)
            loss = cross_modal + self.image_loss_weight * image_image
        return self.report(loss, image, batch, **parts)

    def plate_loss(self, instances: Tensor, batch: Batch) -> Tensor:
        """The image-image loss between the sub-bags (one a plate) of instances (B, N, …)."""
        plate = batch.plate.view(instances.shape[:2])
        sub_bags, is_first = self.pool.pool_groups(instances, plate, batch.mask)  # (B, N, …), (B, N)
        perturbation = batch.perturbation[:, None].expand_as(plate).where(is_first, -1)
        context = LossContext(perturbation=perturbation.flatten(), plate=plate.flatten())
        sub_images = self.embed_pooled(sub_bags.flatten(0, 1))
        return self.image_loss(sub_images, None, self.image_logit_scale, context=context)

    def after_optimizer_step(self) -> None:
        if self.logit_scale is not None:
            with torch.no_grad():
                self.logit_scale.clamp_(0, math.log(100))


def frozen_images(features: Tensor, mask: Tensor | None) -> Tensor:
    """Unit vectors (B, C·D): the mean of each bag of standardised features (B, N, C, D), which nothing trains."""
    if mask is None:
        return F.normalize(features.mean(dim=1).flatten(1), dim=1)
    kept = mask[..., None, None].to(features.dtype)
    return F.normalize(((features * kept).sum(dim=1) / kept.sum(dim=1)).flatten(1), dim=1)
