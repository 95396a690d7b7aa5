"""Chunks computed again give the gradients of the same chunks kept, dropout included."""

import pytest
import torch
from torch import nn

from morphoclip.losses import InfoNCELoss
from morphoclip.methods.recompute import recomputed
from tests.methods.tiny import CHANNEL_VIT, ENCODER, TEXT, bags, clip, feature_bags, feature_clip, trainer


def test_recomputed_chunks_equal_the_same_chunks_plain():
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 4)).double()
    x = torch.randn(10, 6, dtype=torch.float64)
    other = torch.randn(10, 4, dtype=torch.float64)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def gradients(run):
        torch.manual_seed(7)
        loss = InfoNCELoss()(run(), other, scale.exp())
        return loss, *torch.autograd.grad(loss, [*tower.parameters(), scale])

    kept = gradients(lambda: torch.cat([tower(part) for part in x.split(3)]))
    again = gradients(lambda: recomputed(tower, lambda chunk: tower(x[chunk]), len(x), 3))
    torch.testing.assert_close(again, kept, rtol=0, atol=1e-6)
    assert kept[1].abs().sum() > 0


@pytest.mark.parametrize("kind", ["crops", "sampled channels", "features"])
def test_a_whole_step_does_not_change(kind):
    """Dropout is off in these towers, so that the whole batch is the reference and chunks of 4 the case."""
    norm_free = {**ENCODER, "name": "vit_tiny_patch16_224", "img_size": 16, "patch_size": 8}
    norm_free = {k: v for k, v in norm_free.items() if k not in ("image_size", "stem_widths", "heads")} | {
        "num_heads": 2
    }
    encoders = {"crops": norm_free, "sampled channels": CHANNEL_VIT}
    outcomes = []
    for chunk in (None, 4):
        method = (
            feature_clip(image={"recompute": chunk}, text=TEXT, conditions={"recompute": chunk})
            if kind == "features"
            else clip(
                encoder=encoders[kind],
                image={"recompute": chunk, "pool_hidden": 4},
                conditions={"recompute": chunk},
                seed=1,
            )
        ).double()
        method.trainer = trainer(1)
        method.log = method.log_dict = lambda *_, **__: None
        loss = method.training_step(feature_bags().map(to_double) if kind == "features" else bags(), 0)["loss"]
        outcomes.append((loss, *torch.autograd.grad(loss, list(method.parameters()), materialize_grads=True)))
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-6, atol=1e-9)


def to_double(tensor):
    return tensor.double() if tensor.is_floating_point() else tensor


def test_a_tower_with_batch_norm_is_refused_while_it_trains():
    tower = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    x = torch.randn(6, 4)
    with pytest.raises(ValueError, match=r"Sequential\.1 is a batch norm in training mode.*recompute=null"):
        recomputed(tower, lambda chunk: tower(x[chunk]), 6, 2)
    recomputed(tower.eval(), lambda chunk: tower(x[chunk]), 6, 2)
