"""What a run was started with: commit and uncommitted changes, packages, machine, launcher and datasets, for every start.

run folder/
  environment.json       a list, one entry per start
  code.diff              uncommitted changes of the first start; code-<n>.diff of the nth if they differ from those before
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import morphoclip
from morphoclip.files import write_atomically
from morphoclip.version import __version__

ENVIRONMENT = "environment.json"
VARIABLES = (
    *("SLURM_", "TORCHELASTIC_", "NCCL_", "GLOO_", "OMP_", "CUDA_", "PYTORCH_", "TORCH_", "MORPHOCLIP_", "WANDB_"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
)
SECRET = (
    "KEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "JWT",
    "CREDENTIAL",
)  # parts of names of variables that are not recorded


def record_start(folder: Path) -> None:
    """Add this start to a run's environment.json, and print a line if the code is not that of the start before."""
    starts = read_starts(folder)
    code, diff = code_of(Path(morphoclip.__file__).parent)
    if diff:
        code["diff"] = _store(folder, diff, starts)
    if starts:
        line = code_change(starts[-1], code)
        if line:
            print(line, flush=True)
    _write(folder, [*starts, {"started": _now(), **code, **machine(), "variables": variables(os.environ)}])


def record_datasets(folder: Path, data: DictConfig) -> None:
    """Add the sha256 of the datasets' manifests to the last entry; `data` is the group `data` of the run's config."""
    starts = read_starts(folder)
    starts[-1]["datasets"] = manifest_hashes(data)
    _write(folder, starts)


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's environment.json, one per start; empty if there is none."""
    path = folder / ENVIRONMENT
    return json.loads(path.read_text()) if path.is_file() else []


def code_of(package: Path) -> tuple[dict[str, Any], bytes]:
    """(version, commit and names of untracked files; the uncommitted changes) of a package in a git checkout.

    `commit` is None for an installed package, also if it lies within somebody else's checkout.
    """

    def git(*arguments: str, at: Path = package) -> bytes | None:
        try:
            run = subprocess.run(["git", "-C", str(at), *arguments], capture_output=True, check=False)
        except FileNotFoundError:
            return None
        return run.stdout if run.returncode == 0 else None

    code: dict[str, Any] = {"version": __version__, "commit": None, "diff": None, "untracked": []}
    top, head = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    if top is None or head is None or git("ls-files", "--error-unmatch", "__init__.py") is None:
        return code, b""
    checkout = Path(os.fsdecode(top.strip()))
    untracked = os.fsdecode(git("ls-files", "-z", "--others", "--exclude-standard", at=checkout) or b"")
    code |= {"commit": head.decode().strip(), "untracked": sorted(name for name in untracked.split("\0") if name)}
    return code, git("diff", "--no-color", "--no-ext-diff", "HEAD", at=checkout) or b""


def _store(folder: Path, diff: bytes, starts: list[dict[str, Any]]) -> str:
    """Write uncommitted changes to the run's folder unless a start before had the same; returns the file's name."""
    for name in dict.fromkeys(start["diff"] for start in starts if start["diff"]):
        if (folder / name).is_file() and (folder / name).read_bytes() == diff:
            return name
    name = f"code-{len(starts) + 1}.diff" if starts else "code.diff"
    with write_atomically(folder / name) as partial:
        partial.write_bytes(diff)
    return name


def code_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """A line if the commit (of an installed package the version) or the uncommitted changes differ; else None."""
    named = [start["commit"][:12] if start["commit"] else f"version {start['version']}" for start in (before, now)]
    if named[0] != named[1]:
        return f"code: {named[0]} at the start before, {named[1]} now"
    if before["diff"] != now["diff"]:
        shown = [start["diff"] or "none" for start in (before, now)]
        return f"code: other uncommitted changes than at the start before ({shown[0]} -> {shown[1]})"
    return None


def machine() -> dict[str, Any]:
    """Host, processors, GPUs, versions of python, CUDA and all installed packages."""
    import torch

    gpus = range(torch.cuda.device_count())
    found = ((known.metadata["Name"], known.version) for known in distributions())
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "packages": {name.lower(): version for name, version in sorted(found, key=str) if name},
    }


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the launcher and of libraries, but for those whose names are of secrets."""
    chosen = {name: value for name, value in sorted(environment.items()) if name.startswith(VARIABLES)}
    return {name: value for name, value in chosen.items() if not any(part in name.upper() for part in SECRET)}


def manifest_hashes(data: DictConfig) -> dict[str, str]:
    """Dataset -> sha256 of its manifest; empty for profile tables, which have none."""
    from morphoclip.data.shards.manifest import MANIFEST, read_manifest
    from morphoclip.data.shards.remote import Store, is_remote
    from morphoclip.export.provenance import manifest_hash

    roots = [entry.root for entry in data.loader.get("datasets") or []] or [data.root]
    hashes = {}
    for root in map(str, roots):
        if is_remote(root):
            hashes[root] = manifest_hash(json.loads(Store(root).get(MANIFEST)))
        elif (Path(root) / MANIFEST).is_file():
            hashes[root] = manifest_hash(read_manifest(root))
    return hashes


def _write(folder: Path, starts: list[dict[str, Any]]) -> None:
    with write_atomically(folder / ENVIRONMENT) as partial:
        partial.write_text(json.dumps(starts, indent=1) + "\n")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
