"""Transforms: each image its own parameters, the input untouched, closed forms, ranks drawing alike."""

import pytest
import torch

from morphoclip.augment import Color, Compose, Flip, Gain, RandomCrop, Rot90, Sharpness, draw_visible
from morphoclip.filters import binomial_blur

TRANSFORMS = [Flip(), Rot90(), Color(), Gain(), Sharpness()]


def images(count=6, channels=5):
    return torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def draws(transform, count=6, seed=1):
    return transform.draw(count, 5, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_input_is_unchanged_and_rows_are_independent(transform):
    x = images()
    before, parameters = x.clone(), draws(transform)
    out = transform.apply(x, parameters)
    assert torch.equal(x, before)
    assert not torch.equal(out, before)
    each = torch.cat([transform.apply(x[i : i + 1], parameters[i : i + 1]) for i in range(len(x))])
    assert torch.equal(out, each)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_rows_that_change_nothing_do_not_alias_the_input(transform):
    x = images()
    still = {
        Flip: torch.zeros(6, 2, dtype=torch.bool),
        Rot90: torch.zeros(6, dtype=torch.int64),
        Gain: torch.zeros(6, 2, 5),
        Sharpness: torch.zeros(6, 5),
    }
    identity = torch.stack([torch.zeros(6, 5), torch.ones(6, 5)], dim=1)
    out = transform.apply(x, still.get(type(transform), identity))
    assert torch.equal(out, x)
    out.zero_()
    assert x.count_nonzero() > 0


def test_flip_mirrors_the_axes_drawn():
    x = images(4)
    out = Flip().apply(x, torch.tensor([[False, False], [True, False], [False, True], [True, True]]))
    assert torch.equal(out[0], x[0])
    assert torch.equal(out[1], x[1].flip(-1))
    assert torch.equal(out[2], x[2].flip(-2))
    assert torch.equal(out[3], x[3].flip(-1, -2))


def test_flips_are_drawn_with_their_probability():
    rate = draws(Flip(p=0.3), count=20_000).float().mean(0)
    torch.testing.assert_close(rate, torch.full((2,), 0.3), atol=0.015, rtol=0)


def test_rot90_turns_by_quarters():
    x = images(4)
    out = Rot90().apply(x, torch.arange(4))
    for turns in range(4):
        assert torch.equal(out[turns], x[turns].rot90(turns, (-2, -1)))


def test_color_shifts_clips_and_raises_each_channel():
    x, parameters = images(), draws(Color())
    out = Color().apply(x, parameters)
    for i in range(6):
        for c in range(5):
            shift, gamma = parameters[i, :, c]
            torch.testing.assert_close(out[i, c], (x[i, c] + shift).clamp(0, 1) ** gamma)


def test_color_draws_cover_their_ranges():
    shift, gamma = draws(Color(shift=0.3, gamma=(0.5, 1.5)), count=5000).unbind(1)
    for values, low, high in ((shift, -0.3, 0.3), (gamma, 0.5, 1.5)):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
        torch.testing.assert_close(values.mean(), torch.tensor((low + high) / 2), atol=0.01, rtol=0)


def test_ranks_that_slice_one_draw_see_what_a_single_process_sees():
    compose = Compose(TRANSFORMS)
    x = images(8)
    parameters = compose.draw(8, 5, torch.Generator().manual_seed(3))
    whole = compose.apply(x, parameters)
    halves = [compose.apply(x[own], [p[own] for p in parameters]) for own in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole, torch.cat(halves))


def test_random_crops_are_cut_whole_from_everywhere_in_the_image():
    x = torch.arange(8 * 8.0).view(1, 1, 8, 8).expand(500, 2, 8, 8)
    before = x.clone()
    views = RandomCrop(5).apply(x, RandomCrop(5).draw(500, 2, torch.Generator().manual_seed(0)))
    assert views.shape == (500, 2, 5, 5)
    assert torch.equal(x, before)
    corners = {(int(v[0, 0, 0]) // 8, int(v[0, 0, 0]) % 8) for v in views}
    assert corners == {(y, x) for y in range(4) for x in range(4)}
    for view in views[:20]:
        y, x0 = divmod(int(view[0, 0, 0]), 8)
        assert torch.equal(view, x[0, :, y : y + 5, x0 : x0 + 5])


def test_a_view_larger_than_its_crop_is_an_error():
    with pytest.raises(ValueError, match="8 x 8 pixels are smaller than views of 9"):
        RandomCrop(9).apply(images(), torch.zeros(6, 2))


def test_visible_patches_are_a_sorted_random_choice_and_the_rest_is_masked():
    order = draw_visible(2000, 6, 4, torch.Generator().manual_seed(0))
    assert torch.equal(order.sort(dim=1).values, torch.arange(6).expand(2000, 6))
    assert (order[:, :4].diff(dim=1) > 0).all()
    share = torch.zeros(6).index_add_(0, order[:, :4].flatten(), torch.ones(8000)) / 2000
    torch.testing.assert_close(share, torch.full((6,), 4 / 6), atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="0 of 6"):
        draw_visible(2, 6, 0, torch.Generator())


def test_gain_multiplies_and_adds_a_channel_within_its_range():
    x = images(2)
    drawn = torch.zeros(2, 2, 5)
    drawn[0, 0, 1], drawn[0, 1, 1] = 0.2, -0.05
    out = Gain().apply(x, drawn)
    torch.testing.assert_close(out[0, 1], x[0, 1] * torch.tensor(0.2).exp() - 0.05)
    out[0, 1] = x[0, 1]
    assert torch.equal(out, x)
    spread = draws(Gain(log_gain=0.4, offset=0.1), count=5000).abs().amax((0, 2))
    torch.testing.assert_close(spread, torch.tensor([0.4, 0.1]), rtol=1e-3, atol=0)


def test_sharpness_blurs_by_a_binomial_kernel_or_takes_it_away():
    x = images(3)
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (line[:, None] * line).expand(5, 1, 3, 3)
    blurred = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=5)
    torch.testing.assert_close(binomial_blur(x), blurred)
    out = Sharpness().apply(x, torch.tensor([1.0, 0.5, -0.5])[:, None].expand(3, 5))
    expected = torch.stack([blurred[0], (x[1] + blurred[1]) / 2, 1.5 * x[2] - 0.5 * blurred[2]])
    torch.testing.assert_close(out, expected)
    drawn = draws(Sharpness(sharpen=0.5, blur=0.8), count=5000)
    torch.testing.assert_close(torch.stack([drawn.min(), drawn.max()]), torch.tensor([-0.5, 0.8]), rtol=0, atol=1e-3)
