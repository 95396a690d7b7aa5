"""BatchNorm on one rank is torch's; on two ranks see tests/test_distributed.py."""

import pytest
import torch

from morphoclip.models import BatchNorm


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3)])
def test_one_rank_equals_torch(shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = BatchNorm(4), torch.nn.BatchNorm1d(4)
    for _ in range(2):
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
