"""Heads: prototypes of unit norm that survive a deep copy, batch norm where it is asked for."""

from copy import deepcopy

import torch

from morphoclip.models import BatchNorm, ProjectionHead, PrototypeHead


def test_prototype_outputs_are_cosines_whatever_the_norm_of_the_prototypes():
    torch.manual_seed(0)
    head, x = PrototypeHead(6, 10, hidden=8, bottleneck=4), torch.randn(5, 6)
    out = head(x)
    assert out.shape == (5, 10)
    assert out.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes *= 7
    torch.testing.assert_close(head(x), out)
    torch.testing.assert_close(deepcopy(head)(x), out)


def test_hidden_layers_are_normalised_over_the_batch_and_the_last_is_not():
    plain, normed = ProjectionHead((4, 8, 8, 3)), ProjectionHead((4, 8, 8, 3), batch_norm=True)
    assert [type(m).__name__ for m in plain] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert sum(isinstance(m, BatchNorm) for m in normed) == 2
    assert isinstance(normed[-1], torch.nn.Linear)
    assert normed[1] is not normed[4]
