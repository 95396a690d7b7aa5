"""How deep in an encoder each weight lies: 0 for the stem, then blocks (or stages of a convolutional network), from 1."""

from __future__ import annotations

import re

from torch import nn

from morphoclip.models.encoder import Encoder
from morphoclip.models.features import FeatureEncoder
from morphoclip.models.per_channel import PerChannel

# Blocks of transformers and EfficientNet, stages of ConvNeXt, Swin and ResNet, layers of Hugging Face models.
BLOCK = re.compile(r"(?:^|\.)(?:(?:blocks|stages|layers?|h)\.\d+|layer\d+)\.")
STEM = re.compile(r"(?:^|\.)patch_embed\.")  # whose own layers are no blocks


def depths(encoder: Encoder | FeatureEncoder) -> dict[str, int]:
    """Name of each parameter of an encoder -> its depth.

    What comes before the first block is the stem; what follows the last, a projection and a pool included, is as deep as it.
    """
    if isinstance(encoder, FeatureEncoder):
        network: nn.Module = encoder.body
    else:
        network = encoder.backbone.model if isinstance(encoder.backbone, PerChannel) else encoder.backbone
    inner = dict(zip(map(id, network.parameters()), of_network(network), strict=True))
    last = max(inner.values(), default=0)
    return {name: inner.get(id(parameter), last) for name, parameter in encoder.named_parameters()}


def of_network(network: nn.Module) -> list[int]:
    """The depth of each parameter of a network, in their order, by the usual names of blocks."""
    numbers: dict[str, int] = {}
    found, depth = [], 0
    for name, _ in network.named_parameters():
        block = None if STEM.search(name) else BLOCK.search(name)
        if block is not None:
            depth = numbers.setdefault(name[: block.end()], len(numbers) + 1)
        found.append(depth)
    return found
