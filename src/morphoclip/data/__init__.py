"""Fields on disk ▶ dataset ▶ batches. Public names load on first use, so that tables need no image library."""

from importlib import import_module

_HOMES = {
    "ShardWriter": "shards",
    "ShardDataset": "dataset",
    "Sample": "dataset",
    "CellDataModule": "datamodule",
    "StreamDataModule": "stream_datamodule",
    "PerturbationTable": "perturbations",
    "prepare_dataset": "prepare",
    "holdout": "splits",
    "write_splits": "splits",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
