"""Frozen parts of an encoder stay as they are bit for bit and cost no backward pass; rates that decay by depth."""

from __future__ import annotations

import copy

import pytest
import torch

from morphoclip.models import create_encoder
from morphoclip.models.depth import depths
from morphoclip.training.freezing import Freezing
from morphoclip.training.optimizers import AdamW
from tests.methods import tiny
from tests.models.test_timm_families import FAMILIES

TWO_BLOCKS = tiny.ENCODER | {"depth": 2, "drop_path_rate": 0.5}


def fit(method, steps: int, blocks, until=None, **kw):
    method.freezing = Freezing(blocks, until)
    run = tiny.trainer(steps, **kw)
    run.fit(method, tiny.loader(*[tiny.bags()] * steps))
    return run


def state(module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}


def changed(before, after) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_a_frozen_encoder_keeps_its_weights_and_batch_statistics_and_has_no_graph(capsys):
    method = tiny.simclr(encoder=TWO_BLOCKS)
    before, seen = state(method), []
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    run = fit(method, 3, None)
    assert {name.partition(".")[0] for name in changed(before, state(method))} == {"head"}
    assert seen
    assert not any(seen)  # nothing to go back through
    assert all(p.grad is None for p in method.encoder.parameters())
    optimized = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert optimized == {id(p) for p in method.head.parameters()}
    count = sum(p.numel() for p in method.encoder.parameters())
    assert f"freeze      the encoder ({count:,} weights) for the whole training" in capsys.readouterr().out


def test_the_projection_into_a_joint_space_trains():
    method = tiny.clip(encoder=TWO_BLOCKS)
    before = state(method)
    fit(method, 2, None)
    names = changed(before, state(method))
    assert not [name for name in names if name.startswith("encoder.backbone.")]
    assert "encoder.projection.0.weight" in names


def test_first_blocks_are_frozen_and_the_others_train():
    method = tiny.simclr(encoder=TWO_BLOCKS)
    before = state(method)
    fit(method, 2, 1)
    names = changed(before, state(method))
    frozen = {
        name
        for name in before
        if name.startswith(("encoder.backbone.patch_embed", "encoder.backbone.pos_embed", "encoder.backbone.blocks.0"))
    }
    assert frozen
    assert not names & frozen
    assert "encoder.backbone.blocks.1.attn.qkv.weight" in names
    assert "encoder.backbone.fc_norm.weight" in names


@pytest.mark.parametrize("make", [tiny.simclr, tiny.dino])
def test_until_a_step_nothing_moves_and_then_the_optimizer_starts_afresh(make):
    """Weight decay is large: a step of it would show."""
    encoder = tiny.TWO_SIZES | {"depth": 2}
    method = make(encoder=encoder)
    method.recipe = AdamW(lr=1e-2, weight_decay=10.0)
    before = state(method.encoder)
    still = copy.deepcopy(method)
    fit(still, 2, None, 2)
    assert not changed(before, state(still.encoder))
    run = fit(method, 3, None, 2)
    assert "backbone.blocks.0.attn.qkv.weight" in changed(before, state(method.encoder))
    steps = {
        name: int(run.optimizers[0].state[p]["step"])
        for name, p in method.named_parameters()
        if p.requires_grad and p in run.optimizers[0].state
    }
    assert {number for name, number in steps.items() if name.startswith("encoder.")} == {1}
    assert {number for name, number in steps.items() if name.startswith("head.")} == {3}
    assert method.encoder.training


def test_a_run_that_thaws_resumes_bit_for_bit(tmp_path):
    def method():
        made = tiny.simclr(encoder=TWO_BLOCKS)
        made.recipe, made.freezing = AdamW(lr=1e-2), Freezing(1, 2)
        return made

    batches = [tiny.bags()] * 4
    whole, part, resumed = method(), method(), method()
    tiny.trainer(4).fit(whole, tiny.loader(*batches))
    run = tiny.trainer(1)
    run.fit(part, tiny.loader(*batches[:1]))
    run.save_checkpoint(tmp_path / "last.ckpt")
    tiny.trainer(4).fit(resumed, tiny.loader(*batches[:1]), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert not changed(state(whole), state(resumed))
    assert changed(state(part.encoder.backbone.blocks[0]), state(resumed.encoder.backbone.blocks[0]))


def test_a_frozen_teacher_keeps_its_batch_statistics():
    method = tiny.dino()
    before = state(method.teacher_encoder)
    fit(method, 2, None)
    assert not changed(before, state(method.teacher_encoder))


@pytest.mark.parametrize(
    ("blocks", "steps", "said"),
    [(3, None, "has 2: freeze=encoder"), (-1, None, "blocks=-1"), (1.5, None, r"blocks=1\.5"), (1, 0, "steps=0")],
)
def test_wrong_numbers_are_refused(blocks, steps, said):
    with pytest.raises(ValueError, match=said):
        fit(tiny.simclr(encoder=TWO_BLOCKS), 1, blocks, steps)


def test_an_encoder_with_nothing_to_train_is_refused():
    method = tiny.simclr(encoder={"name": "per_channel", "backbone": "test_vit", "image_size": 32})
    with pytest.raises(ValueError, match="nothing of this encoder is trained"):
        fit(method, 1, None)


LAST = {"ViT": 1, "ResNet": 4, "ConvNeXt": 4, "Swin": 4, "EfficientNet": 5}


@pytest.mark.parametrize("family", FAMILIES)
def test_depths_of_families(family):
    """The stem is 0, each weight of a block is at least as deep as those before it, and all that follows is the deepest."""
    encoder = create_encoder(**FAMILIES[family], projection=4)
    found = depths(encoder)
    assert found.keys() == dict(encoder.named_parameters()).keys()
    assert max(found.values()) == LAST[family]
    assert set(found.values()) == set(range(LAST[family] + 1))
    assert list(found.values()) == sorted(found.values())
    assert found["projection.0.weight"] == LAST[family]


@pytest.mark.parametrize(
    "settings",
    [tiny.TWO_SIZES, tiny.CHANNEL_VIT, {"name": "covariance_vit", "image_size": 16, "stem_widths": [4]}, tiny.FORMER],
)
def test_depths_of_our_own_encoders(settings):
    found = depths(create_encoder(**settings | {"depth": 3}))
    assert set(found.values()) == {0, 1, 2, 3}
    assert all(
        depth == 0
        for name, depth in found.items()
        if "pos_embed" in name or "patch_embed" in name or "channel_embedding" in name
    )
    assert all(
        depth == int(name.split("blocks.")[1].split(".")[0]) + 1 for name, depth in found.items() if "blocks." in name
    )


def test_rates_decay_by_depth():
    method = tiny.simclr(encoder=TWO_BLOCKS)
    optimizer = AdamW(lr=1.0, layer_decay=0.5, lr_scale={"encoder.": 0.1}).build(method)
    AdamW(lr=1.0, layer_decay=0.5).set_step(optimizer, 0, 10)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert len(rates) == len(list(method.parameters()))
    expected = {
        "backbone.patch_embed.layers.0.weight": 0.025,
        "backbone.pos_embed": 0.025,
        "backbone.blocks.0.attn.qkv.weight": 0.05,
        "backbone.blocks.1.mlp.fc1.bias": 0.1,
    }
    assert {name: rates[f"encoder.{name}"] for name in expected} == pytest.approx(expected)
    assert rates["head.0.weight"] == 1.0
    with pytest.raises(ValueError, match=r"optimizer\.layer_decay=1\.5: give a number above 0"):
        AdamW(lr=1.0, layer_decay=1.5).build(method)
