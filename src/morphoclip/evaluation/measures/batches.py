"""The batches of wells, by one column of the protocol or by several in one report."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.tasks.protocol import Protocol


def batches_of(wells: pd.DataFrame, protocol: Protocol) -> Iterator[tuple[pd.Series, str]]:
    """(batch of each well, suffix of metrics) for each of the protocol's columns with more than one batch.

    The suffix is blank for a single column, else the column's name, e.g. '_source'.

    Raises:
        ValueError: the table lacks a column.
    """
    columns = list(protocol.batch_columns) or [protocol.batch_column]
    for column in columns:
        if column not in wells:
            raise ValueError(
                f"protocol {protocol.name} takes batches from {column}, but the table lacks it: name a column that it "
                f"has, e.g. batch_columns=[{schema.PLATE}]"
            )
        if wells[column].nunique() > 1:
            suffix = "" if len(columns) == 1 else "_" + column.removeprefix(schema.PREFIX).lower()
            yield wells[column].astype(str), suffix
