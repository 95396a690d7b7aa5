"""Parts of a config as plain Python: dicts, lists, numbers and strings, interpolations resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def as_dict(config: DictConfig) -> dict[str, Any]:
    """A config node with keys as a plain dict."""
    plain = OmegaConf.to_container(config, resolve=True)
    if not isinstance(plain, dict):
        raise ValueError(f"expected key: value entries in the config, found {plain!r}")
    return {str(key): value for key, value in plain.items()}


def load_config(path: Path) -> DictConfig:
    """The config in a YAML file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds a list.
    """
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise ValueError(f"{path} holds a list instead of key: value entries")
    return config
