"""Progress of embedding in fields and wells, with throughput and the time left."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from morphoclip.progress import progress_bar


class Visits(Protocol):
    """What is to be embedded: the well of each field, and the fields that are read."""

    well: np.ndarray
    visited: np.ndarray


class Progress:
    """A bar that counts fields, and names the wells that are done; a context manager.

    Args:
        crops: what is to be embedded. show: False for no output.
    """

    def __init__(self, crops: Visits, show: bool = True) -> None:
        self.well, self.wells = crops.well, len(np.unique(crops.well[crops.visited]))
        self.bar = progress_bar(total=len(crops.visited), unit="field", desc="embed", show=show)
        self._last, self._done = -1, 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, field: np.ndarray) -> None:
        """Count the fields of the next crops, (n,) in order; a field in two batches counts once."""
        fields = field[np.diff(field, prepend=self._last) != 0]
        if not len(fields):
            return
        before = self.well[self._last] if self._last >= 0 else -1
        self._done += int((np.diff(self.well[fields], prepend=before) != 0).sum())
        self._last = int(fields[-1])
        self.bar.set_description_str(f"embed, well {self._done} of {self.wells}", refresh=False)
        self.bar.update(len(fields))
