"""Where a training goes on: at the batch behind the last one, however the epoch or its batches are counted."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from morphoclip.training.watched import datamodule_of

READY, EPOCH = "batches_ready", "epoch"


class ExactRestart(pl.Callback):
    """Sets the progress of Lightning's loops to that of the data module, when a training goes on from a checkpoint.

    Lightning's own logic takes a checkpoint of an epoch's end for one in the epoch if `max_steps` is given, and then trains a
    batch too many; it keeps its count of batches if there are now more or fewer of them; and the data module of an epoch
    that `limit_train_batches` has cut goes on within that epoch. Data modules without `batches_ready` in their state are
    left to Lightning.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        data = datamodule_of(trainer)
        saved = checkpoint.get(type(data).__qualname__, {})
        if READY not in saved or "loops" not in checkpoint:
            return
        loops = checkpoint["loops"]["fit_loop"]
        loops["state_dict"].pop("combined_loader", None)  # the data module has set its loader
        epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
        if epochs["total"]["processed"] == epochs["total"]["started"]:  # saved at an epoch's end
            for progress in (epochs["total"], epochs["current"]):
                progress["completed"] = progress["processed"]
            batches["current"], batches["is_last_batch"] = dict.fromkeys(batches["current"], 0), False
            if saved[READY]:  # limit_train_batches
                data.load_state_dict({**data.state_dict(), EPOCH: saved[EPOCH] + 1, READY: 0})
        else:
            shift = data.state_dict()[READY] - saved[READY]
            batches["current"] = {name: number + shift for name, number in batches["current"].items()}
