"""Which column of a table is which of ours: a mapping that the user gives, then known spellings."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from morphoclip import schema

ROW, COLUMN = "Metadata_Row", "Metadata_Column"  # a well position in two columns
POSITION_SPELLINGS = {
    ROW: ("row", "wellrow", "rowid", "platerow", "imagerow"),
    COLUMN: ("column", "col", "wellcolumn", "wellcol", "columnid", "platecolumn", "imagecolumn"),
}
# Plain metadata by `schema.plain_name`, besides what has a canonical name; those of a Harmony export among them.
KNOWN_METADATA = {
    *(spelling for known in (*schema.SPELLINGS.values(), *POSITION_SPELLINGS.values()) for spelling in known),
    "absolutepositionx", "absolutepositiony", "boundingbox", "cellid", "cellnumber", "cid", "compoundnumber", "date",
    "height", "measurement", "numberofanalyzedfields", "numberoffields", "numberofobjects", "objectid", "objectno",
    "plane", "platenumber", "platemap", "platemapname", "positionx", "positiony", "positionz", "pubchemcid", "replicate",
    "rep", "sequence", "timems", "timemin", "timepointnumber", "times", "timesec", "timestamp", "wellindex", "wellnumber", "x", "y", "z",
}  # fmt: skip
SHORT = (
    "source", "batch", "plate", "well", "row", "column", "site", "perturbation", "modality", "pert_type", "control_type",
    "cell_line", "time", "dose", "gene", "guide", "targets", "moa", "smiles", "inchikey", "name", "cell_count",
)  # fmt: skip
FEATURE, METADATA, LEFT_OUT = "feature", "metadata", "left out"


@dataclass(frozen=True)
class Column:
    """What a column of the user's table was taken for: its role, our name for it if it is metadata, and why."""

    theirs: str
    role: str
    ours: str = ""
    why: str = ""


def short_names() -> dict[str, str]:
    """Name that `columns` takes -> canonical column: 'perturbation', 'dose', 'moa', … and other spellings of each."""
    known = {spelling: ours for ours, spellings in schema.SPELLINGS.items() for spelling in spellings}
    known |= {schema.plain_name(ours): ours for ours in schema.SPELLINGS}
    return known | {spelling: ours for ours, spellings in POSITION_SPELLINGS.items() for spelling in spellings}


def canonical_mapping(columns: Mapping[str, str]) -> dict[str, str]:
    """{canonical column: the user's column} of a mapping with short names or names that start with Metadata_.

    Raises:
        ValueError: a short name that does not exist, with the nearest ones.
    """
    known, mapping = short_names(), {}
    for name, theirs in columns.items():
        ours = known.get(schema.plain_name(str(name)))
        if ours is None and str(name).startswith(schema.PREFIX):
            ours = str(name)
        if ours is None:
            raise ValueError(
                f"columns.{name}: there is no column of ours of that name; nearest: "
                f"{', '.join(nearest(str(name), SHORT) or SHORT)}; any other column of yours can be kept under a name that "
                f"starts with {schema.PREFIX}"
            )
        if theirs is not None:
            mapping[ours] = str(theirs)
    return mapping


def nearest(asked: str, known: Iterable[str], count: int = 4) -> list[str]:
    """The known names that resemble the one asked for most, regardless of case and punctuation."""
    by_plain: dict[str, str] = {}
    for name in known:
        by_plain.setdefault(schema.plain_name(name), name)
    found = difflib.get_close_matches(schema.plain_name(asked), list(by_plain), n=count, cutoff=0.5)
    inside = [plain for plain in by_plain if schema.plain_name(asked) in plain and plain not in found]
    return [by_plain[plain] for plain in [*found, *inside][:count]]


def found_column(theirs: str, names: Iterable[str]) -> str | None:
    """The name of a table that the user's name means, with or without the prefix `Metadata_`; None if there is none."""
    names = list(names)
    spelled = (theirs, theirs.strip(), f"{schema.PREFIX}{theirs}", f"Image_{schema.PREFIX}{theirs}", f"Image_{theirs}")
    return next((name for name in spelled if name in names), None)


