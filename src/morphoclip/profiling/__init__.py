"""Encoder ▶ profiles: embed, aggregate, normalize, export. Public names load on first use."""

from importlib import import_module

_HOMES = {
    "Normalizer": "normalize",
    "crossfit": "cross_fitting",
    "negcon_folds": "cross_fitting",
    "aggregate": "aggregation",
    "consensus": "aggregation",
    "embed": "embedding",
    "read_profiles": "profiles",
    "write_profiles": "profiles",
    "encoder_provenance": "export",
    "export_encoder": "export",
    "load_encoder": "export",
    "training_data": "export",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
