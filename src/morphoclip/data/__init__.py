"""Dataset folders ▶ batches. Public names load on first use, so reading tables imports no image library."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.data.loading.datamodule import CellDataModule
    from morphoclip.data.loading.stream_datamodule import StreamDataModule
    from morphoclip.data.metadata.perturbations import PerturbationTable
    from morphoclip.data.shards.assignments import write_splits
    from morphoclip.data.shards.dataset import Sample, ShardDataset
    from morphoclip.data.shards.writer import ShardWriter
    from morphoclip.data.splits.holdout import holdout

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "loading.datamodule": ["CellDataModule"],
        "loading.stream_datamodule": ["StreamDataModule"],
        "metadata.perturbations": ["PerturbationTable"],
        "shards.dataset": ["Sample", "ShardDataset"],
        "shards.assignments": ["write_splits"],
        "shards.writer": ["ShardWriter"],
        "splits.holdout": ["holdout"],
    },
)
