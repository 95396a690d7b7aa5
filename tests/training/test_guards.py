"""The guard stops one step late, and before anything is kept."""

import pytest
import torch

from morphoclip.training.guards import NonFiniteGuard

FINE, NAN, INF = torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(float("inf"))


@pytest.mark.parametrize(("loss", "norm", "what"), [(NAN, FINE, "loss"), (FINE, INF, "gradient norm")])
def test_a_bad_step_raises_while_the_next_one_runs(loss, norm, what):
    guard = NonFiniteGuard()
    guard.watch(6, FINE, FINE)
    guard.watch(7, loss, norm)
    with pytest.raises(FloatingPointError, match=f"^{what} at step 7"):
        guard.watch(8, FINE, FINE)


def test_check_looks_at_the_last_step_at_once():
    guard = NonFiniteGuard()
    guard.check()
    guard.watch(3, FINE, NAN)
    with pytest.raises(FloatingPointError, match="step 3"):
        guard.check()
