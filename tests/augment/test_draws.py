"""Random numbers by (key, row, column): the published generator, whatever rows are asked for, and uniform."""

import numpy as np
import pytest
import torch
from scipy import stats

from morphoclip.augment import Rows, uniform
from morphoclip.augment.draws import GAMMA, mix, mixed, signed

# The first outputs of SplitMix64 seeded with 1234567, as published with its reference code.
PUBLISHED = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]


def test_numbers_are_those_of_splitmix64():
    index = torch.arange(1, 6)
    words = mix(index * signed(GAMMA) + 1234567)
    assert [word % 2**64 for word in words.tolist()] == PUBLISHED
    assert [mixed((1234567 + i * GAMMA) % 2**64) for i in range(1, 6)] == PUBLISHED


@pytest.mark.parametrize("key", [0, 17, 2**63 - 1, 2**64 - 1])
def test_a_row_has_its_numbers_whatever_rows_are_asked_for(key):
    whole = Rows(key).uniform(64, 3, 5)
    for start, count in [(0, 8), (8, 8), (63, 1)]:
        assert torch.equal(Rows(key, start).uniform(count, 3, 5), whole[start : start + count])


def test_each_call_and_each_key_gives_other_numbers():
    rows = Rows(5)
    drawn = torch.stack([rows.uniform(4096), rows.uniform(4096), Rows(6).uniform(4096)])
    assert torch.corrcoef(drawn).fill_diagonal_(0).abs().max() < 4 / 64
    assert torch.equal(Rows(5).uniform(4096), drawn[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_uniform_and_independent(dtype):
    drawn = Rows(3).uniform(2000, 50, dtype=dtype)
    assert drawn.dtype == dtype
    assert drawn.min() >= 0
    assert drawn.max() < 1
    flat = drawn.double().flatten().numpy()
    assert stats.kstest(flat, "uniform").pvalue > 0.01
    for lag in (1, 2, 50, 100):  # neighbours in a row, and in a column
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 4 / np.sqrt(len(flat))
    pairs, _, _ = np.histogram2d(flat[::2], flat[1::2], bins=16, range=[[0, 1], [0, 1]])
    assert stats.chisquare(pairs.ravel()).pvalue > 0.01


def test_float64_has_more_than_24_bits():
    drawn = Rows(3).uniform(1000, dtype=torch.float64)
    assert not torch.equal(drawn, drawn.float().double())


def test_a_generator_gives_its_next_numbers():
    source = torch.Generator().manual_seed(2)
    drawn = torch.stack([uniform(source, 4, 3), uniform(source, 4, 3)])
    assert torch.equal(drawn, torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(2)))
