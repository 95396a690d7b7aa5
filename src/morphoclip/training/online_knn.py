"""Replicate retrieval across plates during training: `val/knn`."""

from __future__ import annotations

import math

import pytorch_lightning as pl
import torch
from torch import Tensor

from morphoclip.distributed import gather_rows, rank, row_counts, world_size
from morphoclip.schema import POSITION_COLUMNS
from morphoclip.training.measurement import Measurement, evaluating
from morphoclip.training.monitors import cross_plate_knn
from morphoclip.training.seeding import generator
from morphoclip.training.watched import datamodule_of, watched


class OnlineKNN(Measurement):
    """Logs `val/knn` and `val/knn_chance` before training, after every `every_n_epochs`th epoch and `every_n_steps`th step.

    A fixed set of wells on a few plates that share perturbations is embedded by the encoder that the method exports.
    Crops come from the datamodule's `val_split`, or else from the training split; then a method trained on perturbation
    labels looks better than it is. It is a monitor, not a result: profiles are only centred by plate.

    If the plates have negative controls, `val/control_row` and `val/control_column` are the fractions of control wells
    whose nearest control well on another plate is in the same row or column (chance levels: `…_chance`). They measure
    how much of the well position an encoder shows, since controls differ in nothing else.

    Args:
        every_n_epochs, every_n_steps: see `Measurement`.
        crops: approximate number of crops of treated wells, and maximum number of crops of controls. Ranks divide them;
            the score equals that of one process.
        crops_per_well: maximum number of crops per well.
        plates: number of plates.
        batch_size: crops per forward pass.
    """

    def __init__(
        self,
        every_n_epochs: int | None = 5,
        crops: int = 2048,
        crops_per_well: int = 4,
        plates: int = 4,
        batch_size: int = 256,
        *,
        every_n_steps: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps)
        self.crops, self.crops_per_well, self.plates = crops, crops_per_well, plates
        self.batch_size = batch_size

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = datamodule_of(trainer)
        loader = data.val_dataloader()
        self.mixture = loader.mixture if loader else data.mixture
        self.rows = choose_crops(self.mixture, self.crops, self.crops_per_well, self.plates)
        super().on_train_start(trainer, pl_module)

    def scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """The current `val/…` scores, equal on all ranks."""
        encoder = watched(pl_module).export_encoder()
        own = self.rows[rank() :: world_size()]
        # As many on all ranks, which gather the weights of a sharded encoder together: the first ones again, not counted.
        padded = torch.cat([own, self.rows[: -(-len(self.rows) // world_size()) - len(own)]])
        feature_parts: list[Tensor] = []
        label_parts: list[Tensor] = []
        with evaluating(encoder), trainer.precision_plugin.val_step_context():
            for part in padded.split(self.batch_size):
                batch = self.mixture[part.numpy()]
                facts = (batch.well, batch.plate, batch.perturbation, batch.position, batch.is_control.long())
                label_parts.append(torch.stack(facts, dim=1))
                batch = batch.to(pl_module.device)
                feature_parts.append(encoder(encoder.preprocess(batch.images, batch.low, batch.high)).float())
        features = torch.cat(feature_parts)[: len(own)]
        labels = torch.cat(label_parts)[: len(own)].to(pl_module.device)
        counts = row_counts(features)
        features, labels = gather_rows(features, counts), gather_rows(labels, counts)
        # In the same order for any number of ranks, so that sums have the same rounding.
        order = torch.cat([torch.arange(r, len(self.rows), world_size()) for r in range(world_size())]).argsort()
        features, labels = features[order], labels[order]
        _, first, well = first_rows(labels[:, 0])
        profiles = features.new_zeros(len(first), features.shape[1]).index_add_(0, well, features)
        profiles /= torch.bincount(well)[:, None]
        return well_scores(profiles, *labels[first, 1:].unbind(1))


def well_scores(
    profiles: Tensor, plate: Tensor, perturbation: Tensor, position: Tensor, is_control: Tensor
) -> dict[str, float]:
    """`val/…` scores of well profiles (W, D) with their codes, int64 (W,) each; scores without queries are left out."""
    control = is_control.bool()
    questions = {
        "val/knn": (perturbation, ~control),
        "val/control_row": (position // POSITION_COLUMNS, control),
        "val/control_column": (position % POSITION_COLUMNS, control),
    }
    found: dict[str, float] = {}
    for name, (label, queries) in questions.items():
        if queries.any():
            share, chance = cross_plate_knn(profiles[queries], label[queries], plate[queries])
            found |= {name: share.item(), f"{name}_chance": chance.item()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def first_rows(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(distinct codes, first row of each, for every row the number of its code)."""
    distinct, number = codes.unique(return_inverse=True)
    rows = torch.arange(len(codes), device=codes.device)
    first = rows.new_full((len(distinct),), len(codes)).scatter_reduce(0, number, rows, "amin")
    return distinct, first, number


def choose_crops(mixture, crops: int, crops_per_well: int, plates: int) -> Tensor:
    """int64 rows of a mixture: crops of treated wells on plates that share perturbations, then of their controls.

    The first plate has the most perturbations in common with other plates; each further plate has the most in common with
    those chosen. Perturbations on at least two of them are added in a random but fixed order until there are enough
    crops.

    Raises:
        ValueError: no perturbation is on two plates.
    """
    codes = mixture.codes
    field = torch.from_numpy(mixture.fields_of(torch.arange(len(mixture)).numpy()))
    plate, well, perturbation = (
        torch.from_numpy(getattr(codes, name))[field] for name in ("plate", "well", "perturbation")
    )
    is_control = torch.from_numpy(codes.is_control)[field]
    treated = (~is_control & (perturbation >= 0)).nonzero().flatten()
    has = torch.zeros(int(plate.max()) + 1, int(perturbation.max()) + 1, dtype=torch.bool)
    has[plate[treated], perturbation[treated]] = True
    chosen = shared_plates(has, plates)
    shared = has[chosen].sum(0) > 1
    if not shared.any():
        raise ValueError(
            "no perturbation is on two plates of this split, so val/knn cannot be computed: "
            "remove callbacks.knn or set data.loader.val_split"
        )
    draws = generator(0, "online kNN")
    rows = treated[chosen[plate[treated]] & shared[perturbation[treated]]]
    rows = some_of_each_well(rows, well, crops_per_well, draws)
    rank = torch.empty(has.shape[1], dtype=torch.int64)  # of a perturbation in the random order
    rank[torch.randperm(has.shape[1], generator=draws)] = torch.arange(has.shape[1])
    rows = rows[rank[perturbation[rows]].argsort(stable=True)]
    rows = rows[rank[perturbation[rows]] <= rank[perturbation[rows[min(crops, len(rows)) - 1]]]]
    controls = (is_control & chosen[plate]).nonzero().flatten()
    return torch.cat([rows, some_of_each_well(controls, well, crops_per_well, draws)[:crops]])


def shared_plates(has: Tensor, plates: int) -> Tensor:
    """bool (P,): plates chosen one by one by the number of shared perturbations in `has` (P, perturbations) bool."""
    chosen = torch.zeros(len(has), dtype=torch.bool)
    elsewhere = wanted = has.sum(0) > 1
    for _ in range(min(plates, len(has))):
        chosen[(has & wanted).sum(1).masked_fill(chosen, -1).argmax()] = True
        wanted = has[chosen].any(0) & elsewhere
    return chosen


def some_of_each_well(rows: Tensor, well: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """At most `count` random `rows` per well, sorted by well code; `well` holds the code of each crop."""
    rows = rows[torch.randperm(len(rows), generator=draws)]
    rows = rows[well[rows].argsort(stable=True)]
    _, first, number = first_rows(well[rows])
    return rows[torch.arange(len(rows)) - first[number] < count]
