"""Writing a folder of features of a dataset's crops, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from morphoclip.data.loading.features import FEATURES
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.data.shards.manifest import MANIFEST, read_manifest


class FeatureWriter:
    """Writes a folder of features with a copy of the dataset's index, fields, splits and manifest.

    Rows may be written in any order; the folder gets its final name once all are written. Use it as a context manager.

    Args:
        folder: folder to make.
        dataset: dataset of the crops, opened without a split.
        shape: (C, D).
        made_by: description of the encoder (plain JSON), stored in the manifest.
        dtype: type on disk; float16 halves the size. Features are read as float32.

    Raises:
        FileExistsError: the folder exists.
        ValueError: `dataset` was opened with a split.
    """

    def __init__(
        self, folder: str | Path, dataset: ShardDataset, shape: Sequence[int], made_by: dict, dtype: str = "float16"
    ) -> None:
        self.folder, self.dataset, self.made_by = Path(folder), dataset, made_by
        if self.folder.exists():
            raise FileExistsError(f"{self.folder} exists and is never overwritten: remove it or name another folder")
        if dataset.split is not None:
            raise ValueError("features are written for all crops of a dataset: open it without a split")
        self.partial = self.folder.with_name(f"{self.folder.name}.partial-{os.getpid()}")
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.features = np.lib.format.open_memmap(
            self.partial / FEATURES, "w+", dtype=dtype, shape=(len(dataset), *shape)
        )
        self.written = np.zeros(len(dataset), bool)

    def write(self, rows: np.ndarray, features: np.ndarray) -> None:
        """Features (n, C, D) of the crops in `rows` of the index."""
        self.features[rows] = features
        self.written[rows] = True

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None or not self.written.all():
            shutil.rmtree(self.partial, ignore_errors=True)
            if kind is None:
                raise ValueError(f"{(~self.written).sum()} of {len(self.written)} crops got no features")
            return
        self.features.flush()
        for name in ("index.arrow", "fields.parquet"):
            shutil.copyfile(self.dataset.folder / name, self.partial / name)
        if (self.dataset.folder / "splits").is_dir():
            shutil.copytree(self.dataset.folder / "splits", self.partial / "splits")
        manifest = read_manifest(self.dataset.folder)
        manifest["features"] = {
            "source": str(self.dataset.folder),
            "shape": list(self.features.shape[1:]),
            **self.made_by,
        }
        (self.partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        os.rename(self.partial, self.folder)
