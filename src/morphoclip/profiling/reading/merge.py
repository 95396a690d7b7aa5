"""One metadata table + its key ▶ profiles with its columns, and notes on what matched and what differs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.profiling.reading.keys import IDENTIFIERS, Key, bare
from morphoclip.profiling.reading.matching import Matches

_CONTROL = "\x1fnegcon"  # key of the one row, without an id, that describes the negative controls


def merge(
    table: pd.DataFrame,
    extra: pd.DataFrame,
    key: Key,
    ours: np.ndarray,
    theirs: np.ndarray,
    how: list[Matches],
    name: str,
    notes: list[str],
) -> pd.DataFrame:
    """The profiles with the columns of a metadata table; their own values stay, and blanks are filled.

    A row without an id that is a negative control describes the wells without a perturbation.

    Args:
        ours, theirs, how: the keys of the rows and how they matched (`keys.located`).
        name: of the file, for notes and errors.

    Raises:
        ValueError: two rows of one key differ, a key could be several others, or two plates would be one.
    """
    _refuse_unclear(extra, key, how, name)
    ours, theirs = _with_controls(table, extra, key, ours, theirs)
    spelled = extra.attrs.get("spelled", {})
    inexact = any(matches.inexact for matches in how)  # then the metadata's spelling of the key is kept as well
    if key.kind not in ("plate and well", "plate", "well") and schema.PERTURBATION in table:  # another id of the same
        other = spelled.get(schema.PERTURBATION, schema.PERTURBATION)
        matched = f"{schema.PREFIX}matched_{other.removeprefix(schema.PREFIX)}"
        extra = extra.rename(columns={schema.PERTURBATION: matched if schema.PERTURBATION in key.theirs else other})
    new = [c for c in extra if c not in key.theirs and (inexact or not c.startswith(f"{schema.PREFIX}matched_"))]
    wanted = pd.Series(theirs).isin(set(ours) - {""}).to_numpy()
    rows = extra.loc[wanted, new].assign(_key=theirs[wanted])
    plain = rows.drop_duplicates()
    _refuse_differing(plain, key, name)
    row_of = pd.Series(np.arange(len(plain)), index=plain["_key"].to_numpy()).to_dict()
    at = np.array([row_of.get(one, -1) for one in ours])
    met = at >= 0
    changed: dict[str, np.ndarray] = {}
    differing: list[str] = []
    for column in new:
        values = plain[column].to_numpy(object)
        values = np.where(met, values[at], "") if len(values) else np.full(len(table), "")
        if column not in table:
            if (values != "").any():
                changed[column] = values
            continue
        own = _strings(table[column])
        apart = met & (own != "") & (values != "") & (own != values) & (_numbers(own) != _numbers(values))
        if apart.any():
            first = int(np.flatnonzero(apart)[0])
            differing.append(
                f"{column.removeprefix(schema.PREFIX)} in {_rows(int(apart.sum()))} ({own[first]!r}, not {values[first]!r})"
            )
        filled = np.where(own == "", values, own)
        if (filled != own).any():
            changed[column] = filled
    controls = met & (ours == _CONTROL)
    if controls.any():
        called = _strings(plain[schema.NAME]) if schema.NAME in plain else np.full(len(plain), "")
        given = called[row_of[_CONTROL]] or "DMSO"
        changed[schema.PERTURBATION] = np.where(controls, given, _strings(table[schema.PERTURBATION]))
    said = [_joined_by(key, met, changed, table), *_missing(table, key, met)]
    if controls.any():
        said.append(f"{_rows(int(controls.sum()))} without an id: its negative control {given}")
    for matches in how:
        for form, pairs in matches.inexact.items():
            said.append(f"{len(pairs)} matched {form}, e.g. {pairs[0][0]!r} to {pairs[0][1]!r}")
    if len(rows) > len(plain):
        said.append(f"rows that repeat another and are left out: {len(rows) - len(plain)}")
    if differing:
        said.append(f"the profiles keep their own {', '.join(differing)}")
    notes.append(f"{name}: {'; '.join(said)}")
    kept = table.assign(**{c: values for c, values in changed.items() if c in table})
    added = {c: values for c, values in changed.items() if c not in table}
    return pd.concat([kept, pd.DataFrame(added, index=table.index)], axis=1)


def _joined_by(key: Key, met: np.ndarray, changed: dict[str, np.ndarray], table: pd.DataFrame) -> str:
    added = [c.removeprefix(schema.PREFIX) for c in changed]
    said = f"{len(added)} columns ({', '.join(added[:4])}{', …' if len(added) > 4 else ''})" if added else "nothing new"
    through = [f"{b}" if a == b else f"{a} = its {b}" for a, b in zip(key.ours, key.theirs, strict=True)]
    return (
        f"joined by {key.kind} ({', '.join(through).replace(schema.PREFIX, '')}), {int(met.sum())} of "
        f"{len(table)} rows, {said}"
    )


def _missing(table: pd.DataFrame, key: Key, met: np.ndarray) -> list[str]:
    """On rows that have the key but no match, and on those that have no key."""
    values = table[list(key.ours)].astype(object).where(table[list(key.ours)].notna(), "").astype(str)
    blank = (values == "").any(axis=1).to_numpy() & ~met
    without = values[~met & ~blank]
    said = []
    if len(without):
        distinct = without.drop_duplicates()
        examples = ", ".join(" ".join(row) for row in distinct.head(2).itertuples(index=False, name=None))
        said.append(f"no match for {_rows(len(without))} ({len(distinct)} of {key.kind}), e.g. {examples}")
    if blank.any():
        said.append(f"{_rows(int(blank.sum()))} without {key.kind}")
    return said


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def _with_controls(
    table: pd.DataFrame, extra: pd.DataFrame, key: Key, ours: np.ndarray, theirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The keys, with `_CONTROL` where a row without an id describes the negative controls, and for their wells."""
    if key.kind != "perturbation" or schema.CONTROL_TYPE not in extra or schema.PERTURBATION not in table:
        return ours, theirs
    describes = (theirs == "") & (extra[schema.CONTROL_TYPE] == schema.NEGCON).to_numpy()
    if describes.sum() != 1:
        return ours, theirs
    wells = _strings(table[schema.PERTURBATION]) == ""
    if schema.CONTROL_TYPE in table:
        kind = _strings(table[schema.CONTROL_TYPE])
        wells &= (kind == schema.NEGCON) if (kind == schema.NEGCON).any() else (kind == "")
    return np.where(wells, _CONTROL, ours), np.where(describes, _CONTROL, theirs)


