"""Which wells are negative controls: what the user names, what the table says, or DMSO by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.profiling.reading.columns import found_column, nearest, short_names
from morphoclip.profiling.reading.values import CONTROL_SPELLINGS, canonical_values

Control = str | Mapping[str, str | Sequence[str]]
SOLVENTS = {
    "dmso", "vehicle", "solvent", "untreated", "mock", "nontreated", "nontargeting", "negativecontrol", "negcon",
    "jcp2022033924", "iazdpxiomuyvgzuhfffaoysan",  # DMSO in JUMP, and its InChIKey
}  # fmt: skip


def with_controls(
    table: pd.DataFrame, control: Control | None, notes: list[str], names: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The table with known values in one spelling and negative controls marked in `schema.CONTROL_TYPE`.

    Args:
        table: canonical columns.
        control: the perturbation of negative controls (DMSO), or {column: value or values} with a column of the table, by
            its own name or ours. None: the table's control type, else LINCS' pert_type, else wells whose perturbation is
            called DMSO, vehicle, …
        names: name of a column in the user's file -> column of `table`.

    Raises:
        ValueError: no well matches `control` (the message shows the most frequent values).
    """
    chosen = None if control is None else _named(table, control, notes, names or {})  # by values as the user knows them
    table = canonical_values(table, notes)
    if control is not None and chosen is not None:
        name = control if isinstance(control, str) else next(iter(_as_lists(control).values()))[0]
        return named_controls(_marked(table, chosen), name)
    if schema.CONTROL_TYPE in table and (table[schema.CONTROL_TYPE].fillna("") != "").any():
        return table
    chosen, why = _by_pert_type(table)
    for column in (schema.PERTURBATION, schema.NAME, schema.INCHIKEY):
        if not chosen.any() and column in table:
            chosen = (
                table[column]
                .map({v: schema.plain_name(str(v)) in SOLVENTS for v in table[column].unique()})
                .to_numpy(bool)
            )
            why = f"its {column.removeprefix(schema.PREFIX)} is {', '.join(map(repr, table.loc[chosen, column].unique()[:3]))}"
    if chosen.any():
        notes.append(
            f"no column says which wells are controls: a well is a negative control if {why}: {_counts(table, chosen)}"
        )
        return named_controls(_marked(table, chosen))
    if schema.PERTURBATION in table:
        notes.append(
            "no well is marked or named as a negative control, so tasks that rank against controls cannot be scored: name "
            "them by control=DMSO or control={column: value}"
        )
        if schema.CONTROL_TYPE not in table:
            table = table.assign(**{schema.CONTROL_TYPE: ""})
    return table


def named_controls(table: pd.DataFrame, name: str = "DMSO") -> pd.DataFrame:
    """The table with a perturbation for negative controls that have none: `name`, or negcon among reagents of genes."""
    if schema.CONTROL_TYPE not in table:
        return table
    bare = schema.is_negcon(table)
    if schema.PERTURBATION in table:
        bare = bare & (table[schema.PERTURBATION].fillna("") == "").to_numpy()
    if not bare.any():
        return table
    names = pd.Series(name or "DMSO", table.index, dtype=object)
    if schema.MODALITY in table:
        names = names.mask(table[schema.MODALITY].isin(["crispr", "orf"]) & (name == "DMSO"), schema.NEGCON)
    old = table[schema.PERTURBATION] if schema.PERTURBATION in table else pd.Series("", table.index)
    return table.assign(**{schema.PERTURBATION: old.astype(object).mask(bare, names)})


def _named(table: pd.DataFrame, control: Control, notes: list[str], names: Mapping[str, str]) -> np.ndarray:
    """bool (N,): wells that `control` names; every pair of column and values must match."""
    asked = control if isinstance(control, str) else "{" + ", ".join(f"{c}: {v}" for c, v in control.items()) + "}"
    if isinstance(control, str):
        control = {_column_with(table, control): control}
    chosen = np.ones(len(table), bool)
    for name, values in _as_lists(control).items():
        column = names[name] if names.get(name) in table else _column(table, name)
        held = table[column].fillna("").astype(str)
        exact = held.isin(values).to_numpy()
        alike = _alike(held, values)
        if not alike.any():
            frequent = held[held != ""].value_counts().head(8)
            shown = ", ".join(f"{value!r} ({count})" for value, count in frequent.items())
            raise ValueError(
                f"control={asked}: no well has {' or '.join(map(repr, values))} in {column}; it holds "
                f"{shown or 'blanks only'}"
                + (f" and {held.nunique() - len(frequent)} other values" if held.nunique() > len(frequent) else "")
            )
        if (alike & ~exact).any():
            others = sorted(held[alike & ~exact].unique())[:3]
            notes.append(
                f"control: {int((alike & ~exact).sum())} wells spelled {', '.join(map(repr, others))} in {column} "
                "count as controls too"
            )
        chosen &= alike
    if not chosen.any():
        raise ValueError(f"control={asked}: each part matches some wells, but no well matches all of them")
    notes.append(f"control={asked}: {_counts(table, chosen)}")
    return chosen


