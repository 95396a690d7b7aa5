"""The gated attention that a method trained over an encoder's crops, beside the weights of its encoder folder."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from morphoclip.export.weights import damaged, read_checkpoint, read_tensors, write_tensors
from morphoclip.models import Encoder, FeatureEncoder, GatedAttentionPool
from morphoclip.models.pooling import Pool

POOL = "crop_pool.safetensors"  # beside the weights of an encoder folder


PREFIXES = ("image.pool.", "crop_pool.")  # of a checkpoint; the second as runs were saved before


def load_crop_pool(source: str | Path) -> GatedAttentionPool | None:
    """The gated pool that a method trained over an encoder's crops; None where crops were averaged or never pooled.

    Args:
        source: an encoder folder, a checkpoint or a run folder, as `load_encoder` takes. Encoders of cached features
            hold their own pool.
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
    """Write the pool into an encoder folder."""
    write_tensors(Path(folder) / POOL, pool.state_dict())


def attends(encoder: Encoder | FeatureEncoder, pool: Pool | None = None) -> bool:
    """Whether crops weigh differently, by the pool of cached features in the encoder or else by `pool` over its crops.

    A pool in another space than the encoder's (`method.image.export=backbone`) says nothing of what is exported.
    """
    if isinstance(encoder, FeatureEncoder):
        return not encoder.pool.is_mean
    return isinstance(pool, GatedAttentionPool) and pool.value.in_features == encoder.embed_dim


def check_attends(encoder: Encoder | FeatureEncoder, pool: Pool | None = None) -> None:
    """Raise ValueError where crops are averaged, so that all weigh the same."""
    if not attends(encoder, pool):
        raise ValueError(
            "this model averages its crops: all of a well weigh the same and there is no attention to show. Attention "
            "needs a gated pool (method.image.pool or encoder.pool) and method.image.export=joint"
        )
