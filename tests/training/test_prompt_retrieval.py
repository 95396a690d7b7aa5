"""Recall of held-out prompts: that of a ranking, chance for a collapsed model, and the same over batches and ranks."""

from __future__ import annotations

import pytest
import torch

from morphoclip.training.prompt_retrieval import PromptRetrieval, recall


def test_recall_is_that_of_the_ranking():
    images = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    prompts = images + 1.5 * torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    metric = PromptRetrieval(prompts)
    metric.update(images, torch.arange(40))
    similarity = torch.cosine_similarity(images[:, None], prompts[None], dim=2)
    for k in (1, 5, 10):
        best = similarity.topk(k, dim=1).indices
        hit = (best == torch.arange(40)[:, None]).any(1).float().mean()
        found = metric.compute()
        assert found[f"recall_at_{k}_image_to_text"] == pytest.approx(float(hit))
        assert found[f"recall_at_{k}_image_to_text_chance"] == pytest.approx(k / 40)
        back = similarity.topk(k, dim=0).indices
        hit = (back == torch.arange(40)[None]).any(0).float().mean()
        assert found[f"recall_at_{k}_text_to_image"] == pytest.approx(float(hit))


def test_a_collapsed_model_is_at_chance():
    metric = PromptRetrieval(torch.ones(20, 4))
    metric.update(torch.ones(20, 4), torch.arange(20))
    found = metric.compute()
    assert found["recall_at_5_image_to_text"] == pytest.approx(0.25)
    assert recall(torch.eye(4), 1) == 1


def test_replicates_are_one_query_and_prompts_without_images_no_candidates():
    prompts = torch.eye(4)
    metric = PromptRetrieval(prompts, ks=(1, 5))
    metric.update(torch.tensor([[1.0, 0, 0, 0], [0.9, 0.1, 0, 0]]), torch.tensor([0, 0]))
    metric.update(torch.tensor([[0, 1.0, 0, 0]]), torch.tensor([1]))
    found = metric.compute()
    ways = {"recall_at_1_image_to_text", "recall_at_1_text_to_image"}
    assert set(found) == ways | {f"{way}_chance" for way in ways}
    assert found["recall_at_1_image_to_text_chance"] == 0.5
    assert found["recall_at_1_image_to_text"] == 1
    one = PromptRetrieval(prompts)
    one.update(prompts[:1], torch.tensor([0]))
    assert one.compute() == {}
