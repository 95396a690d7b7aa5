"""The manifest of a dataset folder, and the format versions this code reads."""

from __future__ import annotations

import json
from pathlib import Path

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LOW_PERCENTILE = 0.1
HIGH_PERCENTILE = 99.9


def scaling_key(scale_by: str, low_percentile: float, high_percentile: float) -> str:
    """Name of a scaling in the manifest's statistics: 'field 0.1-99.9'."""
    return f"{scale_by} {low_percentile:g}-{high_percentile:g}"


def read_manifest(folder: str | Path) -> dict:
    """The manifest of a finished dataset.

    Raises:
        FileNotFoundError: no such folder, or no manifest.json in it (it is written last).
        ValueError: the file is not a manifest, or its format is newer than this code.
    """
    path = Path(folder) / MANIFEST
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no dataset folder {folder}: make one with `morphoclip data prepare`")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {MANIFEST}, so it is not a dataset or is incomplete: "
            "remove it and run `morphoclip data prepare` again"
        )
    try:
        manifest = json.loads(path.read_text())
        version = manifest["format_version"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the manifest of a MorphoCLIP dataset: {error!r}") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{folder} is a dataset of format {version}, this morphoclip reads up to {FORMAT_VERSION}: "
            "upgrade morphoclip or prepare the dataset again with this version"
        )
    return manifest
