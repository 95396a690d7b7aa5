"""Accumulating k batches is one batch of k where a loss is a mean over crops: MAE (contrastive ones need all at once)."""

import torch

from morphoclip.methods.mae import MAE
from tests.methods.tiny import OPTIMIZER, batch_of, loader, trainer

# No batch norm: its statistics are a batch's.
ENCODER = {
    "name": "vit_tiny_patch16_224",
    "image_size": 16,
    "patch_size": 4,
    "embed_dim": 16,
    "num_heads": 2,
    "depth": 1,
}


class CropsOwnMask(MAE):
    """The mask follows from the crop, so that it does not matter which batch a crop is in."""

    def draw_mask(self, x, batch_idx):
        seeds = [int(crop.sum().abs() * 1000) for crop in x]
        order = torch.stack([torch.randperm(self.patches, generator=torch.Generator().manual_seed(s)) for s in seeds])
        mask = torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, : self.visible], False)
        return order, mask


def test_mae_learns_the_same_from_two_halves_as_from_the_whole():
    halves = [batch_of("mae", own) for own in (slice(0, 3), slice(3, 6))]
    trained = []
    for accumulate, batches in ((1, [batch_of("mae")]), (2, halves)):
        torch.manual_seed(0)
        method = CropsOwnMask(ENCODER, OPTIMIZER, None, decoder={"width": 8, "depth": 1, "heads": 2}).double()
        before = [p.detach().clone() for p in method.parameters()]
        trainer(1, accumulate_grad_batches=accumulate).fit(method, loader(*batches))
        trained.append(list(method.parameters()))
    assert any(not torch.equal(p, start) for p, start in zip(trained[0], before, strict=True))
    for whole, parts in zip(*trained, strict=True):
        torch.testing.assert_close(whole.grad, parts.grad, rtol=1e-6, atol=1e-12)
