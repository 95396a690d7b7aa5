"""Metadata of any layout joins profiles by what both share, and what does not match is said or refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data.metadata.annotations import annotate
from morphoclip.profiling import read_profiles
from morphoclip.profiling.reading.joins import join_metadata

CPJUMP1 = Path(__file__).parents[3] / "../shared/data/cpjump1"
MOA = Path(__file__).parents[3] / "../shared/data/jump_moa"
LABEL = "Metadata_label"


def profiles(**changes) -> pd.DataFrame:
    """Two plates of three wells: DMSO, aspirin and a compound with a BRD id; replicated on both."""
    table = pd.DataFrame(
        {
            schema.PLATE: ["P1"] * 3 + ["P2"] * 3,
            schema.WELL: ["A01", "A02", "B12"] * 2,
            schema.PERTURBATION: ["DMSO", "aspirin", "BRD-K62391742-001-19-9"] * 2,
            "Cells_x": np.arange(6.0),
        },
        index=[10, 11, 12, 13, 14, 15],
    )
    return table.assign(**changes)


def join(table: pd.DataFrame, text: str, folder: Path, name: str = "extra.csv") -> tuple[pd.DataFrame, str]:
    (folder / name).write_text(text)
    notes: list[str] = []
    joined = join_metadata(table, folder / name, notes=notes)
    assert joined.index.equals(table.index)
    assert joined["Cells_x"].tolist() == table["Cells_x"].tolist()
    return joined, " | ".join(notes)


# name: (the file, the column `label` of the six wells, words of the note)
JOINS = {
    "plate and well": ("Plate,Well,label\nP1,A01,a\nP1,A02,b\nP1,B12,c\nP2,A01,d\nP2,A02,e\nP2,B12,f\n", "abcdef", "6 of 6"),
    "wells spelled otherwise": ("plate,well,label\nP1,a1,a\nP1,A2,b\nP2,B12,f\n", "ab---f", "3 of 6 rows"),
    "wells as row and column": ("plate,Row,Column,label\nP1,1,1,a\nP2,2,12,f\n", "a----f", "2 of 6 rows"),
    "wells as letter and number": ("plate,row,column,label\nP1,A,2,b\n", "-b----", "1 of 6 rows"),
    "plate": ("Assay_Plate_Barcode,label\nP1,a\nP2,b\n", "aaabbb", "by plate"),
    "one map for all plates": ("well_position;label\nA01;x\nB12;y\n", "x-yx-y", "by well"),
    "perturbation": ("broad_sample\tlabel\naspirin\tx\nDMSO\ty\n", "yx-yx-", "no match for 2 rows (1 of perturbation)"),
    "compound in another case": ("Compound,label\nAspirin,x\n", "-x--x-", "whatever the case, e.g. 'aspirin' to 'Aspirin'"),
    "a trailing blank": ("compound,label\naspirin ,x\n", "-x--x-", "without blanks around it, e.g. 'aspirin' to 'aspirin '"),
    "another batch of a BRD id": ("broad_sample,label\nBRD-K62391742-001-03-0,x\n", "--x--x", "first 17 characters"),
    "another salt of a BRD id": ("broad_sample,label\nBRD-K62391742-300-03-0,x\n", "--x--x", "first 13 characters"),
    "rows that repeat": ("compound,label\naspirin,x\naspirin,x\nDMSO,y\n", "yx-yx-", "rows that repeat another and are left out: 1"),
    "batches of one BRD id, alike": ("broad_sample,label\nBRD-K62391742-001-03-0,x\nBRD-K62391742-001-04-0,x\n", "--x--x", "first 17"),
    "a byte order mark": ("\ufeffcompound,label\naspirin,x\n", "-x--x-", "2 of 6 rows"),
    "comment lines": ("!version 3\n!licence CC0\ncompound\tlabel\naspirin\tx\n", "-x--x-", "2 of 6 rows"),
    "NA is missing": ("compound,label\naspirin,NA\nDMSO,y\n", "y--y--", "4 of 6 rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", JOINS)
def test_a_table_is_joined_by_what_it_shares(case, tmp_path):
    text, expected, words = JOINS[case]
    joined, notes = join(profiles(), text, tmp_path)
    assert joined[LABEL].replace("", "-").str.cat() == expected
    assert words in notes


# name: (changes of the profiles, the file, words of the error)
REFUSED = {
    "no row belongs": ({}, "plate,well,label\nX1,A01,a\n", r"none of its rows.*Metadata_Plate 'X1'.*Metadata_Plate 'P1', 'P2'"),
    "no column that identifies": ({}, "colour,label\nred,a\n", "no column that identifies a row.*columns.perturbation="),
    "a key twice": ({}, "compound,label\naspirin,x\naspirin,y\n", r"lists perturbation 'aspirin' twice with different label \('x' and 'y'\)"),
    "a well twice": ({}, "plate,well,label\nP1,A01,x\nP1,A1,y\n", r"plate and well 'P1 A01' twice"),
    "two plates would be one": ({schema.PLATE: ["12"] * 3 + ["0012"] * 3}, "plate,label\n012,x\n", "'0012' and '12' of the profiles would both be '012'"),
    "one plate could be two": ({schema.PLATE: ["12"] * 6}, "plate,label\n0012,x\n012,y\n", "'12' of the profiles could be '0012' or '012'"),
    "batches of one BRD id, not alike": ({}, "broad_sample,moa\nBRD-K62391742-001-03-0,x\nBRD-K62391742-001-04-0,y\n", "could be 'BRD-K62391742-001-03-0' or"),
    "not a well": ({}, "plate,well,label\nP1,well one,x\n", r"extra\.csv: well .* is not a letter row"),
    "an empty file": ({}, "", "extra.csv cannot be read"),
    "a header only": ({}, "plate,well,label\n", "extra.csv has no rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_joined_is_refused_with_the_remedy(case, tmp_path):
    changes, text, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        join(profiles(**changes), text, tmp_path)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(["0012", "0013"], "12,13"), (["12", "13"], "0012,0013"), (["P1 ", "p2"], "P1,P2")]
)
def test_barcodes_written_as_numbers_or_with_blanks_join_with_a_note(ours, theirs, tmp_path):
    table = profiles(**{schema.PLATE: np.repeat(ours, 3)})
    rows = [f"{plate},{label}" for plate, label in zip(theirs.split(","), "ab", strict=True)]
    joined, notes = join(table, "\n".join(["plate,label", *rows]), tmp_path)
    assert joined[LABEL].str.cat() == "aaabbb"
    assert "matched" in notes
    assert joined[schema.PLATE].tolist() == table[schema.PLATE].tolist()


def test_integer_barcodes_of_a_parquet_table_join(tmp_path):
    pd.DataFrame({"Metadata_Plate": [12, 13], "label": pd.Categorical(["a", "b"])}).to_parquet(tmp_path / "p.parquet")
    joined = join_metadata(profiles(**{schema.PLATE: np.repeat(["12", "13"], 3)}), tmp_path / "p.parquet", notes=[])
    assert joined[LABEL].str.cat() == "aaabbb"


def test_a_compound_at_several_doses_is_joined_by_both(tmp_path):
    """BBBC021's mechanisms: a row a compound and concentration; doses are numbers, however they are written."""
    table = profiles(**{schema.DOSE: ["0", "0.30", "1"] * 2, schema.PERTURBATION: ["DMSO", "taxol", "taxol"] * 2})
    text = "compound,concentration,moa\ntaxol,0.3,Microtubule stabilizers\ntaxol,3.0,other\nDMSO,0.0,DMSO\n"
    joined, notes = join(table, text, tmp_path)
    assert joined[schema.MOA].tolist() == ["DMSO", "Microtubule stabilizers", ""] * 2
    assert "perturbation and dose" in notes
    assert "taxol 1" in notes
    in_nanomolar, _ = join(table, text.replace("concentration", "Conc [nM]").replace("0.3,", "300,"), tmp_path)
    pd.testing.assert_frame_equal(in_nanomolar, joined)


