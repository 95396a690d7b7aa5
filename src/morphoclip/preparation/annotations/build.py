"""Sources ▶ perturbations.parquet: perturbations by id, then genes by symbol, and a sidecar on each field's origin."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from morphoclip import chemistry, schema
from morphoclip.files import sha256_of_file, write_atomically
from morphoclip.preparation.annotations import sources
from morphoclip.preparation.annotations.sources import FUNCTION, GENE_GROUP, GENE_NAME, PATHWAYS
from morphoclip.preparation.annotations.symbols import Symbols
from morphoclip.version import __version__

LICENCES = {
    "jump_target": "CC0-1.0 or BSD-3-Clause (JUMP-Target repository)",
    "drug_hub": "terms of the Drug Repurposing Hub",
    "hgnc": "CC0-1.0",
    "uniprot": "CC-BY-4.0",
    "reactome": "CC0-1.0",
}
_FIRST = (schema.PERTURBATION, schema.MODALITY, schema.NAME, schema.GENE, schema.TARGETS, schema.MOA)


def build_annotations(
    out: str | Path, files: Mapping[str, Sequence[Path]], licences: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Write the table of perturbations and genes and `<out>.json`; returns the table and notes.

    Rows with a `Metadata_perturbation` or a name are perturbations; rows with a `Metadata_gene` alone are genes. All
    are strings, '' where unknown; lists are separated by `|`. Symbols are HGNC's approved ones if its table is given.
    A compound has the families and pathways of all its targets.

    Args:
        files: source (jump_target, drug_hub, hgnc, uniprot, reactome, descriptions) -> its files.
        licences: source -> licence, where it differs from `LICENCES`; descriptions need one.

    Raises:
        ValueError: no file, an unknown source, a file that lacks a column, or descriptions without a licence.
    """
    files = {source: list(paths) for source, paths in files.items() if paths}
    terms = LICENCES | dict(licences or {})
    if not files:
        raise ValueError(
            "give at least one file: --jump-target, --drug-hub, --hgnc, --uniprot, --reactome or --descriptions"
        )
    if "descriptions" in files and not terms.get("descriptions"):
        raise ValueError(f"{files['descriptions'][0]}: state its licence, --licence descriptions='CC-BY-4.0'")
    hgnc = sources.read_hgnc(files["hgnc"][0]) if "hgnc" in files else pd.DataFrame(columns=["symbol"])
    symbols = Symbols.of_hgnc(hgnc) if "hgnc" in files else Symbols()
    origin: dict[str, list[str]] = defaultdict(list)
    genes = _genes(files, hgnc, symbols, origin)
    rows = _perturbations(files, symbols, origin)
    rows = _with_genes(rows, genes)
    table = pd.concat([rows, genes], ignore_index=True) if len(rows) else genes
    for path in files.get("descriptions", []):
        table = _described(table, path, symbols, origin)
    table = table.astype(object).where(table.notna(), "").astype(str)
    table = table[[c for c in _FIRST if c in table] + [c for c in table if c not in _FIRST]]
    notes = [f"{len(rows)} perturbations and {len(genes)} genes", *symbols.notes()]
    facts = {source: _facts(source, paths, terms[source]) for source, paths in files.items()}
    columns = {
        column: {
            "sources": [facts[source] for source in dict.fromkeys(origin[column])],
            "names_targets": column.removeprefix(schema.PREFIX).lower() in schema.TELLING
            or "descriptions" in origin[column],
        }
        for column in table
    }
    about = {"made_by": f"morphoclip {__version__}", "columns": columns, "notes": notes}
    with write_atomically(out) as partial:
        table.to_parquet(partial, compression="zstd", index=False)
        with write_atomically(f"{out}.json") as sidecar:
            sidecar.write_text(json.dumps(about, indent=2) + "\n")
    return table, notes


def _genes(
    files: Mapping[str, Sequence[Path]], hgnc: pd.DataFrame, symbols: Symbols, origin: dict[str, list[str]]
) -> pd.DataFrame:
    """A row a gene: approved symbol, name, families, pathways, function."""
    known: dict[str, dict[str, str]] = {}
    by_accession: dict[str, str] = {}
    for row in hgnc.to_dict("records"):
        known[row["symbol"]] = {GENE_NAME: row["name"], GENE_GROUP: row["gene_group"]}
        by_accession |= {one: row["symbol"] for one in row.get("uniprot_ids", "").split("|") if one}
        by_accession |= {row["ensembl_gene_id"]: row["symbol"]} if row.get("ensembl_gene_id") else {}
    for column in (schema.GENE, GENE_NAME, GENE_GROUP):
        origin[column] += ["hgnc"] if len(hgnc) else []
    for path in files.get("uniprot", []):
        for entry in sources.read_uniprot(path).to_dict("records"):
            symbol = by_accession.get(entry["accession"]) or symbols.current(entry["gene"])
            by_accession.setdefault(entry["accession"], symbol)
            if symbol:
                gene = known.setdefault(symbol, {})
                gene[FUNCTION] = gene.get(FUNCTION) or entry["function"]
                gene[GENE_NAME] = gene.get(GENE_NAME) or entry["protein"]
        for column in (schema.GENE, GENE_NAME, FUNCTION):
            origin[column].append("uniprot")
    for path in files.get("reactome", []):
        pathways: dict[str, list[str]] = defaultdict(list)
        for one, pathway in sources.read_pathways(path).itertuples(index=False, name=None):
            symbol = one if path.name.endswith(".gmt") else by_accession.get(one.split("-")[0].split(".")[0], "")
            if symbol:
                pathways[symbols.current(symbol)].append(pathway)
        if not pathways:
            raise ValueError(
                f"{path}: no id belongs to a gene that is known; give --hgnc or --uniprot, which list the ids"
            )
        for symbol, names in pathways.items():
            gene = known.setdefault(symbol, {})
            gene[PATHWAYS] = _union([gene.get(PATHWAYS, ""), *sorted(names)])
        origin[PATHWAYS].append("reactome")
        origin[schema.GENE].append("reactome")
    return pd.DataFrame([{schema.GENE: symbol, **fields} for symbol, fields in sorted(known.items())]).fillna("")


