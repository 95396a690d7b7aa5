"""Hold out a fraction of each gene's compounds on all plates, and whole plates or batches of them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from morphoclip import chemistry, schema
from morphoclip.data.splits.draws import uniform

TRAIN = "train"
HELDOUT = "heldout"


def holdout(
    fields: pd.DataFrame,
    *,
    batches: Collection[str] = (),
    plates: Collection[str] = (),
    fraction: float = 0.5,
    stratify: str = schema.GENE,
    modality: str = "compound",
    seed: int = 0,
) -> pd.Series:
    """'train' or 'heldout' for each row of `fields`, on its index.

    Forms of one molecule (`chemistry.molecules`) stay on one side, so that no held-out structure is seen in training. Molecules
    are chosen by a hash of (seed, id), whatever the order of rows; if a gene has an odd number of molecules, a hash of
    the gene rounds up or down.

    Args:
        fields: annotated table, one row per field or well.
        batches, plates: values of `Metadata_Batch` and `Metadata_Plate` to hold out entirely.
        fraction: fraction of each group's molecules to hold out.
        stratify: column that defines the groups.
        modality: modality of the held-out perturbations; controls and other modalities stay in training.
        seed: seed of the hash.

    Raises:
        ValueError: a batch or plate to hold out is not in `fields`, or there is nothing to hold out.
    """
    unseen = on_unseen_plates(fields, batches, plates)
    treated = fields[(fields[schema.MODALITY] == modality).to_numpy() & schema.is_treated(fields)]
    if treated.empty:
        raise ValueError(f"no treated {modality!r} fields to hold out: are the fields annotated (--metadata)?")
    columns = [schema.PERTURBATION, *chemistry.IDENTITY, stratify]
    present = [column for column in dict.fromkeys(columns) if column in treated]
    perturbations = treated[present].drop_duplicates(schema.PERTURBATION).fillna("").astype(str)
    perturbations["unit"] = chemistry.molecules(perturbations)
    units = perturbations.sort_values(schema.PERTURBATION).drop_duplicates("unit")

    held: set[str] = set()
    for group, members in units.groupby(stratify)["unit"]:
        number = int(len(members) * fraction + uniform(seed, stratify, group))
        held |= set(sorted(members, key=lambda unit: (uniform(seed, unit), unit))[:number])
    perturbations = perturbations[perturbations["unit"].isin(held)]
    out = unseen | (
        (fields[schema.MODALITY] == modality) & fields[schema.PERTURBATION].isin(perturbations[schema.PERTURBATION])
    )
    return pd.Series(np.where(out, HELDOUT, TRAIN), index=fields.index, name="split")


def on_unseen_plates(fields: pd.DataFrame, batches: Collection[str] = (), plates: Collection[str] = ()) -> pd.Series:
    """bool per row: on a plate, or in a batch, that is held out entirely.

    Raises:
        ValueError: there is no such plate or batch.
    """
    out = pd.Series(False, index=fields.index)
    for what, column, asked in (("batches", schema.BATCH, batches), ("plates", schema.PLATE, plates)):
        names = {str(name) for name in asked}  # YAML reads some ids as numbers
        if not names:
            continue
        known = set(fields[column]) if column in fields else set()
        if absent := sorted(names - known):
            raise ValueError(
                f"held-out {what} {absent} are not in the fields; there are {sorted(known)} (quote an id that looks like a "
                "number)"
            )
        out |= fields[column].isin(names)
    return out
