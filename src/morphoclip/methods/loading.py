"""How a method takes the weights of a checkpoint: with those that lie beside it, and with errors of one line."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from morphoclip.checkpoints import another_model, read_checkpoint


class Loading(pl.LightningModule):
    """The part of a method that loads weights."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """As torch's; one line for weights of another model.

        Raises:
            ValueError: names or shapes of the weights differ.
        """
        try:
            return super().load_state_dict(state_dict, *args, **options)
        except RuntimeError as error:
            raise another_model(self.state_dict(), state_dict, error) from error

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """As Lightning's, with the frozen weights that lie beside a checkpoint."""
        whole = io.BytesIO()
        torch.save(read_checkpoint(checkpoint_path), whole)
        whole.seek(0)
        return super().load_from_checkpoint(whole, *args, **options)