def _perturbations(files: Mapping[str, Sequence[Path]], symbols: Symbols, origin: dict[str, list[str]]) -> pd.DataFrame:
    """A row a perturbation: JUMP-Target's, completed by the hub, then the hub's other drugs."""
    rows = sources.read_jump_target(files["jump_target"]) if "jump_target" in files else pd.DataFrame()
    for column in rows:
        origin[column].append("jump_target")
    if "drug_hub" in files:
        hub = sources.read_drug_hub(files["drug_hub"]).assign(**{schema.MODALITY: "compound"})
        for column in hub:
            origin[column].append("drug_hub")
        rows = _completed(rows, hub)
    for column in (schema.GENE, schema.TARGETS):
        if column in rows:
            rows[column] = rows[column].map(symbols.current_list)
    return rows


def _completed(rows: pd.DataFrame, hub: pd.DataFrame) -> pd.DataFrame:
    """The rows with blanks filled from drugs that are the same molecule, and the other drugs after them."""
    if rows.empty:
        return hub
    both = pd.concat([rows, hub], ignore_index=True).fillna("")
    named = both[[c for c in (schema.NAME, schema.INCHIKEY) if c in both]].copy()
    named[schema.PERTURBATION] = [f"{i:08d}" for i in range(len(both))]  # the earliest row names the molecule
    compound = (both[schema.MODALITY] == "compound").to_numpy()
    molecule = named[schema.PERTURBATION].mask(compound, chemistry.molecules(named[compound]))
    filled = both.mask(both == "").groupby(molecule.to_numpy()).transform("first").fillna("")
    own = both.where(both != "", filled)
    known = set(molecule[: len(rows)])
    kept = [i < len(rows) or one not in known for i, one in enumerate(molecule)]
    identity = [schema.PERTURBATION, *chemistry.IDENTITY]
    own[identity] = both[identity]
    return own[kept].reset_index(drop=True)


def _with_genes(rows: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """The perturbations with what is known of their gene; compounds with the families and pathways of all targets."""
    if rows.empty or genes.empty:
        return rows
    known = genes.set_index(schema.GENE)
    reagent = (rows[schema.MODALITY] != "compound").to_numpy()
    genetic = rows.get(schema.GENE, pd.Series("", rows.index)).where(reagent, "")
    targets = genetic.where(reagent, rows.get(schema.TARGETS, pd.Series("", rows.index)))
    for column in known:
        of = known[column].to_dict()
        if column in (GENE_GROUP, PATHWAYS):
            rows[column] = [_union(of.get(one, "") for one in listed.split("|")) for listed in targets]
        else:
            rows[column] = genetic.map(of).fillna("")
    return rows


def _described(table: pd.DataFrame, path: Path, symbols: Symbols, origin: dict[str, list[str]]) -> pd.DataFrame:
    """The table with the columns of a file keyed by gene, perturbation id, InChIKey or name."""
    extra = schema.canonicalize(sources.read_text_table(path, []))
    keys = (schema.PERTURBATION, schema.INCHIKEY, schema.NAME, schema.GENE)
    key = next((c for c in keys if c in extra), None)
    if key is None:
        raise ValueError(
            f"{path}: name its key column gene, broad_sample, InChIKey or pert_iname; it has {list(extra)}"
        )
    if key == schema.GENE:
        extra[key] = extra[key].map(symbols.current)
    twice = extra.loc[extra[key].duplicated(), key]
    if len(twice):
        raise ValueError(f"{path} describes {twice.iloc[0]!r} twice: keep one row")
    extra = extra.set_axis([c if c.startswith(schema.PREFIX) else schema.PREFIX + c for c in extra], axis=1)
    known = [c for c in extra if c != key and c in table]
    if known:
        raise ValueError(f"{path} has the columns {known}, which other sources give: rename them")
    for column in (c for c in extra if c != key):
        origin[column].append("descriptions")
    if key not in table or not table[key].isin(extra[key]).any():
        raise ValueError(f"{path}: none of its {key.removeprefix(schema.PREFIX)} values is in the other sources")
    return table.merge(extra, on=key, how="left")


def _union(lists: Iterable[str]) -> str:
    return "|".join(dict.fromkeys(one for listed in lists for one in listed.split("|") if one))


def _facts(source: str, paths: Sequence[Path], licence: str) -> dict[str, object]:
    files = [
        {"name": p.name, "sha256": sha256_of_file(p), "date": str(date.fromtimestamp(p.stat().st_mtime))} for p in paths
    ]
    return {"source": source, "licence": licence, "files": files}
