"""Pooling of bags of instances to one embedding: gated attention or the mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Base of the pools: a softmax of scores over the instances of a bag.

    Attributes:
        is_mean: all instances of a bag have equal weights.
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
            mask: bool (B, M), False on padding, which gets weight 0; None for no padding, which is not checked.
            return_weights: also return the weights (B, M[, C]), which sum to 1 over M.

        Returns:
            (B, D) or (B, C, D). A bag of one instance gives that instance.

        Raises:
            ValueError: a bag has only padding.
        """
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        elif not torch.compiler.is_exporting() and (empty := ~mask.any(dim=1)).any():  # the CPU waits for this answer
            raise ValueError(f"bags {empty.nonzero().flatten().tolist()[:5]} have only padding: leave them out")
        padding = ~mask.view(*mask.shape, *[1] * (x.ndim - 3))  # (B, M[, 1])
        x = x.masked_fill(padding[..., None], 0)  # padding may be anything, including NaN
        weights = self.scores(x).masked_fill(padding, -torch.inf).softmax(dim=1)  # (B, M[, C])
        pooled = (weights[..., None] * x).sum(dim=1)
        return (pooled, weights) if return_weights else pooled

    def pool_groups(self, x: Tensor, group: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool the instances of each group within a bag separately, e.g. the crops of each plate.

        Args:
            x: (B, M, D), or (B, M, C, D) per channel.
            group: int (B, M), the group of each instance.
            mask: bool (B, M), False on padding.

        Returns:
            Pooled groups (B, M, D) or (B, M, C, D), where index m holds the group of instance m, and bool (B, M), True at
            the first instance of each group. Shapes do not depend on the groups, which avoids a device synchronisation.
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
        # Padding attends to itself, because an empty softmax would have NaN gradients.
        together = together | torch.eye(group.shape[1], dtype=torch.bool, device=group.device)
        x = x.masked_fill(~present[..., None], 0)
        weights = self.scores(x)[:, None, :].masked_fill(~together, -torch.inf).softmax(dim=2)
        return weights @ x, present & ~earlier


class GatedAttentionPool(Pool):
    """Attention pooling with a gate: softmax over instances of w·(tanh(Vx) ⊙ σ(Ux)) (Ilse et al. 2018, eq. 9).

    For per-channel features the attention parameters are shared, and each channel has its own weights.

    Args:
        dim: D, size of an instance.
        hidden: size of the attention space.
        bias: add biases to V, U and w, as the published CellCLIP weights have them.
    """

    def __init__(self, dim: int, hidden: int = 128, bias: bool = False) -> None:
        super().__init__()
        self.value = nn.Linear(dim, hidden, bias=bias)  # V
        self.gate = nn.Linear(dim, hidden, bias=bias)  # U
        self.score = nn.Linear(hidden, 1, bias=bias)  # w

    def scores(self, x: Tensor) -> Tensor:
        """Attention before the softmax: (..., D) to (...)."""
        return self.score(torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))).squeeze(-1)


class MeanPool(Pool):
    """The mean, with the interface of the attention pool; its arguments are ignored."""

    is_mean = True

    def __init__(self, dim: int = 0, hidden: int = 0, bias: bool = False) -> None:
        super().__init__()

    def scores(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


POOLS: dict[str, type[GatedAttentionPool] | type[MeanPool]] = {"gated": GatedAttentionPool, "mean": MeanPool}
