"""Profile tables as datasets: the table's own values, reused or refused, nothing half-written, and what each command does."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from morphoclip import schema
from morphoclip.cli.main import app
from morphoclip.data import ShardDataset
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.files import sha256_of_file
from morphoclip.models import create_encoder
from morphoclip.profiling.features import write_features
from morphoclip.profiling.import_table import import_tables, table_of, write_table
from tests.datasets import REAL
from tests.profiling.tables import NAMES, small_table


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "plates").mkdir()
    for plate, part in small_table().groupby(schema.PLATE):
        part.to_csv(tmp_path / f"plates/{plate}.csv.gz", index=False)
    return str(tmp_path / "plates/*.csv.gz")


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.mark.usefixtures("real_data")
def test_real_plates_are_imported_to_the_last_digit(tmp_path):
    folder = REAL.resolve() / "profiles"
    import_tables(str(folder / "*.csv.gz"), tmp_path / "d", metadata=str(REAL.resolve() / "metadata"))
    dataset = FeatureDataset(tmp_path / "d")
    assert dataset.features.shape == (1152, 1, 904)
    assert dataset.features.dtype == np.float32
    start = 0
    for path in sorted(folder.glob("*.csv.gz")):
        given = pd.read_csv(path)
        own = slice(start, start + len(given))
        np.testing.assert_array_equal(dataset.features[own, 0], given[list(dataset.names)].to_numpy(np.float32))
        assert dataset.fields[schema.PLATE][own].tolist() == given["Metadata_Plate"].tolist()
        assert dataset.fields[schema.WELL][own].tolist() == given["Metadata_Well"].tolist()
        assert dataset.manifest["made_by"]["files"][str(path)]["sha256"] == sha256_of_file(path)
        start += len(given)
    assert dataset.manifest["counts"] == {
        "samples": 1152,
        "fields": 1152,
        "wells": 1152,
        "plates": 3,
        "perturbations": 307,
    }
    assert dataset.fields.loc[schema.is_negcon(dataset.fields), schema.PLATE].value_counts().tolist() == [64, 64, 64]
    assert dataset.problems() == []


def test_a_folder_is_reused_for_the_same_tables_and_refused_for_others(tables, tmp_path):
    out, notes = import_tables(tables, tmp_path / "d"), []
    before = (out / "manifest.json").stat().st_mtime_ns
    import_tables(tables, out, notes=notes)
    assert (out / "manifest.json").stat().st_mtime_ns == before
    assert "reused" in notes[0]
    with pytest.raises(
        FileExistsError, match=r"imported with standardise_by_plate=False, this asks for True.*data\.folder"
    ):
        import_tables(tables, out, standardise_by_plate=True)
    small_table(1, ("P3",)).to_csv(tmp_path / "plates/P3.csv.gz", index=False)
    with pytest.raises(FileExistsError, match=r"P3\.csv\.gz is new or has changed"):
        import_tables(tables, out)
    (tmp_path / "plates/P3.csv.gz").unlink()
    small_table(5, ("P1",)).to_csv(tmp_path / "plates/P1.csv.gz", index=False)
    with pytest.raises(FileExistsError, match=r"P1\.csv\.gz is new or has changed"):
        import_tables(tables, out)
    for path in (tmp_path / "plates").iterdir():
        path.unlink()
    import_tables(tables, out)  # complete without its sources
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_table(small_table(), out, {})


def test_values_that_are_not_finite_are_named_and_left_out_as_asked(tmp_path):
    table = small_table()
    table.loc[3, NAMES[2]], table.loc[9, NAMES[2]] = np.nan, np.inf
    table.to_csv(tmp_path / "t.csv", index=False)
    path, notes = str(tmp_path / "t.csv"), []
    with pytest.raises(
        ValueError, match=rf"1 of 12 features, 2 of 16 wells, the first is {NAMES[2]} of P1 A04.*--not-finite"
    ):
        import_tables(path, tmp_path / "d")
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]  # nothing half-written
    features = FeatureDataset(import_tables(path, tmp_path / "f", not_finite="features", notes=notes))
    assert features.names == tuple(name for name in NAMES if name != NAMES[2])
    assert "these features are left out" in notes[0]
    assert (
        "these features are left out" in json.loads((tmp_path / "f/manifest.json").read_text())["made_by"]["notes"][0]
    )
    wells = FeatureDataset(import_tables(path, tmp_path / "w", not_finite="wells"))
    kept = table.drop(index=[3, 9])
    assert wells.fields[schema.WELL].tolist() == kept[schema.WELL].tolist()
    np.testing.assert_array_equal(wells.features[:, 0], kept[NAMES].to_numpy(np.float32))


def test_rows_that_repeat_a_well_are_refused_and_sites_are_samples(tmp_path):
    table = small_table()
    with pytest.raises(ValueError, match="16 rows repeat a well, the first is P1 A01"):
        write_table(pd.concat([table, table], ignore_index=True), tmp_path / "d", {})
    sites = pd.concat([table.assign(**{schema.SITE: site}) for site in "12"], ignore_index=True)
    made = FeatureDataset(write_table(sites, tmp_path / "s", {}))
    assert (made.manifest["counts"]["samples"], made.manifest["counts"]["wells"]) == (32, 16)


def test_standardised_by_plate_equals_numpy_and_is_recorded(tables, tmp_path):
    made = FeatureDataset(import_tables(tables, tmp_path / "d", standardise_by_plate=True))
    table = small_table()
    values = table[NAMES].to_numpy(np.float32).astype(np.float64)
    for plate in ("P1", "P2"):
        own = (table[schema.PLATE] == plate).to_numpy()
        known = values[own & schema.is_negcon(table)]
        expected = ((values[own] - known.mean(0)) / known.std(0)).clip(-30, 30)
        np.testing.assert_allclose(made.features[own, 0], expected, rtol=2e-3, atol=1e-4)
    assert made.manifest["features"]["standardised_by_plate"]["fit_on"] == "negcon"


def test_what_a_training_would_lack_is_said(tmp_path):
    table = small_table().drop(columns=[schema.CONTROL_TYPE]).assign(**{NAMES[0]: 1.0})
    table[schema.PERTURBATION] = table[schema.PERTURBATION].replace("DMSO", "solvent 7")  # no control by its name
    table.to_csv(tmp_path / "t.csv", index=False)
    result = run("import", tmp_path / "t.csv", "--out", tmp_path / "d")
    assert result.exit_code == 0, result.output
    assert "note: no well is a negative control" in result.output
    assert f"1 features are constant and have no effect, e.g. {NAMES[0]}" in result.output
    bare = table[[schema.PLATE, schema.WELL, *NAMES]]
    bare.to_csv(tmp_path / "b.csv", index=False)
    assert "no well has a perturbation" in run("import", tmp_path / "b.csv", "--out", tmp_path / "b").output


def test_commands_on_an_imported_folder(tables, tmp_path):
    folder = tmp_path / "d"
    result = run("import", tables, "--out", folder)
    assert "16 wells, 2 plates, 7 perturbations, 12 features" in result.output
    shown = run("info", folder).output
    assert "1 x 12 features of each well, float32" in shown
    assert "plates/*.csv.gz" in shown
    assert run("verify", folder).exit_code == 0
    assert run("split", folder, "--by", "perturbation", "--fractions", "train=.6,test=.4").exit_code == 0
    train = FeatureDataset(folder, "train")
    result = run("subset", folder, "--out", tmp_path / "s", "--where", f'{schema.PLATE} == "P2"')
    assert "8 of 16 wells" in result.output
    part = FeatureDataset(tmp_path / "s")
    pd.testing.assert_frame_equal(table_of(part), table_of(FeatureDataset(folder), np.arange(8, 16)))
    rows = FeatureDataset(tmp_path / "s", "train").rows
    assert (rows + 8).tolist() == [row for row in train.rows if row >= 8]
    for command in (["stats", folder], ["repack", folder, "--out", tmp_path / "r"]):
        assert "no images" in " ".join(run(*command).output.split())
    values = np.load(folder / "features.npy")
    values[3, 0, 1] = np.nan
    np.save(folder / "features.npy", values)
    broken = run("verify", folder)
    assert broken.exit_code == 1
    assert "fails its checksum" in broken.output
    assert "well 3 has features that are not finite" in broken.output


def test_images_are_not_looked_for_in_a_table(tables, tmp_path):
    folder = import_tables(tables, tmp_path / "d")
    with pytest.raises(ValueError, match="profiles of wells, no images"):
        ShardDataset(folder)
    with pytest.raises(ValueError, match="holds features, no images"):
        write_features(create_encoder("intensity_statistics"), FeatureDataset(folder), tmp_path / "f")
    assert "no images" in CliRunner().invoke(app, ["features", "timm:test_vit", str(folder), "--out", "f"]).output
