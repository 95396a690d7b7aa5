"""Bags that show inactive perturbations less often, as MolPhenix does (Fradkin et al. 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import Bags

P_VALUE = "p_value"


class ActiveBags(Bags):
    """`Bags` that show a share of the inactive perturbations per round, all others every round (Fradkin et al. 2024).

    Args:
        p_values: table with Metadata_perturbation and p_value, e.g. the replicate.csv written by evaluate.py. Of several
            rows of a perturbation the smallest p counts; a perturbation without a row is active.
        threshold: perturbations with a larger p are inactive.
        share: fraction of the inactive ones shown per round, drawn anew each round.
        steps_per_epoch, options: as in `Bags`.

    Raises:
        ValueError: the table lacks a column, none of its perturbations is in the split, or too few are left for a batch.
    """

    def __init__(
        self,
        mixture: Mixture,
        global_batch: int,
        seed: int,
        *,
        p_values: str | Path,
        threshold: float = 0.05,
        share: float = 0.2,
        steps_per_epoch: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(mixture, global_batch, seed, steps_per_epoch=steps_per_epoch, **options)
        table = pd.read_csv(p_values)
        if absent := {schema.PERTURBATION, P_VALUE} - set(table):
            raise ValueError(f"{p_values} has no {sorted(absent)}: give the replicate.csv of evaluate.py")
        smallest = table.groupby(table[schema.PERTURBATION].astype(str))[P_VALUE].min()
        present = mixture.codes.perturbation >= 0
        names = mixture.fields[schema.PERTURBATION].astype(str)[present]
        p = pd.Series(names.map(smallest).to_numpy(), mixture.codes.perturbation[present]).groupby(level=0).first()
        if p.loc[self._treated].isna().all():
            raise ValueError(f"no perturbation of the split is in {p_values}: is the table of this screen?")
        inactive = p.loc[self._treated].to_numpy() > threshold  # NaN compares as False: active
        self._active, self._inactive = self._treated[~inactive], self._treated[inactive]
        self._kept = round(share * len(self._inactive))
        treated_bags, left = global_batch - self._control_bags, len(self._active) + self._kept
        if left < treated_bags:
            raise ValueError(
                f"{left} of {len(self._treated)} perturbations per round are left, a batch needs {treated_bags}: raise share or "
                "threshold, or lower global_batch_size"
            )
        rounds = self.steps / self._round_steps
        self._round_steps = left // treated_bags
        self.steps = steps_per_epoch or max(1, round(rounds)) * self._round_steps

    def order(self, epoch: int, round_: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch, round_, 0])
        return rng.permutation(np.concatenate([self._active, rng.permutation(self._inactive)[: self._kept]]))
