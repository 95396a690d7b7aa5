"""Values of known columns in one spelling: blanks, modality, control type, time, dose, targets, structures."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd

from morphoclip import schema

_WHOLE = re.compile(r"(-?\d+)\.0+")
_STRIPPED = (
    schema.SOURCE, schema.BATCH, schema.PLATE, schema.WELL, schema.PERTURBATION, schema.MODALITY, schema.CONTROL_TYPE,
    schema.CELL_LINE,
)  # fmt: skip
MODALITY_SPELLINGS = {
    "compound": {"compound", "compounds", "cpd", "cpds", "drug", "drugs", "chemical", "smallmolecule", "smallmolecules", "trtcp"},
    "crispr": {"crispr", "crisprs", "crisprko", "crisprcas9", "cas9", "knockout", "ko", "sgrna", "guide", "guides", "trtxpr", "crispri", "crispra"},
    "orf": {"orf", "orfs", "overexpression", "cdna", "oe", "trtoe"},
}  # fmt: skip
CONTROL_SPELLINGS = {
    schema.NEGCON: {
        "negcon", "negcons", "negative", "negativecontrol", "negcontrol", "negctrl", "negativecontrols", "neg", "nc", "dmso",
        "vehicle", "solvent", "untreated", "mock", "ctlvehicle", "ctluntrt", "ctlvector", "control", "ctrl", "true", "yes", "1",
        "nontargeting", "negativectrl", "vehiclecontrol", "solventcontrol",
    },
    "poscon": {"poscon", "positive", "positivecontrol", "poscontrol", "posctrl", "pos", "pc", "positivecontrols", "ctlposcon"},
    schema.EMPTY: {"empty", "blank", "emptywell", "nocells"},
    "": {"", "trt", "treated", "treatment", "compound", "test", "sample", "trtcp", "false", "no", "0", "na", "none", "library"},
}  # fmt: skip


def as_text(column: pd.Series) -> pd.Series:
    """The column as strings, blank if missing; '24.0' becomes '24', since the two depend on the writer only."""
    text = column.astype(object).where(column.notna(), "").astype(str)
    return text.map({value: _WHOLE.sub(r"\1", value) if _WHOLE.fullmatch(value) else value for value in text.unique()})


def canonical_values(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The table with known values of modality, control type, time, dose, targets and structures in one spelling each.

    Every change, and every modality and control type that is not known, is a note with counts and an example.
    """
    changes: dict[str, pd.Series] = {}
    for column, rewrite in _REWRITES.items():
        if column not in table:
            continue
        old = table[column].fillna("").astype(str)
        new = old.map({value: rewrite(value) for value in old.unique()})
        changed = (old != new) & (new != "")
        if column in (schema.TARGETS, schema.SMILES, schema.TIMEPOINT, schema.DOSE) or changed.any():
            if changed.any():
                notes.append(_changed(column, old[changed], new[changed]))
            changes[column] = new if (old != new).any() else table[column]
    table = table.assign(**changes) if changes else table
    _note_unknown(table, notes)
    return table


def without_blanks(table: pd.DataFrame, where: str, notes: list[str]) -> pd.DataFrame:
    """The table without blanks around the values of identifying columns, each with a note."""
    changes = {}
    for column in _STRIPPED:
        if column in table:
            stripped = table[column].map({value: str(value).strip() for value in table[column].unique()})
            changed = stripped != table[column]
            if changed.any():
                example = table.loc[changed, column].iloc[0]
                notes.append(
                    f"{where}: blanks around {int(changed.sum())} values of {column} are removed, e.g. {example!r}"
                )
                changes[column] = stripped
    return table.assign(**changes) if changes else table


def _changed(column: str, old: pd.Series, new: pd.Series) -> str:
    pairs = pd.DataFrame({"old": old, "new": new}).value_counts(sort=True)
    shown = ", ".join(f"{a!r} as {b!r} ({count} rows)" for (a, b), count in list(pairs.items())[:3])
    more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
    return f"{column}: {shown}{more}"


