"""Outcomes of assays of compounds: read from a folder or a table, and matched to the molecules of the profiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import chemistry, schema
from morphoclip.evaluation.measures.side_tables import column_named, read_text_table

MATRIX = "label-matrix.mtx"
_COMPOUND_SPELLINGS = {
    schema.PERTURBATION: ("perturbation", "broad_sample", "jcp2022", "compound_id", "compound", "id"),
    schema.NAME: ("pert_iname", "name", "compound_name", "pert_name"),
    schema.INCHIKEY: ("inchikey", "inchi_key"),
    schema.SMILES: ("smiles", "canonical_smiles"),
}
_ASSAY = ("assay", "assay_id", "assay_name", "assay_chembl_id")
_ACTIVE = ("active", "activity", "label", "outcome", "is_active", "value")
_OUTCOMES = {
    "1": 1.0,
    "active": 1.0,
    "true": 1.0,
    "yes": 1.0,
    "0": 0.0,
    "-1": 0.0,
    "inactive": 0.0,
    "false": 0.0,
    "no": 0.0,
}


_NO_ID = "assayed "  # begins the id of a compound whose table gives none


@dataclass(frozen=True)
class Assays:
    """Measured outcomes of compounds.

    Attributes:
        compounds: one row per compound: Metadata_perturbation, and name, InChIKey and SMILES where known.
        names: of the assays, distinct.
        outcomes: columns `row` of `compounds`, `assay` (index of `names`), `active` (1 or 0).
    """

    compounds: pd.DataFrame
    names: list[str]
    outcomes: pd.DataFrame


def read_assays(path: str | Path) -> Assays:
    """Assays in one of three layouts.

    A folder as Hofmarcher et al. 2019 published it: `label-matrix.mtx` (compounds × assays; 1 active, -1 or 0 inactive,
    absent not measured), `row-compound-index.csv`, `column-assay-index.csv`, and perhaps `compound_smiles.csv`, each
    compressed or not. A long table: a row per compound and assay, with the columns assay and active. A wide table: a row
    per compound, and a column per assay of 1, 0 or blank. Compounds are known by an InChIKey, SMILES, a name or an id.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the layout is none of these, or a value is not an outcome.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    table = read_text_table(path, "assays")
    compounds = _compounds(table, f"assays={path}")
    assay, active = column_named(table, _ASSAY), column_named(table, _ACTIVE)
    if assay is not None and active is not None:
        return _from_long(compounds, table[assay].str.strip(), table[active], f"assays={path}, column {active}")
    taken = {c for name in _COMPOUND_SPELLINGS.values() for c in [column_named(table, name)] if c is not None}
    names = [c for c in table.columns if c not in taken and not c.startswith(schema.PREFIX)]
    if not names:
        raise ValueError(
            f"assays={path} has the columns {list(table.columns)[:8]}: give a row per compound and assay with the columns "
            "assay and active, or a column per assay"
        )
    values = np.stack([_outcomes(table[name], f"assays={path}, column {name}") for name in names], axis=1)
    rows, columns = np.nonzero(np.isfinite(values))
    outcomes = pd.DataFrame({"row": rows, "assay": columns, "active": values[rows, columns]})
    return Assays(compounds, names, outcomes)


