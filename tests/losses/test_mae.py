"""MAE's loss against the formula a patch, in pixels and normalised."""

import pytest
import torch

from morphoclip.losses import MAELoss


def case():
    draws = torch.Generator().manual_seed(0)
    pred, target = torch.randn(2, 3, 6, 4 * 5, dtype=torch.float64, generator=draws)  # p = 2, C = 5
    mask = (torch.rand(3, 6, generator=draws) < 0.5).double()
    return pred, target, mask


@pytest.mark.parametrize(("norm_pix", "per_channel"), [(False, False), (True, False), (True, True)])
def test_equals_the_mean_over_masked_patches_written_out(norm_pix, per_channel):
    pred, target, mask = case()
    errors = []
    for b, patch in mask.nonzero().tolist():
        pixels = target[b, patch].clone()
        for part in [slice(c, None, 5) for c in range(5)] if per_channel else [slice(None)]:
            if norm_pix:
                values = pixels[part]
                variance = ((values - values.mean()) ** 2).sum() / (len(values) - 1)
                pixels[part] = (values - values.mean()) / (variance + 1e-6) ** 0.5
        errors.append(((pred[b, patch] - pixels) ** 2).mean())
    loss = MAELoss(norm_pix=norm_pix, per_channel=per_channel)(pred, target, mask)
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_a_bool_mask_is_the_same_and_visible_patches_do_not_count():
    pred, target, mask = case()
    expected = MAELoss()(pred, target, mask)
    pred = torch.where(mask[..., None] == 0, 1e6, pred)
    torch.testing.assert_close(MAELoss()(pred, target, mask.bool()), expected)


def test_per_channel_makes_the_brightness_of_a_stain_irrelevant():
    pred, target, mask = case()
    stain = torch.tensor([1.0, 50.0, 0.2, 3.0, 7.0], dtype=torch.float64).repeat(4)
    loss = MAELoss(per_channel=True)
    torch.testing.assert_close(loss(pred, target * stain, mask), loss(pred, target, mask), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(MAELoss()(pred, target * stain, mask), MAELoss()(pred, target, mask), rtol=1e-2)


def test_half_precision_is_promoted():
    pred, target, mask = (x.bfloat16() for x in case())
    assert MAELoss()(pred, target, mask).dtype == torch.float32


@pytest.mark.parametrize(("norm_pix", "per_channel"), [(False, False), (True, False), (True, True)])
def test_a_perfect_prediction_in_pixels_is_the_crop(norm_pix, per_channel):
    _, target, mask = case()
    loss = MAELoss(norm_pix=norm_pix, per_channel=per_channel)
    perfect = loss.normalise(target) if norm_pix else target
    assert loss(perfect, target, mask) == 0
    torch.testing.assert_close(loss.to_pixels(perfect, target), target)
