"""Every loss names what is wrong with its arguments, and takes them by name in any order."""

import pytest
import torch

from morphoclip import losses
from morphoclip.losses import InfoNCELoss, LossContext, MAELoss, NTXentLoss, SigLIPLoss

A, B = torch.randn(4, 3), torch.randn(4, 3)


def test_two_views_have_one_shape():
    with pytest.raises(ValueError, match=r"\(5, 4\) and \(3, 4\)"):
        NTXentLoss()(torch.randn(5, 4), torch.randn(3, 4))


@pytest.mark.parametrize("loss", [InfoNCELoss, SigLIPLoss])
@pytest.mark.parametrize("counts", [(5, 4), (3, 4), (4, 5)])
def test_there_is_an_id_a_row(loss, counts):
    context = LossContext(*(torch.arange(count) for count in counts))
    with pytest.raises(ValueError, match="one id per row"):
        loss()(A, B, 10.0, context=context)


@pytest.mark.parametrize(
    ("target", "mask"), [((2, 1, 6), (2, 3)), ((2, 3, 6), (3,)), ((2, 3, 6), (2, 1)), ((2, 3, 5), (2, 3))]
)
def test_patches_and_mask_belong_together(target, mask):
    with pytest.raises(ValueError, match=r"mask \(B, L\)"):
        MAELoss()(torch.randn(2, 3, 6), torch.randn(target), torch.ones(mask))


def test_one_image_has_no_negatives():
    with pytest.raises(ValueError, match="needs two crops or more"):
        NTXentLoss()(torch.randn(1, 4), torch.randn(1, 4))


def test_no_masked_patch_is_no_loss():
    assert MAELoss()(torch.randn(2, 3, 6), torch.randn(2, 3, 6), torch.zeros(2, 3)) == 0


@pytest.mark.parametrize(
    ("loss", "missing"), [("CWCLLoss", "image_profile"), ("S2LLoss", "image_frozen"), ("SupConLoss", "perturbation")]
)
@pytest.mark.parametrize("context", [{}, {"context": None}])
def test_what_the_context_lacks_is_named(loss, missing, context):
    with pytest.raises(ValueError, match=f"{loss} needs {missing}"):
        getattr(losses, loss)()(A, B, 10.0, **context)


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_has_a_row_at_least(size):
    with pytest.raises(ValueError, match=f"chunk_size={size}"):
        InfoNCELoss(chunk_size=size)(A, B, 10.0)


def test_arguments_go_by_name_in_any_order():
    assert InfoNCELoss()(logit_scale=10.0, other=B, image=A) == InfoNCELoss()(A, B, 10.0)
    views = list(torch.randn(3, 4, 6))
    by_name = losses.DINOLoss(6)(teacher_temp=0.04, teacher=views[:2], student=views)
    assert by_name == losses.DINOLoss(6)(views, views[:2], 0.04)
