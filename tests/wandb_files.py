"""Reads the transaction log of an offline wandb run: what `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK, PIECE = 7, 32768, 7  # bytes: of the file, of a block of the LevelDB log format, before each piece
PATIENCE = 20  # seconds
LAST_PIECES = (1, 4)  # a whole record, or the end of one


def records(run_folder: Path) -> Iterator[Any]:
    """The records of a folder of wandb, those that reached the disk."""
    from wandb.proto import wandb_internal_pb2

    (path,) = run_folder.glob("*.wandb")
    data, at, whole = path.read_bytes(), HEADER, b""
    while at + PIECE <= len(data):
        left = BLOCK - at % BLOCK
        _, size, kind = struct.unpack("<IHB", data[at : at + PIECE])
        if left < PIECE or kind == 0:
            at += left
            continue
        if at + PIECE + size > len(data):
            return
        whole += data[at + PIECE : at + PIECE + size]
        at += PIECE + size
        if kind in LAST_PIECES:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def of_ended(run_folder: Path, kind: str) -> list[Any]:
    """The records of one kind of a run that has ended, once wandb has written all of them."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = [(record.WhichOneof("record_type"), record) for record in records(run_folder)]
        if any(known == "exit" for known, _ in found):
            return [getattr(record, kind) for known, record in found if known == kind]
        time.sleep(0.1)
    raise TimeoutError(f"{run_folder} has no record of its end")


def history(run_folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, in the order of their upload; `_step` is wandb's step."""
    rows = of_ended(run_folder, "history")
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item} for row in rows]


def summary(run_folder: Path) -> dict[str, Any]:
    """The last value of each name of a run's summary."""
    updates = [item for part in of_ended(run_folder, "summary") for item in part.update]
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


def run_record(run_folder: Path) -> Any:
    """Id, project and config of a run."""
    return of_ended(run_folder, "run")[0]
