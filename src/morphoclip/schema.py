"""Canonical names of metadata columns, their synonyms, and the rules for negative controls and treated wells."""

from __future__ import annotations

import re
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

POSITION_ROWS = 32
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

# Synonyms, as `plain_name` returns them. If a table has several, the first match wins.
SPELLINGS: dict[str, tuple[str, ...]] = {
    SOURCE: ("source",),
    BATCH: ("batch", "batchid", "batchname"),
    # Plate_DAPI, Well_DAPI: BBBC021's image table.
    PLATE: ("plate", "assayplatebarcode", "plateid", "barcode", "platebarcode", "platename", "assayplate", "platedapi"),
    WELL: ("well", "wellposition", "wellid", "wellname", "welllabel", "welldapi"),
    SITE: ("site", "field", "fieldid", "fieldofview", "fov"),
    PERTURBATION: (
        "perturbation", "broadsample", "jcp2022", "perturbationid", "treatment",
        "compound", "compoundid", "pertid", "broadid", "drug", "perturbagen", "reagent",
    ),
    MODALITY: ("modality", "experimenttype", "perturbationtype"),
    PERT_TYPE: ("perttype",),
    CONTROL_TYPE: ("controltype", "welltype", "control"),
    CELL_LINE: ("cellline", "celltype", "celllinename"),
    TIMEPOINT: ("timepointh", "timepoint", "time", "timeh", "timehours", "timepointhours", "hours"),
    # JUMP's plate maps call the dose mmoles_per_liter but hold µM: a known mislabel. See `canonicalize`.
    DOSE: (
        "doseum", "mmolesperliter", "concentrationum", "concum", "dose", "concentration", "conc",
        "dosenm", "concentrationnm", "concnm", "dosemm", "concentrationmm", "concmm",
    ),
    GENE: ("gene", "symbol", "genes", "genesymbol"),
    GUIDE: ("guidesequence", "targetsequence", "sgrna", "guide", "sgrnasequence"),
    TARGETS: ("targetlist", "targets"),
    MOA: ("moa", "moalist", "mechanism", "mechanismofaction"),
    SMILES: ("smiles", "canonicalsmiles", "isomericsmiles"),
    INCHIKEY: ("inchikey",),
    NAME: ("pertiname", "name", "pertname", "compoundname", "drugname"),
    CELL_COUNT: ("cellcount", "countcells", "numberofcells", "cellscount", "ncells", "numcells"),
}  # fmt: skip


def plain_name(column: str) -> str:
    """A column's name in lower case without prefix, unit in brackets, blanks and punctuation: 'cellline' of 'Cell-Line'."""
    bare = re.sub(r"(?i)^(Image_)?Metadata_", "", column.strip())
    bare = re.sub(
        r"(?<=\S)\s*[\[(](?!(s|sec|min|ms)[\])])[^\])]*[\])]$", "", bare
    )  # a time in seconds is not one in hours
    return re.sub(r"[^a-z0-9]", "", bare.lower().replace("µ", "u").replace("μ", "u"))


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
    bare = {plain_name(column): column for column in reversed(columns)}
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
    mislabelled = [old for old, new in renames.items() if new == DOSE and plain_name(old) == "mmolesperliter"]
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
    """(row, column), both from 0, of a well name such as 'B07', 'b7', 'B - 7', 'AA12' or Opera's 'r02c07'.

    Raises:
        ValueError: it is no row of letters followed by a column number, or lies beyond AF48, the last of 1536 wells.
    """
    name = re.fullmatch(r"\s*([A-Za-z]{1,2})\s*[-_:, ]?\s*0*(\d{1,3})\s*", well)
    numbers = re.fullmatch(r"\s*[rR](\d{1,2})[cC](\d{1,2})(?:[fF]\d+)?\s*", well)
    if name is None and numbers is None:
        raise ValueError(f"well {well!r} is not a letter row followed by a column number, e.g. B07")
    if numbers is not None:
        row, column = int(numbers[1]), int(numbers[2])
    else:
        assert name is not None
        row, column = 0, int(name[2])
        for letter in name[1].upper():
            row = row * 26 + ord(letter) - ord("A") + 1
    if not (1 <= row <= POSITION_ROWS and 1 <= column <= POSITION_COLUMNS):
        raise ValueError(f"well {well!r} does not exist: rows end at AF and columns run from 1 to {POSITION_COLUMNS}")
    return row - 1, column - 1


def well_name(row: int, column: int) -> str:
    """'B07' of row 1, column 6 (both from 0); rows past Z continue as AA, AB, …"""
    letters = chr(ord("A") + row) if row < 26 else "A" + chr(ord("A") + row - 26)
    return f"{letters}{column + 1:02d}"
