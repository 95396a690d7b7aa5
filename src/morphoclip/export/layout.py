"""Names of the files of an encoder folder, and the version of its format."""

from __future__ import annotations

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT_VERSION = 1
