"""Files of public databases, in the layouts they are published in, become one table that says where each field is from."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from morphoclip import schema
from morphoclip.cli.main import app
from morphoclip.data import PerturbationTable
from morphoclip.data.metadata.enrichment import enrich, telling_columns
from morphoclip.preparation.annotations.build import build_annotations
from morphoclip.preparation.annotations.symbols import Symbols
from morphoclip.profiling.reading.joins import join_metadata

METADATA = Path(__file__).parents[3] / "../shared/data/cpjump1/metadata"
FILES = {
    "hgnc_complete_set.txt": (
        "hgnc_id\tsymbol\tname\tstatus\talias_symbol\tprev_symbol\tgene_group\tgene_group_id\tensembl_gene_id\tuniprot_ids\n"
        'HGNC:1\tPTGS2\tprostaglandin-endoperoxide synthase 2\tApproved\t"COX2|hCox-2"\t\tCyclooxygenases\t1\tENSG01\tP35354\n'
        'HGNC:2\tMT-CO2\tcytochrome c oxidase II\tApproved\t"COX2|MTCO2"\t\tComplex IV\t2\tENSG02\tP00403\n'
        'HGNC:3\tGUCY1B1\tguanylate cyclase 1\tApproved\t\t"GUCY1B3|GUC1B3"\t"Guanylate cyclases|Haem proteins"\t"3|4"\tENSG03\tQ02153\n'
        "HGNC:4\tOLDONE\twithdrawn\tEntry Withdrawn\t\t\t\t\t\t\n"
    ),
    "uniprot.tsv": (
        "Entry\tGene Names\tProtein names\tFunction [CC]\n"
        "P35354\tPTGS2 COX2\tProstaglandin G/H synthase 2 (EC 1.14.99.1)\tFUNCTION: Makes prostaglandins (PubMed:1, PubMed:2). {ECO:0000269|PubMed:1}.\n"
        "Q02153\tGUCY1B1\tGuanylate cyclase beta-1\t\n"
    ),
    "UniProt2Reactome.txt": (
        "P35354\tR-HSA-1\thttps://x\tProstanoid synthesis\tTAS\tHomo sapiens\n"
        "P35354-2\tR-HSA-2\thttps://x\tLipid metabolism\tTAS\tHomo sapiens\n"
        "Q02153\tR-HSA-3\thttps://x\tNitric oxide signalling\tTAS\tHomo sapiens\n"
        "P35354\tR-MMU-1\thttps://x\tOf the mouse\tIEA\tMus musculus\n"
    ),
    "repurposing_drugs.txt": (
        "!Broad Institute Drug Repurposing Hub\n!File Date: 3/24/2020\n"
        "pert_iname\tclinical_phase\tmoa\ttarget\tdisease_area\tindication\n"
        "aspirin\tLaunched\tcyclooxygenase inhibitor\tPTGS1|PTGS2\tneurology\theadache\n"
        "riociguat\tLaunched\tguanylate cyclase stimulant\tGUCY1B3\tcardiology\thypertension\n"
    ),
    "repurposing_samples.txt": (
        "!Broad Institute Drug Repurposing Hub\nbroad_id\tpert_iname\tpurity\tsmiles\tInChIKey\n"
        "BRD-K00000001-001-02-1\taspirin\t99\tCC(=O)Oc1ccccc1C(=O)O\tBSYNRYMUTXBXSQ-UHFFFAOYSA-N\n"
        "BRD-K00000001-001-01-1\taspirin\t98\tCC(=O)Oc1ccccc1C(=O)O\tBSYNRYMUTXBXSQ-UHFFFAOYSA-N\n"
        "BRD-K00000002-001-01-1\triociguat\t98\tCCO\tLFQSCWFLJHTTHZ-UHFFFAOYSA-N\n"
    ),
    "JUMP-Target-1_compound_metadata.tsv": (
        "broad_sample\tInChIKey\tpert_iname\ttarget\tpert_type\tcontrol_type\tsmiles\n"
        "BRD-K00000001-001-09-9\tBSYNRYMUTXBXSQ-UHFFFAOYSA-N\tASPIRIN\tPTGS2\ttrt\tNA\tCC(=O)Oc1ccccc1C(=O)O\n"
        "\t\tDMSO\t\tcontrol\tnegcon\tCS(C)=O\n"
    ),
    "JUMP-Target-1_orf_metadata.tsv": "broad_sample\tgene\tpert_type\tcontrol_type\nccsb1\tGUCY1B3\ttrt\tNA\nccsb2\tCOX2\ttrt\tNA\nccsb3\tLacZ\tcontrol\tnegcon\n",
    "notes.csv": "gene,story\nGUCY1B3,binds nitric oxide\n",
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[Path]]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    names = {
        "jump_target": ["JUMP-Target-1_compound_metadata.tsv", "JUMP-Target-1_orf_metadata.tsv"],
        "drug_hub": ["repurposing_samples.txt", "repurposing_drugs.txt"],
        "hgnc": ["hgnc_complete_set.txt"],
        "uniprot": ["uniprot.tsv"],
        "reactome": ["UniProt2Reactome.txt"],
        "descriptions": ["notes.csv"],
    }
    return {source: [tmp_path / name for name in listed] for source, listed in names.items()}


@pytest.fixture
def built(files, tmp_path) -> tuple[pd.DataFrame, list[str]]:
    return build_annotations(tmp_path / "perturbations.parquet", files, {"descriptions": "CC0-1.0"})


def test_each_source_gives_its_fields(built):
    table, _ = built
    by_id = table[table[schema.PERTURBATION] != ""].set_index(schema.PERTURBATION)
    aspirin = by_id.loc["BRD-K00000001-001-09-9"]  # JUMP-Target's row, completed by the hub through its InChIKey
    assert aspirin[schema.MOA] == "cyclooxygenase inhibitor"
    assert aspirin[schema.TARGETS] == "PTGS1|PTGS2"
    assert aspirin[schema.NAME] == "ASPIRIN"
    assert aspirin["Metadata_gene_group"] == "Cyclooxygenases"
    assert aspirin["Metadata_pathways"] == "Lipid metabolism|Prostanoid synthesis"
    riociguat = by_id.loc["BRD-K00000002-001-01-1"]  # of the hub alone, by its current gene symbol
    assert riociguat[schema.TARGETS] == "GUCY1B1"
    assert riociguat["Metadata_gene_group"] == "Guanylate cyclases|Haem proteins"
    reagent = by_id.loc["ccsb1"]
    assert (reagent[schema.GENE], reagent[schema.MODALITY]) == ("GUCY1B1", "orf")
    assert reagent["Metadata_gene_name"] == "guanylate cyclase 1"
    assert by_id.loc["ccsb3", schema.CONTROL_TYPE] == "negcon"
    assert len(by_id) == 5
    genes = table[(table[schema.PERTURBATION] == "") & (table[schema.NAME] == "")].set_index(schema.GENE)
    assert genes.index.tolist() == ["GUCY1B1", "MT-CO2", "PTGS2"]
    assert genes.loc["PTGS2", "Metadata_protein_function"] == "Makes prostaglandins."
    assert genes.loc["PTGS2", "Metadata_pathways"] == "Lipid metabolism|Prostanoid synthesis"  # not of the mouse
    assert table.loc[table[schema.GENE] == "GUCY1B1", "Metadata_story"].tolist() == ["binds nitric oxide"] * 2


def test_renamed_symbols_are_resolved_and_ambiguous_ones_kept_with_a_note(built):
    table, notes = built
    text = " ".join(notes)
    assert "1 gene symbols are renamed to HGNC's approved ones, e.g. GUCY1B3 to GUCY1B1" in text
    assert "1 symbols belong to several genes and are kept as they are, e.g. COX2 (MT-CO2 or PTGS2)" in text
    assert "LacZ" in text
    assert table.set_index(schema.PERTURBATION).loc["ccsb2", schema.GENE] == "COX2"


def test_an_approved_symbol_wins_over_a_former_one_of_another_gene():
    """As SEPT7 and others: the former symbol of one gene can be the approved one of another."""
    table = pd.DataFrame({"symbol": ["A", "B"], "prev_symbol": ["B|C", ""], "alias_symbol": ["", "D|C"]})
    symbols = Symbols.of_hgnc(table)
    assert [symbols.current(one) for one in ("B", "C", "d", "x", "")] == ["B", "A", "B", "x", ""]
    assert symbols.current_list("A|C|B|x") == "A|B|x"
    assert symbols.renamed == {"C": "A", "d": "B"}
    assert Symbols().current("x") == "x"  # without HGNC's table nothing is renamed, and nothing unknown


def test_each_field_has_source_licence_and_date_and_says_whether_it_names_targets(built, tmp_path):
    about = json.loads((tmp_path / "perturbations.parquet.json").read_text())
    columns = about["columns"]
    assert set(columns) == set(built[0])
    group = columns["Metadata_gene_group"]["sources"][0]
    assert (group["source"], group["licence"], group["files"][0]["name"]) == (
        "hgnc",
        "CC0-1.0",
        "hgnc_complete_set.txt",
    )
    assert len(group["files"][0]["date"]) == 10
    assert len(group["files"][0]["sha256"]) == 64
    assert columns["Metadata_story"]["sources"][0]["licence"] == "CC0-1.0"
    telling = {name for name, facts in columns.items() if facts["names_targets"]}
    assert {
        f"Metadata_{name}"
        for name in ("gene", "moa", "target_list", "gene_group", "pathways", "protein_function", "story")
    } <= telling
    assert not telling & {schema.SMILES, schema.INCHIKEY, schema.MODALITY, "Metadata_clinical_phase"}
    assert {"story", "pathways", "gene"} <= telling_columns(tmp_path / "perturbations.parquet")


def test_the_table_is_metadata_of_profiles_by_id_and_by_gene(built, tmp_path):
    wells = {
        schema.PLATE: ["P"] * 5,
        schema.WELL: ["A01", "A02", "A03", "A04", "A05"],
        schema.PERTURBATION: ["", "BRD-K00000001-001-02-1", "guide-1", "guide-2", "unheard of"],
        schema.GENE: ["", "", "PTGS2", "GUCY1B1", ""],
    }
    notes: list[str] = []
    table = join_metadata(pd.DataFrame(wells).assign(x=1.0), tmp_path / "perturbations.parquet", notes=notes)
    assert table[schema.PERTURBATION].tolist()[0] == "DMSO"
    assert table[schema.TARGETS].tolist()[1] == "PTGS1|PTGS2"
    assert table["Metadata_gene_group"].tolist()[1:] == [
        "Cyclooxygenases",
        "Cyclooxygenases",
        "Guanylate cyclases|Haem proteins",
        "",
    ]
    assert table["Metadata_gene_name"].tolist()[2] == "prostaglandin-endoperoxide synthase 2"
    assert len(notes) == 2
    assert "rows of genes" in notes[1]


def test_the_table_enriches_prompts_by_gene_and_by_list_of_targets(built, tmp_path):
    fields = pd.DataFrame(
        {
            schema.PERTURBATION: ["guide-1", "BRD-1"],
            schema.MODALITY: ["crispr", "compound"],
            schema.GENE: ["GUCY1B1", ""],
            schema.TARGETS: ["", "PTGS2|GUCY1B1"],
        }
    )
    terms = {"source": "built", "licence": "see the sidecar"}
    path = tmp_path / "perturbations.parquet"
    table = enrich(PerturbationTable.from_frame(fields), path, schema.GENE, **terms).frame.set_index(
        schema.PERTURBATION
    )
    assert table.loc["guide-1", "Metadata_gene_name"] == "guanylate cyclase 1"
    table = enrich(PerturbationTable.from_frame(fields), path, schema.TARGETS, **terms).frame.set_index(
        schema.PERTURBATION
    )
    assert table.loc["BRD-1", "Metadata_gene_group"] == "Cyclooxygenases; Guanylate cyclases|Haem proteins"


def test_the_command_prints_how_many_rows_have_each_field(files, tmp_path):
    words = [word for path in files["drug_hub"] for word in ("--drug-hub", str(path))]
    words += ["--hgnc", str(files["hgnc"][0]), "--out", str(tmp_path / "p.parquet")]
    result = CliRunner().invoke(app, ["data", "annotations", *words])
    assert result.exit_code == 0, result.output
    assert "  moa: 2 of 5 rows" in result.output
    assert "2 perturbations and 3 genes" in result.output
    assert (tmp_path / "p.parquet.json").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "give at least one file"),
        ({"hgnc": "uniprot.tsv"}, "has no column 'symbol'; it has 'Entry'"),
        ({"drug_hub": "repurposing_samples.txt"}, "no columns moa and target"),
        ({"reactome": "UniProt2Reactome.txt"}, "give --hgnc or --uniprot"),
        ({"hgnc": "hgnc_complete_set.txt", "descriptions": "notes.csv"}, "state its licence"),
        ({"hgnc": "nothing.txt"}, "there is no file"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_written(files, tmp_path, changes, words):
    given = {source: [tmp_path / name] for source, name in changes.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        build_annotations(tmp_path / "out.parquet", given)
    assert not list(tmp_path.glob("*out.parquet*"))


def test_a_gmt_file_gives_pathways_by_symbol(files, tmp_path):
    (tmp_path / "sets.gmt").write_text("Prostanoids\thttps://x\tPTGS2\tGUCY1B3\n")
    table, _ = build_annotations(tmp_path / "o.parquet", {"hgnc": files["hgnc"], "reactome": [tmp_path / "sets.gmt"]})
    assert table.set_index(schema.GENE)["Metadata_pathways"].to_dict() == {
        "GUCY1B1": "Prostanoids",
        "MT-CO2": "",
        "PTGS2": "Prostanoids",
    }


def test_real_jump_target_tables(tmp_path):
    if not METADATA.is_dir():
        pytest.skip("no ../shared/data/cpjump1 beside the checkout")
    table, notes = build_annotations(
        tmp_path / "p.parquet", {"jump_target": sorted(METADATA.glob("JUMP-Target-1_*.tsv"))}
    )
    counts = {
        kind: pd.concat(
            pd.read_csv(p, sep="\t", dtype=str)["broad_sample"].fillna("") for p in METADATA.glob(f"*{kind}_metadata*")
        ).nunique()
        for kind in ("compound", "crispr", "orf")
    }
    assert table[schema.MODALITY].value_counts().to_dict() == counts
    assert notes == [f"{sum(counts.values())} perturbations and 0 genes"]
    targets = table.set_index(schema.PERTURBATION)[schema.TARGETS]
    assert targets["BRD-K60476892-001-16-1"].split("|") == [
        "GUCY1A2",
        "GUCY1A1",
        "GUCY1B1",
        "HIF1A",
    ]  # as the paper scored
