"""Whether a profile table was made by a given encoder."""

from __future__ import annotations

from pathlib import Path

from morphoclip.export.provenance import encoder_hash
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.profiling.profiles import read_provenance


def check_made_by(encoder: Encoder | FeatureEncoder, path: str | Path) -> list[str]:
    """Check that profile tables at a path or glob were made by this encoder and left as they were.

    Returns:
        A line for each table that does not say what made it.

    Raises:
        ValueError: another encoder made one, or it was normalised since.
    """
    own, unsaid = encoder_hash(encoder), []
    for table, known in read_provenance(path).items():
        if known is None:
            unsaid.append(f"{table} has no {table.name}.json, so it cannot be told whether this encoder made it")
        elif "steps" in known:
            raise ValueError(f"{table} was normalised, which leaves the joint space: give {known.get('profiles')}")
        elif known.get("encoder_sha256") != own:
            raise ValueError(
                f"{table} was made by another encoder ({str(known.get('encoder_sha256'))[:12]}, this one is {own[:12]}), "
                "so its cosines to this one's prompts mean nothing: embed the images with this encoder"
            )
    return unsaid
