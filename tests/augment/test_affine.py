"""Affine: what each parameter does, against exact symmetries."""

import math

import torch

from morphoclip.augment import Affine


def images(side=16):
    return torch.rand(3, 5, side, side, generator=torch.Generator().manual_seed(0))


def rows(angle=0.0, size=1.0, right=0.0, down=0.0, count=3):
    return torch.tensor([[angle, size, right, down]]).repeat(count, 1)


def test_nothing_drawn_changes_nothing_and_the_input_stays():
    x = images()
    before = x.clone()
    torch.testing.assert_close(Affine().apply(x, rows()), x, atol=1e-5, rtol=0)
    Affine().apply(x, rows(angle=1.0))
    assert torch.equal(x, before)


def test_quarter_turns_are_exact():
    x = images()
    out = Affine().apply(x, rows(angle=math.pi / 2))
    torch.testing.assert_close(out, x.rot90(1, (-2, -1)), atol=1e-4, rtol=0)


def test_shift_moves_pixels_to_the_right_and_down():
    x = images()
    moved = Affine().apply(x, rows(right=2 / 16, down=1 / 16))
    torch.testing.assert_close(moved[..., 1:, 2:], x[..., :-1, :-2], atol=1e-4, rtol=0)


def test_zoom_enlarges_about_the_centre():
    disc = ((torch.arange(64) - 31.5).square()[:, None] + (torch.arange(64) - 31.5).square() < 100).float()
    area = Affine().apply(disc.expand(1, 1, 64, 64), rows(size=1.5, count=1)).sum() / disc.sum()
    assert abs(area.item() - 2.25) < 0.05


def test_each_image_has_its_own_parameters_within_their_range():
    transform = Affine(degrees=30, zoom=0.2, shift=0.1)
    drawn = transform.draw(5000, 5, torch.Generator().manual_seed(0))
    limits = torch.tensor([math.radians(30), 0.2, 0.1, 0.1])
    spread = (drawn - torch.tensor([0.0, 1.0, 0.0, 0.0])).abs()
    assert (spread <= limits).all()
    assert (spread.amax(0) > 0.98 * limits).all()
    x = images()
    out = transform.apply(x, drawn[:3])
    each = torch.cat([transform.apply(x[i : i + 1], drawn[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(out, each)
