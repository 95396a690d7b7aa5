"""Plate maps and annotations ▶ columns of `schema` ▶ perturbations, prompts, integer codes."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.data.metadata.annotations import annotate
    from morphoclip.data.metadata.perturbations import PerturbationTable

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "annotations": ["annotate"],
        "perturbations": ["PerturbationTable"],
    },
)
