"""Checkpoint ▶ encoder folder ▶ encoder. Public names load on first use."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.export.folder import export_encoder
    from morphoclip.export.load import load_encoder
    from morphoclip.export.provenance import encoder_provenance, training_data

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "folder": ["export_encoder"],
        "load": ["load_encoder"],
        "provenance": ["encoder_provenance", "training_data"],
    },
)
