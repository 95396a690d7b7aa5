from __future__ import annotations

import argparse

import pytest
import torch

from benchmarks import ssl_step

GIVEN = argparse.Namespace(encoder="vit_tiny", local_views=1, device="cpu", bf16=False)


@pytest.mark.parametrize("name", ssl_step.RECIPES)
def test_the_rest_of_a_step_runs_no_backbone_and_leaves_nothing_else_out(name):
    pytest.importorskip("lightly")
    method, batch = ssl_step.our_method(name, GIVEN), ssl_step.crops(2, 224, "cpu")
    peer = ssl_step.PEERS[name](method)
    steps = {"ours": ssl_step.our_step(method), "lightly": peer.step}
    ran: list[str] = []
    blocks = {"ours": method.encoder.backbone.blocks[0], "lightly": peer.vit.blocks[0]}
    for key, block in blocks.items():
        block.register_forward_hook(lambda *_, key=key: ran.append(key))
    for key, calls in ssl_step.backbones(method, peer).items():
        ssl_step.without_backbones(steps[key], batch, calls)
        assert key in ran
        ran.clear()
        own = {"ours": method, "lightly": torch.nn.ModuleList([peer.vit, *peer.students])}[key]
        steps[key](batch)
        assert not ran
        reached = {n for n, p in own.named_parameters() if p.grad is not None}
        rest = {"ours": lambda n: not n.startswith("encoder."), "lightly": lambda n: not n.startswith("0.")}[key]
        assert reached == {n for n, p in own.named_parameters() if p.requires_grad and rest(n)}
