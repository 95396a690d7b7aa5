"""A training step beside lightly's modules doing the same work: `python -m benchmarks.ssl_step [--check] [--json]`.

For each method one step of ours (`training_step`, backward, the guard's norm, AdamW, teacher) and one of a plain loop
over lightly's heads, losses and momentum update, on the same ViT, crops, views, mask ratio and optimizer. Steps are
interleaved, each time in the other order; a ratio is the median over repeats of ours / lightly's. Crops a second are those of
steps in a row. Seconds on a CPU are those of the process on one thread, on a GPU wall seconds between synchronisations.
Lightly's DINO runs a forward pass a view, as its examples do. TFLOP/s count what our step's matrix products and
convolutions take, forward and backward; the device's peak makes them a utilisation.

"The rest" is the same step with backbones that cost nothing: each call of one gives back what it gave in the first step,
so what is left is augmentation, head, loss, their backward pass and optimizer, and the teacher's update with all its weights.
Both draw their views with our augmentation, so the rest's ratio is for heads, losses and teachers to win.

The last two columns are a short run of the trainer on crops of a simulated screen that our loader reads from disk: crops a
second and `data_wait`, the share of time inside `next()` of the loader. Below: draws on 1, 8, 64 ranks (`benchmarks.draws`).

The bar: on a CPU a median ratio of at most 1.05 for each method, as the backbone dominates there; on a GPU at most .7 of
the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import draws
from benchmarks.demo import machine
from benchmarks.lightly_steps import PEERS, Lightly
from morphoclip import configs_dir
from morphoclip.batch import Batch
from morphoclip.experiment.fit import fit
from morphoclip.experiment.prepare import prepare_data
from morphoclip.methods.base import Method

BAR, REST_BAR = 1.05, 0.7
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312}  # bf16 without sparsity, by NVIDIA's data sheets
RECIPES = {"simclr": "kim2025_simclr", "dino": "kim2025_dino", "mae": "kim2025_mae", "cwa_msn": "cwa_msn"}


def recipe_method(name: str, given: argparse.Namespace) -> Method:
    """The recipe's method on the chosen encoder."""
    overrides = [f"experiment={RECIPES[name]}", f"encoder={given.encoder}", "folder=run", "data.root=none"]
    if name in ("dino", "cwa_msn"):
        overrides.append(f"method.local_views={given.local_views}")
    if name == "dino":
        overrides.append("encoder.drop_path_rate=0.0")  # lightly's loop has none
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", overrides=overrides)
    torch.manual_seed(0)
    return instantiate(config.method)


def our_method(name: str, given: argparse.Namespace) -> Method:
    """The recipe's method on the device, ready for single steps without a loop around them."""
    method = recipe_method(name, given).to(given.device)
    method.trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu")
    method.total_steps = 1000
    # Step 1 of 1000: monitors run at step 0 and then every 50th.
    method.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 1
    method.log = method.log_dict = lambda *args, **kw: None
    return method


