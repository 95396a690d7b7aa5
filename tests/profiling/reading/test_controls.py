"""Negative controls by what the user names, what the table says, or by name; known values in any spelling."""

from __future__ import annotations

import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.profiling import read_profiles
from morphoclip.profiling.reading.controls import named_controls, with_controls
from morphoclip.profiling.reading.values import canonical_values
from morphoclip.profiling.reading.wells import outside_format
from tests.profiling.reading.plates import canonical, screen, written

DMSO = (screen()["Compound"] == "DMSO").tolist()


def read(table: pd.DataFrame, folder, **options) -> tuple[pd.DataFrame, str]:
    notes: list[str] = []
    return read_profiles(written(table, folder / "t.csv"), notes=notes, **options), "\n".join(notes)


@pytest.mark.parametrize(
    "spelling",
    ["Negative", "negative control", "neg_control", "NegCon", "DMSO", "vehicle", "nc", "negcon", "ctl_vehicle", "True"],
)
def test_a_control_type_in_any_spelling(spelling, tmp_path):
    table = screen().assign(control_type=[spelling if control else "" for control in DMSO])
    found, said = read(table, tmp_path)
    assert schema.is_negcon(found).tolist() == DMSO
    assert ("as 'negcon' (8 rows)" in said) == (spelling != "negcon")


def test_positive_controls_stay_queries(tmp_path):
    table = screen().assign(
        control_type=["Negative"] * 4 + ["Positive"] * 2 + ["poscon_cp"] * 2 + ["trt"] * 4 + ["Negative"] * 12
    )
    found, _ = read(table, tmp_path)
    assert found[schema.CONTROL_TYPE].tolist()[4:12] == ["poscon"] * 2 + ["poscon_cp"] * 2 + [""] * 4
    assert schema.is_treated(found).tolist()[4:12] == [True] * 8


def test_an_unknown_control_type_counts_as_treated_and_says_so(tmp_path):
    table = screen().assign(control_type=["Negative" if c else "reference" for c in DMSO])
    found, said = read(table, tmp_path)
    assert schema.is_treated(found).sum() == 16
    assert "'reference' (16 rows) is no known kind of control and such wells count as treated" in said
    chosen, said = read(table, tmp_path, control={"control_type": "reference"})
    assert schema.is_negcon(chosen).tolist() == [not c for c in DMSO]


def test_an_unknown_modality_stays_and_says_what_is_not_scored(tmp_path):
    found, said = read(screen().assign(modality=["siRNA"] * 12 + ["Compound"] * 12), tmp_path)
    assert found[schema.MODALITY].unique().tolist() == ["siRNA", "compound"]
    assert "'siRNA' (12 rows) is none of compound, crispr, orf, so tasks of targets and genes do not score such" in said


def test_a_control_by_the_tables_own_value(tmp_path):
    """`Negative` is matched as typed, although it is read as negcon; other controls are controls no longer."""
    table = screen().assign(
        control_type=["Negative"] * 4 + ["b"] * 8 + ["Negative"] * 4 + ["b"] * 8, lot=["x", "y"] * 12
    )
    found, said = read(table, tmp_path, control={"control_type": "negative", "lot": ["x"]})
    assert schema.is_negcon(found).tolist() == [control and i % 2 == 0 for i, control in enumerate(DMSO)]
    assert "8 wells spelled 'Negative' in Metadata_control_type count as controls too" in said
    assert "4 wells, 2 a plate" in said
    with pytest.raises(ValueError, match="each part matches some wells, but no well matches all"):
        read(table, tmp_path, control={"control_type": "b", "Compound": "DMSO"})


def test_a_plate_without_controls_is_counted(tmp_path):
    table = screen()
    table.loc[12:, "Compound"] = "cpd-9"
    _, said = read(table, tmp_path, control="DMSO")
    assert "4 wells, 0 to 4 a plate; 1 of 2 plates have none, e.g. 0118" in said


