"""Statistics of a step per group (plate, batch, source): fitted on the reference wells, applied to all wells."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.profiling.scale import ConstantFeatureError
from morphoclip.profiling.step import GROUP_COLUMNS, Step

State = dict[str, np.ndarray]
POOLED = "*"  # key of the statistics over the reference wells of all groups


def fit_groups(
    step: Step,
    groups: dict[str, np.ndarray],
    states: dict[str, State],
    x: np.ndarray,
    names: list[str],
    metadata: pd.DataFrame,
    fitting: bool,
) -> dict[str, State]:
    """The known statistics, plus those of new groups fitted on these wells."""
    module = step.module
    if not hasattr(module, "fit"):
        return {}
    states = dict(states)
    reference = {
        group: _reference(step, group, rows, metadata) for group, rows in groups.items() if group not in states
    }
    shared = {}
    if hasattr(module, "pooled"):
        if fitting:
            pooled = np.concatenate([x[rows] for rows in reference.values()])
            states[POOLED] = module.pooled(pooled.astype(np.float64, copy=False), **step.options)
        shared = {"pooled": states[POOLED]}
    for group, rows in reference.items():
        chosen = x if len(rows) == len(x) else x[rows]
        try:
            if not getattr(module, "OWN_DTYPE", False):
                chosen = chosen.astype(np.float64, copy=False)
            states[group] = module.fit(chosen, **shared, **step.options)
        except ConstantFeatureError as error:
            constant = [names[i] for i in error.columns[:3]]
            raise ValueError(
                f"step {step.name!r}: {error.columns.size} features do not vary among the {len(rows)} "
                f"{'' if step.fit_on == 'all' else 'negcon '}wells of {_name(step, group)}, e.g. {constant}: put "
                "drop_low_variance before it, set its eps, or fit by a larger group"
            ) from error
        except ValueError as error:
            raise ValueError(f"step {step.name!r}, {_name(step, group)}: {error}") from error
    return states


def apply_groups(
    step: Step, groups: dict[str, np.ndarray], states: dict[str, State], x: np.ndarray, names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """The step's output for all wells, and the names of its features."""
    module = step.module
    if hasattr(module, "apply_together"):
        code = np.empty(len(x), np.int64)
        for number, rows in enumerate(groups.values()):
            code[rows] = number
        out = module.apply_together(x, code, **step.options)
    elif step.by == "all":
        out = module.apply(x, states.get("all", {}), **step.options)
    else:
        out = np.empty_like(x)
        for group, rows in groups.items():
            out[rows] = module.apply(x[rows], states.get(group, {}), **step.options)
    if hasattr(module, "columns"):
        names = module.columns(names, states[next(iter(groups))], **step.options)
    if not names:
        raise ValueError(f"step {step.name!r} removes all features: loosen its thresholds")
    return out, names


def groups_of(step: Step, metadata: pd.DataFrame) -> dict[str, np.ndarray]:
    """Group name -> row numbers."""
    column = GROUP_COLUMNS[step.by]
    if column is None:
        return {"all": np.arange(len(metadata))}
    if column not in metadata or metadata[column].isna().any() or (metadata[column] == "").any():
        raise ValueError(
            f"step {step.name!r} has by: {step.by}, but {column} is missing or blank: fill it or change by"
        )
    return {str(name): rows for name, rows in metadata.groupby(metadata[column].astype(str)).indices.items()}


def _reference(step: Step, group: str, rows: np.ndarray, metadata: pd.DataFrame) -> np.ndarray:
    """The rows of a group that a step is fitted on."""
    if step.fit_on == "all":
        return rows
    if schema.CONTROL_TYPE not in metadata:
        raise ValueError(
            f"step {step.name!r} is fitted on negcon wells, but the table has no {schema.CONTROL_TYPE} column: "
            "annotate it from its plate maps, or set fit_on: all"
        )
    negcon = rows[schema.is_negcon(metadata)[rows]]
    if not negcon.size:
        raise ValueError(
            f"{_name(step, group)} has no negcon wells to fit step {step.name!r} on: set fit_on: all or drop it"
        )
    return negcon


def _name(step: Step, group: str) -> str:
    return "the whole table" if step.by == "all" else f"{step.by} {group}"
