"""One reader a database ▶ tables of strings: genes, drugs and reagents in canonical column names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.data.metadata.annotations import reagent_precedence

GENE_NAME, GENE_GROUP = "Metadata_gene_name", "Metadata_gene_group"
PATHWAYS, FUNCTION = "Metadata_pathways", "Metadata_protein_function"
_EVIDENCE = re.compile(r"\s*(\{ECO:[^}]*\}\.?|\(PubMed:[^)]*\))")
_HUB_DRUGS = {"moa": schema.MOA, "target": schema.TARGETS}
_HUB_SAMPLES = {"broad_id": schema.PERTURBATION, "smiles": schema.SMILES, "InChIKey": schema.INCHIKEY}
_HUB_FIELDS = ("clinical_phase", "disease_area", "indication")


def read_text_table(path: Path, needed: Sequence[str], header: bool = True) -> pd.DataFrame:
    """A csv or tab-separated file, compressed or not, as strings, '' where missing; leading `!` lines are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file lacks a column that is needed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    separator = "," if ".csv" in path.suffixes[-2:] else "\t"
    lines = pd.read_csv(path, sep="\x01", header=None, nrows=200, dtype=str, quoting=3, skip_blank_lines=False)[0]
    skipped = int((~lines.fillna("!").str.startswith("!")).to_numpy().argmax())
    names = {} if header else {"header": None, "names": list(needed)}
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, skiprows=skipped, **names)
    absent = [column for column in needed if column not in table]
    if absent:
        raise ValueError(f"{path} has no column {absent[0]!r}; it has {', '.join(map(repr, list(table)[:12]))}")
    return table


def read_hgnc(path: Path) -> pd.DataFrame:
    """HGNC's complete set (hgnc_complete_set.txt): symbol, name, gene_group, alias_symbol, prev_symbol, …"""
    table = read_text_table(path, ["symbol", "name", "gene_group"])
    return table[table["status"] == "Approved"].reset_index(drop=True) if "status" in table else table


def read_uniprot(path: Path) -> pd.DataFrame:
    """UniProt's TSV export: accession, gene (the first of Gene Names), and the function without evidence codes."""
    table = read_text_table(path, ["Entry", "Gene Names"])
    function = table.get("Function [CC]", pd.Series("", table.index))
    plain = function.str.removeprefix("FUNCTION: ").str.replace(_EVIDENCE, "", regex=True).str.strip()
    named = table.get("Gene Names (primary)", table["Gene Names"].str.split(" ").str[0])
    names = table.get("Protein names", pd.Series("", table.index)).str.split(r" \(", regex=True).str[0]
    return pd.DataFrame({"accession": table["Entry"], "gene": named, "protein": names, "function": plain})


def read_pathways(path: Path) -> pd.DataFrame:
    """Pairs (id, pathway) of human pathways, from Reactome's <Database>2Reactome.txt or a GMT file of gene symbols."""
    if path.name.endswith(".gmt"):
        pairs = [
            (gene, fields[0])
            for fields in (line.split("\t") for line in path.read_text().splitlines())
            for gene in fields[2:]
            if gene
        ]
        return pd.DataFrame(pairs, columns=["id", "pathway"])
    columns = ["id", "pathway_id", "url", "pathway", "evidence", "species"]
    table = read_text_table(path, columns, header=False)
    human = table[table["species"] == "Homo sapiens"]
    if human.empty:
        raise ValueError(f"{path} has no pathway of Homo sapiens: give Reactome's UniProt2Reactome.txt or a .gmt file")
    return human[["id", "pathway"]].drop_duplicates()


def read_drug_hub(paths: Sequence[Path]) -> pd.DataFrame:
    """A row a drug of the Drug Repurposing Hub, from its drugs file and, if given, its samples file (ids, structures).

    Raises:
        ValueError: no drugs file (pert_iname, moa, target) among the paths.
    """
    tables = [read_text_table(path, ["pert_iname"]) for path in paths]
    drugs = next((t for t in tables if {"moa", "target"} <= set(t)), None)
    if drugs is None:
        raise ValueError(
            f"{paths[0]} has no columns moa and target: give the hub's drugs file, and its samples file beside it"
        )
    drugs = drugs.rename(columns={"pert_iname": schema.NAME, **_HUB_DRUGS})
    drugs = drugs.rename(columns={name: schema.PREFIX + name for name in _HUB_FIELDS})
    drugs = drugs[[c for c in drugs if c.startswith(schema.PREFIX)]].drop_duplicates(schema.NAME)
    for samples in (t for t in tables if "broad_id" in t):
        plain = samples.rename(columns={"pert_iname": schema.NAME, **_HUB_SAMPLES})
        plain = plain.sort_values(schema.PERTURBATION)[[schema.NAME, *_HUB_SAMPLES.values()]]
        drugs = drugs.merge(plain.drop_duplicates(schema.NAME), on=schema.NAME, how="left").fillna("")
    return drugs


def read_jump_target(paths: Sequence[Path]) -> pd.DataFrame:
    """A row a perturbation of JUMP-Target's compound, CRISPR and ORF tables; where two tables differ, that of the paper wins."""
    parts = []
    for path in sorted(paths, key=reagent_precedence):
        table = read_text_table(path, ["broad_sample"])
        modality = next((name for name in ("crispr", "orf") if name in path.name.lower()), "compound")
        table = table.rename(columns={"target": "gene"} if modality == "compound" and "gene" not in table else {})
        table = schema.canonicalize(table.loc[:, ~table.columns.duplicated()])
        known = [c for c in table if c in schema.SPELLINGS]
        parts.append(table[known].replace("NA", "").assign(**{schema.MODALITY: modality}))
    both = pd.concat(parts, ignore_index=True)
    key = both[schema.PERTURBATION].where(both[schema.PERTURBATION] != "", both[schema.MODALITY] + " without id")
    return both.mask(both == "").groupby(key, sort=True).first().fillna("").reset_index(drop=True)
