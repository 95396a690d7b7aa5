"""By which columns a metadata table belongs to profiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.profiling.reading.matching import PERTURBATIONS, PLATES, Matches, doses, match, wells

# Columns that name a perturbation, lower-cased, without the prefix, blanks and punctuation; best first.
IDENTIFIERS = [
    "perturbation",
    "jcp2022",
    "broadsample",
    "perturbationid",
    "treatment",
    "pertid",
    "brd",
    "brdid",
    "compoundbrd",
    "broadid",
    "compoundid",
    "compound",
    "inchikey",
    "compoundinchikey",
    "inchikey14",
    "compoundname",
    "compoundalias",
    "drug",
    "drugname",
    "pertiname",
    "pertname",
    "name",
    "commonname",
]
GENES = ("gene", "genesymbol", "symbol")
_DOSES = ("doseum", "dose", "conc", "concum", "concentration", "concentrationum", "mmolesperliter")


@dataclass(frozen=True)
class Key:
    """What identifies a row: columns of the profiles and of the metadata, in pairs, and what they hold.

    Attributes:
        kind: `plate and well`, `plate`, `well`, `perturbation`, `perturbation and dose`, `gene`, `batch` or `source`.
    """

    kind: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]

    @property
    def rank(self) -> int:
        return KINDS.index(self.kind)


KINDS = ("plate and well", "plate", "well", "perturbation and dose", "perturbation", "gene", "batch", "source")


def bare(column: str) -> str:
    """The name lower-cased, without prefix, blanks and punctuation."""
    short = column.removeprefix("Image_").removeprefix(schema.PREFIX).lower()
    return "".join(character for character in short if character.isalnum())


def on_plates(table: pd.DataFrame, extra: pd.DataFrame) -> pd.DataFrame:
    """The metadata's rows on plates of the profiles; all rows if it has no plates or none of these."""
    if not _in_both(table, extra, schema.PLATE):
        return extra
    found = match(_strings(table[schema.PLATE]).unique(), extra[schema.PLATE].unique(), PLATES)
    kept = {*found.theirs.values(), *(one for candidates in found.unclear.values() for one in candidates)}
    return extra[extra[schema.PLATE].isin(kept)] if kept else extra


def possible_keys(table: pd.DataFrame, extra: pd.DataFrame) -> Iterator[Key]:
    """The keys that both tables have the columns for, most specific first."""
    plate, well = (_in_both(table, extra, column) for column in (schema.PLATE, schema.WELL))
    if plate:
        outer = [c for c in (schema.SOURCE, schema.BATCH) if _in_both(table, extra, c)]
        own = (schema.PLATE, *outer) if _plates_repeat(extra, outer, well) else (schema.PLATE,)
        kind = "plate and well" if well else "plate"
        columns = (*own, schema.WELL) if well else own
        yield Key(kind, columns, columns)
    elif well and not _filled(extra, schema.PLATE):
        yield Key("well", (schema.WELL,), (schema.WELL,))
    pairs = list(_identifier_pairs(table, extra))
    most = max((number for number, _, _ in pairs), default=0)
    # an id that matches nearly as many rows as a name is the better key: a name can be that of a control only
    pairs.sort(key=lambda pair: (pair[0] < 0.9 * most, -pair[0] if pair[0] < 0.9 * most else 0))
    dose = [next((c for c in t if bare(c) in _DOSES or c == schema.DOSE), None) for t in (table, extra)]
    for _, ours, theirs in pairs:
        repeated = extra.loc[extra[theirs] != "", theirs].duplicated().any()
        if repeated and dose[0] is not None and dose[1] is not None:
            yield Key("perturbation and dose", (ours, dose[0]), (theirs, dose[1]))
        yield Key("perturbation", (ours,), (theirs,))
    for ours in (c for c in table if bare(c) in GENES):
        for theirs in (c for c in extra if bare(c) in GENES):
            yield Key("gene", (ours,), (theirs,))
    for kind, column in (("batch", schema.BATCH), ("source", schema.SOURCE)):
        if _in_both(table, extra, column) and not plate and not well:
            yield Key(kind, (column,), (column,))


def located(table: pd.DataFrame, extra: pd.DataFrame, key: Key) -> tuple[np.ndarray, np.ndarray, list[Matches]]:
    """The key of each row in terms of the metadata, '' where it has none.

    Returns:
        (strings (N,) of the profiles' rows, those of the metadata's rows, how the values of each column matched).
    """
    ours: list[pd.Series] = []
    theirs: list[pd.Series] = []
    how: list[Matches] = []
    for one, other in zip(key.ours, key.theirs, strict=True):
        mine, its = _strings(table[one]), _strings(extra[other])
        if one == schema.WELL:
            mine, its = wells(mine), wells(its)
        elif key.kind == "perturbation and dose" and len(ours) == 1:
            mine, its = doses(mine), doses(its)
        else:
            matches = match(mine.unique(), its.unique(), PLATES if one in schema.PLATE_KEY else PERTURBATIONS)
            how.append(matches)
            mine = mine.map(matches.theirs).fillna("")
        ours.append(mine)
        theirs.append(its)
    return _together(ours), _together(theirs), how


def _together(parts: list[pd.Series]) -> np.ndarray:
    blank = np.logical_or.reduce([(part == "").to_numpy() for part in parts])
    whole = parts[0].str.cat(parts[1:], sep="\x1f") if len(parts) > 1 else parts[0]
    return np.where(blank, "", whole.to_numpy(object))


def _identifier_pairs(table: pd.DataFrame, extra: pd.DataFrame) -> Iterator[tuple[int, str, str]]:
    """(rows that match, column of the profiles, column of the metadata) of columns that name perturbations."""
    known = {name: rank for rank, name in enumerate(IDENTIFIERS)}
    for ours in sorted((c for c in table if bare(c) in known), key=lambda c: known[bare(c)]):
        values = _strings(table[ours]).value_counts()
        for theirs in sorted((c for c in extra if bare(c) in known), key=lambda c: known[bare(c)]):
            found = match(values.index, extra[theirs].unique(), PERTURBATIONS).theirs
            if found:
                yield int(values[list(found)].sum()), ours, theirs


def _plates_repeat(extra: pd.DataFrame, outer: list[str], well: bool) -> bool:
    """Whether a plate (and well) is listed for several batches or sources, so that these belong to the key."""
    columns = [schema.PLATE, *([schema.WELL] if well else [])]
    return bool(outer) and bool(extra[[*outer, *columns]].drop_duplicates().duplicated(columns).any())


def _in_both(table: pd.DataFrame, extra: pd.DataFrame, column: str) -> bool:
    return _filled(table, column) and _filled(extra, column)


def _filled(table: pd.DataFrame, column: str) -> bool:
    return column in table and bool((_strings(table[column]) != "").any())


def _strings(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").astype(str)
