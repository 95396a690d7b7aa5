from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from morphoclip.data.sampling.groups import Groups


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 5))
def test_crops_are_sorted_as_if_each_carried_its_keys(seed, number, values):
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, values, (3, number))
    keep = rng.random(number) < 0.8
    fields = rng.permutation(np.append(np.arange(number), rng.integers(0, number, 100)))  # every field has a crop
    groups = Groups(fields, keys, keep)
    kept = np.flatnonzero(keep[fields])
    np.testing.assert_array_equal(groups.rows, kept[np.lexsort(keys[::-1, fields[kept]])])
    assert [tuple(key) for key in groups.keys.T] == sorted(set(map(tuple, keys[:, keep].T)))
    for number, key in enumerate(groups.keys.T):
        members = groups.rows[groups.starts[number] : groups.starts[number + 1]]
        assert len(members) > 0
        assert (keys[:, fields[members]] == key[:, None]).all()
    assert groups.starts[-1] == len(kept)
