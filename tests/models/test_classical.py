from __future__ import annotations

import numpy as np
import pytest
import torch

from morphoclip.models.classical import PERCENTILES, ClassicalFeatures, IntensityStatistics


@pytest.fixture
def crops() -> torch.Tensor:
    """Smooth noise in [0, 1], (6, 5, 64, 64)."""
    noise = torch.rand(6, 5, 70, 70, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(noise, 7, 1).sub(0.3).mul(2).clamp(0, 1)


def test_intensity_statistics_are_numpys(crops):
    ours = IntensityStatistics()(crops).view(6, -1).numpy()
    pixels = crops.flatten(2).numpy().astype(np.float64)
    np.testing.assert_allclose(ours[:, :5], pixels.mean(-1), atol=1e-5)
    np.testing.assert_allclose(ours[:, 5:10], pixels.std(-1), atol=1e-5)
    percentiles = np.percentile(pixels, PERCENTILES, axis=-1, method="inverted_cdf").transpose(1, 2, 0).reshape(6, -1)
    np.testing.assert_allclose(ours[:, 10:45], percentiles, atol=0.5001 / 1024)
    np.testing.assert_allclose(ours[:, 45:], (pixels > 0.2).mean(-1), atol=0.01)


def test_intensity_statistics_know_no_place(crops):
    order = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(1))
    scrambled = crops.flatten(2)[..., order].view_as(crops)
    torch.testing.assert_close(IntensityStatistics()(scrambled), IntensityStatistics()(crops))
    assert (ClassicalFeatures()(scrambled) - ClassicalFeatures()(crops)).abs().mean() > 0.1


@pytest.mark.parametrize("size", [32, 48, 64, 128])
def test_flips_and_turns_change_no_classical_feature(size):
    crops = torch.rand(2, 5, size, size, generator=torch.Generator().manual_seed(size))
    encoder = ClassicalFeatures()
    expected = encoder(crops)
    for turned in (crops.flip(-1), crops.flip(-2), crops.rot90(1, (-2, -1))):
        torch.testing.assert_close(encoder(turned), expected, atol=1e-4, rtol=1e-4)


def test_classical_features_see_which_channels_go_together(crops):
    encoder = ClassicalFeatures()
    together, apart = crops.clone(), crops.clone()
    together[:, 1] = crops[:, 0]
    apart[:, 1] = crops[:, 0].roll(20, -1)
    assert (encoder(together) - encoder(apart)).abs().amax(1).min() > 1


def test_classical_features_tell_nuclear_from_cytoplasmic():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    radius = ((y - 31.5) ** 2 + (x - 31.5) ** 2).sqrt()
    nucleus, rim = (radius < 10).float(), ((radius > 12) & (radius < 18)).float()
    inside, outside = torch.zeros(2, 1, 5, 64, 64)
    inside[:, 0], outside[:, 0] = nucleus, nucleus
    inside[:, 1], outside[:, 1] = nucleus * rim.sum() / nucleus.sum(), rim
    torch.testing.assert_close(inside.mean((-2, -1)), outside.mean((-2, -1)))
    difference = (ClassicalFeatures()(inside) - ClassicalFeatures()(outside)).abs()
    assert difference.max() > 2


@pytest.mark.parametrize("encoder", [IntensityStatistics(), ClassicalFeatures()], ids=["intensity", "classical"])
def test_they_keep_the_encoders_contract(encoder, crops):
    images = (crops * 4000).to(torch.uint16)
    low, high = torch.zeros(6, 5), torch.full((6, 5), 4000.0)
    features = encoder(encoder.preprocess(images, low, high))
    assert features.shape == (6, encoder.embed_dim)
    torch.testing.assert_close(features, encoder(images.float() / 4000))
    assert encoder.channels == ("DNA", "ER", "RNA", "AGP", "Mito")
    assert not list(encoder.parameters())
    singly = torch.cat([encoder(crop[None]) for crop in crops])
    torch.testing.assert_close(encoder(crops), singly, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("encoder", [IntensityStatistics(), ClassicalFeatures()], ids=["intensity", "classical"])
def test_flat_crops_are_finite(encoder, value):
    assert encoder(torch.full((2, 5, 64, 64), value)).isfinite().all()


def test_small_crops_are_refused():
    with pytest.raises(ValueError, match="at least 32"):
        ClassicalFeatures()(torch.zeros(1, 5, 31, 64))


def test_the_nuclear_channel_goes_by_its_name(crops):
    turned = ("Mito", "AGP", "RNA", "ER", "DNA")
    sets = [
        set(np.round(e(c)[0].numpy(), 3))
        for e, c in ((ClassicalFeatures(), crops), (ClassicalFeatures(turned), crops.flip(1)))
    ]
    assert len(sets[0] & sets[1]) > 0.98 * len(sets[0])
    with pytest.raises(ValueError, match="'Hoechst' is not one of"):
        ClassicalFeatures(nuclear_channel="Hoechst")
