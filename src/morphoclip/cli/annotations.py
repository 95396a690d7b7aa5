"""`morphoclip data annotations`: a table of perturbations and genes from files of public databases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def annotation_table(
    out: Annotated[
        Path,
        typer.Option(help="the table to write, e.g. perturbations.parquet; <out>.json says where each field is from"),
    ],
    jump_target: Annotated[
        list[Path] | None, typer.Option(help="JUMP-Target's compound, CRISPR or ORF metadata; may repeat")
    ] = None,
    drug_hub: Annotated[
        list[Path] | None, typer.Option(help="Drug Repurposing Hub: drugs file, and samples file; may repeat")
    ] = None,
    hgnc: Annotated[
        Path | None, typer.Option(help="hgnc_complete_set.txt: names and families; renamed symbols are resolved")
    ] = None,
    uniprot: Annotated[
        Path | None, typer.Option(help="UniProt's TSV export: Entry, Gene Names, Protein names, Function [CC]")
    ] = None,
    reactome: Annotated[
        Path | None, typer.Option(help="UniProt2Reactome.txt, Ensembl2Reactome.txt or a .gmt file")
    ] = None,
    descriptions: Annotated[
        list[Path] | None,
        typer.Option(help="csv or tsv of your own, with a column gene, broad_sample, InChIKey or pert_iname"),
    ] = None,
    licence: Annotated[
        list[str] | None, typer.Option(help="source=licence, e.g. descriptions=CC-BY-4.0; may repeat")
    ] = None,
) -> None:
    """Write one table of perturbations and genes, for metadata= of evaluate and data.enrich of train."""
    from morphoclip.preparation.annotations.build import build_annotations

    files = {"jump_target": jump_target or [], "drug_hub": drug_hub or [], "descriptions": descriptions or []}
    files |= {name: [path] for name, path in (("hgnc", hgnc), ("uniprot", uniprot), ("reactome", reactome)) if path}
    given = [one.partition("=") for one in licence or []]
    wrong = [name for name, _, text in given if name not in ("hgnc", "uniprot", "reactome", *files) or not text]
    if wrong:
        raise typer.BadParameter(f"--licence {wrong[0]}: write source=licence, e.g. descriptions=CC-BY-4.0")
    table, notes = build_annotations(out, files, {name: text for name, _, text in given})
    for column in table:
        typer.echo(f"  {column.removeprefix('Metadata_')}: {int((table[column] != '').sum())} of {len(table)} rows")
    for note in notes:
        typer.echo(note)
    typer.echo(f"{out} and {out}.json")
