"""Cases of collectives and losses: two ranks against one process on the joined batch."""

from __future__ import annotations

import torch

from tests.distributed_cases import case, own_rows, randn, weights


@case
def gather(rank, world):
    from morphoclip.distributed import gather_rows, row_counts

    w, own = weights(), own_rows(rank, world, 3)
    rows = randn(8, 6)[own] @ w
    everyone = gather_rows(rows, row_counts(rows))
    loss = (everyone @ everyone.T).sin().sum() + (everyone**3).mean()
    return [everyone, *torch.autograd.grad(loss, [w])]


@case
def mean_with_identity_backward(rank, world):
    from morphoclip.distributed import all_reduced_mean

    w, own = weights(), own_rows(rank, world, 4)
    mean = all_reduced_mean((randn(8, 6)[own] @ w).softmax(1).mean(0))
    return [mean, *torch.autograd.grad((mean * mean.log()).sum(), [w])]


@case
def sum_with_sum_backward(rank, world):
    from morphoclip.distributed import all_reduced_sum

    w, own = weights(), own_rows(rank, world, 3)
    rows = randn(8, 6)[own] @ w
    centred = rows - all_reduced_sum(rows.sum(0)) / 8
    return list(torch.autograd.grad(world * (centred.abs() ** 3).sum(), [w]))


@case
def batch_norm(rank, world):
    from morphoclip.models import BatchNorm

    w, own = weights(), own_rows(rank, world, 3)
    norm = BatchNorm(4).double()
    out = norm(randn(8, 6)[own] @ w)
    loss = world * (out * randn(8, 4, seed=1)[own]).sin().sum()
    return [norm.running_mean, norm.running_var, *torch.autograd.grad(loss, [w, norm.weight, norm.bias])]


@case
def nt_xent(rank, world):
    from morphoclip.losses import NTXentLoss

    w, own = weights(), own_rows(rank, world, 4)
    loss = NTXentLoss(0.3)(randn(8, 6)[own] @ w, randn(8, 6, seed=1)[own] @ w)
    return [loss, *torch.autograd.grad(loss, [w])]


# Eight images, split 3 and 5. Prompts 3 and 7 are needed on both ranks; rank 0 holds three prompts, rank 1 four, of
# which prompt 9 belongs to no image.
IMAGE_ID = torch.tensor([3, 7, 5, 7, 3, 3, 1, 1])
HELD = ([3, 5, 7], [1, 3, 7, 9])
PERTURBATION = torch.tensor([0, 2, 0, 2, 0, 0, 1, 1])
PLATE = torch.tensor([0, 0, 1, 1, 1, 0, 0, 2])


def cross_modal(rank, world, loss_function, ids=True, bias=None):
    """Loss and gradients with a context; without ids both ranks hold a row of `other` for each image."""
    from morphoclip.losses import LossContext

    w, v, own = weights(), weights(seed=8), own_rows(rank, world, 3)
    other_id = torch.tensor(sorted({*HELD[0], *HELD[1]}) if world == 1 else HELD[rank])
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    context = LossContext(
        image_id=IMAGE_ID[own] if ids else None,
        other_id=other_id if ids else None,
        perturbation=PERTURBATION[own],
        plate=PLATE[own],
        image_profile=randn(8, 5, 3, seed=2)[own],
        image_frozen=randn(8, 3, seed=3)[own],
    )
    prompts = randn(10, 6, seed=1)[other_id] if ids else randn(8, 6, seed=1)[own]
    bias = None if bias is None else torch.tensor(bias, dtype=torch.float64, requires_grad=True)
    loss = loss_function(randn(8, 6)[own] @ w, prompts @ v, scale, bias, context=context)
    leaves = [leaf for leaf in (w, v, scale, bias) if leaf is not None]
    return [loss, *torch.autograd.grad(loss, leaves, materialize_grads=True)]


@case
def infonce(rank, world):
    from morphoclip.losses import InfoNCELoss

    return cross_modal(rank, world, InfoNCELoss())


@case
def infonce_multi_positive_in_chunks(rank, world):
    from morphoclip.losses import InfoNCELoss

    return cross_modal(rank, world, InfoNCELoss(multi_positive=True, chunk_size=2))


@case
def infonce_without_ids(rank, world):
    from morphoclip.losses import InfoNCELoss

    return cross_modal(rank, world, InfoNCELoss(), ids=False)


