"""Memory of a cross-modal loss on many pairs, chunked against plain: `python -m benchmarks.clip_memory [--check] [--json]`.

Each loss runs forward and backward in its own process, once with all logits and once with a chunk of rows at a time, on
the same pairs; the peak is that of the process less what it held before the loss. The bar, at 16,384 pairs of 512 numbers
on a CPU: chunked at most 1/8 of plain. On a GPU (`--device cuda`, where the allocator's peak is read) 65,536 pairs fit one
card.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time

import torch

BAR = 1 / 8
LOSSES = ("InfoNCELoss", "CWCLLoss", "SigLIPLoss", "S2LLoss", "CLOOBLoss")
MIB = 2**20
WARM_UP = 64


def measure(loss: str, pairs: int, dim: int, chunk_size: int | None, device: str) -> dict[str, float]:
    """Peak MiB beyond what was there before, seconds and the loss of one forward and backward in this process."""
    from morphoclip import losses

    function = getattr(losses, loss)(chunk_size=chunk_size)
    if pairs > WARM_UP:  # libraries that load on first use are not the loss's
        measure(loss, WARM_UP, dim, chunk_size and WARM_UP // 2, device)
    draws = torch.Generator().manual_seed(0)
    image = torch.randn(pairs, dim, generator=draws).to(device).requires_grad_()
    other = (image.detach().cpu() + torch.randn(pairs, dim, generator=draws)).to(device).requires_grad_()
    context = losses.LossContext(image_profile=image.detach()[:, None], image_frozen=image.detach() / dim**0.5)
    scale = torch.tensor(10.0, device=device, requires_grad=True)
    before = peak(device)
    started = time.perf_counter()
    value = function(image, other, scale, context=context)
    value.backward()
    after = peak(device)
    return {"mib": (after - before) / MIB, "seconds": time.perf_counter() - started, "loss": value.item()}


def peak(device: str) -> int:
    """Bytes at most held so far by the process, or by torch on a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_a_process(loss: str, chunk_size: int | None, arguments: argparse.Namespace) -> dict[str, float]:
    options = [
        "--pairs",
        arguments.pairs,
        "--dim",
        arguments.dim,
        "--device",
        arguments.device,
        "--chunk",
        chunk_size or 0,
    ]
    command = [sys.executable, "-m", "benchmarks.clip_memory", "--one", loss, *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{loss} with chunk {chunk_size} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--losses", nargs="+", default=LOSSES, choices=LOSSES)
    parser.add_argument("--pairs", type=int, default=16_384)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True, help="also without chunks")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=LOSSES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(
            json.dumps(
                measure(arguments.one, arguments.pairs, arguments.dim, arguments.chunk or None, arguments.device)
            )
        )
        return
    rows = []
    for loss in arguments.losses:
        chunked = in_a_process(loss, arguments.chunk, arguments)
        plain = in_a_process(loss, None, arguments) if arguments.plain else None
        rows.append({"loss": loss, "chunked": chunked, "plain": plain})
    if arguments.json:
        print(json.dumps(rows))
    else:
        print(
            f"{arguments.pairs} pairs x {arguments.dim}, chunks of {arguments.chunk}, float32, {arguments.device}; torch {torch.__version__}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
        )
        print(f"{'loss':14} {'plain MiB':>10} {'chunked MiB':>12} {'ratio':>7} {'plain s':>8} {'chunked s':>10}")
        for row in rows:
            plain, chunked = row["plain"], row["chunked"]
            before = f"{plain['mib']:10.0f}" if plain else f"{'':10}"
            ratio = f"{chunked['mib'] / plain['mib']:7.3f}" if plain else f"{'':7}"
            seconds = f"{plain['seconds']:8.1f}" if plain else f"{'':8}"
            print(f"{row['loss']:14} {before} {chunked['mib']:12.0f} {ratio} {seconds} {chunked['seconds']:10.1f}")
    if arguments.check and any(row["chunked"]["mib"] > BAR * row["plain"]["mib"] for row in rows if row["plain"]):
        sys.exit("a chunked loss needs more than an eighth of the plain one's memory")


if __name__ == "__main__":
    main()
