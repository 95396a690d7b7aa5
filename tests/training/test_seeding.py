"""Seeds are a function of their parts, the same in every process and version."""

import torch

from morphoclip.training.seeding import fold, generator


def test_fold_is_pinned():
    """A change here would change every run that resumes."""
    assert fold(0) == 7210762507766007076
    assert fold(7, 12, "flip") == 7675542790112414488


def test_parts_matter_in_kind_and_order():
    assert fold(0, torch.tensor(3)) == fold(0, 3)
    keys = [fold(0, 1, 2), fold(0, 2, 1), fold(0, 12), fold(0, "1", 2), fold(1, 1, 2), fold(0, 1, 2, "a")]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)


def test_generators_repeat_and_differ_by_purpose():
    draw = [torch.rand(4, generator=generator(0, 5, purpose)) for purpose in ("a", "a", "b")]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
