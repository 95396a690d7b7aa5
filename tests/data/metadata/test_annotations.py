"""Plate maps and annotation tables joined: against CPJUMP1's own joined table, and on broken folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data.metadata.annotations import annotate, plate_ids, read_annotations

SHARED = Path(__file__).parents[3] / "../shared/data/cpjump1/metadata"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One compound, one CRISPR plate of four wells, in the Gallery's layout."""
    maps = tmp_path / "metadata" / "platemaps" / "batch1"
    (maps / "platemap").mkdir(parents=True)
    (maps / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\n117024,cpd\n117025,guides\n")
    (maps / "platemap" / "cpd.txt").write_text("well_position\tbroad_sample\tsolvent\nA01\tBRD-1\tDMSO\na2\t\tDMSO\n")
    (maps / "platemap" / "guides.txt").write_text("well_position\tbroad_sample\nA01\tg1\nA02\t\n")
    (tmp_path / "experiment-metadata.tsv").write_text(
        "Batch\tAssay_Plate_Barcode\tPerturbation\tCell_type\tTime\tCell_line\n"
        "batch1\t117024\tcompound\tU2OS\t24\tParental\nbatch1\t117025\tCRISPR\tA549\t96\tCas9\n"
    )
    (tmp_path / "T_compound_metadata_targets.tsv").write_text(
        "broad_sample\tpert_iname\ttarget\ttarget_list\tpert_type\tcontrol_type\tsmiles\n"
        "BRD-1\tdrug\tTP53\tTP53|MDM2\ttrt\t\tCCO\n\tDMSO\t\t\tcontrol\tnegcon\tCS(=O)C\n"
    )
    (tmp_path / "T_compound_metadata_more.tsv").write_text("broad_sample\tmoa_list\nBRD-1\tstabiliser\n")
    (tmp_path / "T_crispr_metadata.tsv").write_text("broad_sample\tgene\tpert_type\tcontrol_type\ng1\tMDM2\ttrt\t\n")
    return tmp_path


def test_wells_get_their_reagents_and_controls(folder):
    wells = read_annotations(folder).set_index([schema.PLATE, schema.WELL])
    drug, dmso = wells.loc[("117024", "A01")], wells.loc[("117024", "A02")]
    assert (drug[schema.TARGETS], drug[schema.GENE], drug[schema.MOA]) == ("TP53|MDM2", "TP53", "stabiliser")
    assert (dmso[schema.PERTURBATION], dmso[schema.CONTROL_TYPE], dmso[schema.SMILES]) == ("DMSO", "negcon", "CS(=O)C")
    assert wells.loc[("117025", "A02"), schema.CONTROL_TYPE] == "empty"
    guide = wells.loc[("117025", "A01")]
    assert (guide[schema.MODALITY], guide[schema.CELL_LINE], guide["Metadata_cell_variant"]) == (
        "crispr",
        "A549",
        "Cas9",
    )


def test_a_table_with_numeric_plates_and_short_wells_joins(folder):
    table = pd.DataFrame({"Metadata_Plate": [117025.0, 117024.0], "Metadata_Well": ["A1", "A02"], "x": [1.0, 2.0]})
    table.index = [7, 3]
    joined = annotate(table, folder)
    assert joined.index.tolist() == [7, 3]
    assert joined[schema.PERTURBATION].tolist() == ["g1", "DMSO"]
    assert joined["x"].tolist() == [1.0, 2.0]
    assert plate_ids(pd.Series(["007"])).tolist() == ["007"]


@pytest.mark.parametrize(
    ("break_it", "error", "words"),
    [
        (lambda f: next(f.rglob("barcode_platemap.csv")).unlink(), FileNotFoundError, "barcode_platemap.csv"),
        (lambda f: (f / "experiment-metadata.tsv").unlink(), FileNotFoundError, "experiment-metadata.tsv"),
        (lambda f: (f / "T_crispr_metadata.tsv").unlink(), FileNotFoundError, "crispr_metadata"),
        (lambda f: next(f.rglob("guides.txt")).unlink(), FileNotFoundError, "guides.txt"),
        (lambda f: next(f.rglob("guides.txt")).write_text("well_position\tbroad_sample\nA01\tg9\n"), ValueError, "g9"),
        (lambda f: _append(f / "T_crispr_metadata.tsv", "g1\tMDM4\ttrt\t\n"), ValueError, "'g1' twice"),
        (lambda f: _append(next(f.rglob("barcode_platemap.csv")), "117026,cpd\n"), ValueError, "117026"),
    ],
    ids=["no maps", "no experiments", "no guides table", "no map", "unknown reagent", "reagent twice", "no experiment"],
)
def test_a_broken_folder_says_what_is_missing(folder, break_it, error, words):
    break_it(folder)
    with pytest.raises(error, match=words):
        read_annotations(folder)


def test_unknown_plates_and_wells_are_named(folder):
    with pytest.raises(ValueError, match="999"):
        annotate(pd.DataFrame({"Metadata_Plate": ["999"], "Metadata_Well": ["A01"]}), folder)
    with pytest.raises(ValueError, match="117024 H12"):
        annotate(pd.DataFrame({"Metadata_Plate": ["117024"], "Metadata_Well": ["H12"]}), folder)
    with pytest.raises(KeyError, match="Metadata_Well"):
        annotate(pd.DataFrame({"Metadata_Plate": ["117024"]}), folder)


def test_a_plate_in_two_batches_needs_the_batch(folder):
    maps = folder / "metadata" / "platemaps"
    shutil.copytree(maps / "batch1", maps / "batch2")
    _append(folder / "experiment-metadata.tsv", "batch2\t117024\tcompound\tU2OS\t48\tParental\n")
    _append(folder / "experiment-metadata.tsv", "batch2\t117025\tcrispr\tU2OS\t96\tCas9\n")
    table = pd.DataFrame({"Metadata_Plate": ["117024"], "Metadata_Well": ["A01"]})
    with pytest.raises(ValueError, match="several batches"):
        annotate(table, folder)
    assert annotate(table.assign(Metadata_Batch="batch2"), folder)[schema.TIMEPOINT].tolist() == ["48"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="CPJUMP1 metadata not beside the checkout")
def test_equals_the_joined_table_of_cpjump1():
    joined = pd.read_csv(SHARED / "cpjump1_metadata.csv.gz", dtype=str, keep_default_na=False)
    ours = annotate(joined[["Metadata_Plate", "Metadata_Well"]], SHARED)
    empty = joined["Metadata_broad_sample"] == "empty"
    bare = joined["Metadata_broad_sample"] == ""
    want = joined["Metadata_broad_sample"].mask(bare, "DMSO").mask(empty, "")
    assert (ours[schema.PERTURBATION] == want).all()
    assert (ours[schema.CELL_LINE] == joined["Metadata_cell_line"]).all()
    assert (ours[schema.TIMEPOINT] == joined["Metadata_timepoint"]).all()
    control = joined["Metadata_control_type"].replace("NA", "").mask(empty, "empty")
    assert (ours[schema.CONTROL_TYPE] == control).all()
    assert (ours[schema.MODALITY] == joined["Metadata_experiment_type"].str.lower()).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason="CPJUMP1 metadata not beside the checkout")
def test_targets_are_those_the_cpjump1_paper_scored():
    """By current gene symbols: GUCY1B1 has a CRISPR and an ORF reagent, its former name GUCY1B3 none."""
    wells = read_annotations(SHARED)
    targets = wells.drop_duplicates(schema.PERTURBATION).set_index(schema.PERTURBATION)[schema.TARGETS].str.split("|")
    assert targets["BRD-K60476892-001-16-1"] == ["GUCY1A2", "GUCY1A1", "GUCY1B1", "HIF1A"]
    assert "BRAF" in targets["BRD-K62810658-001-11-4"]
    genes = wells.groupby(schema.MODALITY)[schema.GENE].agg(set)
    assert "GUCY1B1" in genes["crispr"] & genes["orf"]


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)
