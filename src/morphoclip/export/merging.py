"""An encoder without low-rank updates: each is added to the weights it updates."""

from __future__ import annotations

from morphoclip.models import Encoder, FeatureEncoder, create_encoder
from morphoclip.models.lora import merged


def merged_encoder(encoder: Encoder | FeatureEncoder) -> Encoder | FeatureEncoder:
    """The encoder itself, or one of the plain architecture with low-rank updates merged, whose folder needs no peft."""
    lora = encoder.config.get("lora")
    if not lora:
        return encoder
    plain = create_encoder(**{key: value for key, value in encoder.config.items() if key != "lora"})
    plain.load_state_dict(merged(encoder.state_dict(), lora["rank"], lora["alpha"]))
    plain.trained_on = dict(encoder.trained_on)
    return plain
