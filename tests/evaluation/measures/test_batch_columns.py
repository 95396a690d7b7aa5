"""Batches by several columns in one report."""

from __future__ import annotations

import numpy as np
import pytest

from morphoclip import schema
from morphoclip.evaluation import Protocol
from morphoclip.evaluation.measures.battery import batch_effects, neighbours
from morphoclip.evaluation.tasks.protocol import plate_sets


def rows_of(measure, table, protocol) -> dict[str, tuple]:
    return {row.metric: row[2:] for row in measure(plate_sets(table, protocol)[0], protocol)}


@pytest.mark.parametrize("measure", [neighbours, batch_effects])
def test_each_column_is_scored_as_it_would_be_alone(make_screen, measure):
    table = make_screen(0, plates=4).query("Metadata_modality == 'compound'").reset_index(drop=True)
    plate = table[schema.PLATE].str[-1].astype(int)
    table = table.assign(**{schema.BATCH: "b" + (plate // 2).astype(str), schema.SOURCE: "s" + (plate % 2).astype(str)})
    both = rows_of(measure, table, Protocol(batch_columns=[schema.BATCH, schema.SOURCE]))
    for column, suffix in ((schema.BATCH, "_batch"), (schema.SOURCE, "_source")):
        alone = rows_of(measure, table, Protocol(batch_column=column))
        by_batch = [name for name in alone if f"{name}{suffix}" in both]
        assert {"nsb", "nsbp"} <= set(by_batch) or {"silhouette", "plate_map", "lisi_k15"} <= set(by_batch)
        for name in by_batch:
            np.testing.assert_allclose(both[f"{name}{suffix}"], alone[name], equal_nan=True)
    listed = rows_of(measure, table, Protocol(batch_columns=[schema.SOURCE]))
    assert set(listed) == set(rows_of(measure, table, Protocol(batch_column=schema.SOURCE)))


def test_a_column_that_is_not_there_is_named(make_screen):
    table = make_screen(0)
    with pytest.raises(ValueError, match=r"takes batches from Metadata_Source.*batch_columns=\[Metadata_Plate\]"):
        rows_of(neighbours, table, Protocol(batch_columns=[schema.SOURCE]))
