"""The methods' training steps as a plain loop over lightly's heads, losses and momentum update: what ssl_step measures beside.

Each takes the ViT, crops, views, mask ratio and optimizer of one of our methods, so that only lightly's modules differ.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from morphoclip.augment import draw_visible
from morphoclip.batch import Batch
from morphoclip.methods.base import Method
from morphoclip.models.mae_decoder import patchify

MOMENTUM = 0.996


class Lightly:
    """What the methods' loops have in common: views, optimizer, teachers. A subclass gives `parts` and `loss`."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.encoder = copy.deepcopy(method.encoder)
        self.vit = self.encoder.backbone
        self.draws = torch.Generator().manual_seed(0)
        self.students, self.teachers = self.parts()
        for module in [*self.students, *self.teachers]:
            module.to(method.device)
        trained = [p for module in [self.vit, *self.students] for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.05, fused=True)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """(trained modules beside the ViT, teachers in the order of [ViT, *trained])."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def views(self, batch: Batch, augmentation, count: int) -> list[Tensor]:
        x = self.encoder.scale(batch.images, batch.low, batch.high)
        rows = [augmentation.draw(len(x), x.shape[1], self.draws) for _ in range(count)]
        return [self.encoder.standardise(augmentation.apply(x, parameters)) for parameters in rows]

    def step(self, batch: Batch) -> None:
        from lightly.models.utils import update_momentum

        loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for student, teacher in zip([self.vit, *self.students], self.teachers, strict=False):
            update_momentum(student, teacher, MOMENTUM)

    @staticmethod
    def frozen(module: nn.Module) -> nn.Module:
        return copy.deepcopy(module).requires_grad_(False)


class LightlySimCLR(Lightly):
    def parts(self):
        from lightly.loss import NTXentLoss
        from lightly.models.modules.heads import SimCLRProjectionHead

        self.head = SimCLRProjectionHead(self.vit.num_features, 512, 128, batch_norm=False)
        self.criterion = NTXentLoss(0.2)
        return [self.head], []

    def loss(self, batch):
        return self.criterion(*(self.head(self.vit(v)) for v in self.views(batch, self.method.augmentation, 2)))


class LightlyDINO(Lightly):
    def parts(self):
        from lightly.loss import DINOLoss
        from lightly.models.modules.heads import DINOProjectionHead

        prototypes = len(self.method.head.prototypes)
        self.head = DINOProjectionHead(self.vit.num_features, 2048, 256, prototypes)
        self.teacher_head = DINOProjectionHead(self.vit.num_features, 2048, 256, prototypes).requires_grad_(False)
        self.teacher = self.frozen(self.vit)
        self.criterion = DINOLoss(prototypes).to(self.method.device)
        return [self.head], [self.teacher, self.teacher_head]

    def loss(self, batch):
        large = self.views(batch, self.method.global_view, 2)
        small = self.views(batch, self.method.local_view, len(self.method.local_views))
        with torch.no_grad():
            targets = [self.teacher_head(self.teacher(view)) for view in large]
        return self.criterion(targets, [self.head(self.vit(view)) for view in [*large, *small]], 0.04)


class LightlyMAE(Lightly):
    def parts(self):
        from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM

        method = self.method
        self.masked = MaskedVisionTransformerTIMM(
            self.vit, weight_initialization="skip", pos_embed_initialization="skip"
        )
        self.masked.mask_token.requires_grad_(False)
        width, blocks = method.decoder.embed.out_features, method.decoder.blocks
        self.decoder = MAEDecoderTIMM(
            method.patches,
            method.patch,
            len(self.encoder.channels),
            self.vit.embed_dim,
            decoder_embed_dim=width,
            decoder_depth=len(blocks),
            decoder_num_heads=blocks[0].attn.num_heads,
            num_prefix_tokens=self.vit.num_prefix_tokens,
        )
        return [self.decoder], []

    def loss(self, batch):
        from lightly.models import utils

        (view,) = self.views(batch, self.method.augmentation, 1)
        length = self.method.patches + self.vit.num_prefix_tokens
        keep, mask = utils.random_token_mask((len(view), length), self.mask_ratio, device=view.device)
        encoded = self.masked.encode(view, idx_keep=keep)
        hidden = utils.repeat_token(self.decoder.mask_token, (len(view), length))
        hidden = utils.set_at_index(hidden, keep, self.decoder.embed(encoded).type_as(hidden))
        pred = self.decoder.predict(utils.get_at_index(self.decoder.decode(hidden), mask))
        patches = utils.get_at_index(patchify(view, self.method.patch), mask - self.vit.num_prefix_tokens)
        return nn.functional.mse_loss(pred, utils.normalize_mean_var(patches, dim=-1))

    @property
    def mask_ratio(self) -> float:
        return 1 - self.method.visible / self.method.patches


class LightlyMSN(Lightly):
    def parts(self):
        from lightly.loss import MSNLoss
        from lightly.models.modules import MaskedVisionTransformerTIMM
        from lightly.models.modules.heads import MSNProjectionHead

        self.masked = MaskedVisionTransformerTIMM(
            self.vit, weight_initialization="skip", pos_embed_initialization="skip"
        )
        self.masked.mask_token.requires_grad_(False)
        self.head = MSNProjectionHead(self.vit.num_features, 2048, 256)
        self.prototypes = nn.Linear(256, len(self.method.prototypes), bias=False)
        self.teacher, self.teacher_head = self.frozen(self.vit), self.frozen(self.head)
        self.criterion = MSNLoss(0.1)
        return [self.head, self.prototypes], [self.teacher, self.teacher_head]

    def loss(self, batch):
        (whole,) = self.views(batch, self.method.global_view, 1)
        (large,) = self.views(batch, self.method.global_view, 1)
        small = self.views(batch, self.method.local_view, len(self.method.local_views))
        with torch.no_grad():
            targets = self.teacher_head(self.teacher(whole))
        patch = self.vit.patch_embed.patch_size[0]
        patches = (large.shape[-1] // patch) ** 2
        visible = patches - round(self.method.mask_ratio * patches)
        keep = draw_visible(len(large), patches, visible, self.draws)[:, :visible].to(large.device) + 1
        keep = torch.cat([torch.zeros_like(keep[:, :1]), keep], dim=1)  # and the class token
        anchors = [self.masked.encode(large, idx_keep=keep)[:, 0], *([self.vit(torch.cat(small))] if small else [])]
        return self.criterion(self.head(torch.cat(anchors)), targets, self.prototypes.weight)


PEERS = {"simclr": LightlySimCLR, "dino": LightlyDINO, "mae": LightlyMAE, "cwa_msn": LightlyMSN}
