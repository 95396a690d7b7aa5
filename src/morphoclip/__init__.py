"""MorphoCLIP: train and honestly score models on five-channel Cell Painting images."""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path

__version__ = metadata.version("morphoclip")
__all__ = ["__version__", "configs_dir", "load_encoder"]


def configs_dir() -> Path:
    """Folder of the Hydra configs: beside a checkout first, else inside the installed package.

    Raises:
        FileNotFoundError: neither exists, i.e. the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package.parents[1] / "configs", package / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no configs beside {package.parents[1]} nor in {package}: reinstall morphoclip")


def __getattr__(name: str):
    # torch and timm take seconds to import: only those who load an encoder pay for them.
    if name == "load_encoder":
        return import_module("morphoclip.profiling").load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
