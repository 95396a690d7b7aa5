"""Encoders as graphs: modules with tensors in and features out, for export to other runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from morphoclip.models import Encoder, FeatureEncoder

EXAMPLES = 2  # rows of the example inputs, and crops of a bag: sizes that stay free must not be 1


class _Crops(nn.Module):
    """Preprocessed crops (B, C, H, W) float32 to features (B, D)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, crops: Tensor) -> Tensor:
        return self.encoder(crops)


class _Pixels(_Crops):
    """Crops as acquired (B, C, H, W) uint16, with the intensities that scale to 0 and 1, (B, C) each, to features."""

    def forward(self, images: Tensor, low: Tensor, high: Tensor) -> Tensor:  # type: ignore[override]
        return self.encoder(self.encoder.preprocess(images, low, high))


class _Bags(nn.Module):
    """Standardised bags (B, N, C, D) and their mask (B, N), False on padding, to embeddings (B, E)."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, bags: Tensor, mask: Tensor) -> Tensor:
        return self.encoder(bags, mask)


class _RawBags(_Bags):
    """Bags of features as cached (B, N, C, D) float32 and their mask, to embeddings."""

    def forward(self, bags: Tensor, mask: Tensor) -> Tensor:
        return self.encoder(self.encoder.preprocess(bags), mask)


class _Widened(nn.Module):
    """A module whose weights are stored in float16 and used in float32."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, *inputs: Tensor) -> Tensor:
        stored = [*self.step.named_parameters(), *self.step.named_buffers()]
        widened = {name: value.float() for name, value in stored if value.dtype == torch.float16}
        return functional_call(self.step, widened, inputs)


@dataclass(frozen=True)
class Graph:
    """A module to export.

    Attributes:
        inputs: name -> example; all batch sizes, and the number of crops of a bag, stay free.
        free: name -> axis -> name of its size.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    free: Mapping[str, Mapping[int, str]]

    @property
    def examples(self) -> tuple[Tensor, ...]:
        return tuple(self.inputs.values())

    @property
    def dynamic_shapes(self) -> tuple:
        """The free sizes as torch.export takes them."""
        sizes = {name: torch.export.Dim(name, min=1) for axes in self.free.values() for name in axes.values()}
        free = tuple({axis: sizes[name] for axis, name in self.free[key].items()} for key in self.inputs)
        return (free,) if isinstance(self.module, _Widened) else free  # it takes any number of inputs

    def features(self) -> Tensor:
        """The features of the example inputs."""
        with torch.no_grad():
            return self.module(*self.examples)


def graph_of(
    encoder: Encoder | FeatureEncoder, size: int | None, *, preprocess: bool = False, dtype: str = "float32"
) -> Graph:
    """The graph of an encoder; the encoder itself is not changed.

    Args:
        size: height and width of the crops; ignored for an encoder of cached features.
        preprocess: with intensity scaling and standardisation inside: `images` uint16, `low` and `high` in.
        dtype: float32, or float16 for weights stored in half precision; features are computed in float32 in both.
    """
    from copy import deepcopy

    encoder = deepcopy(encoder).requires_grad_(False).eval()
    module: nn.Module
    generator = torch.Generator().manual_seed(0)
    rows: dict[int, str] = {0: "batch"}
    if isinstance(encoder, FeatureEncoder):
        bags = torch.randn(EXAMPLES, EXAMPLES + 1, *encoder.feature_shape, generator=generator)
        mask = torch.ones(bags.shape[:2], dtype=torch.bool)
        mask[0, -1] = False
        module = (_RawBags if preprocess else _Bags)(encoder)
        inputs, free = {"bags": bags, "mask": mask}, dict.fromkeys(("bags", "mask"), rows | {1: "crops"})
    else:
        channels = len(encoder.channels)
        assert size is not None  # `input_size` gives it for encoders of images
        pixels = torch.randint(0, 3000, (EXAMPLES, channels, size, size), generator=generator).to(torch.uint16)
        low, high = torch.full((EXAMPLES, channels), 100.0), torch.full((EXAMPLES, channels), 2500.0)
        if preprocess:
            module, inputs = _Pixels(encoder), {"images": pixels, "low": low, "high": high}
        else:
            module, inputs = _Crops(encoder), {"crops": encoder.preprocess(pixels, low, high)}
        free = dict.fromkeys(inputs, rows)
    if dtype == "float16":
        for name in {name for name, value in encoder.state_dict().items() if value.is_floating_point()}:
            _halve(encoder, name)
        module = _Widened(module)
    return Graph(module.eval(), inputs, free)


def _halve(module: nn.Module, name: str) -> None:
    owner, _, leaf = name.rpartition(".")
    value = getattr(module.get_submodule(owner), leaf)
    value.data = value.data.half()


def input_size(encoder: Encoder | FeatureEncoder) -> int | None:
    """Height and width of an encoder's crops in pixels; None for an encoder of cached features.

    Raises:
        ValueError: neither its config nor its training data record it.
    """
    if isinstance(encoder, FeatureEncoder):
        return None
    size = encoder.config.get("image_size") or encoder.trained_on.get("crop_size")
    if size is None:
        raise ValueError(
            "this encoder records neither an image size nor its training crops, so the size of its input is unknown: give "
            "the crops' height in pixels as --crop-size"
        )
    return int(size)
