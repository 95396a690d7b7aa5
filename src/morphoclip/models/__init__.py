"""Tensors ▶ embeddings. Public names load on first use: timm and transformers take seconds to import."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.models.cross_channel import CrossChannelFormer
    from morphoclip.models.dose import DoseEncoding
    from morphoclip.models.encoder import Encoder
    from morphoclip.models.factory import create_encoder
    from morphoclip.models.features import FeatureEncoder
    from morphoclip.models.heads import JointProjection, ProjectionHead, PrototypeHead
    from morphoclip.models.mae_decoder import MAEDecoder
    from morphoclip.models.molecule import MorganEncoder
    from morphoclip.models.molecule_graph import GraphEncoder
    from morphoclip.models.norm import BatchNorm
    from morphoclip.models.pooling import GatedAttentionPool, MeanPool
    from morphoclip.models.residual import ResidualMLP
    from morphoclip.models.text import HuggingFaceTextEncoder, SmallTextEncoder

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cross_channel": ["CrossChannelFormer"],
        "dose": ["DoseEncoding"],
        "encoder": ["Encoder"],
        "factory": ["create_encoder"],
        "features": ["FeatureEncoder"],
        "heads": ["JointProjection", "ProjectionHead", "PrototypeHead"],
        "mae_decoder": ["MAEDecoder"],
        "molecule": ["MorganEncoder"],
        "molecule_graph": ["GraphEncoder"],
        "norm": ["BatchNorm"],
        "pooling": ["GatedAttentionPool", "MeanPool"],
        "residual": ["ResidualMLP"],
        "text": ["HuggingFaceTextEncoder", "SmallTextEncoder"],
    },
)
