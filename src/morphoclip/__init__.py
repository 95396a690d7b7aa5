"""MorphoCLIP: train and honestly score models on five-channel Cell Painting images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lazy_loader

from morphoclip.version import __version__

if TYPE_CHECKING:
    from morphoclip.export import load_encoder

__all__ = ["__version__", "configs_dir", "load_encoder"]

# torch and timm take seconds to import: only those who load an encoder pay for them.
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"export.load": ["load_encoder"]})


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
