"""Images against prompts: bags of crops and a text tower in one joint space (METHODS §7-§9)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from morphoclip.batch import Batch
from morphoclip.losses import LossContext
from morphoclip.methods.base import Method, build
from morphoclip.methods.crops import as_crops
from morphoclip.models import GatedAttentionPool, JointProjection
from morphoclip.models.text import trim


class CLIP(Method):
    """Bag of crops ▶ encoder ▶ projection ▶ gated attention pool, against prompt ▶ text tower ▶ projection.

    Each distinct prompt is encoded once a step. To the cross-modal loss comes `image_loss_weight` times an
    image-image loss between the sub-bags of each plate (SupCon across plates: cross-well alignment).

    Build it from configs as `hydra.utils.instantiate(config.method, prompts=prompts)`: configs/method/clip.yaml refers
    to the encoder, optimizer and augment groups and hands all of them over as plain dicts.

    Args:
        prompts: one a row of the `PerturbationTable`, i.e. `prompts[batch.condition[i]]` is the prompt of item i;
            None for conditions outside the training split. The text tower learns its tokenizer from these.
        text: `_target_` of a text tower; `SmallTextEncoder` is given the training prompts as `prompts`.
        loss: `_target_` of a cross-modal loss.
        image_loss: `_target_` of an image-image loss; its weight is `image_loss_weight`, 0 leaves it out.
        image_temperature: temperature of the image-image loss; the cross-modal one learns its own.
        embed_dim: size of the joint space.
        pool_hidden: attention space of the pool.
        export: `joint` makes the projection into the joint space the encoder's last layer, so that a profile is a mean
            of crops in that space; `backbone` exports what lies before it.
        temperature: of the cross-modal loss at the start; its inverse, the logit scale, is learned within [1, 100].
            None has none, for losses that ignore it (CLOOB).
        logit_bias: start of a learned bias for losses that use one (SigLIP); None has none.
        encoder, optimizer, augment, seed, monitor_every: see `Method`.

    Raises:
        ValueError: a temperature for a loss whose `uses_logit_scale` is False.
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
        pool_hidden: int = 128,
        export: Literal["joint", "backbone"] = "joint",
        temperature: float | None = 0.07,
        logit_bias: float | None = None,
        seed: int = 0,
        monitor_every: int = 50,
    ) -> None:
        joint = {**encoder, "projection": embed_dim} if export == "joint" else encoder
        super().__init__(joint, optimizer, augment, seed, monitor_every)
        self.save_hyperparameters()
        width = self.encoder.embed_dim
        self.image_projection = nn.Identity() if export == "joint" else JointProjection(width, embed_dim)
        self.pool = GatedAttentionPool(embed_dim, pool_hidden)
        distinct = sorted({prompt for prompt in prompts if prompt is not None})
        small = text["_target_"].endswith("SmallTextEncoder")
        self.text = build(text, prompts=distinct) if small else build(text)
        self.text_projection = nn.Linear(self.text.embed_dim, embed_dim)
        row = {prompt: i for i, prompt in enumerate(distinct)}
        # Two conditions may share a prompt (a template without dose): they share its row, and are positives.
        self.register_buffer("prompt_row", torch.tensor([row.get(p, -1) for p in prompts]), persistent=False)
        self.tokens, self.token_mask = self.text.tokenize(distinct)
        self.spread_prompts()
        self.logit_scale = None if temperature is None else nn.Parameter(torch.tensor(-math.log(temperature)))
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(logit_bias))
        self.loss = build(loss)
        if temperature is not None and not getattr(self.loss, "uses_logit_scale", True):
            raise ValueError(
                f"{type(self.loss).__name__} has its own fixed temperature, so that a learned one would get no gradient "
                "(and stop DDP): set method.temperature=null"
            )
        self.image_loss = build(image_loss) if image_loss and image_loss_weight else None
        self.image_loss_weight = image_loss_weight
        self.image_logit_scale = 1 / image_temperature

    @torch.no_grad()
    def spread_prompts(self, most: int = 256) -> None:
        """Start with the training prompts (up to `most`) at mean 0 and variance 1 in each dimension of the joint space.

        Prompts share most words, so their first embeddings share one large component and all cosines start near 1;
        short runs spend half their steps on getting out of there. Unlike a batch norm this is the same on all ranks.
        """
        chosen = torch.linspace(0, len(self.tokens) - 1, min(most, len(self.tokens))).round().long()
        self.text.eval()
        embedded = self.text_projection(self.text(*trim(self.tokens[chosen], self.token_mask[chosen])))  # (U, E)
        self.text.train()
        mean, std = embedded.mean(0), embedded.std(0, correction=0).clamp_min(1e-3)
        self.text_projection.weight.div_(std[:, None])
        self.text_projection.bias.sub_(mean).div_(std)

    def embed_prompts(self, rows: Tensor) -> Tensor:
        """Joint embeddings (U, embed_dim) of the prompts at `rows` (U,) of the distinct training prompts.

        Raises:
            ValueError: a row is -1, i.e. a condition without a prompt has got into training.
        """
        chosen = rows.cpu()
        if (chosen < 0).any():
            raise ValueError("a training batch holds conditions without a prompt: take them out of the split")
        tokens, mask = trim(self.tokens[chosen], self.token_mask[chosen])
        return self.text_projection(self.text(tokens.to(rows.device), mask.to(rows.device)))

    def embed_crops(self, batch: Batch, batch_idx: int) -> Tensor:
        """Joint embeddings (B, N, embed_dim) of a batch's crops, 0 on padding; a batch without bags has bags of one."""
        (view,) = self.views(as_crops(batch), batch_idx, "view")
        if batch.mask is None or batch.mask.all():
            return self.image_projection(self.encoder(view)).unflatten(0, (len(batch), -1))
        # Padding costs nothing and has no say in batch statistics.
        present = batch.mask.flatten()
        crops = self.image_projection(self.encoder(view[present]))
        return (
            crops.new_zeros(len(view), crops.shape[1])
            .masked_scatter(present[:, None], crops)
            .unflatten(0, (len(batch), -1))
        )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        crops = self.embed_crops(batch, batch_idx)  # (B, N, E)
        image = self.pool(crops, batch.mask)  # (B, E)
        image_id = self.prompt_row[batch.condition]
        other_id = image_id.unique()
        other = self.embed_prompts(other_id)  # (U, E)
        context = LossContext(image_id=image_id, other_id=other_id, perturbation=batch.perturbation)
        logit_scale = 1.0 if self.logit_scale is None else self.logit_scale.exp()
        loss = cross_modal = self.loss(image, other, logit_scale, self.logit_bias, context=context)
        parts = {"train/cross_modal": cross_modal, "train/logit_scale": logit_scale}
        if self.image_loss is not None:
            parts["train/image_image"] = image_image = self.plate_loss(crops, batch)
            loss = cross_modal + self.image_loss_weight * image_image
        return self.report(loss, image, batch, **parts)

    def plate_loss(self, crops: Tensor, batch: Batch) -> Tensor:
        """The image-image loss between the sub-bags (one a plate) of crops (B, N, E)."""
        plate = batch.plate.view(crops.shape[:2])
        sub_bags, is_first = self.pool.pool_groups(crops, plate, batch.mask)  # (B, N, E), (B, N)
        perturbation = batch.perturbation[:, None].expand_as(plate).where(is_first, -1)
        context = LossContext(perturbation=perturbation.flatten(), plate=plate.flatten())
        return self.image_loss(sub_bags.flatten(0, 1), None, self.image_logit_scale, context=context)

    def after_optimizer_step(self) -> None:
        if self.logit_scale is not None:
            with torch.no_grad():
                self.logit_scale.clamp_(0, math.log(100))
