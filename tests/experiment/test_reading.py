"""From the keys of evaluate.py to the table that is scored: any names of columns, controls and features."""

from __future__ import annotations

from pathlib import Path

import hydra
import pandas as pd
import pytest
from typer.testing import CliRunner

from morphoclip import configs_dir, schema
from morphoclip.cli.main import app
from morphoclip.evaluation import Protocol
from morphoclip.experiment.score import Arm, Scoring, score_arms
from morphoclip.experiment.tables import read_arm, read_baseline, read_training
from morphoclip.experiment.typed_arguments import as_hydra_reads
from tests.profiling.reading.plates import FEATURES, canonical, screen, written

PROTOCOL = Protocol(columns={"Stoff": schema.PERTURBATION})


def config(*words: str):
    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
        return hydra.compose("evaluate", as_hydra_reads("evaluate", words, [configs_dir()]))


def arm_of(*words: str, protocol: Protocol | None = None) -> Arm:
    return read_arm(config(*words), protocol or Protocol())


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The screen in German, with a viability that is no feature."""
    table = screen().rename(
        columns={"Plate": "Platte", "Well": "Kavität", "Compound": "Stoff", "Dose": "Konzentration"}
    )
    return written(table.assign(Viability=0.5), tmp_path / "t.csv")


WORDS = ["columns.plate=Platte", "columns.well=Kavität", "columns.dose=Konzentration", "features=Cells_*"]


def test_names_controls_and_features_from_the_command_line(foreign):
    arm = arm_of(f"profiles={foreign}", *WORDS, "columns.perturbation=Stoff", "control={Stoff: dmso}")
    pd.testing.assert_frame_equal(arm.table[list(canonical())], canonical())
    assert schema.split_columns(arm.table)[1] == FEATURES
    said = " ".join(arm.notes)
    for words in ("8 wells, 4 a plate", "4 of 5 numeric columns are features", "8 wells spelled 'DMSO'"):
        assert words in said


def test_the_protocol_and_a_file_name_columns_too(foreign, tmp_path):
    (tmp_path / "names.yaml").write_text("plate: Platte\nwell: Kavität\ndose: Konzentration\n")
    arm = arm_of(f"profiles={foreign}", f"columns={tmp_path}/names.yaml", "features=Cells_*", protocol=PROTOCOL)
    pd.testing.assert_frame_equal(arm.table[list(canonical())], canonical())
    with pytest.raises(ValueError, match=r"columns=none\.yaml: give a file"):
        arm_of(f"profiles={foreign}", "columns=none.yaml")
    plain = written(screen(), tmp_path / "plain.csv")  # what only the protocol names need not be there
    pd.testing.assert_frame_equal(arm_of(f"profiles={plain}", protocol=PROTOCOL).table[list(canonical())], canonical())


def test_sites_of_a_well_in_two_spellings_are_aggregated_together(tmp_path):
    sites = [screen().assign(Site=1), screen().assign(Site=2, Well=screen()["Well"].str.replace("0", ""))]
    path = written(pd.concat(sites), tmp_path / "t.csv")
    table = arm_of(f"profiles={path}", "aggregate=mean").table
    pd.testing.assert_frame_equal(table[list(canonical())], canonical(), check_exact=False, check_dtype=False)


def test_other_tables_of_an_evaluation_need_not_have_every_column(foreign, tmp_path):
    """A baseline is read with the same keys; the wells of a training need neither controls nor features."""
    written(screen(), tmp_path / "plain.csv")
    others = [f"training={tmp_path}/trained.csv", f"baseline={tmp_path}/plain.csv", "control=DMSO"]
    keys = config(f"profiles={foreign}", *others, *WORDS)
    written(pd.DataFrame({"Platte": ["0117"], "Stoff": ["cpd-0"], "Kavität": ["A5"]}), tmp_path / "trained.csv")
    trained = read_training(keys, PROTOCOL)
    assert trained[[schema.PLATE, schema.WELL, schema.PERTURBATION]].to_numpy().tolist() == [["0117", "A05", "cpd-0"]]
    pd.testing.assert_frame_equal(read_baseline(keys, PROTOCOL).table[list(canonical())], canonical())
    mixed = config(f"baseline={foreign}", *WORDS)
    assert schema.split_columns(read_baseline(mixed, PROTOCOL).table)[1] == FEATURES


def test_the_command_prints_what_each_column_was_taken_for(foreign):
    command = ["data", "table", str(foreign), "--columns", "plate=Platte", "--columns", "well=Kavität"]
    command += ["--columns", "perturbation=Stoff", "--columns", "dose=Konzentration"]
    run = CliRunner().invoke(app, [*command, "--features", "Cells_*", "--control", "{Stoff: DMSO}"])
    assert run.exit_code == 0, run.output
    lines = [" ".join(line.split()) for line in run.output.splitlines()]
    for line in (
        "24 rows, 2 plates, 4 features",
        "Stoff perturbation (columns=) 5 values: DMSO, cpd-0, cpd-1, cpd-2, …",
        "Cells_* 4 Cells_Texture_0_DNA, Cells_Texture_1_DNA, …",
        "not in features= 1 Viability",
        "wells per plate 12, of 96",
        "negative controls 8 wells (DMSO), 4 per plate",
        "perturbations 4, 4 wells each",
        "doses 2.5 µM, 1 per perturbation",
        "sets 1 by no modality, cell line or time is named: all wells (24 wells)",
    ):
        assert line in lines, run.output
    undecided = CliRunner().invoke(app, command)
    assert undecided.exit_code == 0
    assert "TO DECIDE before this table is scored" in undecided.output
    assert "['Viability']" in undecided.output
    wrong = CliRunner().invoke(app, [*command[:3], "--columns", "plate=Plate"])
    assert wrong.exit_code == 1
    assert "has no column 'Plate'; nearest: Platte" in wrong.output


def test_notes_and_an_exploding_value_reach_the_card(tmp_path):
    table = screen().assign(Modality="compound")
    table.loc[5, FEATURES[1]] = 1e18
    arm = arm_of(f"profiles={written(table, tmp_path / 't.csv')}", "normalize=none")
    scoring = Scoring(Protocol(set_by=[schema.MODALITY]), ["replicate"], p_convention="copairs", null_size=20)
    card = score_arms({"main": arm}, scoring)["main"].card
    assert any("a well is a negative control if its perturbation is 'DMSO'" in note for note in card.notes)
    assert any(alarm.startswith(f"{FEATURES[1]} is 1e+18 at 0117 A06") for alarm in card.alarms)
