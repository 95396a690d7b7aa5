"""Hugging Face vision models; those with their own code are loaded only with the caller's consent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

WEIGHTS = "model.safetensors"
RUN = (
    "AutoConfig",
    "AutoModel",
    "AutoImageProcessor",
    "AutoFeatureExtractor",
)  # entries of an auto_map that an encoder may run


def vision_model(
    path: str,
    pretrained: bool = True,
    *,
    architecture: Mapping[str, Any] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[nn.Module, dict[str, Any], str | None]:
    """`AutoModel` of a hub id or local folder.

    A model known to transformers is built by transformers, unless `trust_remote_code` selects the model's own code. A
    model with its own code is loaded from its model.safetensors only, because its class may be too old for
    `from_pretrained`.

    Args:
        pretrained: load the weights; otherwise they are random.
        architecture: a config returned by this function, to rebuild from; then only code is fetched from the hub.
        revision: branch, tag or commit of the hub repository, for config, weights and code.
        trust_remote_code: run the Python files named in the config. Read them first.

    Returns:
        The model; its config as a dict, which names required code only under `auto_map`; its revision, which is the
        resolved commit if the model's own code ran.

    Raises:
        ValueError: the model needs its own code without `trust_remote_code`, that code is in another repository, which
            `revision` does not pin, or the weights do not fit.
        OSError: no such model, or a model with its own code has no model.safetensors.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PretrainedConfig

    known = architecture or PretrainedConfig.get_config_dict(path, revision=revision)[0]
    code = {kind: where for kind, where in known.get("auto_map", {}).items() if kind in ("AutoConfig", "AutoModel")}
    if code and not trust_remote_code and (architecture or known.get("model_type") not in CONFIG_MAPPING):
        raise ValueError(
            f"hf:{path} needs its own code ({', '.join(sorted(set(code.values())))}), which would run on this machine. "
            "Read it; to run it pass trust_remote_code=True (--trust-remote-code; evaluate.py: trust_remote_code=true), and "
            "revision=<commit> (--revision) so that the code cannot change"
        )
    if code and trust_remote_code:
        model, revision = _with_own_code(path, pretrained, architecture, revision)
        model.float()  # whatever the file holds
        return model, model.config.to_dict(), revision
    if architecture is not None:
        settings = dict(architecture)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        return AutoModel.from_config(config, trust_remote_code=False).float(), dict(architecture), revision
    found = {"revision": revision, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(path, **found)
    model = (
        AutoModel.from_pretrained(path, **found)
        if pretrained
        else AutoModel.from_config(config, trust_remote_code=False)
    )
    model.float()
    return model, {key: value for key, value in config.to_dict().items() if key != "auto_map"}, revision


def _with_own_code(
    path: str, pretrained: bool, architecture: Mapping[str, Any] | None, revision: str | None
) -> tuple[Any, str | None]:
    from safetensors.torch import load_model
    from transformers import AutoConfig, PretrainedConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    from transformers.utils import cached_file

    _refuse_code_of_others(path, PretrainedConfig.get_config_dict(path, revision=revision)[0], architecture or {})
    config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=True)
    revision = getattr(config, "_commit_hash", None) or revision
    if architecture is not None:
        config = type(config).from_dict(dict(architecture))
        config._name_or_path = path
    if "AutoModel" not in config.auto_map:
        raise ValueError(f"hf:{path} has code for {sorted(config.auto_map)} but not for AutoModel, which is needed")
    model_class = get_class_from_dynamic_module(config.auto_map["AutoModel"], path, revision=revision)
    model = model_class(config)
    if pretrained:
        try:
            load_model(model, str(cached_file(path, WEIGHTS, revision=revision)))
        except RuntimeError as error:
            raise ValueError(f"the weights of hf:{path} do not fit the model its code builds: {error}") from error
    return model, revision


def _refuse_code_of_others(path: str, *settings: Mapping[str, Any]) -> None:
    """Raise ValueError if settings name code of another repository, `owner/name--module.Class`."""
    for kind, named in (pair for known in settings for pair in known.get("auto_map", {}).items()):
        for where in [named] if isinstance(named, str) else named:
            repository, separator, _ = (where or "").rpartition("--")
            if kind in RUN and separator and repository != path:
                raise ValueError(
                    f"hf:{path} uses code of another repository ({where}), which revision= does not pin: copy both into one "
                    "folder, name the code there without the repository, and give that folder"
                )


def rgb_statistics(path: str, revision: str | None = None, trust_remote_code: bool = False):
    """(mean, standard deviation) of the RGB images a model expects; None if it has no image processor.

    Raises:
        ValueError: its code is in another repository, see `vision_model`.
    """
    from transformers import AutoImageProcessor, ImageProcessingMixin, PretrainedConfig

    try:
        if trust_remote_code:
            known = (ImageProcessingMixin.get_image_processor_dict, PretrainedConfig.get_config_dict)
            _refuse_code_of_others(path, *(read(path, revision=revision)[0] for read in known))
        processor = AutoImageProcessor.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except OSError:
        return None
    return processor.image_mean, processor.image_std
