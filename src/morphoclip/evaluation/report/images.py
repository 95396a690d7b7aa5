"""Images of wells and crops, encoded for the report."""

from __future__ import annotations

import base64
import io

import numpy as np

from morphoclip.evaluation.report.nearest import Gallery


def gallery_data(gallery: Gallery) -> dict:
    pictures = [
        {
            "caption": caption,
            "relation": relation,
            "kind": relation.split()[0],
            "jpeg": encoded(image, "JPEG", quality=88),
        }
        for caption, relation, image in gallery.pictures
    ]
    return {"title": gallery.title, "pictures": pictures}


def encoded(image: np.ndarray, form: str, **options: object) -> str:
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"an image of the report is {image.dtype} {image.shape}: expected uint8 (H, W[, 3])")
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=form, optimize=True, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")
