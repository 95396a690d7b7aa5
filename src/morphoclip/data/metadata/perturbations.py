"""The table of conditions, one row each, and their prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

import numpy as np
import pandas as pd

from morphoclip import schema

ANNOTATIONS = (
    schema.NAME,
    schema.GENE,
    schema.TARGETS,
    schema.MOA,
    schema.SMILES,
    schema.INCHIKEY,
    schema.GUIDE,
)
_ORIGIN = (*schema.WELL_KEY, schema.SITE, schema.CELL_COUNT)
_ALIASES = {"name": schema.NAME, "targets": schema.TARGETS}


@dataclass(frozen=True)
class PerturbationTable:
    """The distinct conditions of a set of fields; `Batch.condition` holds row numbers of `frame`.

    Attributes:
        frame: strings, sorted by `schema.CONDITION`, whose columns come first; then annotations and any other Metadata_
            column. A value that differs between the fields of a condition is blank.
    """

    frame: pd.DataFrame

    @classmethod
    def from_frame(cls, fields: pd.DataFrame) -> PerturbationTable:
        """The conditions present in a field or profile table; their order does not depend on that of the rows.

        Raises:
            ValueError: the same condition carries two different annotations (gene, SMILES, name, …).
        """
        table = pd.DataFrame({column: _strings(fields, column) for column in schema.CONDITION})
        others = [c for c in fields if c.startswith(schema.PREFIX) and c not in (*schema.CONDITION, *_ORIGIN)]
        missing = [c for c in ANNOTATIONS if c not in others]
        table = table.assign(**{column: _strings(fields, column) for column in [*others, *missing]})
        groups = table.groupby(list(schema.CONDITION), sort=True)
        frame = groups.first().reset_index()
        differing = groups.nunique().reset_index()
        for column in (*others, *missing):
            mixed = differing[column] > 1
            if mixed.any() and column in ANNOTATIONS:
                name = frame.loc[mixed, schema.PERTURBATION].iloc[0]
                values = sorted(table.loc[table[schema.PERTURBATION] == name, column].unique())
                raise ValueError(
                    f"perturbation {name!r} has several values of {column}: {values[:3]}. "
                    "Give them different Metadata_perturbation ids or correct the annotation table"
                )
            frame.loc[mixed, column] = ""
        return cls(frame)

    def __len__(self) -> int:
        return len(self.frame)

    def codes(self, fields: pd.DataFrame) -> np.ndarray:
        """The row of `frame` (int64) of every row of `fields`; -1 where its condition is not in the table."""
        known = pd.MultiIndex.from_frame(self.frame[list(schema.CONDITION)])
        wanted = pd.MultiIndex.from_arrays([_strings(fields, column) for column in schema.CONDITION])
        return known.get_indexer(wanted).astype(np.int64)

    def prompts(self, templates: Mapping[str, str]) -> list[str]:
        """One prompt per condition, from the template of its modality.

        A template uses lower-case column names without prefix: `{name}`, `{smiles}`, `{gene}`, `{targets}`,
        `{cell_line}`, `{timepoint_h}`, `{dose_um}`, `{guide_sequence}`, … A clause (between commas) whose values are
        all missing is left out, so DMSO has no 'SMILES: '. Empty wells, which are in no bag, may have an empty prompt.

        Raises:
            ValueError: a modality has no template, a template asks for a column the table lacks, or a prompt is empty.
        """
        values = {column.removeprefix(schema.PREFIX).lower(): self.frame[column] for column in self.frame}
        values |= {alias: self.frame[column] for alias, column in _ALIASES.items()}
        clauses = {modality: _clauses(template, values) for modality, template in templates.items()}
        prompts = []
        for row, modality in enumerate(self.frame[schema.MODALITY]):
            if modality not in clauses:
                raise ValueError(
                    f"no prompt template for modality {modality!r} (perturbation "
                    f"{self.frame[schema.PERTURBATION][row]!r}): templates exist for {sorted(templates)}"
                )
            said = []
            for clause, names in clauses[modality]:
                filled = {name: values[name][row] for name in names}
                if not names or any(filled.values()):
                    said.append(clause.format(**filled))
            prompts.append(", ".join(said))
            if not prompts[-1] and self.frame[schema.PERTURBATION][row]:
                raise ValueError(
                    f"perturbation {self.frame[schema.PERTURBATION][row]!r} has no value that the {modality} template "
                    f"{templates[modality]!r} uses, so its prompt is empty: add a clause on a column that is never blank"
                )
        return prompts


def _strings(table: pd.DataFrame, column: str) -> pd.Series:
    """The column as strings, blank where the value or the column is missing."""
    if column not in table:
        return pd.Series("", index=table.index, dtype=object)
    return table[column].astype(object).where(table[column].notna(), "").astype(str)


def _clauses(template: str, known: Mapping[str, pd.Series]) -> list[tuple[str, list[str]]]:
    """The template's clauses, each with the column names it uses."""
    clauses = []
    for clause in template.split(", "):
        names = [name for _, name, _, _ in Formatter().parse(clause) if name is not None]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"prompt template {template!r} uses {unknown}; the table has {sorted(known)}")
        clauses.append((clause, names))
    return clauses
