"""Which numeric columns are features: bookkeeping, object positions and plain metadata are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.profiling.reading.columns import KNOWN_METADATA, LEFT_OUT, METADATA, Column, nearest
from morphoclip.profiling.reading.numbers import COMPARTMENTS, NUMBERED, feature_like, judged, stems

BOOKKEEPING = re.compile(
    r"(Unnamed: \d+(\.\d+)?|index|level_\d+|__index_level_\d+__|rownames|row_names)"  # a saved index
    r"|((Image|Cells|Cytoplasm|Nuclei)_)?(Image|Object|Table)Number"
    r"|(Image_)?(Count|ExecutionTime|ModuleError|FileName|PathName|URL|MD5Digest|Frame|Height|Width|Scaling|Series|Group)_.+"
    r"|(Image_)?ProcessingStatus"
)
POSITION = re.compile(
    r".*(Location_|Parent_|Children_|Number_Object_Number|ObjectNumber|AreaShape_Center|AreaShape_BoundingBox).*"
)
SHOWN = 8
FAMILY = 8  # from this size on, a numbered family of columns is taken for an encoder's


class UndecidedFeatures(ValueError):
    """Features of CellProfiler or of an encoder stand beside other numeric columns, and `features` does not say which count."""


def sorted_out(
    table: pd.DataFrame, wanted: set[str], where: str, notes: list[str]
) -> tuple[pd.DataFrame, list[Column]]:
    """The table with text and plain metadata named Metadata_*, without bookkeeping; the other columns hold numbers.

    Args:
        wanted: columns that the user names as features, which stay.

    Returns:
        The table, and what was left out or taken for metadata.

    Raises:
        ValueError: text among the numbers of a column.
    """
    bare = [c for c in table if not c.startswith(schema.PREFIX)]
    left = {c: "bookkeeping" for c in bare if c not in wanted and BOOKKEEPING.fullmatch(c)}
    plain = {
        c: "plain metadata by its name" for c in bare if c not in wanted and schema.plain_name(c) in KNOWN_METADATA
    }
    table, texts = judged(table, [c for c in bare if c not in left and c not in plain], where)
    plain |= {c: "text" for c in texts if c not in wanted}
    bools = [c for c in bare if c not in plain and c not in left and pd.api.types.is_bool_dtype(table[c].dtype)]
    plain |= {c: "true or false" for c in bools if c not in wanted}
    families = stems(bare)
    unjudged = [c for c in bare if not (c in plain or c in left or c in wanted or feature_like(c, families))]
    left |= {c: "bookkeeping" for c in unjudged if _counts_up(table[c])}
    left |= {c: "without any value" for c in unjudged if table[c].isna().all()}
    names = {c: f"{schema.PREFIX}{c}" for c in plain}
    twice = [c for c, ours in names.items() if ours in table]
    left |= {c: f"the table has {names[c]} too" for c in twice}
    names = {c: ours for c, ours in names.items() if c not in twice}
    if bookkeeping := [c for c, why in left.items() if why == "bookkeeping"]:
        notes.append(f"{where}: columns {_list(bookkeeping)} are bookkeeping, not features, and are left out")
    if blank := [c for c, why in left.items() if why == "without any value"]:
        notes.append(f"{where}: columns {_list(blank)} hold no value and are left out")
    numeric = [c for c in names if plain[c] != "text" and pd.to_numeric(table[c], errors="coerce").notna().any()]
    if numeric:
        notes.append(f"{where}: columns {_list(numeric)} are metadata, not features")
    plan = [Column(c, LEFT_OUT, why=why) for c, why in left.items()]
    plan += [Column(c, METADATA, ours, plain[c]) for c, ours in names.items()]
    return table.drop(columns=list(left)).rename(columns=names), plan


def chosen_features(
    table: pd.DataFrame, features: str | Sequence[str] | None, where: str, notes: list[str]
) -> tuple[list[str], list[Column]]:
    """(names of the features, what each other numeric column was left out for) of a table that `sorted_out` returned.

    Object positions are left out, except where they were standardised on each plate, as in published profiles after
    feature selection: scores of these are reproduced only with them.

    Args:
        features: names or patterns (Cells_*), or a file with a name per line; None: all that are no positions.

    Raises:
        ValueError: no feature, or a name that the table lacks.
        UndecidedFeatures: features of CellProfiler or an encoder beside other numbers, and `features` is None.
    """
    numeric = [c for c in table if not c.startswith(schema.PREFIX)]
    if features is not None:
        return _asked_for(table, numeric, asked_features(features), where, notes)
    positions = [c for c in numeric if POSITION.fullmatch(c)]
    kept = [c for c in positions if standardised(table, c)]
    out = [c for c in positions if c not in kept]
    if kept:
        notes.append(f"{where}: object positions {_list(kept)} are standardised like the other features and stay")
    if out:
        notes.append(f"{where}: columns {_list(out)} are object positions and links, not features, and are left out")
    names = [c for c in numeric if c not in out]
    if not names:
        raise ValueError(
            f"{where} has no feature columns: {_list(list(table))} are metadata"
            + (f", {_list(out)} object positions" if out else "")
        )
    _refuse_mixture(names, where)
    notes += _constant(table, names, where)
    return names, [Column(c, LEFT_OUT, why="object position or link") for c in out]


def asked_features(features: str | Sequence[str]) -> list[str]:
    """Names and patterns that the user gives: a list, text separated by commas, or a file with a name per line."""
    if not isinstance(features, str):
        return [name for part in features for name in asked_features(str(part))]
    path = Path(features)
    if path.suffix and path.is_file():
        lines = [line.split(",")[0].split("\t")[0].strip().strip('"') for line in path.read_text().splitlines()]
        names = [line for line in lines if line and not line.startswith("#")]
        return names[1:] if names and schema.plain_name(names[0]) in ("feature", "features", "name", "names") else names
    return [name.strip() for name in features.split(",") if name.strip()]


def standardised(table: pd.DataFrame, name: str) -> bool:
    """Whether a column has median 0 on every plate, over all of its wells or over its negative controls."""
    values = table[name]
    if schema.PLATE not in table or not ((values < 0).any() and (values > 0).any()):
        return False
    close = 1e-6 * float(values.std())
    controls = schema.is_negcon(table) if schema.CONTROL_TYPE in table else np.zeros(len(table), bool)
    for rows in (np.ones(len(table), bool), controls):
        medians = values[rows].groupby(table.loc[rows, schema.PLATE].to_numpy()).median()
        if len(medians) == table[schema.PLATE].nunique() and (medians.dropna().abs() <= close).all():
            return True
    return False


def _asked_for(
    table: pd.DataFrame, numeric: list[str], asked: list[str], where: str, notes: list[str]
) -> tuple[list[str], list[Column]]:
    exact = {name for name in asked if name in numeric}
    patterns = [name for name in asked if name not in exact and re.search(r"[*?\[]", name)]
    absent = [name for name in asked if name not in exact and name not in patterns]
    if absent:
        metadata = [n for n in absent if n in table or f"{schema.PREFIX}{n}" in table]
        why = (
            f"{metadata[0]!r} holds metadata"
            if metadata
            else f"nearest: {', '.join(nearest(absent[0], numeric)) or 'none'}"
        )
        raise ValueError(
            f"features=: {where} lacks {len(absent)} of the {len(asked)} names asked for, e.g. {absent[0]!r}; {why}"
        )
    bare = [p for p in patterns if not any(fnmatchcase(name, p) for name in numeric)]
    if bare:
        raise ValueError(f"features=: no numeric column of {where} matches {bare[0]!r}; it has {_list(numeric)}")
    matched = [c for c in numeric if c in exact or any(fnmatchcase(c, p) for p in patterns)]
    out = [c for c in matched if c not in exact and POSITION.fullmatch(c) and not standardised(table, c)]
    names = [c for c in matched if c not in out]
    if out:
        notes.append(f"{where}: columns {_list(out)} are object positions and links, and left out unless named in full")
    notes.append(f"{where}: {len(names)} of {len(numeric)} numeric columns are features, by features=")
    notes += _constant(table, names, where)
    plan = [Column(c, LEFT_OUT, why="object position or link") for c in out]
    return names, plan + [Column(c, LEFT_OUT, why="not in features=") for c in numeric if c not in matched]


def _constant(table: pd.DataFrame, names: list[str], where: str) -> list[str]:
    """A note on features with one value only, which stay."""
    constant = [name for name in names if table[name].min() == table[name].max()]
    return [f"{where}: {len(constant)} features are constant, e.g. {_list(constant, 2)}"] if constant else []


def _refuse_mixture(names: list[str], where: str) -> None:
    """Raise UndecidedFeatures where features of CellProfiler, or a family of an encoder, stand beside other numeric columns."""
    of_cellprofiler = [name for name in names if COMPARTMENTS.match(name)]
    families = stems([name for name in names if name not in of_cellprofiler])
    sizes = pd.Series(list(families.values()), dtype=object).value_counts()
    of_family = [name for name, stem in families.items() if sizes[stem] >= FAMILY]
    prefixed = {*of_cellprofiler, *of_family}
    bare = [name for name in names if name not in prefixed]
    if not prefixed or not bare:
        return
    starts = {name.split("_")[0] for name in of_cellprofiler}
    patterns = [f"{start}_*" for start in sorted(starts)]
    patterns += sorted({f"{match[0][: match.start(2)]}*" for n in of_family if (match := NUMBERED.fullmatch(n))})
    raise UndecidedFeatures(
        f"{where} has {len(prefixed)} features such as {next(n for n in names if n in prefixed)} and {len(bare)} other "
        f"numeric columns: {_list(bare, 20)}. Say which are features: features=[{','.join(patterns)}] leaves the others out "
        f"(columns.{schema.PREFIX}{bare[0]}={bare[0]!r} keeps one as metadata), features=[*] takes all"
    )


def _counts_up(column: pd.Series) -> bool:
    """Whether a column numbers the rows: whole numbers, each one more than the one before."""
    values = column.to_numpy()
    return len(values) >= FAMILY and values.dtype.kind in "iu" and bool((np.diff(values) == 1).all())


def _list(names: list[str], shown: int = SHOWN) -> str:
    return f"{names[:shown]}" + (f" and {len(names) - shown} more" if len(names) > shown else "")
