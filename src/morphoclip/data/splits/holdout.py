"""Which rows of a dataset a run may see: held-out sets by a stable hash, and their files (DESIGN §3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from morphoclip import schema

if TYPE_CHECKING:
    pass

TRAIN = "train"
HELDOUT = "heldout"


def holdout(
    fields: pd.DataFrame,
    *,
    batches: Collection[str],
    fraction: float = 0.5,
    stratify: str = schema.GENE,
    modality: str = "compound",
    seed: int = 0,
) -> pd.Series:
    """Hold out a share of each gene's compounds everywhere, and all fields of whole batches.

    Compounds that share a name or the first block of the InChIKey (stereoisomers, salts bought twice) stay on one
    side, so that no held-out structure is seen in training. Which ones are held out follows from a hash of (seed, id)
    and not from the order of the rows; where a gene's count is odd, the hash of the gene rounds up or down.

    Args:
        fields: a row a field.
        batches: `Metadata_Batch` values held out whole; may be empty.
        fraction: share of the compounds of each group to hold out.
        stratify: column whose values are the groups.
        modality: which perturbations are held out; controls and other modalities stay in training.
        seed: another seed, another choice.

    Returns:
        'train' or 'heldout' a row, on the index of `fields`.

    Raises:
        ValueError: a held-out batch is not there, or there is nothing to hold out.
    """
    absent = sorted(set(batches) - set(fields[schema.BATCH]))
    if absent:
        raise ValueError(
            f"held-out batches {absent} are not in the fields; there are {sorted(set(fields[schema.BATCH]))}"
        )
    treated = fields[
        (fields[schema.MODALITY] == modality)
        & ~fields[schema.CONTROL_TYPE].isin([schema.NEGCON, schema.EMPTY])
        & (fields[schema.PERTURBATION] != "")
    ]
    if treated.empty:
        raise ValueError(f"no treated {modality!r} fields to hold out: are the fields annotated (--metadata)?")
    columns = [schema.PERTURBATION, schema.INCHIKEY, schema.NAME, stratify]
    perturbations = treated[list(dict.fromkeys(columns))].drop_duplicates(schema.PERTURBATION).astype(str)
    perturbations["unit"] = linked_units(perturbations)
    units = perturbations.sort_values(schema.PERTURBATION).drop_duplicates("unit")

    held: set[str] = set()
    for group, members in units.groupby(stratify)["unit"]:
        number = int(len(members) * fraction + uniform(seed, stratify, group))
        held |= set(sorted(members, key=lambda unit: (uniform(seed, unit), unit))[:number])
    perturbations = perturbations[perturbations["unit"].isin(held)]
    out = fields[schema.BATCH].isin(list(batches)) | (
        (fields[schema.MODALITY] == modality) & fields[schema.PERTURBATION].isin(perturbations[schema.PERTURBATION])
    )
    return pd.Series(np.where(out, HELDOUT, TRAIN), index=fields.index, name="split")


def linked_units(perturbations: pd.DataFrame) -> pd.Series:
    """The smallest id among all perturbations linked to each by a shared name or structure skeleton."""
    unit = perturbations[schema.PERTURBATION]
    links = [perturbations[schema.INCHIKEY].str[:14], perturbations[schema.NAME].str.lower()]
    while True:
        before = unit
        for link in links:
            # a blank links nothing: such a row is its own group
            unit = unit.groupby(link.where(link != "", perturbations[schema.PERTURBATION])).transform("min")
        if unit.equals(before):
            return unit


def uniform(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone: not on the machine, the run or Python's hash seed."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
