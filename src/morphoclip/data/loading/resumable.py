"""Base class of the data modules: one mixture per split, and loaders whose progress is part of the checkpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import pytorch_lightning as pl

from morphoclip.data.loading.loader import Loader
from morphoclip.data.metadata.perturbations import PerturbationTable
from morphoclip.data.sampling.mixture import Mixture


class ResumableDataModule(pl.LightningDataModule):
    """Training and validation batches, resumable in the middle of an epoch.

    Args:
        split: the split to train on; None for all crops.
        val_split: the split to validate on; None for no validation.

    Attributes:
        mixture: the training crops; table: their `PerturbationTable`; channels: names in order.
    """

    def __init__(self, split: str | None, val_split: str | None) -> None:
        super().__init__()
        self.split, self.val_split = split, val_split
        self._mixtures: dict[str | None, Mixture] = {}
        self._loader: Loader | None = None
        self._state: dict[str, int] = {"epoch": 0, "batches_ready": 0}

    @abstractmethod
    def _open(self, split: str | None) -> Mixture:
        """The datasets of a split."""

    @abstractmethod
    def _training(self, mixture: Mixture) -> Loader: ...

    @abstractmethod
    def _validation(self, mixture: Mixture) -> Loader: ...

    def setup(self, stage: str | None = None) -> None:
        """Open the datasets; cheap, and safe to call before the trainer does."""
        for split in {self.split, self.val_split or self.split}:
            if split not in self._mixtures:
                self._mixtures[split] = self._open(split)

    @property
    def mixture(self) -> Mixture:
        self.setup()
        return self._mixtures[self.split]

    @property
    def table(self) -> PerturbationTable:
        return self.mixture.table

    @property
    def channels(self) -> tuple[str, ...]:
        return self.mixture.datasets[0].channels

    @property
    def skipped(self) -> int:
        """Number of damaged samples skipped on this rank."""
        return sum(mixture.skipped for mixture in self._mixtures.values())

    def train_dataloader(self) -> Loader:
        state = self.state_dict()
        self._loader = self._training(self.mixture)
        self._loader.load_state_dict(state)
        return self._loader

    def val_dataloader(self) -> Loader | list:
        if self.val_split is None:
            return []
        self.setup()
        return self._validation(self._mixtures[self.val_split])

    def state_dict(self) -> dict[str, int]:
        """Progress of training: the epoch and the number of its batches already yielded."""
        return self._state if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._state = dict(state)
        if self._loader is not None:
            self._loader.load_state_dict(self._state)
