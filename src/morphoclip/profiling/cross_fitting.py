"""Cross-fitting: normalisation is never fitted on the negative controls that are scored against (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.profiling.normalize import Normalizer

HELD_OUT = "negcon_held_out"


def crossfit(
    normalizer: Normalizer | Sequence[Mapping[str, object]],
    table: pd.DataFrame,
    seed: int = 0,
    rows: Sequence[bool] | None = None,
) -> list[pd.DataFrame]:
    """Normalise twice, each time fitted on half of the negative controls; scores are averaged over the tables.

    Positions of negcon wells are divided into two folds; a position is in the same fold on every plate. Steps with
    `fit_on: negcon` are fitted on one fold, and the table keeps the negcon rows of the other fold and all other rows;
    then the folds are swapped. Steps with `fit_on: all` treat all wells equally, so they are fitted on all.

    Args:
        normalizer: steps, or a Normalizer whose steps are fitted again.
        table: one row per well, with `Metadata_Plate`, `Metadata_Well`, `Metadata_control_type`.
        seed: seed of the folds, which depend on seed and positions only.
        rows: boolean mask of the wells that statistics may be fitted on; default: all.

    Returns:
        Two tables, or one table of all rows if no step is fitted on negcon wells.

    Raises:
        ValueError: a plate has negcon wells at fewer than two positions, or as in `Normalizer.fit`.
    """
    steps = [step.to_dict() for step in normalizer.steps] if isinstance(normalizer, Normalizer) else normalizer
    normalizer = Normalizer(steps)
    if not normalizer.uses_negcon:
        return [_normalized(normalizer, table, rows)]
    fold = negcon_folds(table, seed)
    tables = []
    for scored in (0, 1):
        fitted = table.assign(**{schema.CONTROL_TYPE: table[schema.CONTROL_TYPE].mask(fold == scored, HELD_OUT)})
        profiles = _normalized(normalizer, fitted, rows)
        profiles[schema.CONTROL_TYPE] = table[schema.CONTROL_TYPE]
        tables.append(profiles[fold != 1 - scored])
    return tables


def _normalized(normalizer: Normalizer, table: pd.DataFrame, rows: Sequence[bool] | None) -> pd.DataFrame:
    return normalizer.fit_transform(table) if rows is None else normalizer.fit(table, rows).transform(table)


def negcon_folds(table: pd.DataFrame, seed: int = 0) -> np.ndarray:
    """Fold 0 or 1 of every negcon row, -1 elsewhere, (N,) int.

    Positions that occur on the same plates are shuffled and assigned alternately, so each plate has nearly equal folds.

    Raises:
        ValueError: a plate has negcon wells in one fold only, or a metadata column is missing.
    """
    missing = [c for c in (schema.PLATE, schema.WELL, schema.CONTROL_TYPE) if c not in table]
    if missing:
        raise ValueError(f"cross-fitting needs the columns {missing}: annotate the table, or set crossfit=false")
    negcon = schema.is_negcon(table)
    controls = table.loc[negcon, [schema.PLATE, schema.WELL]].astype(str)
    positions = controls[schema.WELL].map(schema.well_position)
    plates = controls.groupby(positions)[schema.PLATE].agg(lambda names: tuple(sorted(set(names))))
    generator = np.random.default_rng(seed)
    dealt: list[tuple[int, int]] = []
    for _, layout in sorted(plates.groupby(plates)):
        dealt += [layout.index[i] for i in generator.permutation(len(layout))]
    fold_of = {position: turn % 2 for turn, position in enumerate(dealt)}
    fold = np.full(len(table), -1)
    fold[negcon] = [fold_of[position] for position in positions]
    both = controls.assign(fold=fold[negcon]).groupby(schema.PLATE)["fold"].nunique()
    if (both < 2).any():
        raise ValueError(
            f"plate {both.index[both < 2][0]} has too few negcon positions to halve: set crossfit=false or drop the plate"
        )
    return fold
