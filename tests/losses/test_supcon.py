"""SupCon across plates against the sum written out, and what stays out of it."""

import torch
import torch.nn.functional as F

from morphoclip.losses import LossContext, SupConLoss

SCALE = 5.0
PERTURBATION = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
PLATE = torch.tensor([0, 1, 1, 0, 2, 0, 0, 1])  # perturbation 2 on one plate only, 3 once


def embeddings(seed=0):
    return torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss_of(image, perturbation=PERTURBATION, plate=PLATE, **kw):
    return SupConLoss(**kw)(image, None, SCALE, context=LossContext(perturbation=perturbation, plate=plate))


def by_loops(image):
    image = F.normalize(image, dim=1)
    losses = []
    for i in range(len(image)):
        same = [j for j in range(len(image)) if PERTURBATION[j] == PERTURBATION[i]]
        positives = [j for j in same if PLATE[j] != PLATE[i]]
        keys = positives + [j for j in range(len(image)) if j not in same]
        normaliser = torch.stack([SCALE * image[i] @ image[k] for k in keys]).logsumexp(0)
        if positives:
            losses.append(torch.stack([normaliser - SCALE * image[i] @ image[p] for p in positives]).mean())
    return torch.stack(losses).mean()


def test_equals_the_sum_over_anchors_written_out():
    """Rows 1 and 2 share perturbation and plate: neither is among the other's keys."""
    torch.testing.assert_close(loss_of(embeddings()), by_loops(embeddings()))


def test_rows_with_a_negative_perturbation_are_left_out():
    image = embeddings().requires_grad_()
    marked = torch.where(torch.arange(8) == 2, -1, PERTURBATION)
    kept = torch.arange(8) != 2
    loss = loss_of(image, marked)
    torch.testing.assert_close(loss, loss_of(image[kept], PERTURBATION[kept], PLATE[kept]))
    gradient = torch.autograd.grad(loss, image)[0]
    assert gradient.isfinite().all()
    assert (gradient[2] == 0).all()


def test_a_step_without_positives_is_zero_with_zero_gradients():
    image = embeddings().requires_grad_()
    loss = loss_of(image, torch.arange(8))
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, image)[0] == 0).all()


def test_chunks_change_neither_value_nor_gradient():
    image = embeddings().requires_grad_()
    plain, chunked = (loss_of(image, chunk_size=size) for size in (None, 3))
    torch.testing.assert_close(plain, chunked)
    torch.testing.assert_close(*(torch.autograd.grad(loss, image)[0] for loss in (plain, chunked)))
