"""The trained attention pool over crops, stored in the encoder folder."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from morphoclip.checkpoints import read_checkpoint
from morphoclip.export.weights import damaged, read_tensors, write_tensors
from morphoclip.models import Encoder, FeatureEncoder, GatedAttentionPool
from morphoclip.models.pooling import Pool

POOL = "crop_pool.safetensors"  # in the encoder folder


PREFIXES = ("image.pool.", "crop_pool.")  # in a checkpoint; the second is that of older runs


def load_crop_pool(source: str | Path) -> GatedAttentionPool | None:
    """The attention pool trained over an encoder's crops; None if crops were averaged or not pooled.

    Args:
        source: an encoder folder, a checkpoint or a run folder, as for `load_encoder`. Encoders of cached features have
            their own pool inside.
    """
    path = Path(source)
    checkpoint = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if (path / POOL).is_file():
        checkpoint, weights = path / POOL, read_tensors(path / POOL)
    elif checkpoint.is_file():
        state = read_checkpoint(checkpoint)["state_dict"]
        weights = {n.removeprefix(p): value for p in PREFIXES for n, value in state.items() if n.startswith(p)}
    else:
        return None
    if not weights:
        return None
    try:
        hidden, dim = weights["value.weight"].shape
        pool = GatedAttentionPool(dim, hidden)
        pool.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError) as error:
        raise damaged(checkpoint, error) from error
    return pool.requires_grad_(False).eval()


def save_crop_pool(pool: nn.Module, folder: str | Path) -> None:
    """Write the pool to an encoder folder."""
    write_tensors(Path(folder) / POOL, pool.state_dict())


def attends(encoder: Encoder | FeatureEncoder, pool: Pool | None = None) -> bool:
    """Whether crops are weighted: by the pool inside an encoder of cached features, or else by `pool`.

    A pool in another space than the encoder's (`method.image.export=backbone`) does not apply to the exported encoder.
    """
    if isinstance(encoder, FeatureEncoder):
        return not encoder.pool.is_mean
    return isinstance(pool, GatedAttentionPool) and pool.value.in_features == encoder.embed_dim


def check_attends(encoder: Encoder | FeatureEncoder, pool: Pool | None = None) -> None:
    """Raise ValueError if crops are averaged with equal weights."""
    if not attends(encoder, pool):
        raise ValueError(
            "this model averages crops with equal weights, so there is no attention to show. Attention needs a gated "
            "pool (method.image.pool or encoder.pool) and method.image.export=joint"
        )
