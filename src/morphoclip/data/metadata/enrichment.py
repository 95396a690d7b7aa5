"""Further columns for prompts, joined from annotation tables, and which answers a prompt contains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.data.metadata.perturbations import PerturbationTable

# The annotations that sister and compound-gene matching are scored on, by their name in a prompt template; lists are
# separated by `|`. A column <name>_synonyms of an annotation table counts as <name>.
ANNOTATION_COLUMNS = {"gene": schema.GENE, "targets": schema.TARGETS, "moa": schema.MOA, "name": schema.NAME}


def enrich(table: PerturbationTable, path: str | Path, key: str, *, source: str, licence: str) -> PerturbationTable:
    """The table with the columns of an annotation file, for templates such as `{protein_function}` or `{pathway}`.

    Args:
        path: csv or tsv with the column `key` and descriptions; other columns get the prefix `Metadata_`.
        key: `Metadata_gene`, `Metadata_InChIKey`, `Metadata_perturbation`, … Where a condition lists several keys
            (`A|B`), their descriptions are joined by '; '.
        source, licence: origin and terms of the descriptions; kept with the run's configuration.

    Raises:
        ValueError: no source or licence, no such key, two rows of one key, or a column the table already has.
    """
    if not source or not licence:
        raise ValueError(f"{path}: give the source and the licence of the descriptions (source=, licence=)")
    separator = "," if Path(path).name.endswith((".csv", ".csv.gz")) else "\t"
    said = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    said.columns = [c if c.startswith(schema.PREFIX) else schema.PREFIX + c for c in said.columns]
    if key not in said or key not in table.frame:
        raise ValueError(
            f"{path} and the conditions must both have the column {key}; the file has {list(said.columns)}"
        )
    twice = said.loc[said[key].duplicated(), key]
    if len(twice):
        raise ValueError(f"{path} describes {twice.iloc[0]!r} twice: keep one row")
    new = [column for column in said if column != key]
    known = sorted(set(new) & set(table.frame))
    if known:
        raise ValueError(f"{path} has the columns {known}, which the conditions have already: rename them")
    rows = said.set_index(key)

    def describe(keys: str, column: str) -> str:
        parts = [rows.at[one, column] for one in keys.split("|") if one in rows.index]
        return "; ".join(part for part in parts if part)

    columns = {column: table.frame[key].map(lambda keys, c=column: describe(keys, c)) for column in new}
    return PerturbationTable(table.frame.assign(**columns))


def annotations_in_prompts(table: PerturbationTable, prompts: Sequence[str | None]) -> list[str]:
    """Which of gene, targets, mechanism and name occur in the prompts, from whatever column they came.

    A value counts if it is a whole word of its own condition's prompt, in any case; single letters do not count. So a
    description that names the target is found as well as the target field itself.
    """
    found = []
    for name, column in ANNOTATION_COLUMNS.items():
        columns = [c for c in (column, f"{column}_synonyms", f"{schema.PREFIX}{name}_synonyms") if c in table.frame]
        values = table.frame[columns].agg("|".join, axis=1) if columns else []
        if any(_contains(prompt, value) for prompt, value in zip(prompts, values, strict=False) if prompt):
            found.append(name)
    return found


def _contains(prompt: str, values: str) -> bool:
    words = [word.strip() for word in values.split("|") if len(word.strip()) > 1]
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) for word in words)
