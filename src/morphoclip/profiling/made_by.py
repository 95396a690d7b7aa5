"""A check that profile tables were computed by a given encoder."""

from __future__ import annotations

from pathlib import Path

from morphoclip.export.provenance import encoder_hash
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.profiling.profiles import read_provenance


def check_made_by(encoder: Encoder | FeatureEncoder, path: str | Path) -> list[str]:
    """Check that the profile tables at a path or glob were computed by this encoder and not normalised.

    Returns:
        One line for each table without a record of its encoder.

    Raises:
        ValueError: a table was computed by another encoder, or is normalised.
    """
    own, unknown = encoder_hash(encoder), []
    for table, known in read_provenance(path).items():
        if known is None:
            unknown.append(f"{table} has no {table.name}.json, so its encoder is unknown and was not checked")
        elif "steps" in known:
            raise ValueError(f"{table} is normalised and no longer in the joint space: give {known.get('profiles')}")
        elif known.get("encoder_sha256") != own:
            raise ValueError(
                f"{table} was computed by encoder {str(known.get('encoder_sha256'))[:12]}, not by {own[:12]}, so its cosines "
                "to this model's prompts are meaningless: embed the images with this encoder"
            )
    return unknown
