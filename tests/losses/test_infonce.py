"""InfoNCE against cross-entropies, and against the sum over rows written out where prompts repeat."""

import pytest
import torch
import torch.nn.functional as F

from morphoclip.losses import InfoNCELoss, LossContext

SCALE = 7.0


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(image, other, image_id, other_id, perturbation=None):
    """½ (mean over images + mean over distinct candidates with an image), targets by the sum of weights over images."""
    image, other = F.normalize(image, dim=1), F.normalize(other, dim=1)
    image_id, other_id = image_id.tolist(), other_id.tolist()
    label = perturbation or image_id
    distinct = sorted(set(other_id))
    candidate = {u: other[other_id.index(u)] for u in distinct}

    def weight(i, u):
        return sum(label[i] == label[j] for j in range(len(image)) if image_id[j] == u)

    def cross_entropy(logits, weights):
        target = torch.tensor(weights, dtype=torch.float64)
        return -(target / target.sum() * torch.stack(logits).log_softmax(0)).sum()

    to_other = [
        cross_entropy(
            [SCALE * image[i] @ candidate[u] for u in distinct],
            [weight(i, u) for u in distinct],
        )
        for i in range(len(image))
    ]
    to_image = [
        cross_entropy(
            [SCALE * image[i] @ candidate[u] for i in range(len(image))],
            [weight(i, u) for i in range(len(image))],
        )
        for u in distinct
        if u in image_id
    ]
    return (torch.stack(to_other).mean() + torch.stack(to_image).mean()) / 2


# Prompt 9 belongs to no image; prompt 3 is there twice; prompts 3 and 5 are doses of one perturbation.
IMAGE_ID = torch.tensor([3, 3, 5, 8, 3, 8])
OTHER_ID = torch.tensor([8, 3, 9, 5, 3])
PERTURBATION = torch.tensor([0, 0, 0, 1, 0, 1])


def case():
    image, distinct = rows(6, 4), rows(4, 4, seed=1)
    return image, distinct[[0, 1, 2, 3, 1]]


def test_without_context_it_is_the_mean_of_two_cross_entropies():
    image, other = rows(5, 4), rows(5, 4, seed=1)
    logits = SCALE * F.normalize(image, dim=1) @ F.normalize(other, dim=1).T
    expected = (F.cross_entropy(logits, torch.arange(5)) + F.cross_entropy(logits.T, torch.arange(5))) / 2
    torch.testing.assert_close(InfoNCELoss()(image, other, SCALE), expected)


@pytest.mark.parametrize("multi_positive", [False, True])
def test_repeated_prompts_equal_the_sum_written_out(multi_positive):
    image, other = case()
    context = LossContext(image_id=IMAGE_ID, other_id=OTHER_ID, perturbation=PERTURBATION)
    loss = InfoNCELoss(multi_positive)(image, other, SCALE, context=context)
    labels = PERTURBATION.tolist() if multi_positive else None
    torch.testing.assert_close(loss, by_loops(image, other, IMAGE_ID, OTHER_ID, labels))


def test_a_prompt_shared_by_two_perturbations_is_positive_to_both():
    """Two guides of a gene whose prompt names the gene only."""
    image_id, other_id = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1])
    guides = torch.tensor([0, 1, 0, 1])
    image, other = rows(4, 3), rows(2, 3, seed=1)
    context = LossContext(image_id=image_id, other_id=other_id, perturbation=guides)
    loss = InfoNCELoss(multi_positive=True)(image, other, SCALE, context=context)
    torch.testing.assert_close(loss, by_loops(image, other, image_id, other_id, guides.tolist()))


def test_an_image_without_its_prompt_is_an_error():
    with pytest.raises(ValueError, match=r"ids \[4\]"):
        InfoNCELoss()(
            rows(2, 3),
            rows(1, 3),
            SCALE,
            context=LossContext(image_id=torch.tensor([1, 4]), other_id=torch.tensor([1])),
        )


def test_unequal_rows_without_a_context_are_an_error():
    with pytest.raises(ValueError, match="LossContext"):
        InfoNCELoss()(rows(3, 2), rows(2, 2), SCALE)
