"""The loss, and what else a method measures, on crops of perturbations that are neither trained on nor scored."""

from __future__ import annotations

from itertools import islice

import pytorch_lightning as pl
from torchmetrics import MeanMetric

from morphoclip.training.measurement import Measurement, evaluating
from morphoclip.training.watched import Metrics, datamodule_of, watched


class Validation(Measurement):
    """Logs `val/loss`, and for image-text methods `val/recall_at_k_…`, on the data module's `val_split`.

    All measurements of a run see the same batches with the same random draws, so that they differ by the weights alone.
    Ranks divide the batches, and torchmetrics adds up what they found. Without a `val_split` nothing is measured.

    Args:
        every_n_epochs, every_n_steps: see `Measurement`.
        batches: at most so many batches per rank.
    """

    def __init__(
        self, every_n_epochs: int | None = 1, every_n_steps: int | None = None, batches: int | None = 50
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps)
        self.batches = batches

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.loader = datamodule_of(trainer).val_dataloader()
        super().on_train_start(trainer, pl_module)

    def scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        if not self.loader:
            return {}
        method = watched(pl_module)
        method.is_validating = True
        try:
            with evaluating(pl_module), trainer.precision_plugin.val_step_context():
                metrics: Metrics = {"loss": MeanMetric(), **method.validation_metrics()}
                metrics = {name: metric.to(pl_module.device) for name, metric in metrics.items()}
                for number, batch in enumerate(islice(self.loader, self.batches)):
                    loss = method.validate(batch.to(pl_module.device), number, metrics)
                    metrics["loss"].update(loss, len(batch))
                found = {name: metric.compute() for name, metric in metrics.items()}
        finally:
            method.is_validating = False
        flat: dict[str, float] = {}
        for name, value in found.items():
            flat |= value if isinstance(value, dict) else {name: value}
        return {f"val/{name}": float(value) for name, value in flat.items()}
