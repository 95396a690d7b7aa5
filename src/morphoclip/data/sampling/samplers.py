"""Samplers: the rows of each batch as a function of (seed, epoch, step) alone; each rank draws its part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler

from morphoclip.data.sampling.groups import Groups
from morphoclip.data.sampling.mixture import Mixture

WHOLE = (0, 1)


class Plan(Protocol):
    """The batches of an epoch, for all ranks together."""

    steps: int

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        """Rows of the mixture, (G,) crops or (G, N) bags, of the global batch of G items.

        `part` (i, n) asks for the i-th of n equal parts only; a plan for one rank need not take it. What costs time per item is drawn for these items alone, by
        their numbers in the batch, so that more ranks do not make each of them draw more.
        """


def part_of(count: int, part: tuple[int, int]) -> slice:
    """The items of a part (i, n) of `count`.

    Raises:
        ValueError: `count` is not a multiple of n.
    """
    number, parts = part
    if count % parts:
        raise ValueError(f"{count} items cannot be divided into {parts} equal parts")
    return slice(number * count // parts, (number + 1) * count // parts)


class Uniform:
    """Every crop once per epoch in random order; a last incomplete global batch is left out.

    In a mixture a dataset's share of the epoch is proportional to weight × crops, so weights of 1 concatenate. A dataset
    with a larger share repeats its crops only after all were shown.

    Raises:
        ValueError: fewer crops than one global batch.
    """

    def __init__(self, mixture: Mixture, global_batch: int, seed: int) -> None:
        self.sizes, self.weights = mixture.sizes, mixture.weights
        self.global_batch, self.seed = global_batch, seed
        self.steps = len(mixture) // global_batch
        if self.steps == 0:
            raise ValueError(
                f"{len(mixture)} crops are fewer than a batch of {global_batch} (all ranks): lower global_batch_size"
            )
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        order = self._order
        if order[0] != epoch:
            self._order = order = (epoch, self._shuffled(epoch))
        return order[1][step * self.global_batch : (step + 1) * self.global_batch][part_of(self.global_batch, part)]

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        total = self.steps * self.global_batch
        if (self.weights == self.weights[0]).all():
            crops = self.sizes.sum()
            return rng.permutation(np.arange(crops, dtype=np.int32 if crops < 2**31 else np.int64))[:total]
        shares = self.weights * self.sizes / (self.weights * self.sizes).sum()
        quotas = np.diff(np.rint(np.cumsum(shares) * total).astype(np.int64), prepend=0)
        starts = np.cumsum(self.sizes) - self.sizes
        parts = []
        for start, size, quota in zip(starts, self.sizes, quotas, strict=True):
            rounds = [rng.permutation(size) for _ in range(-(-quota // size))]
            parts += [start + np.concatenate(rounds)[:quota]] if rounds else []
        return rng.permutation(np.concatenate(parts))


BAG_SCOPES = ("perturbation", "well")


class Bags:
    """Bags of N crops of one condition, spread evenly over its plates and wells; a batch holds distinct perturbations.

    An epoch is one or more rounds. In each round every treated perturbation is shown once, at one of its conditions; a
    remainder too small for a batch is left out, a different one each round. Empty wells (without a perturbation) are
    left out. A condition (or well) with fewer than N crops repeats them.

    Args:
        mixture: source of the crops.
        global_batch: bags per step, all ranks together.
        seed: seed of all random draws.
        bag_size: N.
        bag_scope: `perturbation`, crops from all wells of the condition; or `well`, crops from one of them.
        controls_per_batch: at most this many bags of negative controls per batch.
        steps_per_epoch: default: whole rounds that show about as many crops as there are.

    Raises:
        ValueError: fewer treated perturbations than a batch needs, or an unknown `bag_scope`.
    """

    def __init__(
        self,
        mixture: Mixture,
        global_batch: int,
        seed: int,
        *,
        bag_size: int = 6,
        bag_scope: str = "perturbation",
        controls_per_batch: int = 1,
        steps_per_epoch: int | None = None,
    ) -> None:
        if bag_scope not in BAG_SCOPES:
            raise ValueError(f"bag_scope={bag_scope!r}: use one of {BAG_SCOPES}")
        self.global_batch, self.seed, self.bag_size, self.bag_scope = global_batch, seed, bag_size, bag_scope
        codes, named = mixture.codes, mixture.named
        self._wells = _Wells(mixture)
        self._controls = control = np.unique(codes.perturbation[named & codes.is_control])
        self._treated = np.setdiff1d(codes.perturbation[named], control)
        self._control_bags = min(controls_per_batch, len(control))
        treated_bags = global_batch - self._control_bags
        if treated_bags < 1 or len(self._treated) < treated_bags:
            raise ValueError(
                f"a batch of {global_batch} bags (all ranks) needs {treated_bags} distinct treated perturbations, the "
                f"split has {len(self._treated)}: set global_batch_size between {self._control_bags + 1} and "
                f"{len(self._treated) + self._control_bags}"
            )
        self._round_steps = len(self._treated) // treated_bags
        rounds = max(1, round(len(mixture) / (global_batch * bag_size * self._round_steps)))
        self.steps = steps_per_epoch or rounds * self._round_steps

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        round_, place = divmod(step, self._round_steps)
        treated_bags = self.global_batch - self._control_bags
        order = self.order(epoch, round_)
        rng = np.random.default_rng([self.seed, epoch, step, 1])
        chosen = np.concatenate(
            [
                order[place * treated_bags : (place + 1) * treated_bags],
                rng.choice(self._controls, self._control_bags, replace=False),
            ]
        )
        shown = rng.permutation(chosen)
        bags = []
        for number in range(len(shown))[part_of(len(shown), part)]:
            rng = np.random.default_rng([self.seed, epoch, step, 2, number])
            bags.append(self._wells.bag(shown[number], self.bag_size, rng, self.bag_scope == "well"))
        return np.stack(bags)

    def order(self, epoch: int, round_: int) -> np.ndarray:
        """The treated perturbations of a round in the order they are shown."""
        return np.random.default_rng([self.seed, epoch, round_, 0]).permutation(self._treated)


class _Wells:
    """Crops sorted by (perturbation, condition, plate, well), so that a bag finds its wells by bisection."""

    def __init__(self, mixture: Mixture) -> None:
        codes = mixture.codes
        keys = np.stack([codes.perturbation, codes.condition, codes.plate, codes.well])
        groups = Groups(mixture.all_fields(), keys, mixture.named)
        self.rows, self.starts = groups.rows, groups.starts
        self.perturbation, self.condition, self.plate, _ = groups.keys

    def bag(self, perturbation: int, size: int, rng: np.random.Generator, one_well: bool = False) -> np.ndarray:
        """Rows (size,) of one condition of the perturbation, alternating between plates and, on a plate, its wells."""
        begin, end = np.searchsorted(self.perturbation, [perturbation, perturbation + 1])
        wells = np.arange(begin, end)
        wells = wells[self.condition[begin:end] == rng.choice(np.unique(self.condition[begin:end]))]
        if one_well:
            wells = rng.choice(wells, 1)
        plates = rng.permutation(np.unique(self.plate[wells]))
        on_plate = [rng.permutation(wells[self.plate[wells] == plate]) for plate in plates]
        crops: dict[int, Iterator[int]] = {}
        bag = np.empty(size, np.int64)
        for i in range(size):
            turn, place = divmod(i, len(plates))
            well = on_plate[place][turn % len(on_plate[place])]
            if well not in crops:
                crops[well] = cycle(rng.permutation(self.rows[self.starts[well] : self.starts[well + 1]]))
            bag[i] = next(crops[well])
        return bag


class Sequential:
    """Every crop in order, for validation: the last batch is short.

    On several ranks the last batch is filled with the split's first crops, so that all ranks have the same number of
    steps and no empty batch; these few crops count twice.
    """

    def __init__(self, mixture: Mixture, global_batch: int, world_size: int) -> None:
        self.size, self.global_batch, self.world_size = len(mixture), global_batch, world_size
        self.steps = -(-self.size // global_batch)

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        start = step * self.global_batch
        end = min(start + self.global_batch, self.size)
        rows = np.arange(start, end + (start - end) % self.world_size) % self.size
        return rows[part_of(len(rows), part)]


class FirstEpoch:
    """A plan whose epochs are all its first, so that each validation sees the same batches."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.steps = plan, plan.steps

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        return self.plan.rows(0, step, part)


