"""Making DINO's views (2 x 224 and 8 x 96 of one 448 crop) by morphoclip.augment: `python -m benchmarks.gpu_augment`.

On a GPU beside a device-to-device copy of as many bytes as the views have (bar of `--check`: within 3 x of it), on the
CPU beside torchvision's v2 transforms an image at a time, as a loader's workers run them (no bar). Views are cropped,
flipped and jittered; torchvision's ColorJitter refuses five channels, so its row has the same arithmetic in place of it.
`--compiled` adds a row for the same by torch.compile, which takes a minute to build.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from time import perf_counter

import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.demo import machine
from morphoclip.augment import Color, Compose, Flip, RandomCrop

BAR = 3.0
VIEWS = ((224, 2), (96, 8))
PARENT = 448
AUGMENTATIONS = {size: Compose([RandomCrop(size), Flip(), Color()]) for size, _ in VIEWS}


def our_views(images: Tensor, apply: Callable[..., Tensor] = Compose.apply) -> list[Tensor]:
    """Views as methods make them: parameters of all images drawn on the CPU, applied on the device."""
    generator = torch.Generator().manual_seed(0)
    views = []
    for size, number in VIEWS:
        augmentation = AUGMENTATIONS[size]
        for _ in range(number):
            views.append(apply(augmentation, images, augmentation.draw(len(images), images.shape[1], generator)))
    return views


def their_views(images: Tensor) -> list[Tensor]:
    def jitter(image: Tensor) -> Tensor:
        shift, gamma = torch.rand(2, len(image), 1, 1).unbind(0)
        return (image + 0.6 * shift - 0.3).clamp_(0, 1).pow_(0.5 + gamma)

    views = []
    for size, number in VIEWS:
        flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
        transform = v2.Compose([v2.RandomCrop(size), *flips, v2.Lambda(jitter)])
        views += [torch.stack([transform(image) for image in images]) for _ in range(number)]
    return views


def seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """The best of `repeats`, after two to warm up; on a GPU by its own clock."""
    for _ in range(2):
        run()
    best = float("inf")
    for _ in range(repeats):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            best = min(best, start.elapsed_time(end) / 1e3)
        else:
            begin = perf_counter()
            run()
            best = min(best, perf_counter() - begin)
    return best


def measure(device: str, batch: int, repeats: int, compiled: bool) -> list[dict]:
    images = torch.rand(batch, 5, PARENT, PARENT, device=device)
    rows = [{"row": "morphoclip.augment", "seconds": seconds(lambda: our_views(images), device, repeats)}]
    if compiled:
        apply = torch.compile(Compose.apply, dynamic=False)
        rows.append(
            {"row": "the same, compiled", "seconds": seconds(lambda: our_views(images, apply), device, repeats)}
        )
    size = sum(view.numel() for view in our_views(images))
    if device == "cuda":
        source = torch.rand(size, device=device)
        target = torch.empty_like(source)
        rows.append(
            {"row": "copy of the views' bytes", "seconds": seconds(lambda: target.copy_(source), device, repeats)}
        )
    else:
        rows.append(
            {"row": "torchvision v2, image by image", "seconds": seconds(lambda: their_views(images), device, repeats)}
        )
    for row in rows:
        row |= {"device": device, "crops_per_s": batch / row["seconds"], "ratio": row["seconds"] / rows[-1]["seconds"]}
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, help="crops (default 64 on a GPU, 8 on the CPU)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="also by torch.compile")
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is missed (GPU only)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure(given.device, given.batch or (64 if given.device == "cuda" else 8), given.repeats, given.compiled)
    if given.json:
        print(json.dumps({"machine": machine(), "rows": rows}))
    else:
        name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
        print(f"{machine()}, torchvision {version('torchvision')}; {name}")
        for row in rows:
            print(
                f"{row['row']:<32}{1e3 * row['seconds']:>10.1f} ms{row['crops_per_s']:>10.0f} crops/s{row['ratio']:>8.2f} x"
            )
    return int(given.check and given.device == "cuda" and rows[0]["ratio"] > BAR)


if __name__ == "__main__":
    sys.exit(main())
