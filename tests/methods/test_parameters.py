"""How large the recipes are, counted without memory."""

import torch
from hydra import compose, initialize_config_dir
from torch import nn
from transformers import BertConfig, BertModel

from morphoclip import configs_dir
from morphoclip.methods.parameters import described, parameter_counts
from morphoclip.models import FeatureEncoder
from morphoclip.models.text import with_lora


def test_parts_add_up():
    method = nn.Module()
    method.encoder, method.head = nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False)
    method.scale = nn.Parameter(torch.zeros(()))
    assert parameter_counts(method) == {"encoder": (8, 8), "head": (0, 6), "scalars": (1, 1), "whole": (9, 15)}
    assert described(parameter_counts(method)).endswith("whole 0.0/0.0")


def test_morphoclip_trains_25_million_parameters_at_most():
    """On channel features of 768 numbers (ViT-B), against a text encoder of BERT's size with LoRA."""
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", overrides=["experiment=morphoclip", "data.root=features"])
    image = {k: v for k, v in config.encoder.items() if k not in ("name", "channels", "feature_dim", "mean", "std")}
    with torch.device("meta"):
        encoder = FeatureEncoder(
            "cross_channel_former", channels=list("abcde"), feature_dim=768, embed_dim=512, **image
        )
        text = BertModel(BertConfig(), add_pooling_layer=False).requires_grad_(False)
        text = with_lora(text, config.text.lora_rank, config.text.lora_alpha, 0.0)
        projection = nn.Linear(768, config.method.embed_dim)
    whole = nn.ModuleDict({"encoder": encoder, "text": text, "projection": projection})
    trained, total = parameter_counts(whole)["whole"]
    assert 15e6 < trained <= 25e6
    assert total > 100e6


def test_the_printed_table_counts_what_a_recipe_builds():
    from benchmarks.parameters import build, recipe, show

    counts = parameter_counts(build(recipe("cellclip", [], 1536)))
    former = 340.8e6  # METHODS §9; the pool of the bag comes to it
    assert former < counts["encoder"][1] < former * 1.002
    assert counts["whole"][0] == counts["whole"][1]
    ours = parameter_counts(build(recipe("morphoclip", [], 768)))
    assert ours["whole"][0] <= 25e6 < 100e6 < ours["whole"][1]
    assert "25,076" in show([{"recipe": "x", "whole": [25_076, 25_076], "encoder": [1, 1]}])
