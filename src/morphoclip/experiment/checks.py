"""Checks of a config before anything is simulated, prepared or loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from morphoclip import schema
from morphoclip.experiment.plain import as_dict

VIEWS = ("augment", "global_view", "local_view")  # keys of a method's config that hold transforms of views


def check_before_start(config: DictConfig) -> None:
    """Refuse an encoder that cannot be built or does not fit the data; `config` is the composed config of a run.

    Raises:
        ValueError: an unknown argument of a backbone, channels that differ from the dataset's, or crops (or views of
            them) that do not have the encoder's size.
    """
    from morphoclip.models.features import FEATURE_ENCODERS
    from morphoclip.training.launch import check_accelerator

    if config.trainer.get("accumulate_grad_batches") is not None:
        raise ValueError(
            "trainer.accumulate_grad_batches follows from data.loader.global_batch_size, the number of ranks and "
            "data.loader.max_batch_size: set the last one"
        )
    if "ShardedStrategy" in str(config.trainer.get("strategy")) and not (config.callbacks or {}).get("checkpoint"):
        raise ValueError(
            "trainer=fsdp needs callbacks.checkpoint: the whole weights are put together by its last checkpoint"
        )
    if config.get("rotation") and (config.data.get("holdout") or config.data.get("validation")):
        raise ValueError(
            "the rotation decides what is held out of each training: leave data.holdout and data.validation null, or set "
            "rotation=null for one training"
        )
    check_accelerator(config.trainer.accelerator)
    check_batches(config.data.loader)
    encoder = as_dict(config.encoder)
    name = encoder.get("name")
    if name in FEATURE_ENCODERS or name == "per_channel" or encoder.get("pretrained") or encoder.get("weights"):
        return  # encoders of features, or of weights on disk, report their own errors
    manifest = known_manifest(config.data)
    check_channels(encoder, manifest)
    crop = crop_size(config.data, manifest)
    check_size(encoder, [] if crop is None else sorted(set(view_sizes(config.method, crop))))


def check_batches(loader: DictConfig) -> None:
    """Raise ValueError if the global batch cannot be divided among the ranks that the launcher started."""
    from morphoclip.data.loading.resumable import batches_of
    from morphoclip.training.launch import read_launch

    if loader.get("global_batch_size"):
        batches_of(loader.global_batch_size, read_launch().world_size, loader.get("max_batch_size"))


def known_manifest(data: DictConfig) -> dict[str, Any] | None:
    """The manifest of the dataset if it already exists on a local disk."""
    from morphoclip.data.shards.manifest import MANIFEST, read_manifest

    root = as_dict(data).get("root")
    return read_manifest(Path(root)) if isinstance(root, str) and (Path(root) / MANIFEST).is_file() else None


def check_channels(encoder: dict[str, Any], manifest: dict[str, Any] | None) -> None:
    """Raise ValueError unless the encoder's channels are the dataset's, in the same order."""
    channels = list(encoder.get("channels") or schema.CHANNELS)
    if manifest is not None and manifest["channels"] != channels:
        raise ValueError(
            f"encoder.channels is {channels}, the dataset holds {manifest['channels']} in this order: set "
            f"encoder.channels=[{','.join(manifest['channels'])}] encoder.in_channels={len(manifest['channels'])}"
        )


def crop_size(data: DictConfig, manifest: dict[str, Any] | None) -> int | None:
    """Crop size in pixels, of the dataset or of the one to be prepared; None if neither is known."""
    if manifest is not None:
        return int(manifest["crop_size"])
    return int(data.prepare.crop_size) if "prepare" in data else None


def view_sizes(method: DictConfig, crop: int) -> Iterator[int]:
    """Sizes in pixels of the views that a method makes of crops of `crop` pixels."""
    known = as_dict(method)
    views = [known[key] for key in VIEWS if isinstance(known.get(key), dict)]
    if "global_view" not in known:
        yield from {crop} if not views else ()
    for view in views:
        sizes = [transform["size"] for transform in view.get("transforms", []) if "size" in transform]
        size = int(sizes[-1]) if sizes else crop
        if size > crop and not any("Resized" in t.get("_target_", "") for t in view["transforms"]):
            raise ValueError(f"views of {size} pixels cannot be cut from crops of {crop}: prepare larger crops")
        yield size


def check_size(encoder: dict[str, Any], sizes: list[int]) -> None:
    """Build the encoder and run it on a crop of each size.

    Raises:
        ValueError: it cannot be built, or does not take crops of these sizes.
    """
    import torch

    from morphoclip.models import create_encoder

    built = create_encoder(**{**encoder, "mean": 0.0, "std": 1.0}).eval()
    for size in sizes:
        try:
            with torch.inference_mode():
                built(torch.zeros(2, len(built.channels), size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            takes = encoder.get("image_size")
            raise ValueError(
                f"encoder {encoder['name']} takes crops of {takes} pixels, but the data (or a view of the method) have "
                f"{size}: set encoder.image_size={size}, or prepare crops of {takes} pixels ({error})"
            ) from error
