"""The decoder of a masked autoencoder with its fixed position embeddings (He et al. 2022)."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


def sin_cos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Fixed 2-D position embeddings (h·w, dim): a quarter each of sin and cos of the row and of the column.

    Raises:
        ValueError: `dim` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"the decoder's width must be a multiple of 4, not {dim}")
    frequency = 10_000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = [axis.flatten()[:, None] * frequency for axis in (rows, columns)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images (B, C, H, W) to patches (B, L, p²C), row by row, each ordered as (p, p, C)."""
    b, c, h, w = images.shape
    x = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Patches (B, L, p²C) back to images (B, C, H, W), the inverse of `patchify`."""
    b, _, pixels = patches.shape
    x = patches.reshape(b, *grid, patch, patch, pixels // patch**2)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, -1, grid[0] * patch, grid[1] * patch)


class MAEDecoder(nn.Module):
    """Visible tokens ▶ pixels of all patches (He et al. 2022): mask tokens, positions, transformer blocks.

    Args:
        encoder_dim: width of the tokens.
        grid: numbers of patches along height and width.
        patch_pixels: p²C, values per patch.
        width, depth, heads: width, number of blocks and of heads of the decoder.
    """

    positions: Tensor

    def __init__(
        self,
        encoder_dim: int,
        grid: tuple[int, int],
        patch_pixels: int,
        *,
        width: int = 256,
        depth: int = 8,
        heads: int = 8,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", sin_cos_positions(grid, width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, patch_pixels)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, order: Tensor, num_prefix: int) -> Tensor:
        """Predicted pixels (B, L, p²C) from tokens (B, num_prefix + V, D) of the patches `order` (B, L)[:, :V]."""
        prefix, visible = self.embed(tokens).tensor_split([num_prefix], dim=1)
        masked = self.mask_token.to(visible.dtype).expand(len(visible), order.shape[1] - visible.shape[1], -1)
        shuffled = torch.cat([visible, masked], dim=1)  # in the order of `order`
        back = order.argsort(dim=1)[..., None].expand_as(shuffled)
        patches = shuffled.gather(1, back) + self.positions
        decoded = self.norm(self.blocks(torch.cat([prefix, patches], dim=1)))
        return self.predict(decoded[:, num_prefix:])
