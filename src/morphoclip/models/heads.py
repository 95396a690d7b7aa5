"""Heads between an encoder and a loss; they are not exported with the encoder."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.models.norm import BatchNorm


class ProjectionHead(nn.Sequential):
    """A multi-layer perceptron with ReLU between layers, (B, widths[0]) to (B, widths[-1]).

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


class JointProjection(nn.Sequential):
    """A linear layer into a joint space, followed by batch norm over ranks without affine parameters.

    Crops of cells look similar: without batch norm their embeddings share one large component, all cosines start near 1,
    and at the learning rates of short runs both towers may stay there.
    """

    def __init__(self, dim: int, embed_dim: int) -> None:
        super().__init__(nn.Linear(dim, embed_dim), BatchNorm(embed_dim, affine=False))


class PrototypeHead(nn.Module):
    """DINO's head: a perceptron with GELU, L2 normalisation, and cosines to K prototypes; (B, D) to (B, K).

    Prototypes are normalised when used, without torch's weight_norm, which cannot be deep-copied for a teacher.

    Args:
        dim: D.
        out_dim: K.
        hidden, bottleneck: widths of the two hidden layers, and of the prototypes.
    """

    def __init__(self, dim: int, out_dim: int, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.empty(out_dim, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(self.layers(x), dim=-1), F.normalize(self.prototypes, dim=-1))
