"""Which numbers are features: bookkeeping, object positions, plain metadata and row numbers are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphoclip.profiling import read_profiles
from morphoclip.profiling.reading.dominance import dominating_features
from tests.profiling.reading.plates import FEATURES, canonical, screen, written

SHARED = Path(__file__).parents[3] / "../shared/data"
POSITIONS = (
    "Cells_Location_Center_X", "Nuclei_Parent_Cells", "Cells_Children_Cytoplasm_Count", "Nuclei_Number_Object_Number",
    "Nuclei_AreaShape_Center_Y", "Cytoplasm_AreaShape_BoundingBoxMinimum_X", "Cells_Neighbors_FirstClosestObjectNumber_5",
)  # fmt: skip
BOOKKEEPING = (
    "ImageNumber", "TableNumber", "ObjectNumber", "Image_FileName_DNA", "Image_Height_DNA", "Image_ExecutionTime_01Load",
    "Image_ModuleError_02", "Image_Group_Index", "Nuclei_ObjectNumber", "level_0", "Count_Nuclei",
)  # fmt: skip
PLAIN = (
    "Row", "Column", "Concentration", "Time Point", "Timestamp", "Field", "Plane", "X", "Y", "Position X [µm]", "Object No",
    "Number of Analyzed Fields", "Bounding Box [px]", "Cell Count", "Replicate", "pubchem_cid",
)  # fmt: skip


def read(table: pd.DataFrame, folder: Path, **options) -> tuple[pd.DataFrame, str]:
    notes: list[str] = []
    found = read_profiles(written(table, folder / "t.csv"), notes=notes, **options)
    return found, "\n".join(notes)


@pytest.mark.parametrize("name", [*POSITIONS, *BOOKKEEPING, *PLAIN])
def test_what_is_no_feature_is_left_out_with_a_note(name, tmp_path):
    """Each is noise of a large scale, which would decide every distance."""
    noise = np.random.default_rng(0).integers(1, 1000, 24)
    table = screen().drop(columns="Dose").assign(**{name: noise})
    found, said = read(table, tmp_path)
    assert [c for c in found if not c.startswith("Metadata_")] == FEATURES
    assert name in said


def test_positions_that_a_published_pipeline_standardised_stay(tmp_path):
    """Scores published for JUMP's plates include them: median 0 on each plate, over all wells or over its controls."""
    raw = np.random.default_rng(0).normal(500, 100, 24)
    table = screen().assign(Nuclei_Location_Center_X=raw)
    assert "Nuclei_Location_Center_X" not in read(table, tmp_path)[0]
    for rows in (table["Compound"] != "", table["Compound"] == "DMSO"):
        median = table[rows].groupby("Plate")["Nuclei_Location_Center_X"].median()
        moved = table.assign(Nuclei_Location_Center_X=(raw - table["Plate"].map(median)).round(6))
        found, said = read(moved, tmp_path)
        assert "Nuclei_Location_Center_X" in found
        assert "['Nuclei_Location_Center_X'] are standardised like the other features and stay" in said
    counts = table.assign(Nuclei_Children_Spots_Count=[0] * 20 + [3] * 4)  # median 0, and no deviation below it
    assert "Nuclei_Children_Spots_Count" not in read(counts, tmp_path)[0]


def test_a_column_that_numbers_the_rows_is_no_feature(tmp_path):
    plain = screen().rename(columns={c: c.split("_")[1] + c[14] for c in FEATURES})
    found, said = read(plain.assign(sample=np.arange(100, 124)), tmp_path)
    assert [c for c in found if not c.startswith("Metadata_")] == [c.split("_")[1] + c[14] for c in FEATURES]
    assert "['sample'] are bookkeeping" in said


@pytest.mark.parametrize(
    "names", [["0", "1", "2"], ["embedding_0001", "embedding_0002"], ["X_12", "X_13"], ["dim_3", "area"]]
)
def test_names_of_encoders_are_features(names, tmp_path):
    table = screen().drop(columns=FEATURES)
    values = np.random.default_rng(0).normal(size=(24, len(names)))
    found, _ = read(table.join(pd.DataFrame(values, columns=names)), tmp_path)
    assert [c for c in found if not c.startswith("Metadata_")] == names


