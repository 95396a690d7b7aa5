"""JUMP's tables (cpg0016): modality of its plate types, and its controls by id."""

from __future__ import annotations

import pandas as pd

from morphoclip import schema

PLATE_TYPE = "Metadata_PlateType"
_MODALITIES = {"orf": "orf", "crispr": "crispr"}  # other types of plates hold compounds
UNKNOWN = "JCP2022_UNKNOWN"
# perturbation_control.csv of the JUMP Cell Painting datasets repository: id -> (control type, name).
CONTROLS = {
    "JCP2022_999999": (schema.EMPTY, ""),
    "JCP2022_033924": (schema.NEGCON, "DMSO"),
    "JCP2022_037716": ("poscon", "AMG900"),
    "JCP2022_025848": ("poscon", "dexamethasone"),
    "JCP2022_046054": ("poscon", "FK-866"),
    "JCP2022_035095": ("poscon", "LY2109761"),
    "JCP2022_064022": ("poscon", "NVS-PAK1-1"),
    "JCP2022_050797": ("poscon", "quinidine"),
    "JCP2022_012818": ("poscon", "TC-S-7004"),
    "JCP2022_085227": ("poscon", "aloxistatin"),
    "JCP2022_800001": (schema.NEGCON, "no-guide"),
    "JCP2022_800002": (schema.NEGCON, "non-targeting"),
    "JCP2022_805264": ("poscon", "PLK1"),
    "JCP2022_915128": (schema.NEGCON, "BFP"),
    "JCP2022_915129": (schema.NEGCON, "HcRed"),
    "JCP2022_915130": (schema.NEGCON, "LUCIFERASE"),
    "JCP2022_915131": (schema.NEGCON, "LacZ"),
    "JCP2022_915132": ("poscon", "eGFP"),
    UNKNOWN: (schema.EMPTY, ""),
}


def with_modality_and_controls(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Fill blanks of modality, control type and name from JUMP's plate types, control ids and `Metadata_pert_type`."""
    table = table.copy(deep=False)
    for column in (schema.MODALITY, schema.CONTROL_TYPE, schema.NAME):
        if column not in table and (PLATE_TYPE in table or _has_controls(table)):
            table[column] = ""
    if PLATE_TYPE in table:
        kind = table[PLATE_TYPE].str.lower()
        modality = kind.map(_MODALITIES).fillna("compound").where(kind != "", "")
        table[schema.MODALITY] = table[schema.MODALITY].where(table[schema.MODALITY] != "", modality)
    if _has_controls(table):
        for place, column in enumerate((schema.CONTROL_TYPE, schema.NAME)):
            known = table[schema.PERTURBATION].map({code: facts[place] for code, facts in CONTROLS.items()}).fillna("")
            table[column] = table[column].where(table[column] != "", known)
        unknown = int((table[schema.PERTURBATION] == UNKNOWN).sum())
        if unknown:
            notes.append(f"{unknown} wells hold a compound that JUMP does not know ({UNKNOWN}): read as empty")
    if schema.PERT_TYPE in table and schema.PERTURBATION in table:
        said = table[schema.PERT_TYPE].str.lower()
        kinds = said.where(said.isin([schema.NEGCON, schema.EMPTY]) | said.str.startswith("poscon"), "")
        if (kinds != "").any():
            own = table[schema.CONTROL_TYPE] if schema.CONTROL_TYPE in table else pd.Series("", index=table.index)
            table[schema.CONTROL_TYPE] = own.where(own != "", kinds)
    return table


def _has_controls(table: pd.DataFrame) -> bool:
    return schema.PERTURBATION in table and bool(table[schema.PERTURBATION].isin(CONTROLS).any())
