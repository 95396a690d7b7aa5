"""Batches with equally many crops of every perturbation, or of every class of a column."""

from __future__ import annotations

import numpy as np

from morphoclip import schema
from morphoclip.data.sampling.groups import Groups
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import WHOLE, part_of


class Wells:
    """Batches of crops with at most k wells per perturbation and one crop per well: (G,) rows per step.

    For losses that compare replicates within a batch. An epoch is one or more rounds. In each round every perturbation,
    negative controls included, is shown once with k of its wells (all if it has fewer), on as many plates as possible;
    a remainder too small for a batch is left out, a different one each round. Empty wells (without a perturbation) are
    left out.

    Args:
        mixture: source of the crops.
        global_batch: crops per step, all ranks together.
        seed: seed of all random draws.
        wells_per_perturbation: k.
        steps_per_epoch: default: whole rounds that show about as many crops as there are.

    Raises:
        ValueError: one round is smaller than a batch.
    """

    def __init__(
        self,
        mixture: Mixture,
        global_batch: int,
        seed: int,
        *,
        wells_per_perturbation: int = 2,
        steps_per_epoch: int | None = None,
    ) -> None:
        self.global_batch, self.seed = global_batch, seed
        codes = mixture.codes
        keys = np.stack([codes.perturbation, codes.plate, codes.well])
        groups = Groups(mixture.all_fields(), keys, mixture.named)
        self._rows, self._starts = groups.rows, groups.starts  # crops of each well
        perturbation, self._plate, _ = groups.keys
        self._names, begin, wells = np.unique(perturbation, return_index=True, return_counts=True)
        self._begin, self._end = begin, begin + wells
        self._shown = np.minimum(wells, wells_per_perturbation)
        self._round_steps = int(self._shown.sum()) // global_batch
        if self._round_steps == 0:
            raise ValueError(
                f"a batch of {global_batch} crops (all ranks) needs as many wells; {len(self._names)} perturbations "
                f"with at most {wells_per_perturbation} wells each give {self._shown.sum()}: lower global_batch_size or raise "
                "wells_per_perturbation"
            )
        rounds = max(1, round(len(self._rows) / (global_batch * self._round_steps)))
        self.steps = steps_per_epoch or rounds * self._round_steps

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        round_, place = divmod(step, self._round_steps)
        order = np.random.default_rng([self.seed, epoch, round_]).permutation(len(self._names))
        ends = np.cumsum(self._shown[order])
        start, stop = place * self.global_batch, (place + 1) * self.global_batch
        chosen = []
        for turn in range(np.searchsorted(ends, start, side="right"), np.searchsorted(ends, stop) + 1):
            number = order[turn]
            begin = ends[turn] - self._shown[number]
            wells = self._wells_of(number, np.random.default_rng([self.seed, epoch, round_, int(number)]))
            chosen += wells[max(start - begin, 0) : stop - begin]
        rng = np.random.default_rng([self.seed, epoch, step, len(self._names)])
        rows = rng.permutation([self._rows[rng.integers(*self._starts[well : well + 2])] for well in chosen])
        return rows[part_of(len(rows), part)]

    def _wells_of(self, number: int, rng: np.random.Generator) -> list[int]:
        """The wells of a perturbation for this round, alternating between its plates."""
        wells = rng.permutation(np.arange(self._begin[number], self._end[number]))
        _, plate = np.unique(self._plate[wells], return_inverse=True)
        turn = np.empty(len(wells), np.int64)
        for code in range(plate.max() + 1):
            turn[plate == code] = np.arange((plate == code).sum())
        return wells[np.argsort(turn, kind="stable")][: self._shown[number]].tolist()


class Balanced:
    """Crops drawn so that every value of a metadata column is equally frequent: (G,) rows per step.

    Classes alternate in an order drawn anew each turn; a class shows its crops in random order and starts again when all
    were shown. Crops with a blank value are left out.

    Args:
        mixture: source of the crops.
        global_batch: crops per step, all ranks together.
        seed: seed of all random draws.
        by: a `Metadata_` column of the fields: perturbation, gene, plate, …
        steps_per_epoch: default: as many as show about as many crops as there are.

    Raises:
        ValueError: the fields have no such column, or it is blank everywhere.
    """

    def __init__(
        self,
        mixture: Mixture,
        global_batch: int,
        seed: int,
        *,
        by: str = schema.PERTURBATION,
        steps_per_epoch: int | None = None,
    ) -> None:
        self.global_batch, self.seed = global_batch, seed
        if by not in mixture.fields:
            known = [column for column in mixture.fields if column.startswith(schema.PREFIX)]
            raise ValueError(f"the fields have no column {by!r} to balance by; they have {', '.join(known)}")
        values = mixture.fields[by].astype(str).to_numpy()[mixture.present]
        label = np.full(len(mixture.fields), -1, np.int32)
        label[mixture.present[values != ""]] = np.unique(values[values != ""], return_inverse=True)[1]
        label = label[mixture.all_fields()]  # per crop
        self._rows = np.flatnonzero(label >= 0)
        if len(self._rows) == 0:
            raise ValueError(f"{by} is blank for every crop of the split: balance by another column")
        self._class = label[self._rows]
        self._sizes = np.bincount(self._class)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.steps = steps_per_epoch or max(1, len(self._rows) // global_batch)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        order = self._order
        if order[0] != epoch:
            shuffled = np.random.default_rng([self.seed, epoch]).permutation(len(self._rows))
            by_class = np.argsort(self._class[shuffled], kind="stable")
            self._order = order = epoch, self._rows[shuffled[by_class]]
        items = np.arange(step * self.global_batch, (step + 1) * self.global_batch)[part_of(self.global_batch, part)]
        turn, position = np.divmod(items, len(self._sizes))
        orders = {
            t: np.random.default_rng([self.seed, epoch, t]).permutation(len(self._sizes))
            for t in np.unique(turn).tolist()
        }
        label = np.array([orders[t][p] for t, p in zip(turn.tolist(), position.tolist(), strict=True)])
        return order[1][self._starts[label] + turn % self._sizes[label]]
