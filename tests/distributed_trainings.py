"""Cases of whole training steps under DDP, and of the monitor that ranks share."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.distributed_cases import case, own_rows


def trained(
    rank: int, world: int, name: str, freeze: tuple[int | None, int | None] | None = None, **kw
) -> list[Tensor]:
    """Loss, weights and buffers after two Trainer steps in float64 under DDP, each rank with its own bags."""
    from morphoclip.training.freezing import Freezing
    from tests.methods.tiny import METHODS, batch_of, exact, loader, trainer

    method = exact(METHODS[name](**kw))
    method.freezing = None if freeze is None else Freezing(*freeze)
    run = trainer(2, **({} if world == 1 else {"devices": world, "strategy": "ddp"}), gradient_clip_val=1.0)
    run.fit(method, loader(batch_of(name, own_rows(rank, world, 3))))
    return [method.last_loss, *(value for value in method.state_dict().values() if isinstance(value, Tensor))]


@case
def simclr_training(rank, world):
    return trained(rank, world, "simclr")


@case
def simclr_with_frozen_encoder_training(rank, world):
    return trained(rank, world, "simclr", freeze=(None, None))


@case
def dino_with_first_block_frozen_for_a_step_training(rank, world):
    """Then it thaws, and its gradients are averaged over ranks like all others."""
    from tests.methods.tiny import TWO_SIZES

    return trained(rank, world, "dino", freeze=(1, 1), encoder=TWO_SIZES | {"depth": 2})


@case
def clip_training(rank, world):
    return trained(rank, world, "clip")


@case
def clip_features_training_without_a_modality_on_one_rank(rank, world):
    """Only rank 0 has a compound; without batch normalisation its tower's gradients equal one process's."""
    from tests.methods.tiny import MORGAN, TEXT, exact, feature_bags, feature_clip, loader, trainer

    head = {"_target_": "morphoclip.models.ResidualMLP", "width": 8, "blocks": 1}
    towers = [
        {"modalities": ["compound"], "tower": MORGAN | {"widths": []}, "head": head},
        {"modalities": ["crispr", "orf"], "tower": TEXT},
    ]
    said = {
        "prompts": ["loss of A", "gain of A", "CCO", "loss of B", None],
        "modalities": ["crispr", "orf", "compound", "crispr", "compound"],
    }
    method = exact(feature_clip(text={"towers": towers}, **said))
    run = trainer(2, **({} if world == 1 else {"devices": world, "strategy": "ddp"}), gradient_clip_val=1.0)
    batch = feature_bags(own_rows(rank, world, 3))
    run.fit(method, loader(batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)))
    return [method.last_loss, *method.parameters()]


@case
def dino_training(rank, world):
    return trained(rank, world, "dino")


@case
def mae_training(rank, world):
    return trained(rank, world, "mae")


@case
def cwa_msn_training(rank, world):
    return trained(rank, world, "cwa_msn")


def on_sampled_channels(rank: int, world: int, name: str) -> list[Tensor]:
    """`trained` on a ChannelViT that sees four of five channels in the first step and two in the second."""
    from tests.methods.tiny import CHANNEL_VIT

    return trained(rank, world, name, encoder=CHANNEL_VIT, seed=1)


@case
def simclr_on_sampled_channels(rank, world):
    return on_sampled_channels(rank, world, "simclr")


@case
def dino_on_sampled_channels(rank, world):
    return on_sampled_channels(rank, world, "dino")


@case
def cwa_msn_on_sampled_channels(rank, world):
    return on_sampled_channels(rank, world, "cwa_msn")


@case
def clip_on_sampled_channels(rank, world):
    return on_sampled_channels(rank, world, "clip")


@case
def online_knn(rank, world):
    """The monitor shares its crops among ranks and gives what one process would."""
    from morphoclip.training.online_knn import OnlineKNN, choose_crops
    from tests.methods.tiny import simclr, trainer
    from tests.training.test_online_knn import Mixture

    callback = OnlineKNN(batch_size=5)
    callback.mixture = Mixture(planted=False)
    callback.rows = choose_crops(callback.mixture, 1000, 2, 3)[:-3]  # not alike on all ranks
    found = callback.scores(trainer(1), simclr())
    return [torch.tensor(value, dtype=torch.float64) for value in found.values()]


@case
def validation(rank, world):
    """Ranks divide the validation batches; torchmetrics adds up what they found, for MAE's loss and CLIP's ranking."""
    from morphoclip.training.validation import Validation
    from tests.methods.tiny import batch_of, clip, exact, mae, trainer
    from tests.training.test_validation import with_held_out

    found = []
    for name, make in (("mae", mae), ("clip", clip)):
        callback, method = Validation(), with_held_out(exact(make()))
        callback.loader = [batch_of(name, own_rows(rank, world, 3))]
        method.trainer, method.total_steps = trainer(1, precision="64-true"), 10
        scores = callback.scores(method.trainer, method)
        found += [
            torch.tensor(value, dtype=torch.float64)
            for key, value in scores.items()
            if key != "val/loss" or name == "mae"
        ]
    return found
