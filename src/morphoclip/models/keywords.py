"""Arguments of encoders by name, to find misspelt ones before anything is built."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection

import timm

from morphoclip.models.factory import FIXED, OWN_BACKBONES, create_encoder, is_foreign
from morphoclip.models.features import FEATURE_ENCODERS
from morphoclip.models.per_channel import PerChannel

TIMM = "vit_base_patch16_224"  # of the class that own backbones pass further arguments to


def encoder_keywords(name: str) -> set[str] | None:
    """Arguments of `create_encoder` and of the backbone of that name; None if it may take any.

    Of a timm model, all arguments of the classes in its module: more than it takes, but no misspelt ones.
    """
    if is_foreign(name) or name in FIXED or name in FEATURE_ENCODERS:
        return None
    own = _parameters(create_encoder)
    if name == "per_channel":
        return own | _parameters(PerChannel)
    if name in OWN_BACKBONES:
        passes_on = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(OWN_BACKBONES[name]).parameters.values())
        return own | _parameters(OWN_BACKBONES[name]) | (_of_timm(TIMM) if passes_on else set())
    return own | _of_timm(name) if timm.is_model(name) else None


def takes(name: str, keywords: Collection[str]) -> bool:
    """Whether the encoder of that name may take all of these arguments."""
    known = encoder_keywords(name)
    return known is None or set(keywords) <= known


def _parameters(made_by: object) -> set[str]:
    parameters = inspect.signature(made_by).parameters.values()  # type: ignore[arg-type]  # a class or a function
    return {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def _of_timm(name: str) -> set[str]:
    module = sys.modules[timm.model_entrypoint(name).__module__]
    classes = [
        found for found in vars(module).values() if inspect.isclass(found) and found.__module__ == module.__name__
    ]
    return {"pretrained_cfg", "pretrained_cfg_overlay", "features_only"}.union(*map(_parameters, classes))
