"""Design of a score: the role of each well (trained on, scored, query, profiled), per model if a run trained several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morphoclip import chemistry, schema
from morphoclip.data.splits.holdout import TRAIN, holdout, on_unseen_plates
from morphoclip.data.splits.rotation import Rotation
from morphoclip.files import write_atomically

FILE = "held_out.parquet"
FOLD = "Metadata_fold"  # name of the model that made a profile; it is one of the columns that define a set of plates
TRAINED, SCORED, QUERY, PROFILED = (f"Metadata_{role}" for role in ("trained", "scored", "query", "profiled"))
ROLES = (TRAINED, SCORED, QUERY, PROFILED)


@dataclass(frozen=True)
class Design:
    """The roles of wells in a score.

    Attributes:
        wells: plate and well (and source, batch and FOLD if present), and four bool columns. TRAINED: the model was
            trained on the well, and normalisation may be fitted on it. SCORED: the well is a query, positive or negative.
            QUERY: the well is a query of the replicate task, and its perturbation of the other tasks. PROFILED: the well
            enters the consensus profile of its perturbation.
        seen: perturbations seen in training, for the rule on leaks; None if no row is marked.
        prompt_fields: fields of the training prompts, for the same rule.
    """

    wells: pd.DataFrame
    seen: frozenset[str] | None = None
    prompt_fields: tuple[str, ...] = ()
    keys: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", [c for c in (*schema.WELL_KEY, FOLD) if c in self.wells])

    @property
    def folds(self) -> list[str]:
        """Names of the models, in order; empty if there is only one."""
        return list(dict.fromkeys(self.wells[FOLD])) if FOLD in self.wells else []

    def join(self, table: pd.DataFrame) -> pd.DataFrame:
        """`table` with the role columns; wells without a role are left out.

        A table without FOLD (profiles that do not depend on training) is repeated for each model.
        """
        added = [c for c in (FOLD, schema.UNIT, *ROLES) if c in self.wells and c not in table]
        keys = [c for c in self.keys if c in table]
        return table.merge(self.wells[[*keys, *added]], on=keys, how="inner", sort=False)

    def write(self, folder: Path, **about: object) -> Path:
        """Write `folder`/held_out.parquet and a JSON sidecar that also holds `about`."""
        path = folder / FILE
        with write_atomically(path) as partial:
            self.wells.to_parquet(partial, compression="zstd", index=False)
        known = {"prompt_fields": list(self.prompt_fields), "seen": None if self.seen is None else sorted(self.seen)}
        with write_atomically(path.with_name(f"{FILE}.json")) as partial:
            Path(partial).write_text(json.dumps({**known, **about}, indent=2) + "\n")
        return path

    @classmethod
    def read(cls, folder: Path) -> tuple[Design, dict]:
        """(design, content of its sidecar) from a run folder.

        Raises:
            FileNotFoundError: the folder has no design.
        """
        path = folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {FILE}: give the folder of a run that finished training")
        known = json.loads(path.with_name(f"{FILE}.json").read_text())
        seen = None if known["seen"] is None else frozenset(known["seen"])
        return cls(pd.read_parquet(path), seen, tuple(known["prompt_fields"])), known


def holdout_design(table: pd.DataFrame, split: Mapping[str, Any] | None, prompt_fields: Sequence[str]) -> Design:
    """The design of one training: queries are unseen compounds on unseen plates.

    Where plates are held out by name, there may be only one: then positives may be a compound's wells on the plates that
    were trained on, without these wells. Where whole batches are, positives are on unseen plates too.

    Args:
        table: profiles of all wells, annotated.
        split: arguments of `holdout`; None: all wells were trained on, and all are scored.
        prompt_fields: fields of the training prompts.
    """
    if split is None:
        return Design(_wells(table, np.ones(len(table), bool), np.ones(len(table), bool)))
    trained = (holdout(table, **split) == TRAIN).to_numpy()
    # A form of a trained molecule is seen, also where it is on unseen plates only.
    molecule = chemistry.molecules(table)
    met = trained | molecule.isin(set(molecule[trained]) - {""}).to_numpy()
    seen = table.loc[met, schema.PERTURBATION]
    unseen_plate = on_unseen_plates(table, split.get("batches") or (), split.get("plates") or ()).to_numpy()
    compound = (table[schema.MODALITY] == "compound").to_numpy() & ~schema.is_negcon(table)
    unseen = ~(compound & table[schema.PERTURBATION].isin(seen).to_numpy())
    queries = unseen_plate & unseen
    scored = queries
    if split.get("plates"):
        scored = unseen & (~trained | schema.is_negcon(table))
    return Design(_wells(table, trained, scored, queries), frozenset(seen), tuple(prompt_fields))


def rotation_design(wells: pd.DataFrame, units: pd.Series, turns: Mapping[str, Rotation]) -> Design:
    """The design of a rotation: in each turn the queries are the held-out compounds on the held-out plate.

    All wells are scored, as positives or negatives; consensus profiles come from the held-out plate.

    Args:
        wells: annotated wells, in the row order of the turns' masks.
        units: the split unit of each row, which is also the cluster of the intervals.
        turns: name of a model -> its rotation.
    """
    parts = []
    for name, turn in turns.items():
        plate = (wells[schema.PLATE] == turn.plate).to_numpy()
        roles = _wells(wells, turn.training, np.ones(len(wells), bool), turn.queries, plate)
        parts.append(roles.assign(**{FOLD: name, schema.UNIT: units.to_numpy()}))
    return Design(pd.concat(parts, ignore_index=True))


def _wells(
    table: pd.DataFrame,
    trained: np.ndarray,
    scored: np.ndarray,
    queries: np.ndarray | None = None,
    profiled: np.ndarray | None = None,
) -> pd.DataFrame:
    """Key and role columns; by default every scored well is a query and enters its consensus profile."""
    keys = table[[c for c in schema.WELL_KEY if c in table]].reset_index(drop=True)
    queries = scored if queries is None else queries
    return keys.assign(
        **dict(zip(ROLES, (trained, scored, queries, queries if profiled is None else profiled), strict=True))
    )
