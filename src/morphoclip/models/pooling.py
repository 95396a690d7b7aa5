"""Bags of instances ▶ one embedding: gated attention, or the plain mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Base of the pools: a softmax of scores over the instances of a bag.

    Attributes:
        is_mean: all instances of a bag weigh the same, whatever they are.
    """

    is_mean = False

    def scores(self, x: Tensor) -> Tensor:
        """Attention before the softmax: (..., D) to (...)."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Pool bags.

        Args:
            x: (B, M, D), or (B, M, C, D) per channel.
            mask: bool (B, M), False on padding, which weighs exactly 0; None has no padding.
            return_weights: also return the weights (B, M[, C]), which sum to 1 over M.

        Returns:
            (B, D) or (B, C, D). A bag of one instance is that instance.

        Raises:
            ValueError: a bag is all padding.
        """
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        empty = ~mask.any(dim=1)
        if empty.any():
            raise ValueError(f"bags {empty.nonzero().flatten().tolist()[:5]} hold padding only: leave them out")
        padding = ~mask.view(*mask.shape, *[1] * (x.ndim - 3))  # (B, M[, 1])
        x = x.masked_fill(padding[..., None], 0)  # padding may hold anything, NaN included
        weights = self.scores(x).masked_fill(padding, -torch.inf).softmax(dim=1)  # (B, M[, C])
        pooled = (weights[..., None] * x).sum(dim=1)
        return (pooled, weights) if return_weights else pooled

    def pool_groups(self, x: Tensor, group: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool the instances of each group within a bag apart, e.g. the crops of each plate.

        Args:
            x: (B, M, D), or (B, M, C, D) per channel.
            group: int (B, M), the group of each instance.
            mask: bool (B, M), False on padding.

        Returns:
            Pooled groups (B, M, D) or (B, M, C, D), where index m holds the group of instance m, and a bool (B, M) that is True at the
            first instance of each group: shapes stay the same whatever the groups, so that nothing waits.
        """
        if x.ndim == 4:
            channels = x.shape[2]
            apart = x.transpose(1, 2).flatten(0, 1)  # (B·C, M, D)
            pooled, is_first = self.pool_groups(
                apart,
                group.repeat_interleave(channels, dim=0),
                None if mask is None else mask.repeat_interleave(channels, dim=0),
            )
            return pooled.unflatten(0, (-1, channels)).transpose(1, 2), is_first[::channels]
        present = torch.ones_like(group, dtype=torch.bool) if mask is None else mask
        together = (group[:, :, None] == group[:, None, :]) & present[:, None, :] & present[:, :, None]  # (B, M, M)
        earlier = together.tril(diagonal=-1).any(dim=2)
        # Padding attends to itself: an empty softmax would have NaN gradients.
        together = together | torch.eye(group.shape[1], dtype=torch.bool, device=group.device)
        x = x.masked_fill(~present[..., None], 0)
        weights = self.scores(x)[:, None, :].masked_fill(~together, -torch.inf).softmax(dim=2)
        return weights @ x, present & ~earlier


class GatedAttentionPool(Pool):
    """Attention pooling with a gate: softmax over instances of w·(tanh(Vx) ⊙ σ(Ux)) (Ilse et al. 2018, eq. 9).

    Per-channel features share one attention over channels' own instances: each channel has its own weights.

    Args:
        dim: D, size of an instance.
        hidden: size of the attention space.
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.value = nn.Linear(dim, hidden, bias=False)  # V
        self.gate = nn.Linear(dim, hidden, bias=False)  # U
        self.score = nn.Linear(hidden, 1, bias=False)  # w

    def scores(self, x: Tensor) -> Tensor:
        """Attention before the softmax: (..., D) to (...)."""
        return self.score(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))).squeeze(-1)


class MeanPool(Pool):
    """The plain mean, with the interface of the attention pool; its arguments play no part."""

    is_mean = True

    def __init__(self, dim: int = 0, hidden: int = 0) -> None:
        super().__init__()

    def scores(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


POOLS: dict[str, type[GatedAttentionPool] | type[MeanPool]] = {"gated": GatedAttentionPool, "mean": MeanPool}
