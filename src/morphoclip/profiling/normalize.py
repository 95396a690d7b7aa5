"""Normalise profile tables: statistics fitted once, saved, applied to new plates (docs/profiling.md)."""

from __future__ import annotations

import json
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.files import write_atomically
from morphoclip.profiling.group_statistics import State, apply_groups, fit_groups, groups_of
from morphoclip.profiling.scale import in_parts, stored_by_column
from morphoclip.profiling.step import parse_step

FORMAT = "morphoclip.normalizer/1"
EMBEDDING_PREFIX = "embedding_"


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
        self._begin(table)
        self._run(table, fitting=True, transforming=False)
        return self

    def fit_transform(self, table: pd.DataFrame) -> pd.DataFrame:
        """`fit(table).transform(table)` in one pass."""
        self._begin(table)
        return self._run(table, fitting=True, transforming=True)

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
        return self._run(table, fitting=False, transforming=True)

    def _begin(self, table: pd.DataFrame) -> None:
        if table.empty:
            raise ValueError("cannot fit a Normalizer on a table without rows")
        self.features = schema.split_columns(table)[1]
        self.states = [{} for _ in self.steps]

    def after_each_step(self, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
        """Fit as `fit_transform` does, but show the way there: ('none', the values given), then (step, table so far)."""
        self._begin(table)
        metadata, given = self._open(table)
        stages = self._stages(metadata, given, fitting=True)
        for name, (x, names) in zip(["none", *(step.name for step in self.steps)], stages, strict=True):
            yield name, _joined(metadata, np.copy(x), names)

    def _run(self, table: pd.DataFrame, fitting: bool, transforming: bool) -> pd.DataFrame | None:
        if not self.steps and self.features and self.features[0].startswith(EMBEDDING_PREFIX):
            warnings.warn("encoder profiles carry large plate effects; at least `center` them", stacklevel=3)
        metadata, given = self._open(table)
        x, names = deque(self._stages(metadata, given, fitting, apply_last=transforming), maxlen=1).pop()
        if not transforming:
            return None
        return _joined(metadata, np.copy(x) if np.may_share_memory(x, given) else x, names)

    def _open(self, table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """Metadata, and the fitted features as one array; a view of the table where that is possible."""
        metadata = table[schema.split_columns(table)[0]]
        wide = table.drop(columns=list(metadata))
        wide = wide if list(wide) == self.features else wide[self.features]
        return metadata, wide.to_numpy(np.float32 if (wide.dtypes == np.float32).all() else np.float64)

    def _stages(
        self, metadata: pd.DataFrame, x: np.ndarray, fitting: bool, apply_last: bool = True
    ) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Values and feature names: those given, then those after each step."""
        names = self.features
        yield x, names
        for i, step in enumerate(self.steps):
            if not getattr(step.module, "TAKES_MISSING", False):
                check_finite(x, names, metadata)
            groups = groups_of(step, metadata)
            states = fit_groups(step, groups, self.states[i], x, names, metadata, fitting)
            if fitting:
                self.states[i] = states
            if apply_last or i + 1 < len(self.steps):
                x, names = apply_groups(step, groups, states, x, names)
            yield x, names

    def save(self, path: str | Path) -> None:
        """Write steps, features and statistics to one safetensors file, under a temporary name first.

        Raises:
            ValueError: not fitted.
        """
        from safetensors.numpy import save_file

        if self.features is None:
            raise ValueError("this Normalizer is not fitted: call fit(table) before save(path)")
        arrays = {
            json.dumps([i, group, name]): np.ascontiguousarray(array)
            for i, states in enumerate(self.states)
            for group, state in states.items()
            for name, array in state.items()
        }
        header = {"steps": [step.to_dict() for step in self.steps], "features": self.features}
        with write_atomically(path) as partial:
            save_file(arrays, partial, metadata={"format": FORMAT, "normalizer": json.dumps(header)})

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


def _joined(metadata: pd.DataFrame, x: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Metadata columns before the features; x itself, as concatenating would copy it."""
    table = pd.DataFrame(x, columns=names, index=metadata.index, copy=False)
    for place, column in enumerate(metadata):
        table.insert(place, column, metadata[column])
    return table


def check_finite(x: np.ndarray, names: Sequence[str], metadata: pd.DataFrame) -> None:
    """Raise ValueError that names feature, plate and well of the first value that is NaN or infinite."""
    stored = x.T if stored_by_column(x) else x
    if all(in_parts(lambda part: np.isfinite(stored[part]).all(), stored)):
        return
    rows, columns = np.nonzero(~np.isfinite(x))
    row = metadata.iloc[rows[0]]
    raise ValueError(
        f"feature {names[columns[0]]!r} is NaN or infinite on plate {row.get(schema.PLATE, '?')} "
        f"well {row.get(schema.WELL, '?')}; in all {len(set(columns))} features and {len(set(rows))} wells: drop these "
        "wells, or the features with a first step {step: feature_select, operations: [drop_missing], missing_cutoff: 0}"
    )
