"""Rows mapped in chunks: value and gradients of all rows at once, also where one side is frozen or autocast is on."""

import pytest
import torch

from morphoclip.losses.chunks import map_rows


def retrieved(rows, states, stored):
    return (states[rows] @ stored.T).softmax(1) @ stored


def inputs(*trained, dtype=torch.float64):
    draws = torch.Generator().manual_seed(0)
    parts = {
        "states": torch.randn(7, 3, dtype=dtype, generator=draws),
        "stored": torch.randn(5, 3, dtype=dtype, generator=draws),
    }
    return [part.requires_grad_(name in trained) for name, part in parts.items()]


def value_and_gradients(chunk_size, trained, autocast=False, dtype=torch.float64):
    """Of rows 1 to 5, whose gradients the loss weighs unevenly."""
    states, stored = inputs(*trained, dtype=dtype)
    mapped = map_rows(retrieved, slice(1, 6), chunk_size, states, stored)
    weights = torch.arange(15, dtype=dtype).view(5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        (mapped * weights).sum().backward()
    return mapped, states.grad, stored.grad


@pytest.mark.parametrize("trained", [("states", "stored"), ("states",), ("stored",)])
@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_equals_all_rows_at_once(trained, chunk_size):
    chunked, plain = (value_and_gradients(size, trained) for size in (chunk_size, None))
    assert [x is None for x in chunked] == [x is None for x in plain]
    for ours, expected in zip(chunked, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-12)


def test_chunks_are_computed_again_outside_autocast():
    trained = ("states", "stored")
    chunked, plain = (value_and_gradients(2, trained, autocast, torch.float32) for autocast in (True, False))
    for ours, expected in zip(chunked, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
