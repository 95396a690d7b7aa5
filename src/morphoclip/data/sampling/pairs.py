"""Pairs of wells of one perturbation, for CWA-MSN."""

from __future__ import annotations

import numpy as np

from morphoclip import schema
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import WHOLE, part_of
from morphoclip.schema import POSITION_COLUMNS

# Scope of the second well: it has the same condition and the same values of these columns.
SCOPES: dict[str, tuple[str, ...]] = {
    "same": schema.WELL_KEY,
    "plate": schema.PLATE_KEY,
    "batch": (schema.SOURCE, schema.BATCH),
    "source": (schema.SOURCE,),
    "any": (),
}
# Scopes where these columns must differ: wells of one plate share more than the phenotype, and the model would learn it.
ELSEWHERE: dict[str, tuple[str, ...]] = {"other_plate": SCOPES["plate"], "other_batch": SCOPES["batch"]}


class Pairs:
    """Two crops of one condition from two different wells, (G, 2) rows per step.

    An epoch shows every crop of a treated well once as the first of a pair; a remainder too small for a batch is left
    out, a different one each epoch. Negative controls get `controls_per_batch` pairs per batch, fewer than their many
    wells would. The second crop comes from another well of the same condition (perturbation × dose × cell line × time)
    within the scope; if there is none, from the same well, and another crop of it if possible. Empty wells (without a
    perturbation) are left out.

    Args:
        mixture: source of the crops.
        global_batch: pairs per step, all ranks together.
        seed: seed of all random draws.
        pair_scope: where the second well is taken from: the same `plate`, `batch` or `source`, `any` of them, or another
            plate (`other_plate`) or batch (`other_batch`) if the condition has wells there, else any; `same` gives the
            same crop twice, which is plain MSN.
        different_position: prefer a second well in another row and another column, else at another well position. If
            replicates always shared their position, the model could learn the position.
        same_share: share of the pairs that are one crop twice, as in plain MSN, whatever the scope. They give a signal
            where crops of two wells agree too little to learn from.
        controls_per_batch: pairs of negative controls per batch, all ranks together.
        steps_per_epoch: default: as many as show every treated crop once.

    Raises:
        ValueError: an unknown scope, a share outside [0, 1], or fewer treated crops than a batch needs.
    """

    def __init__(
        self,
        mixture: Mixture,
        global_batch: int,
        seed: int,
        *,
        pair_scope: str = "any",
        different_position: bool = True,
        same_share: float = 0.0,
        controls_per_batch: int = 1,
        steps_per_epoch: int | None = None,
    ) -> None:
        if pair_scope not in SCOPES | ELSEWHERE:
            raise ValueError(f"pair_scope={pair_scope!r}: use one of {', '.join(SCOPES | ELSEWHERE)}")
        if not 0 <= same_share <= 1:
            raise ValueError(f"same_share={same_share} must be between 0 and 1: it is a share of the pairs")
        self.seed, self.different_position = seed, different_position
        self.same_share = 1.0 if pair_scope == "same" else same_share
        fields, is_control = mixture.all_fields(), mixture.codes.is_control
        self._treated = np.flatnonzero((mixture.named & ~is_control)[fields])
        self._controls = np.flatnonzero((mixture.named & is_control)[fields])
        self._control_pairs = min(controls_per_batch, len(self._controls))
        self._treated_pairs = global_batch - self._control_pairs
        full = len(self._treated) // self._treated_pairs if self._treated_pairs > 0 else 0
        if full == 0:
            raise ValueError(
                f"a batch of {global_batch} pairs (all ranks) needs {max(1, self._treated_pairs)} treated crops beside "
                f"{self._control_pairs} controls, the split has {len(self._treated)}: set global_batch_size between "
                f"{self._control_pairs + 1} and {len(self._treated) + self._control_pairs}"
            )
        self.steps, self._epoch_steps = steps_per_epoch or full, full
        self._wells = _Wells(mixture, fields, SCOPES.get(pair_scope, ()), ELSEWHERE.get(pair_scope, ()))
        self._order: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty(0, np.int64))

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        round_, place = divmod(step, self._epoch_steps)
        order = self._order
        if order[0] != (epoch, round_):
            self._order = order = (
                (epoch, round_),
                np.random.default_rng([self.seed, epoch, round_, 0]).permutation(self._treated),
            )
        rng = np.random.default_rng([self.seed, epoch, step, 1])
        treated = order[1][place * self._treated_pairs : (place + 1) * self._treated_pairs]
        controls = rng.choice(self._controls, self._control_pairs, replace=False)
        first = rng.permutation(np.concatenate([treated, controls]))
        second = first.copy()
        across = round((1 - self.same_share) * len(first))
        apart = np.diff(np.arange(len(first) + 1) * across // len(first)) > 0  # evenly over the ranks
        own = part_of(len(first), part)
        for pair in np.flatnonzero(apart[own]) + own.start:
            rng = np.random.default_rng([self.seed, epoch, step, 2, int(pair)])
            second[pair] = self._wells.partner(first[pair], self.different_position, rng)
        return np.stack([first[own], second[own]], axis=1)


class _Wells:
    """The wells of a mixture sorted by (condition, scope), so that possible partners of a well are a contiguous run.

    A partner must differ in the columns `elsewhere`. All follows from sorted values, so the order of fields and datasets
    does not matter.
    """

    def __init__(
        self, mixture: Mixture, fields: np.ndarray, scope: tuple[str, ...], elsewhere: tuple[str, ...]
    ) -> None:
        codes, present = mixture.codes, mixture.present
        chosen = mixture.fields.iloc[present]

        def ranks(columns: tuple[str, ...]) -> np.ndarray:  # per field
            place = np.zeros(len(mixture.fields), np.int64)
            if columns:
                place[present] = chosen.groupby(list(columns), sort=True).ngroup().to_numpy(np.int64)
            return place

        keys = np.stack([codes.condition, ranks(scope), codes.well])  # per field
        wells, of_field = np.unique(keys[:, present], axis=1, return_inverse=True)
        self.position = np.zeros(wells.shape[1], np.int64)
        self.position[of_field] = codes.position[present]
        self.place = np.zeros(wells.shape[1], np.int64)
        self.place[of_field] = ranks(elsewhere)[present]
        self.begin, self.end = _runs(wells[:2])
        well_of_field = np.full(len(mixture.fields), -1)
        well_of_field[present] = of_field
        self.of_row = well_of_field[fields].astype(np.int32)
        self.rows = np.argsort(self.of_row, kind="stable")
        self.starts = np.searchsorted(self.of_row[self.rows], np.arange(wells.shape[1] + 1))

    def partner(self, row: int, different_position: bool, rng: np.random.Generator) -> int:
        """A row of another well with the same condition and scope, or of the same well if there is no other."""
        own = self.of_row[row]
        others = np.delete(np.arange(self.begin[own], self.end[own]), own - self.begin[own])
        if len(others) == 0:
            crops = self.rows[self.starts[own] : self.starts[own + 1]]
            rest = crops[crops != row]
            return rng.choice(rest) if len(rest) else row
        if (away := self.place[others] != self.place[own]).any():
            others = others[away]
        if different_position:
            others = self._farther(others, own)
        well = rng.choice(others)
        return self.rows[rng.integers(self.starts[well], self.starts[well + 1])]

    def _farther(self, others: np.ndarray, own: int) -> np.ndarray:
        """Wells in another row and column; if none, those at another position; if none, all."""
        apart = [
            part != own_part
            for part, own_part in zip(
                divmod(self.position[others], POSITION_COLUMNS),
                divmod(self.position[own], POSITION_COLUMNS),
                strict=True,
            )
        ]
        for wanted in (apart[0] & apart[1], apart[0] | apart[1]):
            if wanted.any():
                return others[wanted]
        return others


def _runs(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For sorted columns `keys` (k, n): begin and end of the run of equal columns that each belongs to."""
    first = np.append(np.flatnonzero(np.any(np.diff(keys, prepend=-1), axis=0)), keys.shape[1])
    lengths = np.diff(first)
    return np.repeat(first[:-1], lengths), np.repeat(first[1:], lengths)