def our_step(method: Method) -> Callable[[Batch], None]:
    optimizer = method.configure_optimizers()

    def step(batch: Batch) -> None:
        method.recipe.set_step(optimizer, 1, method.total_steps)
        loss = method.training_step(batch, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        method.configure_gradient_clipping(optimizer)
        optimizer.step()
        method.after_optimizer_step()

    return step


def crops(count: int, size: int, device: str) -> Batch:
    draws = torch.Generator().manual_seed(1)
    images = torch.randint(0, 4000, (count, 5, size, size), generator=draws).to(torch.uint16)
    code = torch.arange(count)
    low, high = torch.zeros(count, 5), torch.full((count, 5), 4000.0)
    batch = Batch(perturbation=code, condition=code, is_control=code < 0, images=images, low=low, high=high)
    return batch.to(device)


def seconds(function: Callable[[Any], Any], batch: Batch | Tensor, device: str) -> float:
    if device == "cpu":
        start = time.process_time()
        function(batch)
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    function(batch)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds_in_a_row(step: Callable[[Batch], None], batch: Batch, given: argparse.Namespace) -> float:
    """Seconds a step of `repeats` that follow each other as in training: on a GPU, one is launched while another runs."""

    def run(batch: Batch) -> None:
        for _ in range(given.repeats):
            step(batch)

    return seconds(run, batch, given.device) / given.repeats


def at_precision(step: Callable[[Batch], None], given: argparse.Namespace) -> Callable[[Batch], None]:
    """The step under bf16 autocast where that is asked for."""
    return torch.autocast(given.device, torch.bfloat16)(step) if given.bf16 else step


class Replayed:
    """A module's call that costs nothing: in every step after the first it gives back what it gave in that one.

    Where the module trained, what it gives asks for a gradient, so that the backward pass comes as far as it.
    """

    def __init__(self, module: nn.Module, call: str = "forward") -> None:
        self.call = getattr(module, call)
        self.given: list[Tensor] = []
        self.turn: int | None = None  # None: the first step
        setattr(module, call, self)

    def __call__(self, *args, **kw) -> Tensor:
        if self.turn is None:
            self.given.append(self.call(*args, **kw))
            return self.given[-1]
        output = self.given[self.turn % len(self.given)]
        self.turn += 1
        return output.detach().requires_grad_(output.requires_grad)


def without_backbones(step: Callable[[Batch], None], batch: Batch, backbones: list[Replayed]) -> None:
    """Take the backbones' cost out of a step, for good."""
    step(batch)
    for backbone in backbones:
        backbone.turn = 0


def backbones(method: Method, peer: Lightly) -> dict[str, list[Replayed]]:
    """From now on replayed: the calls that a step of ours and of lightly's make of students' and teachers' backbones."""
    encoders = [getattr(method, name) for name in ("encoder", "teacher_encoder") if hasattr(method, name)]
    ours = [Replayed(encoder) for encoder in encoders]
    theirs = [Replayed(module) for module in (peer.vit, *peer.teachers[:1])]
    if hasattr(peer, "masked"):
        theirs.append(Replayed(peer.masked, "encode"))
    return {"ours": [*ours, Replayed(method.encoder, "forward_tokens")], "lightly": theirs}


def interleaved(steps: dict[str, Callable[[Batch], None]], batch: Batch, given: argparse.Namespace) -> dict[str, float]:
    """Median seconds of ours and lightly's steps, and the median, lowest and highest ratio of neighbours."""
    taken: dict[str, list[float]] = {key: [] for key in steps}
    for repeat in range(given.warmup + given.repeats):
        for key in list(steps)[:: 1 if repeat % 2 else -1]:
            spent = seconds(steps[key], batch, given.device)
            if repeat >= given.warmup:
                taken[key].append(spent)
    ratios = [ours / theirs for ours, theirs in zip(taken["ours"], taken["lightly"], strict=True)]
    found = {f"{key}_s": statistics.median(values) for key, values in taken.items()}
    return found | {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def measure(name: str, given: argparse.Namespace) -> dict[str, float | str | None]:
    """Of one method: the whole step, the rest without backbones (`rest_…`), and what a fed trainer reaches."""
    method = our_method(name, given)
    peer = PEERS[name](method)
    batch = crops(given.batch, 224, given.device)
    steps = {key: at_precision(step, given) for key, step in {"ours": our_step(method), "lightly": peer.step}.items()}
    with FlopCounterMode(display=False) as counter:
        steps["ours"](batch)
    row = {"method": name, **interleaved(steps, batch, given)}
    row |= rates(seconds_in_a_row(steps["ours"], batch, given), counter.get_total_flops(), given)
    for key, calls in backbones(method, peer).items():
        without_backbones(steps[key], batch, calls)
    row |= {f"rest_{key}": value for key, value in interleaved(steps, batch, given).items()}
    return row | (fed(name, given) if given.fed_steps else {})


def rates(spent: float, flops: int, given: argparse.Namespace) -> dict[str, float | None]:
    """What a step of `spent` seconds comes to: crops a second, TFLOP/s and their share of the device's peak."""
    peak, tflops = given.peak_tflops or known_peak(given), flops / spent / 1e12
    utilisation = tflops / peak if peak else None
    return {"crops_per_s": given.batch / spent, "tflops_per_s": tflops, "utilisation": utilisation}


def known_peak(given: argparse.Namespace) -> float | None:
    """TFLOP/s that the device can reach, where we know them."""
    if given.device == "cpu" or not given.bf16:
        return None
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in torch.cuda.get_device_name()), None)