def _modality(value: str) -> str:
    plain = schema.plain_name(value)
    return next((ours for ours, spellings in MODALITY_SPELLINGS.items() if plain in spellings), value)


def _control_type(value: str) -> str:
    if value in (schema.NEGCON, schema.EMPTY, "") or value.startswith("poscon"):
        return value
    plain = schema.plain_name(value)
    return next((ours for ours, spellings in CONTROL_SPELLINGS.items() if plain in spellings), value)


def _timepoint(value: str) -> str:
    hours = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*(?:h|hr|hrs|hour|hours)\.?\s*", value, re.IGNORECASE)
    return _WHOLE.sub(r"\1", hours[1].replace(",", ".")) if hours else value


def _dose(value: str) -> str:
    micromolar = re.fullmatch(r"\s*([\d.,]+(?:[eE][+-]?\d+)?)\s*(?:u|µ|μ)M?\s*", value)
    number = micromolar[1] if micromolar else value
    return _WHOLE.sub(r"\1", number.replace(",", ".")) if re.fullmatch(r"\d+,\d+", number) else number


def _targets(value: str) -> str:
    """Targets separated by `|`, from those separated by semicolons or commas."""
    if "|" in value or not re.search("[;,]", value):
        return value
    return "|".join(part.strip() for part in re.split("[;,]", value) if part.strip())


def _smiles(value: str) -> str:
    """The structure without a CXSMILES suffix such as ' |r|'."""
    return re.sub(r"\s+\|[^|]*\|\s*$", "", value)


_REWRITES: dict[str, Callable[[str], str]] = {
    schema.MODALITY: _modality,
    schema.CONTROL_TYPE: _control_type,
    schema.TIMEPOINT: _timepoint,
    schema.DOSE: _dose,
    schema.TARGETS: _targets,
    schema.SMILES: _smiles,
}


def _note_unknown(table: pd.DataFrame, notes: list[str]) -> None:
    """Notes on modalities and control types that no task knows."""
    if schema.MODALITY in table:
        values = table[schema.MODALITY].fillna("")
        unknown = values[~values.isin(["", *schema.MODALITIES])].value_counts()
        if len(unknown):
            notes.append(
                f"{schema.MODALITY}: {_shown(unknown)} is none of {', '.join(schema.MODALITIES)}, so tasks of targets and "
                "genes do not score such wells"
            )
    if schema.CONTROL_TYPE in table:
        values = table[schema.CONTROL_TYPE].fillna("")
        known = values.isin(["", schema.NEGCON, schema.EMPTY]) | values.str.startswith("poscon")
        unknown = values[~known].value_counts()
        if len(unknown):
            notes.append(
                f"{schema.CONTROL_TYPE}: {_shown(unknown)} is no known kind of control and such wells count as treated; "
                f"control={{control_type: {unknown.index[0]}}} makes them negative controls"
            )


def _shown(counts: pd.Series) -> str:
    return ", ".join(f"{value!r} ({count} rows)" for value, count in list(counts.items())[:3])


def in_micromolar(doses: pd.Series, theirs: str, where: str, notes: list[str]) -> pd.Series:
    """Doses in µM, from a column whose name ends in nM or mM; of other names unchanged, with a note if it may be no µM."""
    unit = re.search(r"(?:^|[\[(_ .-])(nM|mM|nm|mm|NM|MM)[\])]?$", theirs.strip())
    if unit is None:
        if not re.search(r"(?i)(u|µ|μ)m[\])]?$|mmoles_per_liter|dose_um", theirs):
            notes.append(f"{where}: {theirs!r} is taken to be in µM, which its name does not say")
        return doses
    factor = 1e-3 if unit[1].lower() == "nm" else 1e3
    numbers = pd.to_numeric(doses, errors="coerce")
    notes.append(f"{where}: {theirs!r} is read as {unit[1]} and divided by {1 / factor:g} to give µM")
    return doses.mask(numbers.notna(), numbers.map(lambda dose: f"{dose * factor:.10g}"))
