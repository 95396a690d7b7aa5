"""What every cross-modal loss must keep: chunks, copies of prompts, order of rows and precision change nothing."""

import pytest
import torch

from morphoclip.losses import CLOOBLoss, CWCLLoss, InfoNCELoss, LossContext, S2LLoss, SigLIPLoss

LOSSES = {
    "infonce": InfoNCELoss,
    "infonce, multi-positive": lambda **kw: InfoNCELoss(multi_positive=True, **kw),
    "cwcl": CWCLLoss,
    "cwcl, sharpened": lambda **kw: CWCLLoss(center=True, power=2.0, temperature=0.3, top_k=4, **kw),
    "siglip": SigLIPLoss,
    "s2l": lambda **kw: S2LLoss(c=8.0, threshold=0.2, **kw),
    "cloob": CLOOBLoss,
}
IMAGE_ID = torch.tensor([3, 3, 5, 8, 3, 8])
OTHER_ID = torch.tensor([8, 3, 9, 5, 3])  # 3 is there twice, 9 has no image


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def inputs(order=slice(None), others=slice(None)):
    image, other = rows(6, 4)[order], rows(5, 4, seed=1)[[0, 1, 2, 3, 1]][others]
    context = LossContext(
        image_id=IMAGE_ID[order],
        other_id=OTHER_ID[others],
        perturbation=torch.tensor([0, 0, 0, 1, 0, 1])[order],
        image_profile=rows(6, 5, 3, seed=2)[order],
        image_frozen=rows(6, 3, seed=3)[order],
    )
    return image, other, context


@pytest.fixture(params=LOSSES)
def make(request):
    return LOSSES[request.param]


def test_chunks_change_neither_value_nor_gradients(make):
    image, other, context = inputs()
    leaves = [image.requires_grad_(), other.requires_grad_()]
    leaves.append(torch.tensor(3.0, dtype=torch.float64, requires_grad=True))
    outcomes = []
    for chunk_size in (None, 1, 4):
        loss = make(chunk_size=chunk_size)(*leaves[:2], leaves[2], context=context)
        outcomes.append((loss, *torch.autograd.grad(loss, leaves, materialize_grads=True)))
    for outcome in outcomes[1:]:
        torch.testing.assert_close(outcome, outcomes[0])


def test_a_copy_of_a_prompt_changes_nothing(make):
    image, other, context = inputs(others=slice(4))
    once = make()(image, other, 3.0, context=context)
    image, other, context = inputs()
    torch.testing.assert_close(make()(image, other, 3.0, context=context), once)


def test_order_of_rows_does_not_matter(make):
    image, other, context = inputs()
    expected = make()(image, other, 3.0, context=context)
    image, other, context = inputs(order=[4, 2, 0, 5, 1, 3], others=[3, 1, 0, 4, 2])
    torch.testing.assert_close(make()(image, other, 3.0, context=context), expected)


def test_row_i_belongs_to_image_i_where_no_ids_are_given(make):
    image, other, context = inputs()
    fields = {k: v for k, v in vars(context).items() if k not in ("image_id", "other_id")}
    other = rows(6, 4, seed=5)
    numbered = LossContext(**fields | {"image_id": torch.arange(6), "other_id": torch.arange(6)})
    bare = None if make is InfoNCELoss else LossContext(**fields)
    torch.testing.assert_close(make()(image, other, 3.0, context=bare), make()(image, other, 3.0, context=numbered))


def test_half_precision_is_promoted_under_autocast(make):
    image, other, context = inputs()
    half = LossContext(
        **{k: v.half() if v.is_floating_point() else v for k, v in vars(context).items() if v is not None}
    )
    single = LossContext(
        **{k: v.float() if v.is_floating_point() else v for k, v in vars(half).items() if v is not None}
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss = make()(image.half(), other.half(), 3.0, context=half)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make()(image.half().float(), other.half().float(), 3.0, context=single))


@pytest.mark.parametrize(("make", "field"), [(CWCLLoss, "image_profile"), (S2LLoss, "image_frozen")])
def test_a_missing_field_of_the_context_is_named(make, field):
    with pytest.raises(ValueError, match=field):
        make()(rows(2, 3), rows(2, 3), 1.0, context=LossContext())
