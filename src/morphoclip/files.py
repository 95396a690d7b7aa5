"""Files and folders that get their final name only when they are whole, and hashes of files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, for a file or a small folder; renamed to `path` when the block ends without an error.

    A file reaches the disk before the rename, so that a crash leaves the old one or the new one. The temporary name holds
    this process's id, so that processes that write the same file do not write into each other's; the suffix stays, for
    writers that choose a format by it. After an error nothing is left. Folders that take long to write (datasets,
    simulated screens, features) have working folders of their own, which the next start finds and begins anew.

    Missing parent folders are made. A folder replaces `path` only where that is empty or absent.

    Raises:
        OSError: as raised while writing or renaming, e.g. where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}{''.join(path.suffixes[-2:])}")
    remove(partial)  # of a killed process that had this id
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
    """Remove a file or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
