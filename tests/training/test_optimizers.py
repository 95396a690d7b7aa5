"""Parameter groups, and the learning rates and decays of a step."""

import pytest
import torch
from torch import nn

from morphoclip.training.groups import parameter_groups
from morphoclip.training.optimizers import AdamW
from morphoclip.training.schedules import linear


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.head = nn.Linear(4, 2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.prototypes = nn.Parameter(torch.zeros(6, 4))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_only_matrices_decay_and_each_trainable_parameter_is_there_once():
    model = Model()
    groups = parameter_groups(model, weight_decay=0.1)
    decayed = {name for group in groups if group["weight_decay"] for name in group["names"]}
    assert decayed == {"encoder.0.weight", "head.weight"}
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, p in model.named_parameters() if p.requires_grad)


def test_a_step_scales_freezes_and_schedules_by_prefix():
    model = Model()
    recipe = AdamW(
        lr=1.0,
        weight_decay=0.4,
        lr_schedule=linear,
        weight_decay_schedule=linear,
        lr_scale={"encoder": 0.1, "encoder.1": 0.5},
        frozen={"head": {"steps": 3}, "encoder.1": {"share": 0.25}},
    )
    optimizer = recipe.build(model)

    def by_name(step):
        assert recipe.set_step(optimizer, step, 10) == pytest.approx(1 - step / 10)
        return {n: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for n in g["names"]}

    before, after = by_name(2), by_name(5)
    assert before["encoder.0.weight"] == pytest.approx((0.08, 0.32))
    assert before["encoder.1.weight"] == pytest.approx((0, 0))
    assert after["encoder.1.weight"] == pytest.approx((0.25, 0))
    assert before["head.weight"] == pytest.approx((0, 0.32))
    assert after["head.weight"] == pytest.approx((0.5, 0.2))
    assert after["prototypes"] == pytest.approx((0.5, 0))


def test_an_unknown_prefix_is_an_error():
    with pytest.raises(ValueError, match="'haed'"):
        parameter_groups(Model(), weight_decay=0.1, lr_scale={"haed": 0.1})


def test_a_frozen_span_says_what_it_counts():
    for wrong in (3, 0.25, {"step": 3}, {"steps": 3, "share": 0.1}):
        with pytest.raises(ValueError, match=r"give \{steps"):
            AdamW(lr=1.0, frozen={"weight": wrong}).build(nn.Linear(2, 2))