def _refuse_differing(rows: pd.DataFrame, key: Key, name: str) -> None:
    twice = rows[rows["_key"].duplicated(keep=False)]
    if twice.empty:
        return
    first, second = twice[twice["_key"] == twice["_key"].iloc[0]].iloc[[0, 1]].drop(columns="_key").to_dict("records")
    column = next(c for c in first if first[c] != second[c])
    raise ValueError(
        f"{name} lists {key.kind} {twice['_key'].iloc[0].replace(chr(31), ' ')!r} twice with different "
        f"{column.removeprefix(schema.PREFIX)} ({first[column]!r} and {second[column]!r}); {twice['_key'].nunique()} keys "
        f"repeat: keep one row for each {key.kind}, and join lists by '|'"
    )


def _refuse_unclear(extra: pd.DataFrame, key: Key, how: list[Matches], name: str) -> None:
    """Refuse a value that could be several of the table's unless these are annotated alike, and two plates that would be one."""
    column = key.theirs[0]
    known = [c for c in extra if bare(c) not in IDENTIFIERS and c != column]
    for matches in how:
        for one, candidates in matches.unclear.items():
            rows = extra[extra[column].isin(candidates)]
            apart = [c for c in known if rows[c].nunique() > 1]
            if apart or key.ours[0] in schema.PLATE_KEY:
                why = f", which differ in {apart[0].removeprefix(schema.PREFIX)}" if apart else ""
                raise ValueError(
                    f"{name}: {one!r} of the profiles could be {candidates[0]!r} or {candidates[1]!r} there{why}: write one "
                    "as the other, or keep one row"
                )
        if key.ours[0] in schema.PLATE_KEY:
            of: dict[str, str] = {}
            for one, other in matches.theirs.items():
                if other in of:
                    raise ValueError(
                        f"{name}: {of[other]!r} and {one!r} of the profiles would both be {other!r} there: write them alike "
                        "in both"
                    )
                of[other] = one


def _numbers(values: np.ndarray) -> np.ndarray:
    return pd.to_numeric(pd.Series(values), errors="coerce").to_numpy()


def _strings(column: pd.Series) -> np.ndarray:
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)
