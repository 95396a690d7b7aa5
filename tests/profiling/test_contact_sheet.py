from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data import ShardDataset, ShardWriter
from morphoclip.data.shards.intensities import describe_field
from morphoclip.profiling.contact_sheet import GAP, well_fields, well_pictures


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> ShardDataset:
    """A dim and a bright well, two sites each, and a field without crops; 48-px crops."""
    folder = tmp_path_factory.mktemp("sheet") / "dataset"
    with ShardWriter(folder, pixel_size_um=0.6) as writer:
        for well, site, level in (("B02", "2", 1), ("B02", "1", 1), ("A01", "2", 3), ("A01", "1", 3)):
            field = (100 + 900 * np.random.default_rng(0).random((5, 96, 48)) ** 4).astype(np.uint16) * level
            row = {
                schema.PLATE: "P1",
                schema.WELL: well,
                schema.SITE: site,
                **describe_field(field, schema.CHANNELS),
            }
            for y in (0, 48):
                writer.add(field[:, y : y + 48], row, y, 0)
    return ShardDataset(folder)


def wells(*names: str) -> pd.DataFrame:
    return pd.DataFrame({schema.PLATE: "P1", schema.WELL: list(names)})


def test_a_well_is_shown_by_its_first_field(dataset):
    rows = well_fields(dataset, wells("A01", "B02"))
    shown = dataset.fields.iloc[rows]
    assert shown[[schema.WELL, schema.SITE]].to_numpy().tolist() == [["A01", "1"], ["B02", "1"]]
    with pytest.raises(ValueError, match="plate P1 well C03 has no crop"):
        well_fields(dataset, wells("A01", "C03"))


def test_the_first_well_sets_the_contrast_of_all(dataset):
    dim, bright = well_pictures(dataset, wells("B02", "A01"), crops=2)
    alone = well_pictures(dataset, wells("A01"), crops=2)[0]
    assert dim.shape == (48, 2 * 48 + GAP, 3)
    assert bright.mean() > dim.mean() + 20  # in the contrast of the dim well
    np.testing.assert_array_equal(alone, dim)  # the same field, thrice as bright, in its own contrast
    small = well_pictures(dataset, wells("B02"), crops=1, size=24)[0]
    assert small.shape == (24, 24, 3)
