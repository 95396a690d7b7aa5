"""Batch norm over the joined batch of all ranks, on any device."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from morphoclip.distributed import gather_rows, world_size


def over_ranks(model: nn.Module) -> nn.Module:
    """The model with each nn.BatchNorm2d (and timm's with an activation) replaced by a `BatchNorm` with the same weights."""
    for name, part in model.named_children():
        if isinstance(part, nn.BatchNorm2d) and type(part) in (nn.BatchNorm2d, BatchNormAct2d):
            settings: Any = (part.num_features, part.eps, part.momentum, part.affine, part.track_running_stats)
            joint = (
                BatchNormAct(part.drop, part.act, *settings) if type(part) is BatchNormAct2d else BatchNorm(*settings)
            )
            joint.load_state_dict(part.state_dict())
            setattr(model, name, joint)
        else:
            over_ranks(part)
    return model


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d with the statistics of all ranks in training (torch's SyncBatchNorm does not support CPU and gloo).

    Takes (B, F), (B, F, L) or images (B, F, H, W); B may differ between ranks. On one rank it equals torch's.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim not in (2, 3, 4):
            raise ValueError(f"BatchNorm takes (B, F), (B, F, L) or (B, F, H, W), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            mean, variance = self._joint_moments(values)
            return self._normalise(values, mean, variance).to(x.dtype)

    def _joint_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (F,) over all ranks, by Chan's merge of moments, which avoids cancellation."""
        dims = [d for d in range(x.ndim) if d != 1]
        mean = x.mean(dims)
        count = x.new_full((1,), x.numel() / x.shape[1])
        own = torch.cat([mean, (x - self._spread(mean, x)).square().sum(dims), count])
        means, squares, counts = gather_rows(own[None], [1] * world_size()).split([len(mean), len(mean), 1], dim=1)
        total = counts.sum()
        joint = (means * counts).sum(0) / total
        variance = (squares + counts * (means - joint).square()).sum(0) / total
        if self.track_running_stats:
            with torch.no_grad():
                running_mean, running_var, seen = self.running_mean, self.running_var, self.num_batches_tracked
                assert running_mean is not None and running_var is not None and seen is not None  # noqa: PT018  # tracked
                momentum = 1 / (float(seen) + 1) if self.momentum is None else self.momentum
                seen += 1
                running_mean.lerp_(joint.to(running_mean.dtype), momentum)
                running_var.lerp_((variance * total / (total - 1)).to(running_var.dtype), momentum)
        return joint, variance

    def _normalise(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        x = (x - self._spread(mean, x)) * self._spread((variance + self.eps).rsqrt(), x)
        return x * self._spread(self.weight, x) + self._spread(self.bias, x) if self.affine else x

    @staticmethod
    def _spread(values: Tensor, x: Tensor) -> Tensor:
        """Reshape (F,) to broadcast over x (B, F[, …])."""
        return values.view(1, -1, *[1] * (x.ndim - 2))


class BatchNormAct(BatchNorm):
    """`BatchNorm`, then a drop and an activation, in place of timm's `BatchNormAct2d`."""

    def __init__(self, drop: nn.Module, act: nn.Module, *settings: Any) -> None:
        super().__init__(*settings)
        self.drop, self.act = drop, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))
