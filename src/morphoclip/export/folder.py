"""Writing encoder folders from a run, a checkpoint or a method."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import nn

from morphoclip.checkpoints import read_checkpoint
from morphoclip.export.crop_pool import attends, load_crop_pool, save_crop_pool
from morphoclip.export.formats import (
    Wanted,
    layout_settings,
    rounded_to_float16,
    size_for,
    without_compile,
    write_graphs,
)
from morphoclip.export.graph import graph_of
from morphoclip.export.layout import CARD, CONFIG, FILES, NAMED_BY_TIMM, PLAIN, WEIGHTS, WEIGHTS_PREFIX
from morphoclip.export.load import load_encoder, local_source
from morphoclip.export.merging import merged_encoder
from morphoclip.export.model_card import model_card
from morphoclip.export.provenance import encoder_hash
from morphoclip.export.record import hashes_of, inherited_facts
from morphoclip.export.timm import PREFIX
from morphoclip.export.towers import TOWERS, load_towers, save_towers
from morphoclip.export.weights import in_float16, write_tensors
from morphoclip.files import write_atomically
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.models.pooling import Pool
from morphoclip.version import __version__


@runtime_checkable
class TrainedMethod(Protocol):
    """The part of a method's interface that writing an encoder folder uses."""

    trained_on: dict[str, Any]

    @property
    def crop_pool(self) -> Pool | None: ...

    def export_encoder(self) -> Encoder | FeatureEncoder: ...

    def describe_towers(self) -> dict[str, Any] | None: ...

    def state_dict(self) -> dict[str, Any]: ...


def export_encoder(
    source: nn.Module | str | Path,
    to: str | Path,
    formats: Collection[str] = (),
    *,
    dtype: str = "float32",
    preprocess: bool = False,
    crop_size: int | None = None,
    license: str | None = None,
    trained_on: Mapping[str, object] | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Write an encoder folder: config.json, model.safetensors and a model card.

    If the source has them, the pool of crops and the text and molecule towers (`export.towers`) are written too, so that
    the folder alone is enough for `morphoclip query`. Towers are complete, including frozen and pretrained ones.

    Args:
        source: a method (its `export_encoder()` chooses, e.g. the teacher), an encoder, a checkpoint, a run folder
            (its `checkpoints/last.ckpt`), an encoder folder or a hub id.
        to: the folder to make. It is written under a temporary name and renamed.
        formats, dtype, preprocess, crop_size: further formats in the folder, see `export.formats.Wanted`.
        license: of the weights, for the model card, e.g. `cc-by-4.0`.
        trained_on: facts of the training data to record: `training_data(dataset)` and further entries (`git_commit`,
            …). Default: the source's own `trained_on`, if it has one.
        trust_remote_code: for reading the source, see `load_encoder`.

    Raises:
        FileExistsError: `to` exists and is not empty.
        ValueError: a source without an encoder, an encoder that a format cannot hold, or as in `load_encoder`.
        ImportError: a format needs a package that is not installed.
    """
    wanted = Wanted(formats, dtype, preprocess, crop_size)
    to = Path(to)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"{to} exists and is not empty: choose another folder or remove it")
    inherited: dict[str, Any] = {}
    if isinstance(source, nn.Module):
        source = without_compile(source)
    if isinstance(source, Encoder | FeatureEncoder):
        encoder: Encoder | FeatureEncoder = source
        pool: Pool | None = None
        known, method = source.trained_on, None
    elif isinstance(source, TrainedMethod):
        encoder, pool = source.export_encoder(), source.crop_pool
        known, method = source.trained_on, type(source).__name__
    elif isinstance(source, nn.Module):
        raise ValueError(f"{type(source).__name__} is neither an encoder nor a method with export_encoder()")
    else:
        local = local_source(source)
        encoder = load_encoder(local, trust_remote_code=trust_remote_code)
        pool = load_crop_pool(local)
        known, method = encoder.trained_on, encoder.trained_on.get("method")
        inherited = inherited_facts(local)
    encoder = merged_encoder(cast("Encoder | FeatureEncoder", without_compile(encoder)))
    precision: dict[str, Any] = {}
    if dtype == "float16":
        encoder, cosine = rounded_to_float16(encoder)
        precision = {"weights_dtype": dtype, "float16_cosine": round(cosine, 7)}
    sha256 = encoder_hash(encoder)
    layout = layout_settings(encoder, wanted)
    config = {
        **layout,
        "format_version": NAMED_BY_TIMM if layout else PLAIN,
        "morphoclip_version": __version__,
        "encoder": encoder.config,
        "channels": list(encoder.channels),
        "feature_size": encoder.embed_dim,
        "sha256": sha256,
        "trained_on": {"method": method, **known, **(trained_on or {})},
        **precision,
        **inherited,
        **({"license": license} if license else {}),
    }
    with write_atomically(to) as partial:
        partial.mkdir()
        weights = encoder.state_dict()
        if layout:
            config[WEIGHTS_PREFIX] = PREFIX
            weights = {name.removeprefix(PREFIX): value for name, value in weights.items()}
        write_tensors(partial / WEIGHTS, in_float16(weights) if dtype == "float16" else weights)
        if pool is not None and attends(encoder, pool):
            save_crop_pool(pool, partial)
        _add_towers(source if isinstance(source, nn.Module) else local, partial, sha256)
        config |= write_graphs(encoder, wanted, partial)
        config[FILES] = hashes_of(partial)
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (partial / CARD).write_text(model_card(config, (partial / TOWERS).is_dir()))
        check_layout(encoder, layout, wanted, partial)
    return to


def check_layout(encoder: Encoder | FeatureEncoder, layout: Mapping[str, Any], wanted: Wanted, folder: Path) -> None:
    """Raise ValueError if timm gives other features from the folder being written."""
    if not layout:
        return
    from morphoclip.export.timm import load_timm

    x = graph_of(encoder, size_for(encoder, wanted)).examples[0]
    with torch.no_grad():
        difference = (load_timm(str(folder))(x) - encoder.eval()(x)).abs().max()
    if difference != 0:
        raise ValueError(
            f"timm's features differ from the encoder's by {difference:.1e}: leave out timm and huggingface"
        )


def _add_towers(source: Encoder | FeatureEncoder | TrainedMethod | Path, folder: Path, encoder_sha256: str) -> None:
    """Write the towers of a method, checkpoint or run into `folder`, or copy those of an encoder folder."""
    if isinstance(source, Encoder | FeatureEncoder):
        return
    if isinstance(source, TrainedMethod):
        towers = source.describe_towers()
        if towers:
            save_towers(folder, towers, source.state_dict(), encoder_sha256, type(source).__name__)
        return
    path = source
    checkpoint = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if (path / TOWERS).is_dir():
        load_towers(path)  # raises for a folder that mixes two exports
        shutil.copytree(path / TOWERS, folder / TOWERS)
    elif checkpoint.is_file() and not (path / CONFIG).is_file():
        saved = read_checkpoint(checkpoint)
        if saved.get("towers"):
            save_towers(folder, saved["towers"], saved["state_dict"], encoder_sha256, checkpoint)
