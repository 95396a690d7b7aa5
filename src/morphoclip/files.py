"""Atomic writes of files and folders, and hashes of files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """A temporary path next to `path`, for a file or a small folder; renamed to `path` if the block ends without an error.

    The file is synced to disk before the rename, so that a crash leaves either the old or the new file. The temporary
    name contains the process id, so that two processes can write the same file, and keeps the suffix, for writers that
    choose a format by it. After an error the temporary file is removed. Folders that take long to write (datasets,
    simulated screens, features) use their own working folders, which the next start clears.

    Missing parent folders are made. A folder replaces `path` only if that is empty or absent.

    Raises:
        OSError: writing or renaming failed, e.g. on a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}{''.join(path.suffixes[-2:])}")
    remove(partial)  # left by a killed process with the same id
    try:
        yield partial
        if partial.is_file():
            _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except BaseException:
        remove(partial)
        raise


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
