"""Canonical names of metadata columns, their synonyms, and the rules for negative controls and treated wells."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

PREFIX = "Metadata_"

SOURCE = "Metadata_Source"
BATCH = "Metadata_Batch"
PLATE = "Metadata_Plate"
WELL = "Metadata_Well"
SITE = "Metadata_Site"
PERTURBATION = "Metadata_perturbation"
MODALITY = "Metadata_modality"
PERT_TYPE = "Metadata_pert_type"
CONTROL_TYPE = "Metadata_control_type"
CELL_LINE = "Metadata_cell_line"
TIMEPOINT = "Metadata_timepoint_h"
DOSE = "Metadata_dose_um"
GENE = "Metadata_gene"
GUIDE = "Metadata_guide_sequence"
TARGETS = "Metadata_target_list"
MOA = "Metadata_moa"
SMILES = "Metadata_smiles"
INCHIKEY = "Metadata_InChIKey"
NAME = "Metadata_pert_iname"
CELL_COUNT = "Metadata_cell_count"
UNIT = "Metadata_unit"  # split unit (`data.splits.units`); rows of one unit are one cluster of the intervals

PLATE_KEY = (SOURCE, BATCH, PLATE)
WELL_KEY = (*PLATE_KEY, WELL)
# A condition is one perturbation at one dose, in one cell line, at one timepoint.
CONDITION = (PERTURBATION, MODALITY, CELL_LINE, TIMEPOINT, DOSE)

POSITION_COLUMNS = 48  # a well position is row · 48 + column (those of a 1536-well plate), on every plate format

NEGCON = "negcon"
EMPTY = "empty"
MODALITIES = ("compound", "crispr", "orf")
# Prompt fields that contain the answer to tasks on targets and mechanisms; lower-cased, without the prefix.
TELLING = frozenset(
    [
        "gene",
        "genes",
        "symbol",
        "gene_synonyms",
        "gene_name",
        "gene_group",
        "families",
        "family",
        "target",
        "targets",
        "target_list",
        "moa",
        "moa_list",
        "mechanism",
        "name",
        "pert_iname",
        "pathway",
        "pathways",
        "function",
        "protein_function",
        "description",
        "indication",
        "disease_area",
    ]
)
MILLIMOLAR = 0.3  # a largest dose of 0.3 mM is usual for a screen, one of 0.3 µM is not
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")

# Synonyms, lower-cased and without the prefix. If a table has several, the first match wins.
SPELLINGS: dict[str, tuple[str, ...]] = {
    SOURCE: ("source",),
    BATCH: ("batch", "batch_id"),
    PLATE: ("plate", "assay_plate_barcode", "plate_id", "barcode"),
    WELL: ("well", "well_position", "well_id"),
    SITE: ("site", "field", "fieldid", "field_id"),
    PERTURBATION: ("perturbation", "broad_sample", "jcp2022", "perturbation_id", "treatment"),
    MODALITY: ("modality", "experiment_type"),
    PERT_TYPE: ("pert_type",),
    CONTROL_TYPE: ("control_type",),
    CELL_LINE: ("cell_line", "cell_type"),
    TIMEPOINT: ("timepoint_h", "timepoint", "time"),
    # JUMP's plate maps call the dose mmoles_per_liter but hold µM: a known mislabel. See `canonicalize`.
    DOSE: ("dose_um", "mmoles_per_liter", "concentration_um"),
    GENE: ("gene", "symbol", "genes"),
    GUIDE: ("guide_sequence", "target_sequence", "sgrna"),
    TARGETS: ("target_list",),
    MOA: ("moa", "moa_list"),
    SMILES: ("smiles",),
    INCHIKEY: ("inchikey",),
    NAME: ("pert_iname", "name", "pert_name"),
    CELL_COUNT: ("cell_count", "count_cells", "number_of_cells"),
}


def is_negcon(table: pd.DataFrame) -> np.ndarray:
    """bool (N,): rows of negative controls. A missing control type counts as no control."""
    return (table[CONTROL_TYPE] == NEGCON).to_numpy(bool, na_value=False)


def is_treated(table: pd.DataFrame) -> np.ndarray:
    """bool (N,): rows with a perturbation that are not negative controls; positive controls count as treated.

    A row with a missing perturbation is not treated.
    """
    untreated = table[CONTROL_TYPE].isin([NEGCON, EMPTY]) | (table[PERTURBATION].fillna("") == "")
    return ~untreated.to_numpy(bool)


def canonical_columns(columns: list[str]) -> dict[str, str]:
    """Column of `columns` -> canonical name, for those to rename; canonical names already present are kept."""
    bare = {column.removeprefix(PREFIX).lower(): column for column in reversed(columns)}
    renames: dict[str, str] = {}
    for canonical, spellings in SPELLINGS.items():
        if canonical in columns:
            continue
        match = next((bare[s] for s in spellings if s in bare and bare[s] not in renames), None)
        if match is not None:
            renames[match] = canonical
    return renames


def canonicalize(table: pd.DataFrame) -> pd.DataFrame:
    """The table with synonyms renamed to canonical names; other columns are unchanged.

    `mmoles_per_liter` becomes the dose in µM unchanged, because JUMP's plate maps hold µM under this name; values that
    look like millimolar (none above `MILLIMOLAR`) are kept with a warning.
    """
    renames = canonical_columns(list(table.columns))
    mislabelled = [old for old, new in renames.items() if new == DOSE and old.lower().endswith("mmoles_per_liter")]
    for column in mislabelled:
        doses = pd.to_numeric(table[column], errors="coerce")
        if (doses > 0).any() and doses.max() < MILLIMOLAR:
            warnings.warn(
                f"{column} is read as µM, as in JUMP's plate maps, but its largest value is {doses.max():g}: if the values "
                f"are millimolar, multiply them by 1,000 and name the column {DOSE}",
                stacklevel=2,
            )
    return table.rename(columns=renames)


def split_columns(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """(metadata columns, numeric feature columns) of a profile table.

    Raises:
        ValueError: a column without the `Metadata_` prefix is not numeric.
    """
    metadata = [c for c in table.columns if c.startswith(PREFIX)]
    kinds = {c: dtype for c, dtype in table.dtypes.items() if not c.startswith(PREFIX)}
    features = list(kinds)
    text = [c for c, dtype in kinds.items() if not pd.api.types.is_numeric_dtype(dtype)]
    if text:
        raise ValueError(
            f"columns {text[:5]} are neither numeric nor named Metadata_*: rename them to Metadata_<name> or drop them"
        )
    return metadata, features


def well_position(well: str) -> tuple[int, int]:
    """(row, column), both from 0, of a well name such as 'B07' or 'AA12'.

    Raises:
        ValueError: the name is not letters followed by a number.
    """
    letters = well.rstrip("0123456789")
    digits = well[len(letters) :]
    if not letters.isalpha() or not letters.isascii() or not digits:
        raise ValueError(f"well {well!r} is not a letter row followed by a column number, e.g. B07")
    row = 0
    for letter in letters.upper():
        row = row * 26 + ord(letter) - ord("A") + 1
    return row - 1, int(digits) - 1


def well_name(row: int, column: int) -> str:
    """'B07' of row 1, column 6 (both from 0); rows past Z continue as AA, AB, …"""
    letters = chr(ord("A") + row) if row < 26 else "A" + chr(ord("A") + row - 26)
    return f"{letters}{column + 1:02d}"
