"""A rank asks a plan for its part of a batch: the parts are the batch, and it draws no more than its items."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from morphoclip.data import ShardDataset
from morphoclip.data.sampling import pairs, samplers
from morphoclip.data.sampling.balanced import Balanced, Wells
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.pairs import Pairs
from morphoclip.data.sampling.samplers import Bags, Sequential, Uniform, part_of

PLANS = {
    "uniform": lambda mixture: Uniform(mixture, 8, 3),
    "bags": lambda mixture: Bags(mixture, 8, 3, bag_size=3),
    "pairs": lambda mixture: Pairs(mixture, 8, 3, same_share=0.25),
    "wells": lambda mixture: Wells(mixture, 8, 3),
    "balanced": lambda mixture: Balanced(mixture, 8, 3),
    "sequential": lambda mixture: Sequential(mixture, 8, 4),
}


@pytest.fixture(scope="module")
def mixture(screen) -> Mixture:
    return Mixture([ShardDataset(screen)])


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_parts_of_the_ranks_are_the_batch(mixture, name, ranks):
    plan = PLANS[name](mixture)
    for step in range(min(plan.steps, 3)):
        parts = [PLANS[name](mixture).rows(1, step, (rank, ranks)) for rank in range(ranks)]
        np.testing.assert_array_equal(np.concatenate(parts), plan.rows(1, step))


@pytest.mark.parametrize(
    ("name", "wells", "method"), [("bags", samplers._Wells, "bag"), ("pairs", pairs._Wells, "partner")]
)
def test_a_rank_draws_only_its_own_items(mixture, name, wells, method):
    plan = PLANS[name](mixture)
    with patch.object(wells, method, autospec=True, side_effect=getattr(wells, method)) as drawn:
        plan.rows(0, 0, (1, 4))
    assert drawn.call_count <= 2


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="9 items cannot be divided into 4 equal parts"):
        part_of(9, (0, 4))


def test_the_first_epoch_of_a_plan_comes_again():
    from morphoclip.data.sampling.samplers import FirstEpoch

    class Counting:
        steps = 3

        def rows(self, epoch, step, part=(0, 1)):
            return np.array([epoch, step, *part])

    plan = FirstEpoch(Counting())
    assert plan.steps == 3
    np.testing.assert_array_equal(plan.rows(7, 2, (1, 2)), [0, 2, 1, 2])