@case
def cwcl(rank, world):
    from morphoclip.losses import CWCLLoss

    return cross_modal(rank, world, CWCLLoss())


@case
def cwcl_sharpened_in_chunks(rank, world):
    from morphoclip.losses import CWCLLoss

    return cross_modal(rank, world, CWCLLoss(center=True, power=2.0, temperature=0.3, top_k=3, chunk_size=2))


@case
def siglip(rank, world):
    from morphoclip.losses import SigLIPLoss

    return cross_modal(rank, world, SigLIPLoss(), bias=-3.0)


@case
def siglip_without_ids_in_chunks(rank, world):
    from morphoclip.losses import SigLIPLoss

    return cross_modal(rank, world, SigLIPLoss(chunk_size=2), ids=False, bias=-3.0)


@case
def s2l_in_chunks(rank, world):
    from morphoclip.losses import S2LLoss

    return cross_modal(rank, world, S2LLoss(c=8.0, threshold=0.2, chunk_size=2), bias=-1.0)


@case
def cloob(rank, world):
    from morphoclip.losses import CLOOBLoss

    return cross_modal(rank, world, CLOOBLoss(inv_tau=4.0))


@case
def cloob_without_ids_in_chunks(rank, world):
    from morphoclip.losses import CLOOBLoss

    return cross_modal(rank, world, CLOOBLoss(inv_tau=4.0, chunk_size=2), ids=False)


@case
def supcon(rank, world):
    from morphoclip.losses import SupConLoss

    return cross_modal(rank, world, SupConLoss(chunk_size=2))


@case
def dino(rank, world):
    from morphoclip.losses import DINOLoss

    w, own, loss_function = weights(), own_rows(rank, world, 4), DINOLoss(4).double()
    losses = []
    for step in range(2):  # the second step uses the centre of the first
        student = [randn(8, 6, seed=view)[own] @ w for view in range(3)]
        teacher = [randn(8, 4, seed=10 * step + view)[own] for view in range(5, 7)]
        losses.append(loss_function(student, teacher, 0.05))
    return [*losses, loss_function.center, *torch.autograd.grad(sum(losses), [w])]


@case
def dino_with_sinkhorn(rank, world):
    from morphoclip.losses import DINOLoss

    w, own = weights(), own_rows(rank, world, 4)
    student = [randn(8, 6, seed=view)[own] @ w for view in range(3)]
    teacher = [randn(8, 4, seed=view)[own] for view in range(5, 7)]
    loss = DINOLoss(4, sinkhorn_iters=3)(student, teacher, 0.05)
    return [loss, *torch.autograd.grad(loss, [w])]


@case
def koleo(rank, world):
    from morphoclip.losses import KoLeoLoss

    w, own = weights(), own_rows(rank, world, 4)
    loss = KoLeoLoss()(randn(8, 6)[own] @ w)
    return [loss, *torch.autograd.grad(loss, [w])]


@case
def mae(rank, world):
    from morphoclip.losses import MAELoss

    w, own = weights(), own_rows(rank, world, 3)
    mask = randn(8, 2, seed=4)[own] > 0.3  # more masked patches on one rank than on the other
    loss = MAELoss(channels=2)(randn(8, 2, 6)[own] @ w, randn(8, 2, 4, seed=1)[own], mask)
    return [loss, *torch.autograd.grad(loss, [w])]


@case
def msn(rank, world):
    from morphoclip.losses import MSNLoss

    w, own, prototypes = weights(), own_rows(rank, world, 4), randn(5, 4, seed=3).requires_grad_()
    anchors = torch.cat([randn(8, 6, seed=view)[own] for view in range(3)]) @ w  # view-major
    loss = MSNLoss()(anchors, randn(8, 4, seed=7)[own], prototypes)
    return [loss, *torch.autograd.grad(loss, [w, prototypes])]


@case
def supcon_with_all_anchors_on_one_rank(rank, world):
    """The images from the third on have no positive: rank 1 adds only negatives, and must not divide by its count."""
    from morphoclip.losses import LossContext, SupConLoss

    w, own = weights(), own_rows(rank, world, 2)
    perturbation = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6])[own]
    context = LossContext(perturbation=perturbation, plate=torch.arange(8)[own])
    loss = SupConLoss()(randn(8, 6)[own] @ w, None, 5.0, context=context)
    return [loss, *torch.autograd.grad(loss, [w])]
