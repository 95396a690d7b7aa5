"""Prompts that a text tower cuts are counted, and two that become one are refused, in every tower that reads text."""

from __future__ import annotations

import pytest

from tests.methods.tiny import MORGAN, TEXT, clip, save_bert

LONG = "cells treated with DMSO " * 20


@pytest.fixture
def towers(tmp_path):
    bert = {"_target_": "morphoclip.models.HuggingFaceTextEncoder", "name_or_path": str(save_bert(tmp_path / "bert"))}
    split = {
        "towers": [
            {"modalities": ["orf"], "tower": MORGAN},
            {"modalities": ["compound"], "tower": {**TEXT, "max_length": 8}},
        ]
    }
    return {
        "small": {**TEXT, "max_length": 8},
        "frozen": {**bert, "max_length": 8},
        "full": {**bert, "max_length": 8, "training": "full"},
        "by modality": split,
    }


def made(text, prompts):
    return clip(
        text=text,
        prompts=[*prompts, None],
        modalities=["compound"] * len(prompts) + ["compound"] if "towers" not in text else None,
    )


@pytest.mark.parametrize("name", ["small", "frozen", "full"])
def test_prompts_made_equal_by_a_cut_are_refused(towers, name):
    with pytest.raises(
        ValueError,
        match=r"2 prompts are equal once they are cut to max_length=8 tokens.*compound.*the longest has \d+ tokens",
    ):
        made(towers[name], [LONG + "compound", LONG + "DMSO", "cells", "compound"])


@pytest.mark.parametrize("name", ["small", "frozen", "full"])
def test_cut_prompts_are_counted(towers, name):
    method = made(towers[name], ["compound " + LONG, "DMSO " + LONG, "cells", "compound"])
    (line,) = method.conditions.cuts
    assert line.startswith("2 of 4 prompts are cut to 8 tokens (the longest has ")
    assert line.endswith("none become equal by that")


@pytest.mark.parametrize("name", ["small", "frozen"])
def test_nothing_is_said_of_prompts_that_fit(towers, name):
    assert made(towers[name], ["cells", "compound", "DMSO", "treated with DMSO"]).conditions.cuts == []


def test_prompts_that_a_tokenizer_cannot_tell_apart_are_said(towers):
    (line,) = made(towers["frozen"], ["cells with PLK1", "cells with BRD4", "cells", "DMSO"]).conditions.cuts
    assert line.startswith("2 prompts have the same tokens as another, e.g. 'cells with BRD4' and 'cells with PLK1'")


def test_towers_by_modality_are_looked_at_one_by_one(towers):
    prompts = [LONG + "compound", LONG + "DMSO", "CCO", "CCN", None]
    with pytest.raises(ValueError, match="2 prompts are equal once they are cut"):
        clip(text=towers["by modality"], prompts=prompts, modalities=["compound", "compound", "orf", "orf", "orf"])
