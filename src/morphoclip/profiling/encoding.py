"""Crops through an encoder, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from morphoclip import schema
from morphoclip.models import Encoder
from morphoclip.profiling.crops import Crops, DatasetCrops
from morphoclip.profiling.embedding_progress import Progress
from morphoclip.profiling.field_crops import FieldCrops

CropSource = DatasetCrops | FieldCrops
PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class Run:
    """How crops are encoded.

    Attributes:
        batch_size: crops per forward pass. device: of the encoder.
        precision: `float32`, or `bf16` for autocast to bfloat16; intensities are scaled in float32 in both.
    """

    batch_size: int
    device: torch.device
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: use one of {', '.join(PRECISIONS)}")


@torch.inference_mode()
def encoded(encoder: Encoder, crops: CropSource, run: Run, progress: bool = True) -> Iterator[tuple[Crops, np.ndarray]]:
    """Yield crops and their features (n, D) float32, in order; the encoder's training mode is restored at the end."""
    training = encoder.training
    encoder.to(run.device).eval()
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False  # it depends on the batch
    waiting: tuple[Crops, Tensor] | None = None  # on a GPU it is computed while the next batch is copied
    try:
        with Progress(crops, progress) as bar:
            for read in crops:
                for part in read.split(run.batch_size):
                    features = _features(encoder, part, run)
                    if waiting is not None:
                        yield _finished(*waiting, crops, bar)
                    waiting = part, features
            if waiting is not None:
                yield _finished(*waiting, crops, bar)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        encoder.train(training)


def _features(encoder: Encoder, part: Crops, run: Run) -> Tensor:
    images, low, high = (t.to(run.device, non_blocking=True) for t in (part.images, part.low, part.high))
    x = encoder.preprocess(images, low, high)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bf16"):
        return encoder(x).float()


def _finished(part: Crops, features: Tensor, crops: CropSource, bar: Progress) -> tuple[Crops, np.ndarray]:
    found = features.cpu().numpy()
    _check_finite(found, part, crops.fields)
    bar.update(part.field)
    return part, found


def _check_finite(features: np.ndarray, part: Crops, fields: pd.DataFrame) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if bad.size:
        row = fields.iloc[part.field[bad[0]]]
        raise ValueError(
            f"the encoder gives NaN or infinite features for plate {row[schema.PLATE]} well {row[schema.WELL]} "
            f"(crop at y={part.y[bad[0]]}, x={part.x[bad[0]]}): its weights are broken or the crop is"
        )
