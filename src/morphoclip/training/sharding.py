"""Weights, gradients and optimizer state divided among ranks (FSDP2), for models that do not fit one card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from morphoclip.checkpoints import read_checkpoint

PRECISIONS = ("32-true", "bf16-mixed", "64-true")


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 strategy with all ranks in one group, and one file a checkpoint, as that of one process."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Give each rank its part of the weights and of the optimizer's state.

        Lightning numbers parameters in the module's order here, but saves of one process in that of the optimizer's groups.
        """
        checkpoint = read_checkpoint(self.broadcast(checkpoint_path))
        whole = StateDictOptions(full_state_dict=True)
        assert self.model is not None
        set_model_state_dict(self.model, checkpoint["state_dict"], options=whole)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            own = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            name_of = dict(zip(numbers, own, strict=True))
            named: Any = {
                "state": {name_of[number]: value for number, value in saved["state"].items()},
                "param_groups": [
                    {**group, "params": [name_of[number] for number in group["params"]]}
                    for group in saved["param_groups"]
                ],
            }
            settings = [
                {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
            ]
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=named, options=whole)
            for group, kept in zip(optimizer.param_groups, settings, strict=True):
                group.update(kept)  # nested ones, such as `frozen`, are lost on the way
        return checkpoint


def shard(method: nn.Module, mesh: DeviceMesh, parts: Iterable[nn.Module]) -> None:
    """Shard a method: each block of its transformers, each of `parts`, and the rest together.

    Teachers are copies of parts made before, so they are divided as their students are.

    Args:
        parts: encoders, which are called outside of a training step too, by `forward` or `forward_tokens`.

    Raises:
        ValueError: a weight is a single number, which cannot be divided.
    """
    single = [name for name, parameter in method.named_parameters() if parameter.ndim == 0]
    if single:
        raise ValueError(
            f"{type(method).__name__} has {single[0]}, a single number, which cannot be sharded: use trainer=ddp"
        )
    blocks = [block for layers in method.modules() if isinstance(layers, nn.ModuleList) for block in layers]
    for block in reversed(blocks):  # inner ones first
        if next(block.parameters(), None) is not None:
            fully_shard(block, mesh=mesh)
    for part in parts:
        fully_shard(
            part, mesh=mesh, reshard_after_forward=False
        )  # `forward` calls `forward_tokens`; what is not in a block is small
        register_fsdp_forward_method(part, "forward_tokens")
    fully_shard(method, mesh=mesh, reshard_after_forward=True)
    for name in (
        "on_fit_start",
        "training_step",
    ):  # the first, so that the whole is set up before a part is called alone
        register_fsdp_forward_method(method, name)
