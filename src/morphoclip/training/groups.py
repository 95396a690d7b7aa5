"""Parameter groups: weight decay and learning rate of each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

# Tables with one vector per token, position, channel or prototype, which weight decay would shrink to zero.
UNDECAYED = ("cls_token", "reg_token", "mask_token", "pos_embed", "channel_embedding", "prototypes", "logit_scale")


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: matrices and kernels only, and no tokens, positions or prototypes."""
    return parameter.ndim > 1 and not any(part in name for part in UNDECAYED)


def parameter_groups(
    module: nn.Module,
    *,
    weight_decay: float,
    lr_scale: Mapping[str, float] | None = None,
    frozen: Mapping[str, Mapping[str, float]] | None = None,
    by_name: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer, each with `names`, `lr_scale`, `frozen` in addition to torch's own keys.

    Args:
        module: module with the trainable parameters.
        weight_decay: weight decay of the parameters that decay.
        lr_scale: factor of the learning rate by prefix of the parameter's name; the longest prefix wins.
        frozen: prefix -> {"steps": n} or {"share": s}: the learning rate is 0 for the first n steps or for this share of
            the run.
        by_name: further factor of the learning rate by a parameter's whole name.

    Raises:
        ValueError: no trainable parameter has a prefix, or a frozen span is neither steps nor share.
    """
    lr_scale, frozen = dict(lr_scale or {}), dict(frozen or {})
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for prefix in {**lr_scale, **frozen}:
        if not any(name.startswith(prefix) for name in trainable):
            raise ValueError(f"no trainable parameter starts with {prefix!r}; first names: {list(trainable)[:5]}")
    for prefix, span in frozen.items():
        if not isinstance(span, Mapping) or set(span) not in ({"steps"}, {"share"}):
            raise ValueError(f"frozen.{prefix}={span!r}: give {{steps: a number}} or {{share: of the run}}")

    def setting(table: Mapping[str, Any], name: str, default: Any) -> Any:
        return table[max(matches, key=len)] if (matches := [p for p in table if name.startswith(p)]) else default

    groups: dict[tuple, dict[str, Any]] = {}
    for name, parameter in trainable.items():
        decay = weight_decay if decays(name, parameter) else 0.0
        first: Mapping[str, float] = setting(frozen, name, {})
        factor = setting(lr_scale, name, 1.0) * (by_name or {}).get(name, 1.0)
        key = (decay > 0, factor, tuple(first.items()))
        new = {"params": [], "names": [], "weight_decay": decay, "lr_scale": key[1], "frozen": dict(first)}
        group = groups.setdefault(key, new)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
