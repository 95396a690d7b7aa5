"""Further columns for prompts, joined from annotation tables, and which answers a prompt contains."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.data.metadata.perturbations import PerturbationTable

# The annotations that sister and compound-gene matching are scored on, by their name in a prompt template; lists are
# separated by `|`. A column <name>_synonyms of an annotation table counts as <name>.
ANNOTATION_COLUMNS = {"gene": schema.GENE, "targets": schema.TARGETS, "moa": schema.MOA, "name": schema.NAME} | {
    name: schema.PREFIX + name for name in ("gene_name", "gene_group", "pathways", "protein_function", "description")
}
_IDS = (schema.PERTURBATION, schema.NAME, schema.INCHIKEY)  # a row without one is of a gene


def enrich(table: PerturbationTable, path: str | Path, key: str, *, source: str, licence: str) -> PerturbationTable:
    """The table with the columns of an annotation file, for templates such as `{protein_function}` or `{pathway}`.

    Args:
        path: csv, tsv or parquet with the column `key` and descriptions; other columns get the prefix `Metadata_`.
            Of a table of `morphoclip data annotations`, the rows of genes are used for a key of genes or targets,
            else those of perturbations, without the columns that the conditions have already.
        key: `Metadata_gene`, `Metadata_InChIKey`, `Metadata_perturbation`, … Where a condition lists several keys
            (`A|B`), their descriptions are joined by '; '.
        source, licence: origin and terms of the descriptions; kept with the run's configuration.

    Raises:
        ValueError: no source or licence, no such key, two rows of one key, or a column the table already has.
    """
    if not source or not licence:
        raise ValueError(f"{path}: give the source and the licence of the descriptions (source=, licence=)")
    said = _read(path)
    if built := bool(sidecar(path)):
        alone = (said[[c for c in _IDS if c in said]] == "").all(axis=1)
        said = said[alone].assign(**{key: said[schema.GENE]}) if key in (schema.GENE, schema.TARGETS) else said[~alone]
    said.columns = [c if c.startswith(schema.PREFIX) else schema.PREFIX + c for c in said.columns]
    if key not in said or key not in table.frame:
        raise ValueError(
            f"{path} and the conditions must both have the column {key}; the file has {list(said.columns)}"
        )
    if built:
        said = said.loc[said[key] != "", [c for c in said if c == key or c not in table.frame]].drop_duplicates()
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


def sidecar(path: str | Path) -> dict[str, dict]:
    """Column -> {source, licence, date, names_targets} of an annotation table, from the JSON beside it; {} if there is none."""
    beside = Path(f"{path}.json")
    return json.loads(beside.read_text())["columns"] if beside.is_file() else {}


def telling_columns(path: str | Path) -> set[str]:
    """Prompt fields (lower-cased, without prefix) of an annotation table that describe a target or a mechanism.

    Without a sidecar all its columns count: what is joined by gene or target describes it.
    """
    known = sidecar(path)
    columns = [c for c in known if known[c]["names_targets"]] if known else list(_read(path))
    return {column.removeprefix(schema.PREFIX).lower() for column in columns}


def _read(path: str | Path) -> pd.DataFrame:
    """The table as strings, blank where missing."""
    if str(path).endswith(".parquet"):
        table = pd.read_parquet(path)
        return table.astype(object).where(table.notna(), "").astype(str)
    separator = "," if Path(path).name.endswith((".csv", ".csv.gz")) else "\t"
    return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)


def annotations_in_prompts(table: PerturbationTable, prompts: Sequence[str | None]) -> list[str]:
    """Which of gene, targets, mechanism, name, family, pathway and function occur in the prompts, from whatever column.

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