def test_features_by_name_pattern_and_file(tmp_path):
    table = screen().assign(viability=0.5, Nuclei_Location_Center_X=7.5)
    for asked in (["Cells_Texture_0_DNA", "*_3_DNA"], "Cells_Texture_0_DNA,*_3_DNA"):
        found, said = read(table, tmp_path, features=asked)
        assert [c for c in found if not c.startswith("Metadata_")] == [FEATURES[0], FEATURES[3]]
        assert "2 of 6 numeric columns are features" in said
    (tmp_path / "names.txt").write_text("feature\nCells_Texture_2_DNA\n\nviability\n")
    found, _ = read(table, tmp_path, features=str(tmp_path / "names.txt"))
    assert [c for c in found if not c.startswith("Metadata_")] == [FEATURES[2], "viability"]
    patterned, said = read(table, tmp_path, features="*")
    assert "Nuclei_Location_Center_X" not in patterned
    assert "left out unless named in full" in said
    assert "Nuclei_Location_Center_X" in read(table, tmp_path, features=["*", "Nuclei_Location_Center_X"])[0]


def test_a_value_that_explodes_and_a_feature_of_most_variance_are_named():
    table = canonical()
    assert dominating_features(table) == []
    exploded = table.assign(Cells_Texture_1_DNA=table["Cells_Texture_1_DNA"].mask(table.index == 5, 1e18))
    (said,) = dominating_features(exploded)
    assert said.startswith("Cells_Texture_1_DNA is 1e+18 at 0117 A06, where its median is")
    many = table.assign(
        **{f"Nuclei_{i}": table["Cells_Texture_0_DNA"] for i in range(6)}, Cells_Area=np.arange(24) * 50.0
    )
    (said,) = dominating_features(many)
    assert said.startswith(
        "Cells_Area carries 100% of the variance of all 11 features (largest value 1.15e+03 at 0118 B06)"
    )


@pytest.mark.parametrize(
    "pattern", ["cpjump1/profiles/*24_*.csv.gz", "jump_moa/dye_BR00122250.csv.gz", "jump_moa/yoko_us_40x.csv.gz"]
)
def test_published_profiles_keep_every_feature(pattern):
    """Their published scores were computed with the positions that feature selection left."""
    paths = sorted(SHARED.glob(pattern))
    if not paths:
        pytest.skip(f"no {pattern} in ../shared/data")
    for path in paths:
        header = pd.read_csv(path, nrows=0).columns
        found = read_profiles(path, notes=[])
        assert [c for c in found if not c.startswith("Metadata_")] == [
            c for c in header if not c.startswith("Metadata_")
        ]


def test_an_export_of_harmony(tmp_path):
    """Row and column numbers, one file per plate, units in brackets, features in words beside counts and times."""
    table = screen().query("Plate == '0117'").reset_index(drop=True)
    wells = {"Row": [1 if w[0] == "A" else 2 for w in table["Well"]], "Column": [int(w[1:]) for w in table["Well"]]}
    others = {
        "Plane": 0,
        "Timepoint": 0,
        "Number of Objects": range(12),
        "Time [s]": 0.1,
        "Number of Analyzed Fields": 9,
    }
    kinds = ("Area [µm²]", "Roundness")
    features = {f"Nuclei - Nucleus {kind} - Mean per Well": table[FEATURES[i]] for i, kind in enumerate(kinds)}
    names = {"Compound": table["Compound"], "Concentration": table["Dose"], "Cell Type": "U2OS"}
    path = written(pd.DataFrame({**wells, **others, **features, **names}), tmp_path / "0117.txt", sep="\t")
    found = read_profiles(path, notes=[])
    assert [c for c in found if not c.startswith("Metadata_")] == list(features)
    expected = canonical().iloc[:12].drop(columns=FEATURES)
    pd.testing.assert_frame_equal(found[list(expected)], expected)


def test_an_export_of_cytotable(tmp_path):
    """Single cells in Parquet, with the links between objects and the paths of images."""
    names = {c: f"Image_Metadata_{c}" for c in ("Plate", "Well", "Compound", "Dose")}
    links = (
        "Cytoplasm_Parent_Cells", "Cytoplasm_Parent_Nuclei", "Nuclei_Number_Object_Number", "Cells_AreaShape_Center_X",
        "Nuclei_Location_Center_Y", "Nuclei_ObjectNumber", "Metadata_ObjectNumber",
    )  # fmt: skip
    cells = pd.concat([screen()] * 3, ignore_index=True).rename(columns=names)
    cells = cells.assign(**dict.fromkeys(links, range(72)))
    cells = cells.assign(Metadata_ImageNumber=1, Image_FileName_DNA="a.tiff", Image_TableNumber="af3")
    cells.to_parquet(tmp_path / "t.parquet")
    notes: list[str] = []
    found = read_profiles(tmp_path / "t.parquet", notes=notes)
    assert [c for c in found if not c.startswith("Metadata_")] == FEATURES
    assert found["Metadata_Well"].tolist() == screen()["Well"].tolist() * 3
    said = " ".join(notes)
    for column in ("Cytoplasm_Parent_Cells", "Nuclei_Location_Center_Y", "Image_FileName_DNA", "Nuclei_ObjectNumber"):
        assert f"'{column}'" in said
