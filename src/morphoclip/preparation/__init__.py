"""Fields of view on disk ▶ a dataset folder. Public names load on first use."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.preparation.prepare import prepare_dataset
    from morphoclip.preparation.sources import find_images, read_load_data

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "prepare": ["prepare_dataset"],
        "sources": ["find_images", "read_load_data"],
    },
)
