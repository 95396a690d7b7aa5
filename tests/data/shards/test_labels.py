"""A sample's own json is compared with its rows: a table in another order is found before it labels anything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from morphoclip import schema
from morphoclip.data import CellDataModule, ShardDataset
from morphoclip.data.shards.index import map_index
from morphoclip.data.shards.inspection import verify
from morphoclip.data.shards.labels import read_label


def rewrite(folder, change) -> None:
    """fields.parquet as `change` leaves it."""
    path = folder / "fields.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


REORDERED = {
    "sorted by well": lambda fields: fields.sort_values([schema.WELL, schema.PLATE]),
    "reversed": lambda fields: fields[::-1],
    "shuffled": lambda fields: fields.sample(frac=1, random_state=0),
    "two plates exchanged": lambda fields: fields.assign(
        **{
            schema.PLATE: fields[schema.PLATE].map(
                dict(zip(fields[schema.PLATE].unique(), fields[schema.PLATE].unique()[::-1], strict=True))
            )
        }
    ),
}


@pytest.mark.parametrize("how", REORDERED)
def test_a_table_in_another_order_is_refused_on_opening_and_listed_by_verify(make_screen, how):
    folder = make_screen()
    rewrite(folder, REORDERED[how])
    with pytest.raises(
        ValueError, match=rf"{folder}: sample \d+ says Metadata_.*fields\.parquet \(row \d+\).*restore the files"
    ):
        _ = CellDataModule([{"root": folder}], 4).table
    faults = [fault for _, wrong in verify(ShardDataset(folder), 0) for fault in wrong]
    assert len(faults) > 100
    assert "says Metadata_" in faults[0][1]


def test_verify_compares_every_column_of_every_sample(make_screen):
    folder = make_screen()
    assert not [fault for _, wrong in verify(ShardDataset(folder), 0) for fault in wrong]
    fields = pd.read_parquet(folder / "fields.parquet")
    row = len(fields) // 2 + 1
    rewrite(
        folder,
        lambda table: table.assign(
            **{schema.PERTURBATION: table[schema.PERTURBATION].where(table.index != row, "another")}
        ),
    )
    faults = [fault for _, wrong in verify(ShardDataset(folder), 0) for fault in wrong]
    assert len(faults) == (ShardDataset(folder).index["field"] == row).sum()
    assert all("'another'" in what and schema.PERTURBATION in what for _, what in faults)


def test_an_index_in_another_order_is_found(make_screen):
    folder = make_screen()
    index = {name: np.array(values) for name, values in map_index(folder / "index.arrow").items()}
    index["field"] = index["field"][::-1].copy()
    table = pa.table(index)
    with pa.OSFile(str(folder / "index.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match="says Metadata_"):
        _ = ShardDataset(folder).table


def test_further_columns_and_blank_ones_are_no_contradiction(make_screen):
    folder = make_screen()
    rewrite(folder, lambda fields: fields.assign(Metadata_mine="x", Metadata_Batch=fields.get("Metadata_Batch", "")))
    assert "Metadata_mine" in ShardDataset(folder).fields
    assert not [fault for _, wrong in verify(ShardDataset(folder), 0) for fault in wrong]


def test_the_json_is_that_of_the_sample(make_screen):
    data = ShardDataset(make_screen())
    for row in (0, 5, len(data) - 1):
        label = read_label(data, row)
        assert label["field"] == data.index["field"][row]
        assert label["crc32"] == data.index["crc32"][row]
