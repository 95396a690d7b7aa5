"""Normalisation of profile tables: statistics are fitted once, saved, and applied to new plates (docs/profiling.md)."""

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

    `fit` computes statistics for the groups (plates, batches, sources) in its table. A new group gets its own statistics,
    from its own reference wells, when it is transformed. So plates can be transformed together or one by one, now or by a
    loaded copy, with the same result. A step with `by: all` is fitted only by `fit`.

    Args:
        steps: mappings with `step`, `fit_on` (`negcon` | `all`), `by` (`plate` | `batch` | `source` | `all`) and the
            step's options; see `morphoclip.profiling.steps`. Without steps values are unchanged.
    """

    def __init__(self, steps: Sequence[Mapping[str, object]] = ()):
        self.steps = [step for spec in steps for step in parse_step(spec)]
        self.features: list[str] | None = None
        self.states: list[dict[str, State]] = [{} for _ in self.steps]

    @property
    def uses_negcon(self) -> bool:
        """Whether any step is fitted on negative controls, so that scores against them need cross-fitting."""
        return any(step.fit_on == "negcon" for step in self.steps)

    def fit(self, table: pd.DataFrame, rows: Sequence[bool] | None = None) -> Normalizer:
        """Fit every step, each on the output of the one before.

        Args:
            table: one row per well: `Metadata_*` columns and numeric features.
            rows: boolean mask of the wells that statistics may be fitted on (training wells); default: all.

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
        """The normalised table: metadata columns, then features with the dtype of the input; rows keep their order.

        Raises:
            ValueError: not fitted, features differ from those of `fit`, or as in `fit`.
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
        """Fit and transform, and yield ('none', the input) and then (step, the table after it) for each step."""
        self._begin(table)
        metadata, given = self._open(table)
        stages = self._stages(metadata, given, fitting=True)
        for name, (x, names) in zip(["none", *(step.name for step in self.steps)], stages, strict=True):
            yield name, _joined(metadata, np.copy(x), names)

    def _run(self, table: pd.DataFrame, fitting: bool, transforming: bool) -> pd.DataFrame | None:
        if not self.steps and self.features and self.features[0].startswith(EMBEDDING_PREFIX):
            warnings.warn("encoder profiles have large plate effects: use at least the step `center`", stacklevel=3)
        metadata, given = self._open(table)
        x, names = deque(self._stages(metadata, given, fitting, apply_last=transforming), maxlen=1).pop()
        if not transforming:
            return None
        return _joined(metadata, np.copy(x) if np.may_share_memory(x, given) else x, names)

    def _open(self, table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """Metadata, and the fitted features as one array (a view of the table if possible)."""
        metadata = table[schema.split_columns(table)[0]]
        wide = table.drop(columns=list(metadata))
        wide = wide if list(wide) == self.features else wide[self.features]
        return metadata, wide.to_numpy(np.float32 if (wide.dtypes == np.float32).all() else np.float64)

    def _stages(
        self, metadata: pd.DataFrame, x: np.ndarray, fitting: bool, apply_last: bool = True
    ) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Yield values and feature names of the input, then after each step."""
        assert self.features is not None  # `fit` and `load` set it
        names, finite = self.features, False
        yield x, names
        for i, step in enumerate(self.steps):
            takes_missing = getattr(step.module, "TAKES_MISSING", False)
            if not (finite or takes_missing):
                check_finite(x, names, metadata)
            groups = groups_of(step, metadata)
            states = fit_groups(step, groups, self.states[i], x, names, metadata, fitting)
            if fitting:
                self.states[i] = states
            if apply_last or i + 1 < len(self.steps):
                x, names = apply_groups(step, groups, states, x, names)
                finite = not takes_missing
                if finite:
                    check_finite(x, names, metadata, made_by=step.name)
            yield x, names

    def save(self, path: str | Path) -> None:
        """Write steps, features and statistics to one safetensors file.

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
        """Read a file written by `save`.

        Raises:
            ValueError: not a Normalizer file, or of another format version.
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
    """Metadata columns followed by the features, without a copy of `x`."""
    return pd.concat([metadata, pd.DataFrame(x, columns=names, index=metadata.index, copy=False)], axis=1, copy=False)


def check_finite(x: np.ndarray, names: Sequence[str], metadata: pd.DataFrame, made_by: str | None = None) -> None:
    """Raise ValueError that names feature, plate and well of the first value that is NaN or infinite.

    Args:
        made_by: the step that made the values; None: they were so in the table.
    """
    stored = x.T if stored_by_column(x) else x
    if all(in_parts(lambda part: np.isfinite(stored[part]).all(), stored)):
        return
    rows, columns = np.nonzero(~np.isfinite(x))
    row = metadata.iloc[rows[0]]
    remedy = (
        "drop these wells, or the features with a first step "
        "{step: feature_select, operations: [drop_missing], missing_cutoff: 0}"
        if made_by is None
        else f"its input was finite, so look at the values that step {made_by} divides by or takes the logarithm of"
    )
    what = "is NaN or infinite" if made_by is None else f"became NaN or infinite in step {made_by}"
    raise ValueError(
        f"feature {names[columns[0]]!r} {what} on plate {row.get(schema.PLATE, '?')} "
        f"well {row.get(schema.WELL, '?')} ({len(set(columns))} features and {len(set(rows))} wells in total): {remedy}"
    )
