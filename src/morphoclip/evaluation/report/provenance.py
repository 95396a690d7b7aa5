"""Provenance for reproducing the scores: versions, commit, hashes of the input files."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from morphoclip.files import sha256_of_file


def environment() -> dict[str, str]:
    """Versions of the libraries used, and the commit of the checkout ('+' if it has uncommitted changes)."""
    packages = ("morphoclip", "numpy", "pandas", "scipy", "statsmodels")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return {"versions": f"python {platform.python_version()}, {versions}", "commit": commit()}


def commit() -> str:
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        run = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else None

    try:
        head = git("rev-parse", "HEAD")
    except FileNotFoundError:
        return "unknown: no git here"
    if head is None:
        return "unknown: not run from a checkout"
    return head[:12] + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def file_hashes(paths: Sequence[Path]) -> dict[str, str]:
    """Name -> 'sha256 …' of up to 60 input files, and the number of further ones."""
    hashes = {path.name: f"sha256 {sha256_of_file(path)[:16]}" for path in paths[:60]}
    if len(paths) > 60:
        hashes["further files"] = str(len(paths) - 60)
    return hashes
