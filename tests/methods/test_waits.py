"""What a step costs a GPU's queue: copies from the CPU, and waits for the device's answer, counted on the meta device.

On a CPU neither costs anything, so a step there would not show them.
"""

from __future__ import annotations

from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.methods.tiny import METHODS, bags, batch_of, cwa_msn, dino, feature_bags, feature_clip

# Operations that return numbers of the device to the CPU, or whose result's shape depends on them.
ASKING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
}
ANSWERS = {"_local_scalar_dense": 0, "equal": True}


class Waits(TorchDispatchMode):
    """Counts copies to the device, and waits: copies that are not asynchronous and questions to the device.

    Meta tensors have no values, so questions get the answers that mean that nothing is wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies = self.waits = 0
        self.where: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.name().removeprefix("aten::").partition(".")[0]
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        if name in ASKING and "meta" in devices:
            self._count(name)
            if name in ANSWERS:
                return ANSWERS[name]
        if name == "_to_copy" and devices == {"meta"} and str(kwargs.get("device")) == "cpu":
            self._count("copy to the CPU")
        copied = name == "_to_copy" and devices == {"cpu"} and str(kwargs.get("device")) == "meta"
        copied |= name == "copy_" and args[0].device.type == "meta" and args[1].device.type == "cpu"
        if copied or (name == "lift_fresh" and "meta" in devices):  # torch.tensor(…, device=…)
            self.copies += 1
            if not (kwargs.get("non_blocking") or (name == "copy_" and True in args[2:])):
                self._count("copy to the device")
        return function(*args, **kwargs)

    def _count(self, name: str) -> None:
        self.waits += 1
        self.where[name] += 1


def test_the_counter_sees_what_a_gpu_would_wait_for():
    x = torch.zeros(4, device="meta")
    for ask in (
        lambda: bool((x > 0).any()),
        lambda: torch.ones(3).to("meta"),
        lambda: torch.tensor([1.0], device="meta"),
    ):
        with Waits() as waits:
            ask()
        assert waits.waits == 1, waits.where
    with Waits() as waits:
        torch.ones(3).to("meta", non_blocking=True)
        x + 1.0
        x.clamp_(0, 1)
    assert (waits.copies, waits.waits) == (1, 0)


def step_on_meta(method, batch) -> Waits:
    method.trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu")
    method.total_steps = 100
    progress = method.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
    progress.total.completed = 1  # step 0 has the monitors, every 50 steps
    method.log = method.log_dict = lambda *args, **options: None
    method = method.to("meta")
    batch = batch.to("meta")
    with Waits() as waits:
        loss = method.training_step(batch, 0)["loss"]
        loss.backward()
    return waits


@pytest.mark.parametrize("name", [*METHODS, "feature_clip"])
def test_a_step_of_any_method_waits_at_most_four_times(name):
    batch = feature_bags() if name == "feature_clip" else batch_of(name)
    waits = step_on_meta({**METHODS, "feature_clip": feature_clip}[name](), batch)
    # An image-text step asks whether a bag is all padding and whether each image has its prompt.
    assert waits.waits <= (2 if "clip" in name else 0), waits.where
    assert waits.copies == 0 or "clip" in name  # those of prompts, which nothing waits for


@pytest.mark.parametrize("views", [2, 20])
@pytest.mark.parametrize("method", [dino, cwa_msn])
def test_copies_do_not_grow_with_the_views(method, views):
    waits = step_on_meta(method(local_views=views), bags(size=2))
    assert (waits.waits, waits.copies) == (0, 0), waits.where
