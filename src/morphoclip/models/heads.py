"""Heads between an encoder and a loss; they are dropped when the encoder is exported."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from morphoclip.models.norm import BatchNorm


class ProjectionHead(nn.Sequential):
    """A multi-layer perceptron with ReLU between its layers, (B, widths[0]) to (B, widths[-1]).

    Args:
        widths: sizes from input to output, e.g. (384, 512, 128) for SimCLR on ViT-S.
        batch_norm: batch norm over ranks after each hidden layer.
    """

    def __init__(self, widths: Sequence[int], batch_norm: bool = False) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths[:-1]):
            layers += [nn.Linear(inputs, outputs, bias=not batch_norm)]
            layers += [BatchNorm(outputs)] * batch_norm + [nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-2], widths[-1]))
