"""Tables as they come, one a published or exported layout: what `docs/own_table.md` shows is read without an edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema

tables = pytest.importorskip("morphoclip.profiling.reading.tables")
SHARED = Path(__file__).parents[3] / "../shared/data"
DRUGS = ("DMSO", "taxol", "cytochalasin D")


def numbers(rows: int, *names: str) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(rows, len(names))), columns=list(names))


def read(path: Path, **options) -> tuple[pd.DataFrame, str]:
    notes: list[str] = []
    return tables.read_profiles(path, notes=notes, **options), " | ".join(notes)


def features(table: pd.DataFrame) -> list[str]:
    return schema.split_columns(table)[1]


@pytest.fixture
def bbbc021(tmp_path: Path) -> Path:
    """Two plates of three wells, two images a well: BBBC021_v1_image.csv, with features of three compartments."""
    plates, wells = ["Week1_22123", "Week1_22141"], ["B02", "C02", "D02"]
    places = [(plate, well, site) for plate in plates for well in wells for site in (1, 2)]
    images = pd.DataFrame(
        {
            "TableNumber": [4] * 12,
            "ImageNumber": range(1, 13),
            "Image_FileName_DAPI": [f"G10_s{site}_w1.tif" for _, _, site in places],
            "Image_PathName_DAPI": [f"Week1/{plate}" for plate, _, _ in places],
            "Image_Metadata_Plate_DAPI": [plate for plate, _, _ in places],
            "Image_Metadata_Well_DAPI": [well for _, well, _ in places],
            "Replicate": [1 + plates.index(plate) for plate, _, _ in places],
            "Image_Metadata_Compound": [DRUGS[wells.index(well)] for _, well, _ in places],
            "Image_Metadata_Concentration": [(0.0, 0.3, 10.0)[wells.index(well)] for _, well, _ in places],
        }
    )
    measured = numbers(12, "Cells_AreaShape_Area", "Nuclei_Texture_Contrast", "Cytoplasm_Intensity_Mean")
    pd.concat([images, measured], axis=1).to_csv(tmp_path / "BBBC021_v1_image.csv", index=False)
    (tmp_path / "BBBC021_v1_compound.csv").write_text("compound,smiles\ntaxol,CCO\ncytochalasin D,CCN\nDMSO,CS(C)=O\n")
    (tmp_path / "BBBC021_v1_moa.csv").write_text(
        "compound,concentration,moa\ntaxol,0.3,Microtubule stabilizers\ntaxol,1.0,Microtubule stabilizers\n"
        "cytochalasin D,30.0,Actin disruptors\nDMSO,0.0,DMSO\n"
    )
    return tmp_path


def test_bbbc021s_three_files(bbbc021):
    columns = {
        "plate": "Image_Metadata_Plate_DAPI",
        "well": "Image_Metadata_Well_DAPI",
        "perturbation": "Image_Metadata_Compound",
        "dose": "Image_Metadata_Concentration",
    }
    others = [bbbc021 / f"BBBC021_v1_{name}.csv" for name in ("compound", "moa")]
    table, notes = read(bbbc021 / "BBBC021_v1_image.csv", columns=columns, metadata=others, control="DMSO")
    assert features(table) == ["Cells_AreaShape_Area", "Nuclei_Texture_Contrast", "Cytoplasm_Intensity_Mean"]
    of = table.drop_duplicates(schema.PERTURBATION).set_index(schema.PERTURBATION)
    assert of[schema.MOA].to_dict() == {"DMSO": "DMSO", "taxol": "Microtubule stabilizers", "cytochalasin D": ""}
    assert of[schema.SMILES].to_dict() == {"DMSO": "CS(C)=O", "taxol": "CCO", "cytochalasin D": "CCN"}
    assert schema.is_negcon(table).tolist() == (table[schema.PERTURBATION] == "DMSO").tolist()
    assert "BBBC021_v1_moa.csv: joined by perturbation and dose" in notes
    assert "cytochalasin D 10" in notes  # its mechanism is listed at another concentration


def test_a_jump_scope_plate_without_cell_line_time_and_modality(tmp_path):
    plate = pd.DataFrame(
        {
            "Metadata_Plate": ["BR00117060a10x"] * 4,
            "Metadata_Well": ["A01", "A02", "A03", "A04"],
            "Metadata_broad_sample": ["BRD-K11111111-001-01-1", "", "BRD-K22222222-001-01-1", ""],
            "Metadata_pert_type": ["trt", "control", "trt", "control"],
        }
    )
    pd.concat([plate, numbers(4, "Cells_Area", "Nuclei_Area")], axis=1).to_csv(tmp_path / "plate.csv.gz", index=False)
    (tmp_path / "JUMP-Target-1_compound_metadata.tsv").write_text(
        "broad_sample\tpert_iname\ttarget\tcontrol_type\tsmiles\nBRD-K11111111-001-01-1\ta\tPLK1\tNA\tCCO\n"
        "BRD-K22222222-001-09-9\tb\tBRD4\tposcon_cp\tCCN\nNA\tDMSO\tNA\tnegcon\tCS(C)=O\n"
    )
    metadata = tmp_path / "JUMP-Target-1_compound_metadata.tsv"
    table, notes = read(tmp_path / "plate.csv.gz", metadata=metadata)
    assert table[schema.NAME].tolist() == ["a", "DMSO", "b", "DMSO"]
    assert table[schema.PERTURBATION].tolist()[1] == "DMSO"
    assert table[schema.CONTROL_TYPE].tolist() == ["", "negcon", "poscon_cp", "negcon"]
    assert table[schema.TARGETS].tolist() == ["PLK1", "", "BRD4", ""]
    assert "first 17 characters" in notes
    assert features(table) == ["Cells_Area", "Nuclei_Area"]


def test_a_harmony_export(tmp_path):
    """A block of lines before the table, names with blanks and units, row and column numbers."""
    head = "Database\tEvaluation1\nPlate Name\tHarmony plate 7\n\n[Data]\n"
    columns = (
        "Row\tColumn\tPlane\tTimepoint\tCompound\tConcentration\tCell Type\tCell Count\tNuclei - Number of Objects\t"
    )
    columns += "Cells - Intensity Mean\tCells - Area [µm²]\tNumber of Analyzed Fields\n"
    rows = [
        f"{row}\t{column}\t1\t0\t{DRUGS[(row + column) % 3]}\t10\tU2OS\t{90 + column}\t{80 + row}\t{100 + row * column}\t{5.5 + row}\t9\n"
        for row in (2, 3)
        for column in (2, 3, 4)
    ]
    path = tmp_path / "PlateResults.txt"
    path.write_text(head + columns + "".join(rows), encoding="utf-8")
    choice = ["Cells - *", "Nuclei - *"]
    table, _ = read(path, features=choice)
    assert table[schema.WELL].tolist() == ["B02", "B03", "B04", "C02", "C03", "C04"]
    assert table[schema.PERTURBATION].tolist() == [DRUGS[(r + c) % 3] for r in (2, 3) for c in (2, 3, 4)]
    assert set(features(table)) == {"Nuclei - Number of Objects", "Cells - Intensity Mean", "Cells - Area [µm²]"}
    assert table[schema.PLATE].nunique() == 1


def test_a_cytotable_of_single_cells(tmp_path):
    cells = pd.DataFrame(
        {
            "Metadata_ImageNumber": np.repeat([1, 2], 3),
            "Image_Metadata_Plate": ["P1"] * 6,
            "Image_Metadata_Well": np.repeat(["A01", "A02"], 3),
            "Metadata_Cells_Parent_Nuclei": [1, 2, 3] * 2,
            "Metadata_Nuclei_Location_Center_X": np.arange(6.0),
        }
    )
    pd.concat([cells, numbers(6, "Cells_AreaShape_Area", "Nuclei_AreaShape_Area")], axis=1).to_parquet(
        tmp_path / "c.parquet"
    )
    (tmp_path / "map.csv").write_text("Well,Compound\nA01,DMSO\nA02,taxol\n")
    table, _ = read(tmp_path / "c.parquet", metadata=tmp_path / "map.csv")
    assert features(table) == ["Cells_AreaShape_Area", "Nuclei_AreaShape_Area"]
    assert table[schema.PERTURBATION].tolist() == ["DMSO"] * 3 + ["taxol"] * 3
    assert table[schema.WELL].tolist() == ["A01"] * 3 + ["A02"] * 3


def test_the_cell_injury_table_and_its_annotations():
    folder = SHARED / "cell_injury"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/cell_injury beside the checkout")
    path, metadata = folder / "wells_24h.parquet", folder / "compound_annotations_MOESM5.csv.gz"
    with pytest.raises(ValueError, match=r"rel_cellcount.*features="):
        read(path, metadata=metadata)  # numbers beside CellProfiler's: the user says which are features
    table, notes = read(path, metadata=metadata, features=["Cells_*", "Cytoplasm_*", "Nuclei_*"])
    assert len(table) == 4419
    assert (table["Metadata_Cellular injury category"] != "").sum() > 1000
    assert "joined by perturbation" in notes
    assert schema.is_negcon(table).sum() > 800