def refuse_absent(mapping: Mapping[str, str], names: Iterable[str], where: str) -> None:
    """Raise ValueError for the first mapped name that is not among `names`, with the nearest ones."""
    names = list(names)
    for ours, theirs in mapping.items():
        if found_column(theirs, names) is None:
            close = nearest(theirs, names)
            shown = f"nearest: {', '.join(close)}" if close else f"it has {', '.join(names[:12])}"
            raise ValueError(
                f"columns.{ours.removeprefix(schema.PREFIX)}={theirs}: {where} has no column {theirs!r}; {shown}"
            )


def with_names(
    frame: pd.DataFrame, mapping: Mapping[str, str], where: str, notes: list[str]
) -> tuple[pd.DataFrame, list[Column]]:
    """The frame with our names for metadata, and what each of its columns was taken for so far (features are not judged).

    Columns mapped by the user come first, then the prefixes of CellProfiler (Image_Metadata_Plate), then known spellings.
    What has neither is unchanged.

    Args:
        mapping: canonical column -> the user's; those that the frame lacks are passed over.
    """
    lower = {c: schema.PREFIX + c[len(schema.PREFIX) :] for c in frame if c.lower().startswith(schema.PREFIX.lower())}
    frame = frame.rename(columns={c: name for c, name in lower.items() if name not in frame})
    given = {ours: found for ours, theirs in mapping.items() if (found := found_column(theirs, frame.columns))}
    taken = set(given.values())
    mapped = {ours: frame[theirs] for ours, theirs in given.items()}
    rest = frame.drop(columns=list(taken))
    short = {c: c.removeprefix("Image_") for c in rest if c.startswith((f"Image_{schema.PREFIX}", "Image_Count_"))}
    short = {old: new for old, new in short.items() if new not in frame and new not in mapped}
    rest = rest.rename(columns=short)
    twice = [c for c in rest if c in mapped]
    if twice:
        notes.append(f"{where}: {_pairs(twice, given)} by columns=; the table's own column of that name is left out")
    rest = rest.drop(columns=twice)
    renames = schema.canonical_columns([*mapped, *rest.columns])
    renames = {old: new for old, new in renames.items() if old in rest and new not in mapped}
    lost = {old: new for old, new in schema.canonical_columns(list(rest.columns)).items() if new in mapped}
    if lost:
        pairs = _pairs(sorted(set(lost.values())), given)
        notes.append(f"{where}: {pairs} by columns=, so {list(lost)} is kept as metadata of another name")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schema.canonicalize(rest)  # its doubt about millimolar doses
    notes += [f"{where}: {warning.message}" for warning in caught]
    if not any(schema.plain_name(c) in schema.SPELLINGS[schema.WELL] for c in [*mapped, *frame.columns]):
        renames |= _positions([c for c in rest if c not in renames], mapped)
    named = pd.concat([pd.DataFrame(mapped, index=frame.index), rest.rename(columns=renames)], axis=1)
    back = {new: old for old, new in short.items()}
    plan = [Column(theirs, METADATA, ours, "columns=") for ours, theirs in given.items()]
    plan += [Column(c, LEFT_OUT, why=f"columns.{c.removeprefix(schema.PREFIX)}= names another") for c in twice]
    for column in rest.columns:
        if column in renames or column.startswith(schema.PREFIX):
            plan.append(Column(back.get(column, column), METADATA, renames.get(column, column)))
    return named, plan


def _positions(names: list[str], mapped: Mapping[str, object]) -> dict[str, str]:
    """The columns of row and column numbers -> ROW and COLUMN, where both exist."""
    bare = {schema.plain_name(name): name for name in reversed(names)}
    found = {
        ours: next((bare[s] for s in spellings if s in bare), None)
        for ours, spellings in POSITION_SPELLINGS.items()
        if ours not in mapped
    }
    return {} if None in found.values() else {str(theirs): ours for ours, theirs in found.items()}


def _pairs(ours: list[str], given: Mapping[str, str]) -> str:
    return ", ".join(f"{name.removeprefix(schema.PREFIX)} is {given[name]!r}" for name in ours if name in given)
