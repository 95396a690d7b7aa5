"""The formats that an encoder folder holds on request, beside its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from morphoclip.export.graph import graph_of, input_size
from morphoclip.export.weights import in_float16, in_float32, plain_names
from morphoclip.models import Encoder, FeatureEncoder

FORMATS = ("onnx", "torch_export", "timm", "huggingface")
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class Wanted:
    """What an export shall hold.

    Attributes:
        formats: some of `FORMATS`.
        dtype: of the weights in all files; features are computed in float32 in both.
        preprocess: uint16 crops in, intensity scaling and standardisation inside the graphs of onnx and torch_export.
        crop_size: height and width of the crops in pixels; None for that of the encoder's config or training.

    Raises:
        ValueError: an unknown format or dtype.
    """

    formats: Collection[str] = ()
    dtype: str = "float32"
    preprocess: bool = False
    crop_size: int | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.formats) - set(FORMATS)):
            raise ValueError(f"format {unknown[0]!r}: use one of {', '.join(FORMATS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r}: use one of {', '.join(DTYPES)}")
        if self.preprocess and not {"onnx", "torch_export"} & set(self.formats):
            raise ValueError(
                "preprocessing is part of the graphs of onnx and torch_export: give --format onnx or torch_export"
            )


def size_for(encoder: Encoder | FeatureEncoder, wanted: Wanted) -> int | None:
    """Height and width of the crops that the formats are written for; None where no format needs it."""
    return wanted.crop_size or (input_size(encoder) if wanted.formats else None)


def layout_settings(encoder: Encoder | FeatureEncoder, wanted: Wanted) -> dict[str, Any]:
    """The entries of config.json for timm and Hugging Face.

    Raises:
        ValueError: an encoder that these cannot hold.
    """
    if not {"timm", "huggingface"} & set(wanted.formats):
        return {}
    from morphoclip.export.hugging_face import hugging_face_settings
    from morphoclip.export.timm import timm_settings

    settings = hugging_face_settings if "huggingface" in wanted.formats else timm_settings
    return settings(encoder, size_for(encoder, wanted) or 0)


def write_graphs(encoder: Encoder | FeatureEncoder, wanted: Wanted, folder: Path) -> dict[str, Any]:
    """Write model.pt2 and model.onnx where wanted.

    Returns:
        What they take: `inputs` (name -> shape and dtype in words) and, where ONNX Runtime is installed,
        `onnxruntime_difference`; empty where neither is wanted.

    Raises:
        ValueError, ImportError: as `write_torch_export` and `write_onnx`.
    """
    if not {"onnx", "torch_export"} & set(wanted.formats):
        return {}
    from morphoclip.export.onnx import write_onnx
    from morphoclip.export.torch_export import traced, write_torch_export

    graph = graph_of(encoder, size_for(encoder, wanted), preprocess=wanted.preprocess, dtype=wanted.dtype)
    program = traced(graph)
    facts: dict[str, Any] = {
        "inputs": {name: in_words(value, graph.free[name]) for name, value in graph.inputs.items()}
    }
    if "torch_export" in wanted.formats:
        write_torch_export(graph, folder, program)
    if "onnx" in wanted.formats:
        facts["onnxruntime_difference"] = write_onnx(graph, folder, program)
    return facts


def in_words(value: Tensor, free: Any) -> str:
    """`(batch, 5, 64, 64) uint16` for a tensor with free sizes."""
    shape = ", ".join(free.get(axis, str(size)) for axis, size in enumerate(value.shape))
    return f"({shape}) {str(value.dtype).removeprefix('torch.')}"


def rounded_to_float16(encoder: Encoder | FeatureEncoder) -> tuple[Encoder | FeatureEncoder, float]:
    """A copy of the encoder with the weights that float16 stores, and the lowest cosine of its features to the encoder's.

    The cosine is over 16 crops (or bags) of noise.
    """
    rounded = deepcopy(encoder)
    rounded.load_state_dict(in_float32(in_float16(encoder.state_dict())))
    if isinstance(encoder, Encoder):
        size = input_size(encoder) if encoder.config.get("image_size") or encoder.trained_on.get("crop_size") else 64
        x = torch.randn(16, len(encoder.channels), size or 64, size or 64, generator=torch.Generator().manual_seed(0))
    else:
        x = torch.randn(16, 1, *encoder.feature_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cosine = torch.cosine_similarity(rounded.eval()(x), deepcopy(encoder).eval()(x))
    return rounded, float(cosine.min())


def without_compile(module: nn.Module) -> nn.Module:
    """The module without the wrappers of torch.compile in and around it; a copy if there are any inside."""
    module = getattr(module, "_orig_mod", module)
    if plain_names(module.state_dict()).keys() == module.state_dict().keys():
        return module
    module = deepcopy(module)
    parents: Sequence[nn.Module] = list(module.modules())
    for parent in parents:
        for name, child in list(parent.named_children()):
            if hasattr(child, "_orig_mod"):
                setattr(parent, name, child._orig_mod)
    return module
