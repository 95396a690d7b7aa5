"""Further columns for prompts, joined from annotation tables, and what a prompt gives away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.data.metadata.perturbations import PerturbationTable

# What sister and compound-gene matching score, by the name a prompt template gives it; lists are separated by `|`.
# A column <name>_synonyms (of an enriching table) counts as <name>.
ANNOTATION_COLUMNS = {"gene": schema.GENE, "targets": schema.TARGETS, "moa": schema.MOA, "name": schema.NAME}


def enrich(table: PerturbationTable, path: str | Path, key: str, *, source: str, licence: str) -> PerturbationTable:
    """The table with the columns of an annotation file, for templates such as `{protein_function}` or `{pathway}`.

    Args:
        path: csv or tsv with the column `key` and descriptions; other columns get the prefix `Metadata_`.
        key: `Metadata_gene`, `Metadata_InChIKey`, `Metadata_perturbation`, … Where a condition lists several keys
            (`A|B`), what is said of them is joined by '; '.
        source, licence: where the descriptions are from and under which terms; kept with the run's configuration.

    Raises:
        ValueError: no source or licence, no such key, a key described twice, or a column the table already has.
    """
    if not source or not licence:
        raise ValueError(f"{path}: say the source and the licence of what enters prompts")
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


def told(table: PerturbationTable, prompts: Sequence[str | None]) -> list[str]:
    """Which of gene, targets, mechanism and name some prompt gives away, whatever field it came from.

    A value counts where it stands in its own condition's prompt as a whole word, in any case; one letter alone does not.
    A description that names the target leaks it as surely as the field does.
    """
    found = []
    for name, column in ANNOTATION_COLUMNS.items():
        columns = [c for c in (column, f"{column}_synonyms", f"{schema.PREFIX}{name}_synonyms") if c in table.frame]
        values = table.frame[columns].agg("|".join, axis=1) if columns else []
        if any(_says(prompt, value) for prompt, value in zip(prompts, values, strict=False) if prompt):
            found.append(name)
    return found


def _says(prompt: str, values: str) -> bool:
    words = [word.strip() for word in values.split("|") if len(word.strip()) > 1]
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) for word in words)
