"""Batched, functional transforms on the device: drawing parameters and applying them are two calls."""

from morphoclip.augment.affine import Affine
from morphoclip.augment.blur import Blur
from morphoclip.augment.color import Color
from morphoclip.augment.compose import Compose, Transform
from morphoclip.augment.crop import RandomCrop
from morphoclip.augment.draws import Rows, uniform
from morphoclip.augment.drop_channel import DropChannel
from morphoclip.augment.gain import Gain
from morphoclip.augment.mask import draw_visible
from morphoclip.augment.noise import Noise
from morphoclip.augment.resize import ResizedCrop
from morphoclip.augment.sharpness import Sharpness
from morphoclip.augment.symmetry import Flip, Rot90

__all__ = [
    "Affine",
    "Blur",
    "Color",
    "Compose",
    "DropChannel",
    "Flip",
    "Gain",
    "Noise",
    "RandomCrop",
    "ResizedCrop",
    "Rot90",
    "Rows",
    "Sharpness",
    "Transform",
    "draw_visible",
    "uniform",
]
