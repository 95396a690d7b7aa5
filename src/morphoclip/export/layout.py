"""Names of the files of an encoder folder, and the version of its format."""

from __future__ import annotations

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT_VERSION = 2  # the newest that is read
PLAIN, NAMED_BY_TIMM = 1, 2  # version of folders whose weights have the encoder's names, or those of timm's backbone
WEIGHTS_PREFIX = (
    "weights_prefix"  # key of config.json: what an encoder's names of the weights have before those in the file
)
FILES = "files"  # key of config.json: sha256 of every other file but the card
