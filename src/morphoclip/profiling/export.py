"""Trained encoders as folders: written from a run, read back as a module (DESIGN §3.6)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

import morphoclip
from morphoclip.models import create_encoder
from morphoclip.models.features import FEATURE_ENCODERS
from morphoclip.models.files import damaged, read_checkpoint, read_settings, read_tensors, tensors_hash, write_tensors
from morphoclip.models.tower_folder import TOWERS, load_towers, mixed, save_towers
from morphoclip.profiling.crop_attention import POOL, attends, load_crop_pool, save_crop_pool
from morphoclip.profiling.crops import CROPPING, SCALING
from morphoclip.profiling.profiles import read_provenance

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT_VERSION = 1
FORMATS: tuple[str, ...] = ()
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def export_encoder(
    source: nn.Module | str | Path,
    to: str | Path,
    formats: Sequence[str] = (),
    *,
    trained_on: Mapping[str, object] | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Write an encoder folder: config.json, model.safetensors and a model card.

    Beside them, where the source has it, the pool of its crops and the towers that read words and structures into the
    joint space of its images (`models.tower_folder`), so that the folder alone answers `morphoclip query`. Frozen towers
    are written whole, pretrained ones too.

    Args:
        source: a method (its `export_encoder()` chooses, e.g. the teacher), an encoder, a checkpoint, a run folder
            (its `checkpoints/last.ckpt`), an encoder folder or a hub id.
        to: the folder to make. It is written under a temporary name and renamed.
        formats: other formats beside it; none exists yet.
        trained_on: what `load_encoder` shall know of the training data: `training_data(dataset)`, and what else the
            caller wants on record (`git_commit`, …). Default: the source's own `trained_on`, if it has one.
        trust_remote_code: to read the source, see `load_encoder`.

    Raises:
        FileExistsError: `to` exists and is not empty.
        ValueError: unknown format, a source without an encoder, or as `load_encoder`.
    """
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(f"unknown export formats {sorted(unknown)}; known beside safetensors: {list(FORMATS)}")
    to = Path(to)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"{to} exists and is not empty: choose another folder or remove it")
    if isinstance(source, nn.Module):
        method = type(source).__name__ if hasattr(source, "export_encoder") else None
        encoder = source.export_encoder() if method else source
        known = getattr(source, "trained_on", {})
        if not hasattr(encoder, "config"):
            raise ValueError(f"{type(source).__name__} is neither an encoder nor a method with export_encoder()")
    else:
        source = local_source(source)
        encoder = load_encoder(source, trust_remote_code=trust_remote_code)
        known, method = encoder.trained_on, encoder.trained_on.get("method")
    config = {
        "format_version": FORMAT_VERSION,
        "morphoclip_version": morphoclip.__version__,
        "encoder": encoder.config,
        "channels": list(encoder.channels),
        "feature_size": encoder.embed_dim,
        "sha256": encoder_hash(encoder),
        "trained_on": {"method": method, **known, **(trained_on or {})},
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(to.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_tensors(partial / WEIGHTS, encoder.state_dict())
    pool = getattr(source, "crop_pool", None) if isinstance(source, nn.Module) else load_crop_pool(source)
    if pool is not None and attends(encoder, pool):
        save_crop_pool(pool, partial)
    _add_towers(source, partial, config["sha256"])
    (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (partial / CARD).write_text(_card(config, (partial / TOWERS).is_dir()))
    os.replace(partial, to)
    return to


def load_encoder(
    source: str | Path, device: str | torch.device = "cpu", *, trust_remote_code: bool = False
) -> nn.Module:
    """An encoder in eval mode, its `preprocess` attached, without gradients.

    Args:
        source: an encoder folder, a checkpoint, a run folder, or the id of a Hugging Face repository that holds an
            encoder folder ("owner/name").
        device: where to put it.
        trust_remote_code: for an encoder around a Hugging Face model with code of its own (OpenPhenom): fetch that code
            by the name in the config, and run it. Nothing in a folder can ask for it.

    Returns:
        nn.Module as DESIGN §3.4, with `trained_on` (dict): what is known of the training data, see `training_data`.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not an encoder folder or checkpoint, a newer format, weights that do not fit the config, or code that
            would run without `trust_remote_code`.
    """
    path, trust = Path(source), trust_remote_code
    if path.is_dir():
        checkpoint = path / "checkpoints" / "last.ckpt"
        if (path / CONFIG).is_file():
            encoder = _from_folder(path, trust)
        elif checkpoint.is_file():
            encoder = _from_checkpoint(checkpoint, trust)
        else:
            raise ValueError(f"{path} holds neither {CONFIG} (an encoder folder) nor checkpoints/last.ckpt (a run)")
    elif path.is_file():
        encoder = _from_checkpoint(path, trust)
    else:
        encoder = _from_folder(_fetch(source, [CONFIG, WEIGHTS]), trust)
    return encoder.requires_grad_(False).eval().to(device)


def training_data(dataset) -> dict[str, object]:
    """What an encoder's users need to know of the `ShardDataset` it was trained on, as plain JSON.

    Pixel size, crop size and intensity scaling, which `embed` compares with new data; `cropping`, how fields were cut
    (its `pixel_size_um` is that of the TIFFs, before binning); and the manifest's sha256.
    """
    manifest = dataset.manifest
    made_with = manifest["made_by"].get("arguments", {})
    return {
        "pixel_size_um": manifest["pixel_size_um"],
        "crop_size": manifest["crop_size"],
        **dict(zip(SCALING, dataset.scaling, strict=True)),
        "cropping": {key: made_with[key] for key in CROPPING if key in made_with},
        "manifest_sha256": hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest(),
    }


def encoder_hash(encoder: nn.Module) -> str:
    """sha256 over an encoder's config and weights, whatever file they came from."""
    return weights_hash(encoder, json.dumps(encoder.config, sort_keys=True))


def weights_hash(module: nn.Module, config: str = "") -> str:
    """sha256 over the weights of a module, and over `config` before them."""
    return tensors_hash(module.state_dict(), config)


def encoder_provenance(encoder: nn.Module) -> dict[str, object]:
    """What a profile table's sidecar says of the encoder that made it."""
    return {
        "encoder_sha256": encoder_hash(encoder),
        "encoder": encoder.config,
        "trained_on": dict(getattr(encoder, "trained_on", {})),
        "morphoclip_version": morphoclip.__version__,
    }


def check_made_by(encoder: nn.Module, path: str | Path) -> list[str]:
    """Check that profile tables at a path or glob were made by this encoder and left as they were.

    Returns:
        A line for each table that does not say what made it.

    Raises:
        ValueError: another encoder made one, or it was normalised since.
    """
    own, unsaid = encoder_hash(encoder), []
    for table, known in read_provenance(path).items():
        if known is None:
            unsaid.append(f"{table} has no {table.name}.json, so it cannot be told whether this encoder made it")
        elif "steps" in known:
            raise ValueError(f"{table} was normalised, which leaves the joint space: give {known.get('profiles')}")
        elif known.get("encoder_sha256") != own:
            raise ValueError(
                f"{table} was made by another encoder ({str(known.get('encoder_sha256'))[:12]}, this one is {own[:12]}), "
                "so its cosines to this one's prompts mean nothing: embed the images with this encoder"
            )
    return unsaid


def local_source(source: str | Path) -> Path:
    """`source` if it is there, else an encoder folder with its towers and pool fetched from a Hugging Face repository.

    Raises:
        FileNotFoundError: neither a path that exists nor an id "owner/name".
    """
    return Path(source) if Path(source).exists() else _fetch(source, [CONFIG, WEIGHTS, POOL, f"{TOWERS}/*"])


def _fetch(source: str | Path, files: list[str]) -> Path:
    if not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"no encoder folder, checkpoint or run folder at {source}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=files))
    except OSError as error:
        raise FileNotFoundError(
            f"there is no {source} here (a mistyped path?), and as a Hugging Face repository it was not fetched: {error}"
        ) from error


def _add_towers(source: nn.Module | str | Path, folder: Path, encoder_sha256: str) -> None:
    """Write what reads the words of a method, checkpoint or run into `folder`, or copy that of an encoder folder."""
    if isinstance(source, nn.Module):
        towers = source.describe_towers() if hasattr(source, "describe_towers") else None
        if towers:
            save_towers(folder, towers, source.state_dict(), encoder_sha256, type(source).__name__)
        return
    path = Path(source)
    checkpoint = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if (path / TOWERS).is_dir():
        load_towers(path)  # a mixed folder is not passed on
        shutil.copytree(path / TOWERS, folder / TOWERS)
    elif checkpoint.is_file() and not (path / CONFIG).is_file():
        saved = read_checkpoint(checkpoint)
        if saved.get("towers"):
            save_towers(folder, saved["towers"], saved["state_dict"], encoder_sha256, checkpoint)


def _from_folder(folder: Path, trust_remote_code: bool) -> nn.Module:
    config = read_settings(folder / CONFIG)
    try:
        version, newer = config["format_version"], config["format_version"] > FORMAT_VERSION
        architecture, trained_on = dict(config["encoder"]), dict(config["trained_on"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / CONFIG} is not the config of an encoder folder ({error!r}): copy or export it again"
        ) from error
    if newer:
        raise ValueError(f"{folder} has format {version}, this morphoclip reads {FORMAT_VERSION}: upgrade morphoclip")
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}: export the encoder again")
    weights = read_tensors(folder / WEIGHTS)
    encoder = _rebuild(architecture, weights, trained_on, folder, trust_remote_code)
    # Of the config as it was written: a later version may know more settings.
    if config.get("sha256") not in (None, tensors_hash(weights, json.dumps(architecture, sort_keys=True))):
        raise ValueError(mixed(folder / WEIGHTS))
    return encoder


def _from_checkpoint(path: Path, trust_remote_code: bool) -> nn.Module:
    checkpoint = read_checkpoint(path)
    if "encoder_config" not in checkpoint:
        raise ValueError(f"{path} has no encoder_config: it was not saved by a MorphoCLIP method")
    prefix = checkpoint["encoder_prefix"]
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    return _rebuild(checkpoint["encoder_config"], weights, checkpoint.get("trained_on", {}), path, trust_remote_code)


def _rebuild(
    config: Mapping, weights: Mapping[str, torch.Tensor], trained_on: Mapping, source: Path, trust_remote_code: bool
) -> nn.Module:
    config = {key: value for key, value in config.items() if key != "trust_remote_code"}  # the caller's to say
    if trust_remote_code and config.get("name") == "per_channel":
        config["trust_remote_code"] = True
    try:
        encoder = create_encoder(**config)
    except (ValueError, OSError, ImportError):  # these say what to do
        raise
    except Exception as error:
        raise damaged(source, error) from error
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {source} do not fit its config: {error}") from error
    encoder.trained_on = dict(trained_on)
    return encoder


_QUERY = """
`towers/` reads texts and structures into the joint space of these features, with nothing but this folder:

```sh
{embed}
morphoclip query path/to/this/folder --profiles profiles.parquet --text "what was done to the cells"
morphoclip query path/to/this/folder --profiles profiles.parquet --plate PLATE --well B03
```

Words are best those of the training prompts, which `towers/config.json` lists.
"""

_OF_CROPS = """Takes {channels} in this order and gives {size} features a crop.

```python
import morphoclip
encoder = morphoclip.load_encoder("path/to/this/folder")
features = encoder(encoder.preprocess(crops, low, high))  # crops (B, C, H, W) uint16, low and high (B, C)
```

`low` and `high` are the intensities that become 0 and 1 (percentiles of the field unless stated otherwise below).
"""

_OF_FEATURES = """Sees no images: it takes the features that a frozen encoder gave of each crop, {dim} numbers for each of
{channels} in this order, and gives {size} features a well. Write those features first, as those of training were:

```sh
{write}
{embed}
```

```python
import morphoclip
from morphoclip.profiling import embed
encoder = morphoclip.load_encoder("path/to/this/folder")
profiles = embed(encoder, "FEATURES")  # a row a well; level="perturbation" makes a row a condition
```

Trained on a profile table (one channel, `profile`), it takes `profiling.features.embed_features(encoder, TableDataset(table))`.
"""


def _card(config: Mapping, reads_words: bool = False) -> str:
    """The model card, Hugging Face style."""
    known = {key: value for key, value in config["trained_on"].items() if value is not None}
    facts = "\n".join(f"| {key} | `{value}` |" for key, value in {**config["encoder"], **known}.items())
    encoder = config["encoder"]
    usage, source = (_OF_FEATURES, "FEATURES") if encoder["name"] in FEATURE_ENCODERS else (_OF_CROPS, "DATASET")
    embed = f"morphoclip embed path/to/this/folder {source} --out profiles.parquet"
    usage = usage.format(
        channels=", ".join(config["channels"]),
        size=config["feature_size"],
        dim=encoder.get("feature_dim"),
        write=_features_command(known.get("features") or {}),
        embed=embed,
    )
    return f"""---
library_name: morphoclip
tags: [cell-painting, microscopy, image-feature-extraction]
---
# {encoder["name"]}, {len(config["channels"])} channels

{usage}{_QUERY.format(embed=embed) if reads_words else ""}
| | |
|---|---|
{facts}

Weights and config of the image encoder together have sha256 `{config["sha256"]}`. Made by morphoclip {config["morphoclip_version"]}.
"""


def _features_command(made: Mapping) -> str:
    """The `morphoclip features` line that makes features as those of training, as far as these say what made them."""
    encoder = made.get("encoder") or {}
    backbone = encoder.get("backbone") or "ENCODER"
    if encoder.get("backbone") and not backbone.startswith("hf:"):
        backbone = f"timm:{backbone}"
    words = ["morphoclip features", backbone, "DATASET --out FEATURES"]
    words += [f"--revision {encoder['revision']}"] if encoder.get("revision") else []
    words += ["--standardise-by-plate"] if made.get("standardised_by_plate") else []
    return " ".join(words)
