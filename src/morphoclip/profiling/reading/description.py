"""A table as read, described for the biologist: columns, controls, perturbations, doses, plates, sets."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from morphoclip import schema
from morphoclip.profiling.reading.columns import LEFT_OUT, METADATA, Column
from morphoclip.profiling.reading.numbers import COMPARTMENTS, NUMBERED
from morphoclip.profiling.reading.tables import Reading
from morphoclip.profiling.reading.wells import plate_format

SETS = (schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT)
EXAMPLES, WIDTH = 4, 44


def described(reading: Reading) -> list[str]:
    """Lines on what each column was taken for, then on plates, controls, perturbations, doses and sets."""
    table = reading.table
    features = schema.split_columns(table)[1]
    plates = f", {table[schema.PLATE].nunique()} plates" if schema.PLATE in table else ""
    lines = [f"{len(table)} rows{plates}, {len(features)} features", "", "METADATA"]
    lines += _aligned(_metadata(reading.columns, table))
    lines += ["", "FEATURES", *_aligned(_families(features))]
    out = [column for column in reading.columns if column.role == LEFT_OUT]
    if out:
        lines += ["", "LEFT OUT", *_aligned(_left_out(out))]
    return [*lines, "", "WELLS", *_aligned(_wells(table))]


def _metadata(columns: Sequence[Column], table: pd.DataFrame) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("column", "read as", "values")]
    for column in columns:
        if column.role == METADATA and column.ours in table:
            why = f" ({column.why})" if column.why == "columns=" else ""
            rows.append((column.theirs, column.ours.removeprefix(schema.PREFIX) + why, _values(table[column.ours])))
    made = [c for c in (schema.PLATE, schema.WELL, schema.CONTROL_TYPE) if c in table]
    named = {column.ours for column in columns}
    return rows + [("-", c.removeprefix(schema.PREFIX) + " (made)", _values(table[c])) for c in made if c not in named]


def _values(column: pd.Series) -> str:
    """The number of distinct values and examples, or 'blank'."""
    known = column[column != ""]
    if known.empty:
        return "blank"
    distinct = list(known.unique())
    blank = f", {len(column) - len(known)} blank" if len(known) < len(column) else ""
    if len(distinct) == 1:
        return f"{_short(distinct[0])}{blank}"
    shown = ", ".join(_short(value) for value in distinct[:EXAMPLES])
    return f"{len(distinct)} values: {shown}{', …' if len(distinct) > EXAMPLES else ''}{blank}"


def _short(value: str) -> str:
    return value if len(value) <= 24 else f"{value[:22]}…"


def _families(features: Sequence[str]) -> list[tuple[str, ...]]:
    """Numbers of features by what their names start with."""
    families: dict[str, list[str]] = {}
    for name in features:
        match = NUMBERED.fullmatch(name)
        start = f"{name.split('_')[0]}_*" if COMPARTMENTS.match(name) else f"{match[1]}…" if match else "others"
        families.setdefault(start, []).append(name)
    rows: list[tuple[str, ...]] = [("named", "features", "for example")]
    return rows + [
        (start, str(len(names)), ", ".join([*names[:2], *(["…"] if len(names) > 2 else [])]))
        for start, names in sorted(families.items(), key=lambda family: -len(family[1]))
    ]


def _left_out(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    by_reason: dict[str, list[str]] = {}
    for column in columns:
        by_reason.setdefault(column.why, []).append(column.theirs)
    rows: list[tuple[str, ...]] = [("why", "columns", "for example")]
    return rows + [
        (why, str(len(n)), ", ".join([*n[:3], *(["…"] if len(n) > 3 else [])])) for why, n in by_reason.items()
    ]


def _wells(table: pd.DataFrame) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    if schema.WELL in table and schema.PLATE in table:
        per_plate = table.groupby(schema.PLATE)[schema.WELL].nunique()
        rows.append(("wells per plate", f"{_range(per_plate)}, of {plate_format(table[schema.WELL])}"))
        repeated = int(table.duplicated([c for c in schema.WELL_KEY if c in table]).sum())
        if repeated:
            rows.append(
                ("rows per well", f"{repeated} rows repeat a plate and well: aggregate=mean makes wells of them")
            )
    if schema.CONTROL_TYPE in table:
        rows += _controls(table)
    if schema.PERTURBATION in table:
        treated = table[schema.is_treated(table)] if schema.CONTROL_TYPE in table else table
        counts = treated[treated[schema.PERTURBATION] != ""][schema.PERTURBATION].value_counts()
        if len(counts):
            single = int((counts == 1).sum())
            once = f"; {single} have one well only and cannot be scored for replicates" if single else ""
            rows.append(("perturbations", f"{len(counts)}, {_range(counts)} wells each{once}"))
        if schema.DOSE in table:
            rows.append(("doses", _doses(treated)))
    present = [c for c in SETS if c in table]
    names = table[present].agg("_".join, axis=1) if present else pd.Series("all wells", index=table.index)
    sets = names.value_counts()
    named = [f"{name} ({count} wells)" for name, count in list(sets.items())[:EXAMPLES]]
    more = f" and {len(sets) - EXAMPLES} more" if len(sets) > EXAMPLES else ""
    by = " × ".join(c.removeprefix(schema.PREFIX) for c in present) or "no modality, cell line or time is named"
    return [*rows, ("sets", f"{len(sets)} by {by}: {', '.join(named)}{more}")]


def _controls(table: pd.DataFrame) -> list[tuple[str, str]]:
    rows = []
    for kind in (schema.NEGCON, *sorted(set(table[schema.CONTROL_TYPE]) - {schema.NEGCON, ""})):
        chosen = (table[schema.CONTROL_TYPE] == kind).to_numpy()
        if not chosen.any():
            rows.append(("negative controls", "none: name them by control=DMSO or control={column: value}"))
            continue
        title = "negative controls" if kind == schema.NEGCON else kind
        names = table.loc[chosen, schema.PERTURBATION] if schema.PERTURBATION in table else pd.Series([], dtype=object)
        named = ", ".join(_short(name) or "without a name" for name in names.unique()[:3])
        per_plate = pd.Series(chosen).groupby(table[schema.PLATE].to_numpy()).sum() if schema.PLATE in table else None
        spread = "" if per_plate is None else f", {_range(per_plate)} per plate"
        rows.append((title, f"{int(chosen.sum())} wells ({named}{', …' if names.nunique() > 3 else ''}){spread}"))
    return rows


def _doses(treated: pd.DataFrame) -> str:
    doses = pd.to_numeric(treated[schema.DOSE], errors="coerce")
    if not doses.notna().any():
        return "none"
    several = treated[doses.notna()].groupby(schema.PERTURBATION)[schema.DOSE].nunique()
    span = f"{doses.min():g} to {doses.max():g}" if doses.min() < doses.max() else f"{doses.min():g}"
    return f"{span} µM, {_range(several)} per perturbation"


def _range(counts: pd.Series) -> str:
    """'4', or '1 to 16 (median 4)'."""
    if counts.min() == counts.max():
        return f"{counts.min():g}"
    return f"{counts.min():g} to {counts.max():g} (median {counts.median():g})"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines with columns of equal width."""
    if not rows:
        return []
    widths = [min(WIDTH, max(len(row[number]) for row in rows)) for number in range(len(rows[0]) - 1)]
    return ["  " + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
