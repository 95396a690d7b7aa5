"""Normalise profile tables: statistics fitted once, saved, applied to new plates (EVALUATION §5)."""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from morphoclip.data import schema
from morphoclip.profiling.scale import ConstantFeatureError

GROUP_COLUMNS = {"plate": schema.PLATE, "batch": schema.BATCH, "source": schema.SOURCE, "all": None}
FIT_ON = ("negcon", "all")
POOLED = "*"
FORMAT = "morphoclip.normalizer/1"
EMBEDDING_PREFIX = "embedding_"

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """One step: which module, fitted on which wells, by which group, with which options."""

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
    """The step or steps a mapping such as `{"step": "center", "fit_on": "negcon", "by": "plate"}` stands for.

    Raises:
        ValueError: unknown step, option, `fit_on` or `by`, or one of these is missing.
    """
    options = dict(spec)
    name = str(options.pop("step", ""))
    known = sorted(p.stem for p in (Path(__file__).parent / "steps").glob("[!_]*.py"))
    if "." not in name and name not in known:
        raise ValueError(f"step {name!r} in {dict(spec)} is none of {known}, nor a dotted module path")
    step = Step(name, str(options.pop("fit_on", "")), str(options.pop("by", "")), options)
    if not hasattr(step.module, "fit") and not hasattr(step.module, "expand"):
        step = replace(step, fit_on=step.fit_on or "all", by=step.by or "all")  # fits nothing: neither matters
    if step.fit_on not in FIT_ON or step.by not in GROUP_COLUMNS:
        raise ValueError(
            f"step {name!r} needs fit_on ({' | '.join(FIT_ON)}) and by ({' | '.join(GROUP_COLUMNS)}); got {dict(spec)}"
        )
    takes = next(getattr(step.module, f) for f in ("expand", "fit", "apply") if hasattr(step.module, f))
    allowed = set(inspect.signature(takes).parameters) - {"x", "state", "pooled", "fit_on", "by"}
    if unknown := set(options) - allowed:
        raise ValueError(f"step {name!r} has no option {sorted(unknown)}; it takes {sorted(allowed)}")
    if hasattr(step.module, "expand"):
        return [s for inner in step.module.expand(step.fit_on, step.by, **options) for s in parse_step(inner)]
    one_group = getattr(step.module, "ONE_GROUP", False) or str(options.get("method", "")).startswith("PCA")
    if one_group and step.by != "all":
        raise ValueError(f"step {name!r} changes the columns, which must stay the same for all wells: set by: all")
    return [step]


