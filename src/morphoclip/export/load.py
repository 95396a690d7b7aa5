"""Loading encoders from encoder folders, checkpoints and Hugging Face repositories."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from morphoclip.checkpoints import read_checkpoint, tensors_hash
from morphoclip.export.crop_pool import POOL
from morphoclip.export.layout import CONFIG, FORMAT_VERSION, WEIGHTS, WEIGHTS_PREFIX
from morphoclip.export.towers import TOWERS, mixed
from morphoclip.export.weights import damaged, in_float32, plain_names, read_settings, read_tensors
from morphoclip.models import Encoder, FeatureEncoder, create_encoder
from morphoclip.models.factory import is_foreign

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_encoder(
    source: str | Path, device: str | torch.device = "cpu", *, trust_remote_code: bool = False
) -> Encoder | FeatureEncoder:
    """An encoder in eval mode, its `preprocess` attached, without gradients.

    Args:
        source: an encoder folder, a checkpoint, a run folder, or the id of a Hugging Face repository with an encoder
            folder ("owner/name").
        device: device of the encoder.
        trust_remote_code: for an encoder around a Hugging Face model with its own code (OpenPhenom): fetch that code by
            the name in the config, and run it. Only the caller can allow this, never the folder.

    Returns:
        An `Encoder` or `FeatureEncoder`; its `trained_on` holds facts of the training data, see `training_data`.

    Raises:
        FileNotFoundError: nothing at `source`.
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
        elif turns := sorted(path.glob("turns/*/encoder")):
            raise ValueError(
                f"{path} holds {len(turns)} encoders, one for each training: give one of them, e.g. {turns[0]}"
            )
        else:
            raise ValueError(f"{path} holds neither {CONFIG} (an encoder folder) nor checkpoints/last.ckpt (a run)")
    elif path.is_file():
        encoder = _from_checkpoint(path, trust)
    else:
        encoder = _from_folder(_fetch(source, [CONFIG, WEIGHTS]), trust)
    return encoder.requires_grad_(False).eval().to(device)


def local_source(source: str | Path) -> Path:
    """`source` if it exists, else an encoder folder (with towers and pool) fetched from a Hugging Face repository.

    Raises:
        FileNotFoundError: neither an existing path nor an id "owner/name".
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
            f"no file or folder {source}, and fetching it as a Hugging Face repository failed: {error}"
        ) from error


def _from_folder(folder: Path, trust_remote_code: bool) -> Encoder | FeatureEncoder:
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
    prefix = config.get(WEIGHTS_PREFIX, "")
    weights = {prefix + name: value for name, value in read_tensors(folder / WEIGHTS).items()}
    encoder = _rebuild(architecture, weights, trained_on, folder, trust_remote_code)
    # The hash of the config as written: a later version may have more settings.
    said = json.dumps(architecture, sort_keys=True)
    known = config.get("sha256")  # of the weights as they are used, in float32
    if known not in (None, tensors_hash(weights, said)) and known != tensors_hash(in_float32(weights), said):
        raise ValueError(mixed(folder / WEIGHTS))
    return encoder


def _from_checkpoint(path: Path, trust_remote_code: bool) -> Encoder | FeatureEncoder:
    checkpoint = read_checkpoint(path)
    if "encoder_config" not in checkpoint:
        raise ValueError(f"{path} has no encoder_config: it was not saved by a MorphoCLIP method")
    prefix = checkpoint["encoder_prefix"]
    state = plain_names(checkpoint["state_dict"])
    weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return _rebuild(checkpoint["encoder_config"], weights, checkpoint.get("trained_on", {}), path, trust_remote_code)


def _rebuild(
    config: Mapping, weights: Mapping[str, torch.Tensor], trained_on: Mapping, source: Path, trust_remote_code: bool
) -> Encoder | FeatureEncoder:
    config = {key: value for key, value in config.items() if key != "trust_remote_code"}  # for the caller to decide
    name = str(config.get("name"))
    if is_foreign(name) and not trust_remote_code:
        raise ValueError(
            f"loading {source} would run the code of another package, {name}: read that code, then pass "
            "trust_remote_code=True (--trust-remote-code)"
        )
    if trust_remote_code and config.get("name") == "per_channel":
        config["trust_remote_code"] = True
    try:
        encoder = create_encoder(**config)
    except (ValueError, OSError, ImportError):  # their messages name the remedy
        raise
    except Exception as error:
        raise damaged(source, error) from error
    try:
        encoder.load_state_dict(plain_names(weights))  # folders of compiled encoders, written by earlier versions
    except RuntimeError as error:
        raise ValueError(f"the weights in {source} do not fit its config: {error}") from error
    encoder.trained_on = dict(trained_on)
    return encoder
