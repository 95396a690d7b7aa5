"""A remote dataset folder: any fsspec URL (s3://, gs://, https://, …), or a command that prints its files.

`pipe:aws s3 cp s3://bucket/dataset/{} -` runs the command for each file, with the file's name for `{}`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TypeVar

from morphoclip.data.shards.split_files import is_file_of_rows
from morphoclip.files import write_atomically

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class StoreError(OSError):
    """A read that failed after all retries (with file, attempts and last error), or a URL of an unknown protocol."""


def is_remote(root: str | os.PathLike) -> bool:
    return "://" in str(root) or str(root).startswith("pipe:")


def is_final(error: BaseException) -> bool:
    """Whether a retry is pointless. fsspec raises FileNotFoundError also for a server that answers 503."""
    status = getattr(error.__cause__, "status", 404)
    kinds = (FileNotFoundError, PermissionError, ImportError, NotADirectoryError, StoreError)
    return isinstance(error, kinds) and status < 429


@dataclass(frozen=True)
class Store:
    """Files under a URL, in a local folder or from a command, read with retries.

    Args:
        root: the dataset folder.
        retries: retries after a failed read.
        wait: seconds before the first retry; doubled for each further one.
        timeout: seconds without a sample of a streamed shard, or for one part of a file, after which an attempt fails.
    """

    root: str
    retries: int = 5
    wait: float = 0.5
    timeout: float = 120.0

    @cached_property
    def _filesystems(self) -> dict:
        return {}

    @property
    def _filesystem(self):
        """(file system, path of the root), one per process: connections do not survive a fork."""
        import fsspec

        process = os.getpid()
        if process not in self._filesystems:
            try:
                filesystem, path = fsspec.core.url_to_fs(self.root.rstrip("/"), skip_instance_cache=True)
            except ValueError as error:
                raise StoreError(
                    f"{self.root}: {error}; name a folder or a URL such as s3://, gs:// or https://"
                ) from error
            if hasattr(filesystem, "retries"):
                filesystem.retries = 1  # s3fs and gcsfs would add their own retries
            self._filesystems[process] = filesystem, path
        return self._filesystems[process]

    def __getstate__(self) -> dict:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def url(self, name: str) -> str:
        return (
            self.root.replace("{}", name)
            if self.root.startswith("pipe:")
            else f"{self.root.rstrip('/')}/{name}".rstrip("/")
        )

    def open(self, name: str) -> IO[bytes]:
        """A stream of a file's bytes from its start; one attempt."""
        if self.root.startswith("pipe:"):
            from webdataset.gopen import gopen

            return gopen(self.url(name), "rb")
        filesystem, path = self._filesystem
        whole = {"block_size": 0} if path.startswith("http") else {}  # one response, not one request per block
        return filesystem.open(f"{path}/{name}", "rb", **whole)

    def get(self, name: str) -> bytes:
        """The bytes of a whole file."""

        def read() -> bytes:
            if not self.root.startswith("pipe:"):
                filesystem, path = self._filesystem
                return filesystem.cat_file(f"{path}/{name}")
            with self.open(name) as stream:
                return stream.read()

        return self.patiently(read, name)

    def get_range(self, name: str, start: int, nbytes: int) -> bytes:
        """`nbytes` of a file from `start` on; fewer if it ends before.

        Raises:
            ValueError: the store is a command, whose output can only be read from the start.
        """
        if self.root.startswith("pipe:"):
            raise ValueError(
                f"{self.url(name)} can be streamed but not read at an offset: give the folder's URL instead"
            )
        filesystem, path = self._filesystem
        part = {"start": start, "end": start + nbytes} | ({"timeout": self.timeout} if filesystem.async_impl else {})
        return self.patiently(lambda: filesystem.cat_file(f"{path}/{name}", **part), name)

    def patiently(self, read: Callable[[], Result], name: str = "") -> Result:
        """`read()` for the file `name`, or for the root itself, retried with growing pauses.

        Raises:
            StoreError: it failed `retries` + 1 times.
            FileNotFoundError, PermissionError: without a retry.
        """
        for attempt in range(self.retries + 1):
            try:
                return read()
            except Exception as error:  # each file system raises its own types
                if is_final(error):
                    raise
                self.pause(attempt, name, error)
        raise AssertionError("unreachable: pause raises at the last attempt")

    def pause(self, attempt: int, name: str, error: Exception) -> None:
        """Wait before the next attempt; raise StoreError after the last one."""
        reason = error.__cause__ or error
        if attempt >= self.retries:
            raise StoreError(
                f"{self.url(name)} failed {attempt + 1} times, the last time with {type(reason).__name__}: {reason}; "
                "check the address and the network, or raise retries"
            ) from error
        seconds = self.wait * 2**attempt
        log.warning("%s: %s; retry in %.1f s", self.url(name), reason, seconds)
        time.sleep(seconds)


def local_metadata(store: Store, split: str | None) -> Path:
    """A local copy of a remote dataset without its shards, made once and identified by the manifest's hash.

    In $MORPHOCLIP_CACHE, else ~/.cache/morphoclip. An index takes 44 bytes per crop.
    """
    manifest = store.get("manifest.json")
    cache = Path(os.environ.get("MORPHOCLIP_CACHE", Path.home() / ".cache/morphoclip"))
    folder = cache / hashlib.sha256(store.root.encode() + manifest).hexdigest()[:16]
    (folder / "splits").mkdir(parents=True, exist_ok=True)
    own = [f"splits/{split}.npy"] if split and not is_file_of_rows(split) else []
    names = ["index.arrow", "fields.parquet", *own, "manifest.json"]
    for name in names:
        if not (folder / name).is_file():
            with write_atomically(folder / name) as partial:  # other ranks may write it at the same time
                partial.write_bytes(manifest if name == "manifest.json" else store.get(name))
    return folder
