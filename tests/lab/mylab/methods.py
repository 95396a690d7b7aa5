"""A method of our own: two views agree, without negatives."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from morphoclip.batch import Batch
from morphoclip.methods.base import Method, build
from morphoclip.methods.crops import as_crops


class Agree(Method):
    """Two augmented views of a crop get like embeddings."""

    def __init__(
        self, encoder: Mapping[str, Any], optimizer: Mapping[str, Any], augment: Mapping[str, Any], loss: Mapping[str, Any], seed: int = 0
    ) -> None:  # fmt: skip
        super().__init__(encoder, optimizer, augment, seed)
        self.save_hyperparameters()
        self.loss = build(loss)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        one, two = (self.encoder(view) for view in self.views(as_crops(batch), batch_idx, "one", "two"))
        return self.report(self.loss(one, two), one, batch)
