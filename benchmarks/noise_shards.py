"""Blosc datasets of noise, for benchmarks where no images are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from morphoclip import schema
from morphoclip.data import ShardWriter
from morphoclip.data.shards.intensities import describe_field
from morphoclip.data.shards.writer import encode_crop

DISTINCT, WELLS = 512, 64


def write_shards(folder: Path, size: int, crops: int) -> None:
    """A Blosc dataset of smooth random fields with shot noise, which compresses about as images do."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(100, 3000, (min(crops, DISTINCT), 5, size // 32, size // 32))

    def field(number: int) -> np.ndarray:
        smooth = np.kron(coarse[number], np.ones((32, 32)))
        return np.random.default_rng(number).poisson(smooth).astype(np.uint16)

    facts = describe_field(field(0), schema.CHANNELS)
    with ThreadPoolExecutor() as pool:
        encoded = list(pool.map(lambda n: encode_crop(field(n), facts, schema.CHANNELS, "blosc"), range(len(coarse))))
    with ShardWriter(folder, schema.CHANNELS, "blosc", crop_size=size, pixel_size_um=0.6) as writer:
        for number in range(crops):
            well = number % WELLS
            row = {
                schema.PLATE: f"p{well % 2}",
                schema.WELL: f"{chr(65 + well // 8)}{well % 8 + 1:02d}",
                schema.SITE: number // WELLS,
            }
            row |= {schema.PERTURBATION: f"compound {well // 2}"} | facts
            writer.append(encoded[number % len(encoded)], writer.add_field(row), 0, 0, 1.0)
