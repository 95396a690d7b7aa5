"""Two gloo ranks equal one process on the joined batch, after DDP's averaging, to 1e-6 in float64."""

import pytest
import torch

from tests.distributed_run import CASES, run_rank
from tests.methods.resume import METHODS, small_screen, trained


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Results of all cases on two ranks; one spawn for all, as starting a process takes seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    small_screen(folder / "screen")
    torch.multiprocessing.spawn(run_rank, args=(2, str(folder)), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one_process(name, two_ranks):
    expected = CASES[name](0, 1)
    for number, single in enumerate(expected):
        mean = (two_ranks[0]["cases"][name][number] + two_ranks[1]["cases"][name][number]) / 2
        # timm interpolates the positions of other view sizes in float32, which leaves differences of 1e-8.
        torch.testing.assert_close(
            mean, single.to(mean.dtype), rtol=1e-6, atol=3e-8, msg=lambda m, n=number: f"output {n}: {m}"
        )
    assert any(t.abs().sum() > 0 for t in expected)


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith(("_training", "_on_sampled_channels"))])
def test_weights_prototypes_centre_and_teacher_are_identical_on_both_ranks(name, two_ranks):
    _, *first = two_ranks[0]["cases"][name]  # the first output is the rank's own loss
    _, *second = two_ranks[1]["cases"][name]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_run_resumed_on_two_ranks_ends_where_an_uninterrupted_one_does_bit_for_bit(name, two_ranks):
    assert [results["changed by resuming"][name] for results in two_ranks] == [[], []]


@pytest.mark.parametrize("name", METHODS)
def test_ten_steps_of_two_ranks_through_the_data_module_equal_those_of_one(name, two_ranks, tmp_path):
    """Crops, draws, schedules and logged losses are those of the global batch, however it is divided."""
    screen = small_screen(tmp_path / "screen")
    expected = trained(name, screen)
    for found in (results["through data"][name] for results in two_ranks):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10, msg=lambda m, n=number: f"{name} {n}: {m}")
    in_float32 = trained(name, screen, steps=1, double=False)[-1]
    assert all((results["first loss"][name] - in_float32).abs().max() < 1e-5 for results in two_ranks)