def test_own_values_stay_blanks_are_filled_and_differences_are_counted(tmp_path):
    table = profiles(Metadata_moa=["", "COX inhibitor", ""] * 2, Metadata_dose_um=["", "5.0", ""] * 2)
    joined, notes = join(table, "compound,moa,dose_um\naspirin,antiplatelet,5\nDMSO,None,0\n", tmp_path)
    assert joined[schema.MOA].tolist() == ["", "COX inhibitor", ""] * 2  # "None" is read as missing
    assert joined[schema.DOSE].tolist() == ["0", "5.0", ""] * 2
    assert "keep their own moa in 2 rows ('COX inhibitor', not 'antiplatelet')" in notes
    assert "dose_um in" not in notes  # 5.0 and 5 are one number


def test_a_row_without_an_id_describes_the_controls(tmp_path):
    """As in JUMP-MOA's and JUMP-Target's tables, where DMSO has no broad_sample."""
    table = profiles(**{schema.PERTURBATION: ["", "aspirin", "x"] * 2})
    text = "broad_sample,pert_iname,control_type\naspirin,Aspirin,NA\nNA,DMSO,negcon\n"
    joined, notes = join(table, text, tmp_path)
    assert joined[schema.CONTROL_TYPE].tolist() == ["negcon", "", ""] * 2
    assert joined[schema.PERTURBATION].tolist() == ["DMSO", "aspirin", "x"] * 2
    assert "2 rows without an id: its negative control DMSO" in notes
    empty = table.assign(**{schema.CONTROL_TYPE: ["empty", "", ""] * 2})
    assert join(empty, text, tmp_path)[0][schema.PERTURBATION].tolist() == ["", "aspirin", "x"] * 2


