"""Embeddings of texts by a frozen tower, computed once and cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from morphoclip.files import write_atomically
from morphoclip.models.tower import Tower


@torch.no_grad()
def frozen_embeddings(
    tower: Tower,
    texts: Sequence[str],
    folder: str | Path | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
) -> Tensor:
    """Embeddings (U, D) float32 of texts by a frozen tower, on `device`.

    Args:
        tower: the frozen tower.
        folder: folder of the cache, in files named by a hash of weights, settings and texts; None for no cache.
        batch_size: texts at a time.
    """
    path = None if folder is None else Path(folder) / f"{_digest(tower, texts)}.pt"
    if path is not None and path.is_file():
        return torch.load(path, map_location=device, weights_only=True)
    tower.to(device)
    training, tokens = tower.training, tower.tokenize(texts)
    tower.eval()
    rows = torch.arange(len(texts)).split(batch_size)
    embedded = torch.cat([tower(*(part.to(device) for part in tower.take(tokens, chunk))).float() for chunk in rows])
    tower.train(training)
    if path is not None:
        with write_atomically(path) as partial:
            torch.save(embedded.cpu(), partial)
    return embedded


def _digest(tower: nn.Module, texts: Sequence[str]) -> str:
    """sha256 over the tower's class, its plain settings, its weights and the texts in order."""
    settings = {k: v for k, v in sorted(vars(tower).items()) if isinstance(v, str | int | float | bool)}
    settings.pop("training")
    digest = hashlib.sha256(f"{type(tower).__qualname__} {settings}".encode())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        digest.update(value if isinstance(value, bytes) else str(value).encode())
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