def test_a_control_may_have_no_name(tmp_path):
    table = screen().replace({"Compound": {"DMSO": ""}}).assign(kind=["c" if c else "t" for c in DMSO])
    found, _ = read(table, tmp_path, control={"kind": "c"})
    assert found.loc[DMSO, schema.PERTURBATION].unique().tolist() == ["c"]
    assert schema.is_negcon(found).tolist() == DMSO
    marked = canonical().assign(**{schema.PERTURBATION: ["" if c else "x" for c in DMSO]})
    assert named_controls(marked)[schema.PERTURBATION].tolist() == ["DMSO" if c else "x" for c in DMSO]
    guides = named_controls(marked.assign(**{schema.MODALITY: "crispr"}))
    assert guides[schema.PERTURBATION].tolist() == ["negcon" if c else "x" for c in DMSO]


def test_no_control_is_invented(tmp_path):
    table = screen().replace({"Compound": {"DMSO": "water"}})
    found, said = read(table, tmp_path)
    assert (found[schema.CONTROL_TYPE] == "").all()
    assert "no well is marked or named as a negative control" in said


def test_pert_type_of_lincs_marks_vehicles_and_jumps_control_does_not():
    lincs = (
        canonical()
        .drop(columns=schema.CONTROL_TYPE)
        .assign(**{schema.PERT_TYPE: ["ctl_vehicle" if c else "trt_cp" for c in DMSO], schema.PERTURBATION: "x"})
    )
    notes: list[str] = []
    assert schema.is_negcon(with_controls(lincs, None, notes)).tolist() == DMSO
    assert "its pert_type is 'ctl_vehicle': 8 wells, 4 a plate" in notes[0]
    jump = lincs.assign(**{schema.PERT_TYPE: ["control" if c else "trt" for c in DMSO]})
    assert not schema.is_negcon(with_controls(jump, None, [])).any()


@pytest.mark.parametrize(
    ("column", "value", "read_as"),
    [
        (schema.MODALITY, "Compounds", "compound"),
        (schema.MODALITY, "CRISPR-KO", "crispr"),
        (schema.MODALITY, "ORFs", "orf"),
        (schema.TIMEPOINT, "48 h", "48"),
        (schema.TIMEPOINT, "24hrs", "24"),
        (schema.DOSE, "0,5", "0.5"),
        (schema.DOSE, "10 µM", "10"),
        (schema.TARGETS, "EGFR; ERBB2", "EGFR|ERBB2"),
        (schema.SMILES, "CC(O)F |r,o1:1|", "CC(O)F"),
        (schema.SMILES, "CCO |r|", "CCO"),
    ],
)
def test_known_values_in_one_spelling(column, value, read_as):
    notes: list[str] = []
    assert canonical_values(pd.DataFrame({column: [value, ""]}), notes)[column].tolist() == [read_as, ""]
    assert notes == [f"{column}: {value!r} as {read_as!r} (1 rows)"]
    notes.clear()
    assert canonical_values(pd.DataFrame({column: [read_as, ""]}), notes)[column].tolist() == [read_as, ""]
    assert notes == []


def test_a_well_outside_the_format_of_its_plate_is_noted():
    wells = [f"{row}{column:02d}" for row in "ABCDEFGH" for column in range(1, 13)]
    table = pd.DataFrame({schema.PLATE: "P1", schema.WELL: [*wells, "P24"]})
    assert outside_format(table) == ["plate P1: P24 lies outside the 96 wells of its other wells"]
    assert outside_format(table.iloc[:-1]) == []


def test_dmso_is_found_by_its_name_and_structure_where_perturbations_are_ids(tmp_path):
    """JUMP's tables: DMSO is JCP2022_033924, or has no broad_sample."""
    names = screen()["Compound"]
    for table in (
        screen().assign(Compound=names.replace("DMSO", "JCP2022_033924")),
        screen().assign(Compound=names.replace("DMSO", ""), pert_iname=names),
        screen().assign(
            Compound=names.replace("DMSO", "id9"), InChIKey=names.replace("DMSO", "IAZDPXIOMUYVGZ-UHFFFAOYSA-N")
        ),
    ):
        found, said = read(table, tmp_path)
        assert schema.is_negcon(found).tolist() == DMSO
        assert "8 wells, 4 a plate" in said
    named, _ = read(screen().assign(Compound=names.replace("DMSO", "id9"), pert_iname=names), tmp_path, control="dmso")
    assert schema.is_negcon(named).tolist() == DMSO