def _column_with(table: pd.DataFrame, value: str) -> str:
    """The column that `control=value` means: perturbations, or names where only these hold the value."""
    if schema.PERTURBATION not in table:
        raise ValueError(
            f"control={value}: no column holds perturbations; name it by columns.perturbation=…, or the controls' column by "
            f"control={{column: {value}}}"
        )
    known = [c for c in (schema.PERTURBATION, schema.NAME) if c in table]
    return next((c for c in known if _alike(table[c].fillna("").astype(str), [value]).any()), schema.PERTURBATION)


def _alike(held: pd.Series, values: Sequence[str]) -> np.ndarray:
    """bool (N,): equal to one of the values, apart from case and blanks."""
    spelled = {" ".join(value.lower().split()) for value in values}
    return held.map({v: " ".join(v.lower().split()) in spelled for v in held.unique()}).to_numpy(bool)


def _column(table: pd.DataFrame, name: str) -> str:
    ours = short_names().get(schema.plain_name(name))
    found = found_column(name, [c for c in table if c.startswith(schema.PREFIX)])
    if found is None and ours in table:
        found = ours
    if found is None:
        known = [c for c in table if c.startswith(schema.PREFIX)]
        raise ValueError(
            f"control={{{name}: …}}: the table has no metadata column {name!r}; nearest: "
            f"{', '.join(nearest(name, known)) or ', '.join(known[:10])}"
        )
    return found


def _as_lists(control: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    lists = {
        c: [*values] if isinstance(values, Sequence) and not isinstance(values, str) else [values]
        for c, values in control.items()
    }
    return {str(c): ["" if value is None else str(value) for value in values] for c, values in lists.items()}


def _by_pert_type(table: pd.DataFrame) -> tuple[np.ndarray, str]:
    """(bool (N,), why): wells that a column pert_type calls negative controls; JUMP's `control` alone says too little."""
    if schema.PERT_TYPE not in table:
        return np.zeros(len(table), bool), ""
    known = CONTROL_SPELLINGS[schema.NEGCON] - {"control", "ctrl", "true", "yes", "1"}
    values = table[schema.PERT_TYPE].fillna("").astype(str)
    chosen = values.map({v: schema.plain_name(v) in known for v in values.unique()}).to_numpy(bool)
    return (
        chosen,
        f"its {schema.PERT_TYPE.removeprefix(schema.PREFIX)} is {', '.join(map(repr, values[chosen].unique()[:3]))}",
    )


def _marked(table: pd.DataFrame, chosen: np.ndarray) -> pd.DataFrame:
    """The table with the `chosen` wells, and no others, as negative controls."""
    old = table[schema.CONTROL_TYPE].fillna("") if schema.CONTROL_TYPE in table else pd.Series("", table.index)
    kept = old.astype(object).mask(old == schema.NEGCON, "")
    return table.assign(**{schema.CONTROL_TYPE: kept.mask(chosen, schema.NEGCON)})


def _counts(table: pd.DataFrame, chosen: np.ndarray) -> str:
    """'24 wells on 3 plates, 8 a plate', and plates without any."""
    if schema.PLATE not in table:
        return f"{int(chosen.sum())} rows"
    per_plate = pd.Series(chosen).groupby(table[schema.PLATE].to_numpy()).sum()
    few, most = int(per_plate.min()), int(per_plate.max())
    text = f"{int(chosen.sum())} wells, {few if few == most else f'{few} to {most}'} a plate"
    bare = per_plate.index[per_plate == 0]
    return text + (f"; {len(bare)} of {len(per_plate)} plates have none, e.g. {bare[0]}" if len(bare) else "")