class EpochSampler(Sampler[np.ndarray]):
    """This rank's part of a plan's batches, one epoch per iteration, with its progress as state.

    The global batch of an optimizer step is cut into one block per rank, and a rank's block into `accumulate` batches. So
    every item has the same place among the draws of a step (`Method.draws`) for any number of ranks and batches.

    Lightning starts a loader's iterator before it calls `set_epoch`, and may start it twice. So an iteration begins a
    new epoch only if the one before yielded a batch, and `set_epoch` with the current epoch changes nothing.

    Attributes:
        epoch: the current epoch.
        ready: its batches yielded so far, counted by the loader, because workers fetch ahead.
    """

    def __init__(self, plan: Plan, rank: int = 0, world_size: int = 1, accumulate: int = 1) -> None:
        self.plan, self.rank, self.world_size, self.accumulate = plan, rank, world_size, accumulate
        self.epoch = self.ready = self._start = 0

    def __len__(self) -> int:
        return self.plan.steps * self.accumulate

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.ready > self._start or self.ready == len(self):
            self.epoch, self.ready = self.epoch + 1, 0
        self._start = self.ready
        return self._batches(self.epoch, self._start)

    def _batches(self, epoch: int, start: int) -> Iterator[np.ndarray]:
        first = start % self.accumulate
        part = [] if self.world_size == 1 else [(self.rank, self.world_size)]
        for step in range(start // self.accumulate, self.plan.steps):
            own = self.plan.rows(epoch, step, *part)
            yield from np.split(own, self.accumulate)[first:]
            first = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.ready, self._start = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of its batches yielded; a finished epoch is stored as the start of the next."""
        finished = self.ready == len(self)
        return {"epoch": self.epoch + finished, "batches_ready": 0 if finished else self.ready}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]
        self.ready = self._start = state["batches_ready"]
