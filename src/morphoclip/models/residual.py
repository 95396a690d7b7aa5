"""A residual perceptron for profile vectors and frozen embeddings."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + MLP(LayerNorm(x)) with a hidden layer of twice the width, (B, D) to (B, D)."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = 2 * width
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResidualMLP(nn.Sequential):
    """A linear layer, residual blocks, LayerNorm, and a linear layer: (B, in_dim) to (B, out_dim).

    Args:
        in_dim: size of the input.
        out_dim: size of the output; None omits the last layer.
        width, blocks: width and number of the residual blocks; with 0 blocks the module is linear.
        dropout: dropout on the input and within each block.
    """

    def __init__(
        self, in_dim: int, out_dim: int | None = None, *, width: int = 512, blocks: int = 2, dropout: float = 0.0
    ) -> None:
        layers: list[nn.Module] = [nn.Dropout(dropout), nn.Linear(in_dim, width)]
        layers += [ResidualBlock(width, dropout) for _ in range(blocks)]
        layers += [nn.LayerNorm(width)] if blocks else []
        layers += [] if out_dim is None else [nn.Linear(width, out_dim)]
        super().__init__(*layers)
        self.embed_dim = out_dim or width
