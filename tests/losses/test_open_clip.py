"""Where CLIP is plain, our InfoNCE and SigLIP are open_clip's: value and gradients."""

import pytest
import torch
import torch.nn.functional as F

from morphoclip.losses import InfoNCELoss, SigLIPLoss

open_clip = pytest.importorskip("open_clip.loss", reason="open_clip_torch is in the dev group")


def rows(seed):
    return torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize(
    ("ours", "theirs", "bias"), [(InfoNCELoss, "ClipLoss", None), (SigLIPLoss, "SigLipLoss", torch.tensor(-3.0))]
)
def test_equals_open_clip(ours, theirs, bias, chunk_size):
    image, other = rows(0), rows(1)
    scale = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    leaves = [image, other, scale]
    biases = () if bias is None else (bias.double(),)
    expected = getattr(open_clip, theirs)()(F.normalize(image, dim=1), F.normalize(other, dim=1), scale, *biases)
    loss = ours(chunk_size=chunk_size)(image, other, scale, *biases)
    gradients = [torch.autograd.grad(value, leaves) for value in (loss, expected)]
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