def test_tables_build_on_each_other_in_any_order_and_one_warning_a_table(tmp_path):
    (tmp_path / "1_names.csv").write_text("compound alias,name\nC1,aspirin\nC2,taxol\n")
    (tmp_path / "2_map.csv").write_text("well,compound alias\nA01,C1\nA02,C2\n")
    with gzip.open(tmp_path / "3_plates.tsv.gz", "wt") as file:
        file.write("plate\tcell_line\nP1\tU2OS\nP2\tA549\n")
    table = profiles().drop(columns=schema.PERTURBATION)
    with pytest.warns(UserWarning, match="joined by") as caught:
        joined = join_metadata(
            table, [tmp_path / "1_names.csv", str(tmp_path / "*_map.csv"), tmp_path / "3_plates.tsv.gz"]
        )
    assert len(caught) == 3
    assert joined["Metadata_compound alias"].tolist() == ["C1", "C2", ""] * 2
    assert joined[schema.NAME].tolist() == ["aspirin", "taxol", ""] * 2
    assert joined[schema.CELL_LINE].tolist() == ["U2OS"] * 3 + ["A549"] * 3
    in_folder: list[str] = []
    pd.testing.assert_frame_equal(join_metadata(table, tmp_path, notes=in_folder), joined)
    (tmp_path / "other.csv").write_text("guide,label\nx,y\n")
    (tmp_path / "bad_wells.csv").write_text("plate,well,label\nP1,here,x\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "suppliers.csv").write_text("compound alias,supplier\nC1,a\nC1,b\n")
    more: list[str] = []
    join_metadata(table, tmp_path, notes=more)
    assert [note for note in more if "joined by" in note] == in_folder
    for words in (
        "suppliers.csv lists perturbation 'C1' twice",
        "other.csv: not joined",
        "bad_wells.csv: well 'here'",
        "empty.txt cannot be read",
    ):
        assert sum(words in note for note in more) == 1, words
    assert len(more) == 7


def test_a_column_of_a_name_nobody_knows_is_named_by_hand(tmp_path):
    (tmp_path / "a.csv").write_text("Substanz,label\naspirin,x\n")
    columns = {"perturbation": "Substanz"}
    joined = join_metadata(profiles(), tmp_path / "a.csv", columns=columns, notes=[])
    assert joined[LABEL].tolist() == ["", "x", ""] * 2


def test_absent_paths_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        join_metadata(profiles(), tmp_path / "nowhere.csv")
    with pytest.raises(FileNotFoundError, match="holds no table"):
        join_metadata(profiles(), tmp_path)


def test_cpjump1s_folder_is_joined_as_before():
    if not CPJUMP1.is_dir():
        pytest.skip("no ../shared/data/cpjump1 beside the checkout")
    path = next((CPJUMP1 / "profiles").glob("*24_*.csv.gz"))
    table = read_profiles(path)
    pd.testing.assert_frame_equal(
        join_metadata(table, str(CPJUMP1 / "metadata")), annotate(table, CPJUMP1 / "metadata")
    )


@pytest.mark.parametrize(("plate", "named", "without"), [("dye_BR00122250", 79, 11), ("yoko_jp_20x", 90, 0)])
def test_jump_moas_compounds_are_found_whatever_the_batch_of_the_sample(plate, named, without):
    if not MOA.is_dir():
        pytest.skip("no ../shared/data/jump_moa beside the checkout")
    notes: list[str] = []
    table = read_profiles(MOA / f"{plate}.csv.gz")
    joined = join_metadata(table, MOA / "JUMP-MOA_compound_metadata.tsv", notes=notes)
    treated = joined[~schema.is_negcon(joined)].drop_duplicates(schema.PERTURBATION)
    found = treated[treated[schema.NAME] != ""]
    assert (len(found), len(treated) - len(found)) == (named, without)
    if "Metadata_Common Name" in joined:  # the plate's own names agree with those of the joined rows
        assert (found["Metadata_Common Name"].str.lower() == found[schema.NAME].str.lower()).all()
        assert f"no match for {4 * without} rows ({without} of perturbation)" in notes[0]
        same = found["Metadata_matched_broad_sample"].str[:13] == found[schema.PERTURBATION].str[:13]
        assert same.all()
    else:
        assert "Metadata_matched_broad_sample" not in joined
    assert (joined.loc[schema.is_negcon(joined), schema.PERTURBATION] == "DMSO").all()
