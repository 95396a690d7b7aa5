"""BatchNorm on one rank is torch's; on two ranks see tests/test_distributed.py."""

import pytest
import timm
import torch

from morphoclip.models import BatchNorm, create_encoder


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3), (6, 4, 3, 2)])
def test_one_rank_equals_torch(shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = BatchNorm(4), (torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d)(4)
    for _ in range(2):
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_a_convolutional_backbone_is_normalised_over_ranks_with_the_weights_it_had(tmp_path):
    theirs = timm.create_model("resnet18", num_classes=0, in_chans=5)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = create_encoder("resnet18", weights=tmp_path / "weights.pth", image_size=64).backbone
    kinds = {type(part) for part in ours.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)}
    assert kinds == {BatchNorm}
    x = torch.randn(4, 5, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.train()(x), theirs.train()(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
