"""Lightning's Trainer with the settings of computation that a config names: TF32, compilation, recomputation, memory format."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ProgressBar

from morphoclip.training.blocks import compile_blocks, recompute_blocks
from morphoclip.training.sharding import ShardedStrategy


class Trainer(pl.Trainer):
    """Lightning's, with further settings. None of them changes the names or the meaning of weights.

    Args:
        tf32: multiply float32 matrices with 10 bits of mantissa on a GPU that can (`torch.set_float32_matmul_precision`).
            Losses in float32 have that precision too.
        compile: compile the transformer blocks of encoders, teachers and decoders: True, False, or a backend.
        channels_last: store kernels of convolutions with channels last, which convolutional encoders are faster with.
        recompute_blocks: compute transformer blocks again in the backward pass to save memory (gradient checkpointing).
        callbacks: as Lightning's. Without a `Checkpoint` or a `ProgressBar` among them there is none; Lightning would add
            its own.
        lightning: further arguments of `pytorch_lightning.Trainer`.

    Raises:
        ValueError: a setting of the wrong type, or `channels_last` where weights are divided among ranks.
    """

    def __init__(
        self,
        *,
        tf32: bool = False,
        compile: bool | str = False,
        channels_last: bool = False,
        recompute_blocks: bool = False,
        callbacks: list[pl.Callback] | None = None,
        **lightning: Any,
    ) -> None:
        for name, value in (("tf32", tf32), ("channels_last", channels_last), ("recompute_blocks", recompute_blocks)):
            if not isinstance(value, bool):
                raise ValueError(f"trainer.{name}={value!r}: give true or false")
        limit = lightning.get("limit_train_batches")
        if not isinstance(limit, int | float | None):
            raise ValueError(
                f"trainer.limit_train_batches={limit!r}: give a number of batches, a share of them, or null"
            )
        shown = bool(lightning.get("enable_progress_bar", True))
        callbacks = [made for made in callbacks or [] if shown or not isinstance(made, ProgressBar)]
        lightning["enable_progress_bar"] = any(isinstance(made, ProgressBar) for made in callbacks)
        lightning["enable_checkpointing"] = any(isinstance(made, Checkpoint) for made in callbacks)
        super().__init__(callbacks=callbacks, **lightning)
        self.tf32, self.compile, self.channels_last, self.recompute_blocks = (
            tf32,
            compile,
            channels_last,
            recompute_blocks,
        )
        if channels_last and isinstance(self.strategy, ShardedStrategy):
            raise ValueError(
                "trainer.channels_last=true: weights divided among ranks cannot be stored so; use trainer=ddp"
            )

    def fit(self, model: pl.LightningModule, *arguments: Any, **options: Any) -> None:
        """As Lightning's, with the settings applied to the model before."""
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.recompute_blocks:
            recompute_blocks(model)
        if self.compile:
            compile_blocks(model, "inductor" if self.compile is True else str(self.compile))
        super().fit(model, *arguments, **options)
