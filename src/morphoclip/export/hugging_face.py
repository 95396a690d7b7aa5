"""Encoder folders that transformers reads without morphoclip: `AutoModel.from_pretrained(FOLDER)`."""

from __future__ import annotations

from typing import Any

from morphoclip.export.timm import timm_settings
from morphoclip.models import Encoder, FeatureEncoder


def hugging_face_settings(encoder: Encoder | FeatureEncoder, size: int) -> dict[str, Any]:
    """The entries of config.json by which transformers' TimmWrapper builds the backbone; those of timm are among them.

    Its `pooler_output` are the features. Transformers' own ViT splits the attention's projection in three and rounds
    differently; TimmWrapper runs timm's model.

    Raises:
        ValueError: as `timm_settings`.
    """
    kind = {"model_type": "timm_wrapper", "architectures": ["TimmWrapperModel"], "dtype": "float32"}
    return timm_settings(encoder, size) | kind


def load_hugging_face(folder: str) -> Any:
    """transformers' model of an encoder folder, in eval mode."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, local_files_only=True)
