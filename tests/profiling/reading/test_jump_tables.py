"""JUMP's tables of plates, wells and perturbations, and plate maps with barcodes, annotate bare profiles."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.profiling.reading.joins import join_metadata

TABLES = {
    "plate.csv.gz": """Metadata_Source,Metadata_Batch,Metadata_Plate,Metadata_PlateType
source_4,b1,ORF1,ORF
source_13,b2,KO1,CRISPR
source_2,b3,CP1,COMPOUND
source_3,b4,CP1,TARGET2
""",
    "well.csv.gz": """Metadata_Source,Metadata_Plate,Metadata_Well,Metadata_JCP2022
source_4,ORF1,A01,JCP2022_915131
source_4,ORF1,A02,JCP2022_900001
source_13,KO1,A01,JCP2022_800002
source_13,KO1,A02,JCP2022_800003
source_2,CP1,A01,JCP2022_033924
source_2,CP1,A02,JCP2022_000001
source_2,CP1,A03,JCP2022_999999
source_3,CP1,A01,JCP2022_085227
source_3,CP1,A02,JCP2022_UNKNOWN
""",
    "compound.csv.gz": """Metadata_JCP2022,Metadata_InChIKey,Metadata_InChI,Metadata_SMILES
JCP2022_033924,IAZDPXIOMUYVGZ-UHFFFAOYSA-N,InChI=1S/C2H6OS,CS(C)=O
JCP2022_000001,BSYNRYMUTXBXSQ-UHFFFAOYSA-N,InChI=1S/C9H8O4,CC(=O)Oc1ccccc1C(=O)O
""",
    "orf.csv.gz": """Metadata_JCP2022,Metadata_broad_sample,Metadata_Name,Metadata_Symbol,Metadata_NCBI_Gene_ID,Metadata_pert_type
JCP2022_915131,ccsb_1,ORF1.1,LacZ,NA,negcon
JCP2022_900001,ccsb_2,ORF2.1,NAT2,10,trt
""",
    "crispr.csv.gz": """Metadata_JCP2022,Metadata_NCBI_Gene_ID,Metadata_Symbol
JCP2022_800002,NA,non-targeting
JCP2022_800003,1,A1BG
""",
    "compound_source.csv.gz": """Metadata_JCP2022,Metadata_Compound_Source
JCP2022_000001,source_1
JCP2022_000001,source_2
""",
    "microscope_config.csv": "Metadata_Source,Metadata_Microscope_Name\nsource_4,A\nsource_13,B\nsource_2,C\nsource_3,D\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in TABLES.items():
        pd.Series(text.splitlines()).to_csv(tmp_path / name, index=False, header=False, quoting=3, sep="\t")
    return tmp_path


@pytest.fixture
def profiles() -> pd.DataFrame:
    """The wells of well.csv, plates of one name in two sources apart by `Metadata_Source`."""
    rows = [line.split(",")[:3] for line in TABLES["well.csv.gz"].splitlines()[1:]]
    return pd.DataFrame(rows, columns=[schema.SOURCE, schema.PLATE, schema.WELL]).assign(x=range(len(rows)))


def test_jumps_folder_gives_ids_modality_controls_genes_and_structures(folder, profiles):
    notes: list[str] = []
    table = join_metadata(profiles, folder, notes=notes)
    assert table[schema.MODALITY].tolist() == ["orf"] * 2 + ["crispr"] * 2 + ["compound"] * 5
    assert table[schema.BATCH].tolist() == ["b1"] * 2 + ["b2"] * 2 + ["b3"] * 3 + ["b4"] * 2
    kinds = ["negcon", "", "negcon", "", "negcon", "", "empty", "poscon", "empty"]
    assert table[schema.CONTROL_TYPE].tolist() == kinds
    assert table[schema.GENE].tolist() == ["LacZ", "NAT2", "non-targeting", "A1BG"] + [""] * 5
    assert table[schema.SMILES].tolist()[4:6] == ["CS(C)=O", "CC(=O)Oc1ccccc1C(=O)O"]
    assert table[schema.NAME].tolist()[4] == "DMSO"
    assert table[schema.NAME].tolist()[7] == "aloxistatin"
    assert table["Metadata_broad_sample"].tolist()[:2] == ["ccsb_1", "ccsb_2"]  # another id of the same perturbation
    assert table[schema.PERTURBATION].tolist()[1] == "JCP2022_900001"
    assert table["Metadata_Microscope_Name"].tolist()[-1] == "D"
    assert schema.is_treated(table).tolist() == [kind in ("", "poscon") for kind in kinds]
    text = " ".join(notes)
    assert "1 wells hold a compound that JUMP does not know" in text
    assert "compound_source.csv.gz lists perturbation 'JCP2022_000001' twice" in text


def test_named_tables_of_other_modalities_are_left_out_with_a_note(folder, profiles):
    paths = [folder / f"{name}.csv.gz" for name in ("crispr", "orf", "compound", "well", "plate")]
    notes: list[str] = []
    compounds = profiles[profiles[schema.PLATE] == "CP1"]
    table = join_metadata(compounds, paths, notes=notes)
    assert table[schema.PERTURBATION].tolist()[:2] == ["JCP2022_033924", "JCP2022_000001"]
    assert sum("not joined, none of its rows" in note for note in notes) == 2
    with pytest.raises(ValueError, match="none of its rows belongs to a well"):
        join_metadata(compounds, [folder / "crispr.csv.gz"], notes=[])


def test_plate_maps_with_barcodes_and_external_tables_are_one_screen(tmp_path):
    """The layout of the Broad's profiling recipe: no experiment-metadata.tsv."""
    maps = tmp_path / "platemaps/2021_batch"
    (maps / "platemap").mkdir(parents=True)
    (maps / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nP1,m\n")
    (maps / "platemap/m.txt").write_text(
        "plate_map_name\twell_position\tbroad_sample\tmmoles_per_liter\nm\ta1\tB1\t5\nm\tA02\t\t\n"
    )
    (tmp_path / "external_metadata").mkdir()
    (tmp_path / "external_metadata/drugs.tsv").write_text("broad_sample\tpert_iname\nB1\taspirin\n")
    table = pd.DataFrame({schema.PLATE: ["P1", "P1"], schema.WELL: ["A02", "A01"], "x": [0.0, 1.0]})
    joined = join_metadata(table, tmp_path, notes=[])
    assert joined[schema.PERTURBATION].tolist() == ["", "B1"]
    assert joined[schema.DOSE].tolist() == ["", "5"]
    assert joined[schema.NAME].tolist() == ["", "aspirin"]
