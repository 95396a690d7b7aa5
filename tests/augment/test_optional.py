"""The transforms that are off by default."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from morphoclip.augment import Blur, DropChannel, Flip, Noise, ResizedCrop, Rot90, crop, symmetry
from morphoclip.augment.gather import gather_pixels

TRANSFORMS = [Blur(kernel=7), DropChannel(p=0.5), Noise(sigma=(0.01, 0.2)), ResizedCrop(size=6)]


def images(count: int = 6, size: int = 12) -> torch.Tensor:
    return torch.rand(count, 5, size, size, generator=torch.Generator().manual_seed(0))


def draws(transform, count: int = 6, seed: int = 1) -> torch.Tensor:
    return transform.draw(count, 5, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_input_is_unchanged_and_rows_are_independent(transform):
    x = images()
    before, parameters = x.clone(), draws(transform)
    out = transform.apply(x, parameters)
    assert torch.equal(x, before)
    assert not torch.equal(out, before[..., : out.shape[-2], : out.shape[-1]])
    each = torch.cat([transform.apply(x[i : i + 1], parameters[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(out, each, rtol=1e-6, atol=1e-6)
    assert len({tuple(row.flatten().tolist()) for row in parameters}) > 1


@pytest.mark.parametrize("size", [5, 12, 30])
def test_resizing_the_whole_image_is_torchs_antialiased_bilinear(size):
    x = images()
    whole = torch.tensor([[1.0, 0.3, 0.7]]).expand(6, 3)
    expected = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(ResizedCrop(size=size).apply(x, whole), expected, rtol=1e-5, atol=1e-6)


def test_a_resized_crop_shows_the_part_it_names():
    ramp = torch.arange(40.0)[:, None].expand(40, 40)  # bilinear filters keep a slope
    x = torch.stack([ramp, ramp.T])[None]
    view = ResizedCrop(size=5).apply(x, torch.tensor([[0.25, 0.5, 1.0]]))[0]  # 20 pixels across, from y = 10, x = 20
    centres = 10 + 4 * (torch.arange(5.0) + 0.5) - 0.5
    torch.testing.assert_close(view[0], centres[:, None].expand(5, 5))
    torch.testing.assert_close(view[1, :, 1:4], (centres + 10)[None, 1:4].expand(5, 3))


def test_areas_cover_their_range():
    area, y, x = draws(ResizedCrop(), count=5000).unbind(1)
    assert 0.12 <= area.min() < 0.125
    assert 0.465 < area.max() <= 0.47
    assert 0 <= y.min() < y.max() < 1
    assert not torch.equal(x, y)


def test_blur_is_a_gaussian_of_its_own_width_in_every_image():
    x = torch.zeros(3, 2, 41, 41)
    x[:, :, 20, 20] = 1
    sigma = torch.tensor([0.0, 1.0, 2.5])
    out = Blur(kernel=23).apply(x, sigma)
    assert torch.equal(out[0], x[0])
    place = torch.arange(41.0) - 20
    for image, width in ((1, 1.0), (2, 2.5)):
        torch.testing.assert_close(out[image].sum((1, 2)), torch.ones(2))
        variance = (out[image, 0].sum(0) * place**2).sum()
        torch.testing.assert_close(variance, torch.tensor(width**2), rtol=0.02, atol=0)
        torch.testing.assert_close(out[image, 0], out[image, 0].T)


def test_blur_is_drawn_for_its_share_of_images():
    sigma = draws(Blur(sigma=(0.5, 2.0), p=0.3), count=5000)
    assert (sigma > 0).float().mean() == pytest.approx(0.3, abs=0.03)
    assert sigma[sigma > 0].min() >= 0.5
    assert sigma.max() <= 2.0
    with pytest.raises(ValueError, match="odd number"):
        Blur(kernel=22)


def test_channels_are_dropped_with_their_probability_but_never_all():
    kept = draws(DropChannel(p=0.4), count=20_000)
    assert kept.any(dim=1).all()
    assert (~kept).float().mean() == pytest.approx(0.4 - 0.4**5 / 5, abs=0.01)
    assert draws(DropChannel(p=1.0), count=100).sum(dim=1).eq(1).all()
    x = images(2)
    out = DropChannel().apply(x, torch.tensor([[True, False, True, True, False], [True] * 5]))
    assert torch.equal(out[1], x[1])
    assert out[0, [1, 4]].count_nonzero() == 0
    assert torch.equal(out[0, [0, 2, 3]], x[0, [0, 2, 3]])


def test_noise_is_normal_independent_and_of_its_own_width():
    x = torch.full((3, 5, 100, 100), 0.5)
    parameters = torch.tensor([[0.02, 7.0], [0.05, 8.0], [0.0, 9.0]], dtype=torch.float64)
    noise = Noise().apply(x, parameters) - 0.5
    for image, sigma in ((0, 0.02), (1, 0.05)):
        values = noise[image].flatten() / sigma
        assert values.mean().abs() < 0.02
        assert values.std() == pytest.approx(1, abs=0.02)
        assert (values.abs() < 1).float().mean() == pytest.approx(0.6827, abs=0.01)
        assert (values.abs() > 2).float().mean() == pytest.approx(0.0455, abs=0.005)
        for lag in (1, 2, 100, 10_000):  # neighbours along a row, a column and the channels
            assert (values[:-lag] * values[lag:]).mean().abs() < 0.025
    assert (noise[0] * noise[1]).mean().abs() / 0.001 < 0.025
    assert noise[2].count_nonzero() == 0


def test_noise_stays_within_the_range_of_images():
    out = Noise().apply(images(), torch.tensor([[0.5, float(seed)] for seed in range(6)], dtype=torch.float64))
    assert out.min() == 0
    assert out.max() == 1


def test_crops_are_the_same_by_copies_and_by_one_kernel():
    x = images(4)
    corners = torch.tensor([[0, 7, 3, 7], [0, 0, 5, 7]])
    views = crop._cut(x, *corners.tolist(), 5)
    assert torch.equal(views, gather_pixels(x, *crop.crop_index(corners, 5)))
    assert torch.equal(views[2], x[2, :, 3:8, 5:10])
    assert gather_pixels(x, *crop.crop_index(corners, 5)).is_contiguous()


@pytest.mark.parametrize(
    ("transform", "index", "parameters"),
    [
        (Flip(), symmetry.flip_index, torch.tensor([[False, False], [False, True], [True, False], [True, True]])),
        (Rot90(), symmetry.rotation_index, torch.arange(4)),
    ],
    ids=["Flip", "Rot90"],
)
def test_symmetries_are_the_same_by_copies_and_by_one_kernel(transform, index, parameters):
    x = images(4)
    assert torch.equal(transform.apply(x, parameters), gather_pixels(x, *index(x, parameters)))
