"""Tensors ▶ embeddings. Public names load on first use: timm and transformers take seconds to import."""

from importlib import import_module

_HOMES = {
    "Encoder": "encoder",
    "create_encoder": "encoder",
    "CrossChannelFormer": "cross_channel",
    "FeatureEncoder": "features",
    "GatedAttentionPool": "pooling",
    "MeanPool": "pooling",
    "SmallTextEncoder": "text",
    "HuggingFaceTextEncoder": "text",
    "MorganEncoder": "molecule",
    "GraphEncoder": "molecule_graph",
    "DoseEncoding": "dose",
    "ResidualMLP": "residual",
    "BatchNorm": "norm",
    "JointProjection": "heads",
    "ProjectionHead": "heads",
    "PrototypeHead": "heads",
    "MAEDecoder": "mae_decoder",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