def match(assays: Assays, profiles: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The outcomes of the molecules of `profiles`.

    A molecule is what `chemistry.molecules` says over both tables; an id stands for a name where there is none. Where a molecule was measured several times in an
    assay, the majority counts, and a tie is left out.

    Args:
        profiles: (N, ...) Metadata_perturbation, and name, InChIKey and SMILES where known.

    Returns:
        molecule, assay (index of `assays.names`), active, a row per molecule with a profile and assay; and the molecule
        of each row of `profiles`, (N,).
    """
    identity = [schema.PERTURBATION, *chemistry.IDENTITY]
    both = pd.concat(
        [table.reindex(columns=identity) for table in (profiles, assays.compounds)], keys=["profiles", "assays"]
    )
    both = both.astype(object).where(both.notna(), "")
    given = both[schema.PERTURBATION].where(~both[schema.PERTURBATION].astype(str).str.startswith(_NO_ID), "")
    both[schema.NAME] = both[schema.NAME].where(both[schema.NAME] != "", given)
    unit = chemistry.molecules(both)
    own, measured = unit.loc["profiles"].to_numpy(), unit.loc["assays"].to_numpy()
    found = assays.outcomes.assign(molecule=measured[assays.outcomes["row"]])
    found = found[found["molecule"].isin(set(own) - {""})]
    share = found.groupby(["molecule", "assay"], sort=True)["active"].mean().reset_index()
    share = share[share["active"] != 0.5]
    return share.assign(active=(share["active"] > 0.5).astype(float)), own


def _read_folder(folder: Path) -> Assays:
    from scipy.io import mmread

    matrix = _in_folder(folder, MATRIX)
    labels = mmread(matrix).tocoo()
    compounds = read_text_table(_in_folder(folder, "row-compound-index.csv"), "assays")
    names = read_text_table(_in_folder(folder, "column-assay-index.csv"), "assays")
    smiles = _compressed_or_not(folder, "compound_smiles.csv")
    if smiles is not None:
        structures = read_text_table(smiles, "assays")
        key = column_named(structures, _COMPOUND_SPELLINGS[schema.INCHIKEY])
        text, own = column_named(structures, ("smiles",)), column_named(compounds, ("inchikey",))
        if None not in (key, text, own):
            compounds["smiles"] = (
                compounds[own].map(dict(zip(structures[key], structures[text], strict=True))).fillna("")
            )
    assay = names.iloc[:, -1].str.strip()
    repeat = assay.groupby(assay).cumcount()
    named = [f"{name}.{i + 1}" if i else name for name, i in zip(assay, repeat, strict=True)]
    if labels.shape != (len(compounds), len(named)):
        raise ValueError(
            f"{matrix} is {labels.shape[0]} × {labels.shape[1]}, but the indices beside it list {len(compounds)} compounds "
            f"and {len(named)} assays"
        )
    outcomes = pd.DataFrame({"row": labels.row, "assay": labels.col, "active": (labels.data > 0).astype(float)})
    return Assays(_compounds(compounds, f"assays={folder}"), named, outcomes)


def _in_folder(folder: Path, name: str) -> Path:
    found = _compressed_or_not(folder, name)
    if found is None:
        raise FileNotFoundError(f"assays={folder} has no {name}: see docs/evaluation.md for the layouts that are read")
    return found


def _compressed_or_not(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _compounds(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """The identity of each row's compound; an id that the table lacks is made of what it has."""
    found = {canonical: column_named(table, names) for canonical, names in _COMPOUND_SPELLINGS.items()}
    known = pd.DataFrame({canonical: table[c].str.strip() for canonical, c in found.items() if c is not None})
    if known.empty or not len(known.columns):
        raise ValueError(
            f"{where} has the columns {list(table.columns)[:8]}: give compounds by a column inchikey, smiles, name or "
            "perturbation"
        )
    if schema.PERTURBATION not in known:
        first = next(c for c in (schema.INCHIKEY, schema.NAME, schema.SMILES) if c in known)
        known[schema.PERTURBATION] = _NO_ID + known[first]
    return known


def _from_long(compounds: pd.DataFrame, assay: pd.Series, active: pd.Series, where: str) -> Assays:
    values = _outcomes(active, where)
    code, names = pd.factorize(assay, sort=True)
    measured = np.isfinite(values) & (assay != "").to_numpy()
    outcomes = pd.DataFrame({"row": np.arange(len(code)), "assay": code, "active": values})[measured]
    return Assays(compounds, [str(name) for name in names], outcomes)


def _outcomes(column: pd.Series, where: str) -> np.ndarray:
    """1, 0 or NaN (blank); ValueError names a value that is none of these."""
    text = column.str.strip().str.lower().str.replace(r"\.0+$", "", regex=True)
    values = text.map(_OUTCOMES)
    wrong = values.isna() & ~text.isin(["", "nan", "na"])
    if wrong.any():
        raise ValueError(
            f"{where}: {int(wrong.sum())} values are no outcomes, the first is {column[wrong].iloc[0]!r}: give 1, 0 or "
            "blank (-1, active, inactive, true and false are read too)"
        )
    return values.to_numpy(float)
