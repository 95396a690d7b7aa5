"""Encoder ▶ profiles: embed, aggregate, normalize. Public names load on first use.

`export_encoder`, `load_encoder` and related names are defined in `morphoclip.export` and available here too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.export import encoder_provenance, export_encoder, load_encoder, training_data
    from morphoclip.profiling.aggregation import aggregate, consensus
    from morphoclip.profiling.cross_fitting import crossfit, negcon_folds
    from morphoclip.profiling.embedding import embed
    from morphoclip.profiling.normalize import Normalizer
    from morphoclip.profiling.profiles import write_profiles
    from morphoclip.profiling.reading.tables import read_profiles

_own, __dir__, _own_names = lazy_loader.attach(
    __name__,
    submod_attrs={
        "aggregation": ["aggregate", "consensus"],
        "cross_fitting": ["crossfit", "negcon_folds"],
        "embedding": ["embed"],
        "normalize": ["Normalizer"],
        "profiles": ["write_profiles"],
        "reading.tables": ["read_profiles"],
    },
)
_of_export = ("encoder_provenance", "export_encoder", "load_encoder", "training_data")
__all__ = sorted([*_own_names, *_of_export])


def __getattr__(name: str) -> Any:
    return getattr(import_module("morphoclip.export"), name) if name in _of_export else _own(name)
