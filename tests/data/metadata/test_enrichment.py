"""Descriptions join conditions with their source and licence, and what a prompt tells is found out."""

import json

import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data import PerturbationTable
from morphoclip.data.metadata.enrichment import ANNOTATION_COLUMNS, annotations_in_prompts, enrich, telling_columns

FIELDS = pd.DataFrame(
    {
        schema.PERTURBATION: ["BRD-1", "BRD-2", "guide-1"],
        schema.MODALITY: ["compound", "compound", "crispr"],
        schema.NAME: ["volasertib", "aspirin", ""],
        schema.GENE: ["PLK1", "PTGS2", "PLK1"],
        schema.TARGETS: ["PLK1|BRD4", "PTGS2", ""],
        schema.SMILES: ["CCO", "CC(=O)Oc1ccccc1C(=O)O", ""],
    }
)
OPEN = {"source": "written for this test", "licence": "CC0-1.0"}


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "functions.tsv"
    path.write_text(
        "gene\tprotein_function\tgene_synonyms\nPLK1\ta kinase of mitosis, also called STPK13\tSTPK13\nBRD4\treads acetyl-lysine\t\n"
    )
    return path


def test_descriptions_reach_prompts(functions):
    table = enrich(PerturbationTable.from_frame(FIELDS), functions, schema.GENE, **OPEN)
    prompts = table.prompts(
        {"compound": "SMILES: {smiles}, acts on {protein_function}", "crispr": "loss of {protein_function}"}
    )
    assert prompts[0] == "SMILES: CCO, acts on a kinase of mitosis, also called STPK13"
    assert prompts[1] == "SMILES: CC(=O)Oc1ccccc1C(=O)O"  # nothing is known of PTGS2, and nothing is said
    assert prompts[2] == "loss of a kinase of mitosis, also called STPK13"
    # a description that names the gene by a synonym leaks it, though no template asked for the gene
    assert annotations_in_prompts(table, prompts) == ["gene", "protein_function"]


def test_lists_of_targets_are_described_together(functions, tmp_path):
    path = tmp_path / "targets.tsv"
    path.write_text(functions.read_text().replace("gene\tprotein", "target_list\tprotein", 1))
    table = enrich(PerturbationTable.from_frame(FIELDS), path, schema.TARGETS, **OPEN)
    assert table.frame["Metadata_protein_function"][0] == "a kinase of mitosis, also called STPK13; reads acetyl-lysine"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("SMILES: {smiles}", []),
        ("{name}", ["name"]),
        ("hits {targets}", ["gene", "targets"]),
        ("AVOLASERTIBX {smiles}", []),
        ("Volasertib", ["name"]),
        ("a BRD4 reader", ["targets"]),
    ],
)
def test_annotations_are_found_in_the_text_of_prompts(template, expected):
    table = PerturbationTable.from_frame(FIELDS[:1])
    assert annotations_in_prompts(table, table.prompts({"compound": template})) == expected


def test_what_describes_a_target_is_known_of_an_annotation_table(functions, tmp_path):
    """All columns of a table without a sidecar, and those that the sidecar marks of one with it."""
    assert telling_columns(functions) == {"gene", "protein_function", "gene_synonyms"}
    path = tmp_path / "built.parquet"
    pd.DataFrame(
        {"Metadata_gene": ["PLK1", None], "Metadata_moa": ["x", ""], "Metadata_Pathways": ["mitosis", None]}
    ).to_parquet(path)
    marked = {"Metadata_gene": True, "Metadata_Pathways": True, "Metadata_phase": False}
    (tmp_path / "built.parquet.json").write_text(
        json.dumps({"columns": {column: {"names_targets": tells} for column, tells in marked.items()}})
    )
    assert telling_columns(path) == {"gene", "pathways"}
    table = enrich(PerturbationTable.from_frame(FIELDS), path, schema.GENE, **OPEN)  # its mechanism is known already
    assert table.frame["Metadata_Pathways"].tolist() == ["mitosis", "", "mitosis"]


def test_families_pathways_and_functions_tell_too():
    table = PerturbationTable.from_frame(
        FIELDS[:1].assign(Metadata_pathways="Mitotic G2|Signalling", Metadata_gene_group="Polo kinases")
    )
    assert annotations_in_prompts(table, ["cells with a block of mitotic G2"]) == ["pathways"]
    assert annotations_in_prompts(table, ["{polo kinases}"]) == ["gene_group"]
    assert {"pathways", "gene_group", "protein_function", "description", *ANNOTATION_COLUMNS} <= schema.TELLING


def test_without_source_or_licence_nothing_enters(functions, tmp_path):
    table = PerturbationTable.from_frame(FIELDS)
    with pytest.raises(ValueError, match="source and the licence"):
        enrich(table, functions, schema.GENE, source="UniProt", licence="")
    with pytest.raises(ValueError, match="Metadata_moiety"):
        enrich(table, functions, "Metadata_moiety", **OPEN)
    twice = tmp_path / "twice.tsv"
    twice.write_text("gene\tx\nPLK1\t1\nPLK1\t2\n")
    with pytest.raises(ValueError, match="'PLK1' twice"):
        enrich(table, twice, schema.GENE, **OPEN)
    known = tmp_path / "known.csv"
    known.write_text("gene,moa\nPLK1,inhibitor\n")
    with pytest.raises(ValueError, match=r"\['Metadata_moa'\].*already"):
        enrich(table, known, schema.GENE, **OPEN)
