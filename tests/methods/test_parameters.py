"""How large the recipes are, counted without memory."""

import torch
from torch import nn

from benchmarks.parameters import build, recipe, show
from morphoclip.methods.parameters import described, parameter_counts


def test_parts_add_up():
    method = nn.Module()
    method.encoder, method.head = nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False)
    method.scale = nn.Parameter(torch.zeros(()))
    assert parameter_counts(method) == {"encoder": (8, 8), "head": (0, 6), "scalars": (1, 1), "whole": (9, 15)}
    assert described(parameter_counts(method)).endswith("whole 0.0/0.0")


def test_the_printed_table_counts_what_a_recipe_builds():
    """Morphoclip on channel features of 768 numbers (ViT-B), against a text encoder of BERT's size with LoRA."""
    counts = parameter_counts(build(recipe("cellclip", [], 1536)))
    former = 340.8e6  # a width of 1536 and 12 blocks; the pool of the bag comes to it
    assert former < counts["encoder"][1] < former * 1.002
    assert counts["whole"][0] == counts["whole"][1]
    ours = parameter_counts(build(recipe("morphoclip", [], 768)))
    assert 15e6 < ours["whole"][0] <= 25e6 < 100e6 < ours["whole"][1]
    assert "25,076" in show([{"recipe": "x", "whole": [25_076, 25_076], "encoder": [1, 1]}])
