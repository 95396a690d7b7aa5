"""The perturbation side: towers by modality, doses, frozen towers once, and a modality that a batch lacks."""

import pytest
import torch

from morphoclip.methods.conditions import Conditions
from tests.methods.tiny import TOWERS, save_bert

PROMPTS = ["CCO", "CCO", "c1ccccc1", "loss of PLK1", "loss of AURKB", "gain of PLK1", None]
MODALITIES = ["compound", "compound", "compound", "crispr", "crispr", "orf", "compound"]
DOSES = ["1", "10", "", "", "", "", "1"]


def conditions(**kw):
    torch.manual_seed(0)
    settings = {"modalities": MODALITIES, "doses": DOSES}
    return Conditions(PROMPTS, TOWERS, 8, **(settings | kw))


def test_compounds_and_reagents_of_one_batch_are_read_by_their_own_towers():
    side = conditions().eval()
    together = side(side.row[torch.tensor([4, 0, 5, 2, 3])])
    assert torch.equal(side.row[:2], side.row[:1].expand(2))  # two doses, one prompt, one candidate
    for place, condition in enumerate([4, 0, 5, 2, 3]):
        alone = side.embed_texts([PROMPTS[condition]], MODALITIES[condition])
        torch.testing.assert_close(together[place : place + 1], alone, atol=1e-6, rtol=1e-5)


def test_a_batch_without_a_modality_leaves_no_parameter_without_a_gradient():
    side = conditions().train()
    reagents = side.row[torch.tensor([3, 4, 5])]
    side(reagents).square().sum().backward()
    assert all(p.grad is not None for p in side.parameters())
    morgan, text = side.towers
    assert not any(p.grad.any() for p in morgan.parameters())
    assert any(p.grad.any() for p in text.parameters())
    side.zero_grad()
    side(side.row[torch.tensor([0])]).square().sum().backward()  # one molecule is too few for a batch norm
    assert not any(p.grad.any() for p in text.parameters())


def test_doses_tell_candidates_apart_once_they_are_encoded():
    dose = {"_target_": "morphoclip.models.DoseEncoding", "kind": "log10"}
    side = conditions(dose=dose)
    assert len(side) == len(conditions()) + 1
    one, ten, benzene = side.eval()(side.row[:3])
    assert not torch.allclose(one, ten)
    torch.testing.assert_close(side.embed_texts(["CCO"], "compound", dose=10.0)[0], ten, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(side.embed_texts(["c1ccccc1"], "compound")[0], benzene, atol=1e-6, rtol=1e-5)


def test_what_has_no_prompt_is_refused():
    with pytest.raises(ValueError, match="without a prompt"):
        conditions()(torch.tensor([0, -1]))


def test_towers_and_modalities_must_fit():
    with pytest.raises(ValueError, match="'virus' is listed by 0"):
        conditions(modalities=[*MODALITIES[:-1], "virus"])
    with pytest.raises(ValueError, match="remove that tower"):
        Conditions(PROMPTS[:3], TOWERS, 8, modalities=MODALITIES[:3])
    with pytest.raises(ValueError, match=r"SMILES '.*PLK1'"):
        Conditions(PROMPTS, TOWERS["towers"][0]["tower"], 8)
    with pytest.raises(ValueError, match="needs the doses"):
        conditions(doses=None, dose={"_target_": "morphoclip.models.DoseEncoding", "kind": "log10"})


def test_a_head_reads_tower_and_dose():
    head = {"_target_": "morphoclip.models.ResidualMLP", "width": 16, "blocks": 1}
    towers = {"towers": [TOWERS["towers"][0] | {"head": head}, TOWERS["towers"][1]]}
    dose = {"_target_": "morphoclip.models.DoseEncoding", "kind": "one_hot", "levels": [1.0, 10.0]}
    side = Conditions(PROMPTS, towers, 8, modalities=MODALITIES, doses=DOSES, dose=dose)
    assert side.heads[0][1].in_features == side.towers[0].embed_dim + 2
    assert side(side.row[torch.tensor([0, 1, 2, 3])]).shape == (4, 8)


def test_a_frozen_tower_runs_once_and_its_embeddings_are_cached_on_disk(tmp_path):
    text = {"_target_": "morphoclip.models.HuggingFaceTextEncoder", "name_or_path": str(save_bert(tmp_path / "bert"))}
    prompts = ["cells treated with DMSO", "compound", "cells"]
    calls = []

    def side():
        torch.manual_seed(0)
        made = Conditions(prompts, text, 8, cache=tmp_path / "cache")
        made.towers[0].register_forward_pre_hook(lambda *_: calls.append(1))
        return made.eval()

    first = side()
    expected = first(torch.arange(3))
    calls.clear()
    first.freeze()
    assert calls == [1]
    torch.testing.assert_close(first(torch.arange(3)), expected)
    second = side()
    second.freeze()
    torch.testing.assert_close(second(torch.arange(3)), expected)
    assert calls == [1]  # neither the step nor the second run asked the tower again
    assert len(list((tmp_path / "cache").iterdir())) == 1
    with torch.no_grad():
        next(second.towers[0].parameters()).add_(1)
    second.freeze()
    assert len(list((tmp_path / "cache").iterdir())) == 2  # other weights, another file
