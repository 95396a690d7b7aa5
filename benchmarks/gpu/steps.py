"""Whole training steps on one batch of crops that lies on the device: beside lightly's, compiled, and where their time goes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from timm.models.vision_transformer import Block
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ssl_step
from benchmarks.gpu.run import ENCODERS, Run
from morphoclip.batch import Batch

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def eager(run: Run) -> None:
    """Crops/s, utilisation and the ratio to lightly, of the whole step and of all but the backbones."""
    rows = [("vit_base", name) for name in ("simclr", "mae", "dino")]
    rows += [("vit_small", name) for name in ("simclr", "mae", "dino", "cwa_msn")]
    for encoder, method, chosen in run.grid(*rows, ("vit_base", "cwa_msn")):
        with run.row(encoder=ENCODERS[encoder], method=method) as record:
            found = run.halving(lambda chosen, method=method: ssl_step.measure(method, chosen), chosen)
            record(**{k: v for k, v in found.items() if k != "method"}, peak_gib=run.peak_gib())


def prepared(method: str, chosen: argparse.Namespace, compiled: str | None) -> tuple[Callable[[Batch], None], Batch]:
    """A step and its batch; blocks of transformers are compiled by the backend `compiled`, None for none."""
    ours = ssl_step.our_method(method, chosen)
    if compiled:
        torch.compiler.reset()
        for block in ours.modules():
            if isinstance(block, Block):
                block.compile(backend=compiled, dynamic=False)
    step = ssl_step.at_precision(ssl_step.our_step(ours), chosen)
    return step, ssl_step.crops(chosen.batch, 224, chosen.device)


def compiled(run: Run) -> None:
    """Steps with compiled transformer blocks, eager ones beside them."""
    rows = [("vit_base", "simclr"), ("vit_base", "mae"), ("vit_small", "simclr"), ("vit_base", "dino")]
    backend = "eager" if run.tiny else "inductor"

    def measure(method: str, chosen: argparse.Namespace) -> dict:
        found: dict[str, float | None] = {}
        for kind, chosen_backend in (("eager", None), ("compiled", backend)):
            step, batch = prepared(method, chosen, chosen_backend)
            began = time.perf_counter()
            with FlopCounterMode(display=False) if kind == "eager" else torch.enable_grad() as counter:
                step(batch)
            if kind == "eager":
                flops = counter.get_total_flops()
            for _ in range(chosen.warmup):
                step(batch)
            found[f"{kind}_warmup_s"] = time.perf_counter() - began
            rates = ssl_step.rates(ssl_step.seconds_in_a_row(step, batch, chosen), flops, chosen)
            found |= {f"{kind}_{name}": value for name, value in rates.items()}
            found[f"{kind}_peak_gib"] = run.peak_gib()
            del step
            run.free()
        return found

    for encoder, method, chosen in run.grid(*rows):
        with run.row(encoder=ENCODERS[encoder], method=method) as record:
            record(**run.halving(lambda chosen, method=method: measure(method, chosen), chosen))


def profiled(run: Run) -> None:
    """Of an eager step: the share of time in which the device works, its kernels, copies to it and waits for it.

    The table of operations by their time goes to `out`/profile_ENCODER_METHOD.txt.
    """
    steps = 3
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if run.device == "cuda" else [])]

    def measure(method: str, chosen: argparse.Namespace, table: str) -> dict:
        step, batch = prepared(method, chosen, None)
        for _ in range(1 + chosen.warmup):
            step(batch)
        alone = ssl_step.seconds_in_a_row(step, batch, chosen)
        with profile(activities=activities) as profiler:
            for _ in range(steps):
                step(batch)
            if run.device == "cuda":
                torch.cuda.synchronize()
        events = profiler.key_averages()
        kernels = [e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        order = "self_device_time_total" if run.device == "cuda" else "self_cpu_time_total"
        (run.out / table).write_text(events.table(sort_by=order, row_limit=40, max_name_column_width=90))
        return {
            "step_s": alone,
            "device_busy": sum(e.self_device_time_total for e in kernels) / 1e6 / steps / alone,
            "kernels": sum(e.count for e in kernels) / steps,
            "copies_to_device": sum(e.count for e in kernels if "HtoD" in e.key) / steps,
            "waits": sum(e.count for e in events if e.key in WAITS) / steps,
        }

    rows = [("vit_small", "simclr"), ("vit_base", "dino"), ("vit_base", "mae"), ("vit_base", "simclr")]
    for encoder, method, chosen in run.grid(*rows):
        with run.row(encoder=ENCODERS[encoder], method=method) as record:
            table = f"profile_{encoder}_{method}.txt"
            record(**run.halving(lambda c, method=method, table=table: measure(method, c, table), chosen))