class Normalizer:
    """A sequence of normalisation steps over a profile table.

    Statistics belong to the groups (plates, batches, sources) seen by `fit`. A group `fit` has not seen gets its own,
    from its own reference wells, when it is transformed; so plates can be transformed together or one by one, now or
    by a loaded copy, with the same result. A `by: all` step never learns from tables that are only transformed.

    Args:
        steps: mappings with `step`, `fit_on` (`negcon` | `all`), `by` (`plate` | `batch` | `source` | `all`) and the
            step's options; see `morphoclip.profiling.steps`. No steps at all: values pass through.
    """

    def __init__(self, steps: Sequence[Mapping[str, object]] = ()):
        self.steps = [step for spec in steps for step in parse_step(spec)]
        self.features: list[str] | None = None
        self.states: list[dict[str, State]] = [{} for _ in self.steps]

    @property
    def uses_negcon(self) -> bool:
        """Whether any step is fitted on negative controls, i.e. whether scores against them need cross-fitting."""
        return any(step.fit_on == "negcon" for step in self.steps)

    def fit(self, table: pd.DataFrame, rows: Sequence[bool] | None = None) -> Normalizer:
        """Fit every step, each on the output of the one before.

        Args:
            table: a row a well: `Metadata_*` columns and numeric features.
            rows: boolean mask of the wells statistics may come from (training wells); default all.

        Raises:
            ValueError: NaN or inf in a feature, a group without reference wells, or a missing metadata column.
        """
        if rows is not None:
            table = table[np.asarray(rows, dtype=bool)]
        self.fit_transform(table)
        return self

    def fit_transform(self, table: pd.DataFrame) -> pd.DataFrame:
        """`fit(table).transform(table)` in one pass."""
        if table.empty:
            raise ValueError("cannot fit a Normalizer on a table without rows")
        self.features = schema.split_columns(table)[1]
        self.states = [{} for _ in self.steps]
        return self._run(table, fitting=True)

    def transform(self, table: pd.DataFrame) -> pd.DataFrame:
        """The normalised table: metadata columns first, then features in the dtype they came in; rows as they were.

        Raises:
            ValueError: not fitted, other features than fitted on, or as `fit`.
        """
        if self.features is None:
            raise ValueError("this Normalizer is not fitted: call fit(table) or Normalizer.load(path) first")
        found = schema.split_columns(table)[1]
        missing, extra = set(self.features) - set(found), set(found) - set(self.features)
        if missing or extra:
            raise ValueError(
                f"the table lacks {len(missing)} fitted features {sorted(missing)[:3]} and has {len(extra)} others "
                f"{sorted(extra)[:3]}: give it the columns the Normalizer was fitted on"
            )
        return self._run(table, fitting=False)

    def _run(self, table: pd.DataFrame, fitting: bool) -> pd.DataFrame:
        names = self.features
        if not self.steps and names and names[0].startswith(EMBEDDING_PREFIX):
            warnings.warn("encoder profiles carry large plate effects; at least `center` them", stacklevel=4)
        metadata = table[schema.split_columns(table)[0]]
        x = table[names].to_numpy(np.float32 if all(table[n].dtype == np.float32 for n in names) else np.float64)
        for step, states in zip(self.steps, self.states, strict=True):
            if not getattr(step.module, "TAKES_MISSING", False):
                check_finite(x, names, metadata)
            x, names = _run_step(step, states, x, names, metadata, fitting)
        features = pd.DataFrame(x, columns=names, index=table.index)
        return pd.concat([metadata, features], axis=1)

    def save(self, path: str | Path) -> None:
        """Write steps, features and statistics to one safetensors file, under a temporary name first.

        Raises:
            ValueError: not fitted.
        """
        from safetensors.numpy import save_file

        if self.features is None:
            raise ValueError("this Normalizer is not fitted: call fit(table) before save(path)")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            json.dumps([i, group, name]): np.ascontiguousarray(array)
            for i, states in enumerate(self.states)
            for group, state in states.items()
            for name, array in state.items()
        }
        header = {"steps": [step.to_dict() for step in self.steps], "features": self.features}
        partial = path.with_name(path.name + ".partial")
        save_file(arrays, partial, metadata={"format": FORMAT, "normalizer": json.dumps(header)})
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str | Path) -> Normalizer:
        """Read what `save` wrote.

        Raises:
            ValueError: not a Normalizer file, or one of another format version.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise ValueError(f"{path} is not a Normalizer file ({error}); write one with Normalizer.save") from error
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} holds format {metadata.get('format')!r}, not {FORMAT}: save it again or upgrade")
        header = json.loads(metadata["normalizer"])
        normalizer = cls(header["steps"])
        normalizer.features = header["features"]
        for key, array in arrays.items():
            i, group, name = json.loads(key)
            normalizer.states[i].setdefault(group, {})[name] = array
        return normalizer


def check_finite(x: np.ndarray, names: Sequence[str], metadata: pd.DataFrame) -> None:
    """Raise ValueError that names feature, plate and well of the first value that is NaN or infinite."""
    if np.isfinite(x).all():
        return
    rows, columns = np.nonzero(~np.isfinite(x))
    row = metadata.iloc[rows[0]]
    raise ValueError(
        f"feature {names[columns[0]]!r} is NaN or infinite on plate {row.get(schema.PLATE, '?')} "
        f"well {row.get(schema.WELL, '?')}; in all {len(set(columns))} features and {len(set(rows))} wells: drop these "
        "wells, or the features with a first step {step: feature_select, operations: [drop_missing], missing_cutoff: 0}"
    )


def _run_step(
    step: Step,
    states: dict[str, State],
    x: np.ndarray,
    names: list[str],
    metadata: pd.DataFrame,
    fitting: bool,
) -> tuple[np.ndarray, list[str]]:
    """Apply a step group by group, fitting the groups that have no statistics yet; `states` grows only in fitting."""
    module, groups = step.module, _groups(step, metadata)
    if not hasattr(module, "fit"):
        return module.apply(x, {}, **step.options), names
    states = states if fitting else dict(states)
    reference = {
        group: _reference(step, group, rows, metadata) for group, rows in groups.items() if group not in states
    }
    if fitting and hasattr(module, "pooled"):
        pooled = np.concatenate([x[rows] for rows in reference.values()])
        states[POOLED] = module.pooled(pooled.astype(np.float64), **step.options)
    shared = {"pooled": states[POOLED]} if hasattr(module, "pooled") else {}
    for group, rows in reference.items():
        try:
            states[group] = module.fit(x[rows].astype(np.float64), **shared, **step.options)
        except ConstantFeatureError as error:
            constant = [names[i] for i in error.columns[:3]]
            raise ValueError(
                f"step {step.name!r}: {error.columns.size} features do not vary among the {len(rows)} "
                f"{'' if step.fit_on == 'all' else 'negcon '}wells of {_name(step, group)}, e.g. {constant}: put "
                "drop_low_variance before it, set its eps, or fit by a larger group"
            ) from error
        except ValueError as error:
            raise ValueError(f"step {step.name!r}, {_name(step, group)}: {error}") from error
    if step.by == "all":
        out = module.apply(x, states["all"], **step.options)
    else:
        out = np.empty_like(x)
        for group, rows in groups.items():
            out[rows] = module.apply(x[rows], states[group], **step.options)
    if hasattr(module, "columns"):
        names = module.columns(names, states[next(iter(groups))], **step.options)
    return out, names


def _groups(step: Step, metadata: pd.DataFrame) -> dict[str, np.ndarray]:
    """Row numbers of each group, groups by name."""
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
    negcon = rows[(metadata[schema.CONTROL_TYPE] == schema.NEGCON).to_numpy()[rows]]
    if not negcon.size:
        raise ValueError(
            f"{_name(step, group)} has no negcon wells to fit step {step.name!r} on: set fit_on: all or drop it"
        )
    return negcon


def _name(step: Step, group: str) -> str:
    return "the whole table" if step.by == "all" else f"{step.by} {group}"
