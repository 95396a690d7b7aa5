"""Gene families: which groups a gene belongs to, from a column of the table or from a file such as HGNC's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.measures.side_tables import column_named, read_text_table

GENE_GROUP = "Metadata_gene_group"
_SYMBOL = ("symbol", "gene", "gene_symbol", "approved_symbol")
_GROUP = ("gene_group", "family", "group", "gene_family", "gene_group_name")


def read_families(path: str | Path) -> dict[str, set[str]]:
    """Gene symbol -> names of its groups, from a table with a column of symbols and one of groups ('|'-separated).

    HGNC's complete set (`symbol`, `gene_group`) is such a table. Tabs, commas and semicolons are recognised, and files
    may be compressed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no column of symbols or of groups, or no gene has a group.
    """
    table = read_text_table(path, "families")
    symbol, group = column_named(table, _SYMBOL), column_named(table, _GROUP)
    if symbol is None or group is None:
        raise ValueError(
            f"families={path} has the columns {list(table.columns)[:8]}: name the column of genes {_SYMBOL[0]!r} and that "
            f"of their groups {_GROUP[0]!r}"
        )
    families: dict[str, set[str]] = {}
    for gene, groups in table[[symbol, group]].itertuples(index=False, name=None):
        families.setdefault(gene.strip(), set()).update(split_groups(groups))
    families = {gene: groups for gene, groups in families.items() if groups and gene}
    if not families:
        raise ValueError(f"families={path}: no gene has a group in the column {group}")
    return families


def split_groups(cell: str) -> set[str]:
    """'Kinases | Receptors' -> the two names."""
    return {name.strip() for name in str(cell).split("|")} - {""}


def families_of(table: pd.DataFrame, families: Mapping[str, set[str]] | None) -> list[set[str]]:
    """The groups of each row's gene: from `families`, or else from the column Metadata_gene_group.

    Raises:
        ValueError: the table lacks the column that is needed.
    """
    if families is None:
        if GENE_GROUP not in table:
            raise ValueError(
                f"task gene_families needs the column {GENE_GROUP} ('|'-separated names of gene groups), or "
                "families=<table with the columns symbol and gene_group, such as HGNC's complete set>"
            )
        return [split_groups(cell) for cell in table[GENE_GROUP].fillna("")]
    if schema.GENE not in table:
        raise ValueError(f"families= are matched by {schema.GENE}, which the table lacks: annotate it with metadata=")
    return [set(families.get(str(gene).strip(), ())) for gene in table[schema.GENE].fillna("")]


def of_size(labels: Sequence[set[str]], smallest: int, largest: float = float("inf")) -> set[str]:
    """The families with at least `smallest` and at most `largest` members among the rows."""
    sizes = Counter(family for row in labels for family in row)
    return {family for family, size in sizes.items() if smallest <= size <= largest}
