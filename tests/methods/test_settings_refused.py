"""Settings with which a method would train nothing, or cheat, are refused when it is built."""

from __future__ import annotations

import pytest
import torch

from morphoclip.methods.mae import sees_beyond
from morphoclip.models import create_encoder
from tests.methods.tiny import ENCODER, LINEAR_VIT, clip, mae

LINEAR = {
    "linear patches": LINEAR_VIT,
    "dynamic size": LINEAR_VIT | {"dynamic_img_size": True},
    "registers": LINEAR_VIT | {"reg_tokens": 2, "no_embed_class": True},
}
OVERLAPPING = {"one level": ENCODER, "two levels": ENCODER | {"stem_widths": [4, 8]}}


@pytest.mark.parametrize("name", OVERLAPPING)
def test_mae_refuses_an_embedding_that_sees_over_the_borders_of_patches(name):
    with pytest.raises(
        ValueError, match=f"patch embedding of {OVERLAPPING[name]['name']} reaches over .*encoder=vit_tiny"
    ):
        mae(encoder=OVERLAPPING[name])


@pytest.mark.parametrize("name", LINEAR)
def test_hidden_pixels_never_reach_the_visible_tokens(name):
    method = mae(encoder=LINEAR[name]).eval()
    images = torch.randn(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(method.patches, generator=torch.Generator().manual_seed(1)).repeat(2, 1)
    visible = order[:, : method.visible]
    changed = images.clone()
    for patch in order[0, method.visible :].tolist():
        row, column = divmod(patch, 16 // method.patch)
        changed[
            :, :, row * method.patch : (row + 1) * method.patch, column * method.patch : (column + 1) * method.patch
        ] = 9.0
    with torch.no_grad():
        before, after = (method.encoder.forward_tokens(x, visible) for x in (images, changed))
    assert torch.equal(before, after)
    assert not sees_beyond(create_encoder(**LINEAR[name]).backbone.patch_embed, 5)


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.99, 1.0])
def test_mae_hides_some_patches_and_shows_some(ratio):
    with pytest.raises(ValueError, match=f"mask_ratio={ratio} hides (0|16) of 16 patches"):
        mae(mask_ratio=ratio)


def test_one_prompt_has_nothing_to_be_told_from():
    with pytest.raises(ValueError, match="have 1 distinct prompt"):
        clip(prompts=["cells", "cells", "cells", "cells", None])
