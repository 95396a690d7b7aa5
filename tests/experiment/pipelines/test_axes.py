"""Orders of steps: all of them, once, and never two of a group."""

from __future__ import annotations

import itertools

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from morphoclip import configs_dir
from morphoclip.experiment.pipelines.axes import Axes, Replicates, chunks
from morphoclip.experiment.pipelines.sweep import KEYS

L2 = {"step": "l2"}


def test_orders_are_the_permutations_of_up_to_depth_steps_and_neighbours_share_their_first_steps():
    orders = Axes.of(dict.fromkeys("abcd", L2), 3).orders()
    assert sorted(orders) == sorted(o for n in range(4) for o in itertools.permutations("abcd", n))
    for first in {order[:2] for order in orders if len(order) > 1}:
        at = [i for i, order in enumerate(orders) if order[:2] == first]
        assert at == list(range(at[0], at[-1] + 1))
    assert [len(part) for part in chunks(orders, 24)] == [24, 17]
    assert list(itertools.chain(*chunks(orders, 7))) == orders


def test_of_a_group_at_most_one_step_is_in_a_pipeline():
    steps = {"weak": L2 | {"group": "sphere"}, "strong": L2 | {"group": "sphere"}, "l2": L2, "out": None}
    axes = Axes.of(steps, 3)
    assert set(axes.orders()) == {
        (), ("weak",), ("strong",), ("l2",), ("weak", "l2"), ("strong", "l2"), ("l2", "weak"), ("l2", "strong"),
    }  # fmt: skip
    assert all("group" not in step for step in axes.steps.values())  # the step itself does not take it


@pytest.mark.parametrize(("name", "number"), [("pipelines", 517), ("pipelines_5000", 5270)])
def test_the_configs_have_as_many_orders_as_they_say(name, number):
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("evaluate", overrides=[f"+sweep={name}"])
    settings = OmegaConf.to_container(config.sweep, resolve=True)
    assert set(settings) <= set(KEYS)
    orders = Axes.of(settings["steps"], settings["depth"], settings["replicates"]).orders()
    assert len(orders) == len(set(orders)) == number


@pytest.mark.parametrize(
    ("steps", "depth", "replicates", "message"),
    [
        ({"a": {"step": "l3"}}, 1, ["well"], r"sweep\.steps\.a: unknown step 'l3'"),
        ({"a": L2 | {"power": 2}}, 1, ["well"], r"sweep\.steps\.a: step 'l2' has no option"),
        ({"a": L2}, -1, ["well"], r"sweep\.depth=-1"),
        ({"a": L2}, "two", ["well"], r"sweep\.depth='two'"),
        (
            {"a": L2},
            1,
            ["plate"],
            r"sweep\.replicates has 'plate': use well or one of plate_mean, plate_median, batch_mean",
        ),
        ({"a": L2}, 1, "all_mean", r"sweep\.replicates has 'all_mean'"),
    ],
)
def test_a_wrong_axis_is_refused_before_anything_is_computed(steps, depth, replicates, message):
    with pytest.raises(ValueError, match=message):
        Axes.of(steps, depth, replicates)


def test_levels_of_replicates_by_their_names():
    assert Replicates.parse("well").within == "well"
    assert Replicates.parse("source_median") == Replicates("source", "median")
