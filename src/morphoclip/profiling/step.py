"""One configured normalisation step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from morphoclip import schema

GROUP_COLUMNS = {"plate": schema.PLATE, "batch": schema.BATCH, "source": schema.SOURCE, "all": None}
FIT_ON = ("negcon", "all")


@dataclass(frozen=True)
class Step:
    """A step: its module, the wells it is fitted on, the group, and its options."""

    name: str
    fit_on: str
    by: str
    options: dict[str, object] = field(default_factory=dict)

    @property
    def module(self) -> ModuleType:
        return import_module(self.name if "." in self.name else f"morphoclip.profiling.steps.{self.name}")

    def to_dict(self) -> dict[str, object]:
        return {"step": self.name, "fit_on": self.fit_on, "by": self.by, **self.options}


def parse_step(spec: Mapping[str, object]) -> list[Step]:
    """The step or steps of a mapping such as `{"step": "center", "fit_on": "negcon", "by": "plate"}`.

    Raises:
        ValueError: unknown step, option, `fit_on` or `by`, or one of these is missing.
    """
    options = dict(spec)
    name = str(options.pop("step", ""))
    known = sorted(p.stem for p in (Path(__file__).parent / "steps").glob("[!_]*.py"))
    if "." not in name and name not in known:
        raise ValueError(f"unknown step {name!r} in {dict(spec)}: use one of {known}, or a dotted module path")
    step = Step(name, str(options.pop("fit_on", "")), str(options.pop("by", "")), options)
    if not hasattr(step.module, "fit") and not hasattr(step.module, "expand"):
        step = replace(step, fit_on=step.fit_on or "all", by=step.by or "all")  # nothing is fitted, so neither matters
    if step.fit_on not in FIT_ON or step.by not in GROUP_COLUMNS:
        raise ValueError(
            f"step {name!r} needs fit_on ({' | '.join(FIT_ON)}) and by ({' | '.join(GROUP_COLUMNS)}); got {dict(spec)}"
        )
    hooks = ("expand", "apply_together", "fit", "apply")
    takes = next(getattr(step.module, f) for f in hooks if hasattr(step.module, f))
    allowed = set(inspect.signature(takes).parameters) - {"x", "state", "pooled", "groups", "fit_on", "by"}
    if unknown := set(options) - allowed:
        raise ValueError(f"step {name!r} has no option {sorted(unknown)}; it takes {sorted(allowed)}")
    if hasattr(step.module, "expand"):
        return [s for inner in step.module.expand(step.fit_on, step.by, **options) for s in parse_step(inner)]
    if hasattr(step.module, "apply_together") and (step.by == "all" or step.fit_on == "negcon"):
        raise ValueError(f"step {name!r} corrects all wells together: set fit_on: all, and by: to the groups to mix")
    one_group = getattr(step.module, "ONE_GROUP", False) or str(options.get("method", "")).startswith("PCA")
    if one_group and step.by != "all":
        raise ValueError(f"step {name!r} changes the columns, which must be the same for all wells: set by: all")
    return [step]