def fed(name: str, given: argparse.Namespace) -> dict[str, float]:
    """Crops a second and the share of waiting of the recipe's trainer, on shards of a small simulated screen."""
    data = given.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            *[f"experiment={RECIPES[name]}", "data=simulated", f"encoder={given.encoder}", f"folder={folder}"],
            *[f"data.folder={data}", "data.prepare.crop_size=224", "data.prepare.mode=random"],
            *["+data.prepare.crops_per_field=2", "data.holdout=null", f"data.loader.global_batch_size={given.batch}"],
            *[f"data.loader.sampler={'pairs' if name == 'cwa_msn' else 'uniform'}", "data.loader.sampler_options=null"],
            *[f"data.screen.{kind}_plates=[2]" for kind in ("compound", "crispr", "orf")],
            *["trainer.max_epochs=null", f"trainer.max_steps={given.fed_steps}", "data.loader.max_batch_size=null"],
            f"trainer.accelerator={'cpu' if given.device == 'cpu' else 'gpu'}",
            f"trainer.precision={'bf16-mixed' if given.bf16 else '32-true'}",
            *["trainer.devices=1", "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"],
            *[f"~callbacks.{callback}" for callback in ("progress", "knn", "pictures")],
        ]
        if name in ("dino", "cwa_msn"):
            overrides.append(f"method.local_views={given.local_views}")
        with initialize_config_dir(str(configs_dir()), version_base="1.3"):
            config = compose("train", overrides=overrides)
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the table
            prepare_data(config.data)
            fit(config)
        metrics = pd.read_csv(next(Path(folder).rglob("metrics.csv")))
    last = metrics[["speed/samples_per_s", "speed/data_wait"]].dropna().iloc[-1]
    return {"fed_crops_per_s": last["speed/samples_per_s"], "data_wait": last["speed/data_wait"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--encoder", default="vit_tiny", help="a ViT of configs/encoder")
    parser.add_argument("--batch", type=int, default=8, help="crops of 224 pixels")
    parser.add_argument("--local-views", type=int, default=4, help="of DINO and CWA-MSN")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="both under bf16 autocast")
    parser.add_argument(
        "--peak-tflops", type=float, help=f"of the device at this precision; known in bf16: {PEAK_TFLOPS}"
    )
    parser.add_argument(
        "--fed-steps", type=int, default=20, help="of the trainer on our loader's crops; 0 leaves it out"
    )
    parser.add_argument(
        "--draws", type=int, default=10, help="repeats of the draws on 1, 8 and 64 ranks; 0 leaves them out"
    )
    parser.add_argument("--data", type=Path, default=Path("outputs/data/ssl_step"), help="its screen is kept here")
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is missed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.device == "cpu":
        torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    rows = [measure(name, given) for name in given.methods]
    drawn = draws.measure(given.draws) if given.draws else []
    where = f"{machine()}, lightly {metadata.version('lightly')}; {given.encoder}, {given.batch} crops of 224"
    where += ", bf16 autocast" if given.bf16 else ", float32"
    if given.json:
        print(json.dumps({"machine": where, "rows": rows, "draws": drawn}, indent=2))
    else:
        print(where, "", show(rows), *(["", draws.show(drawn)] if drawn else []), sep="\n")
    missed = {
        row["method"]: row["ratio"] > BAR if given.device == "cpu" else row["rest_ratio"] > REST_BAR for row in rows
    }
    return int(given.check and any(missed.values()))


def show(rows: list[dict]) -> str:
    ratio = "ratio (lowest – highest)"
    head = ["method", "ours, s", "lightly, s", ratio, "rest: ours, s", "lightly, s", ratio]
    head += ["crops/s", "TFLOP/s", "of the peak", "fed crops/s", "data_wait"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row["method"]]
        for kind in ("", "rest_"):
            cells += [f"{row[f'{kind}ours_s']:.3g}", f"{row[f'{kind}lightly_s']:.3g}"]
            cells.append(f"{row[f'{kind}ratio']:.3f} ({row[f'{kind}lowest']:.3f} – {row[f'{kind}highest']:.3f})")
        cells += [f"{row['crops_per_s']:.1f}", f"{row['tflops_per_s']:.3g}"]
        cells.append("" if row["utilisation"] is None else f"{row['utilisation']:.1%}")
        cells += [f"{row['fed_crops_per_s']:.1f}", f"{row['data_wait']:.1%}"] if "data_wait" in row else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
