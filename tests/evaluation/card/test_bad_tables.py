"""Whatever is wrong with a table: a clear error, or a score with the exclusion stated; never a silent score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphoclip import schema
from morphoclip.data.metadata.annotations import with_canonical_ids
from morphoclip.evaluation import average_precision, score
from morphoclip.evaluation.tasks.protocol import Protocol, plate_sets
from morphoclip.profiling.reading.tables import paths_of, read_tables

FEATURES = [f"f{i}" for i in range(24)]
QUICK = {"null_size": 20, "shuffles": 0, "bootstrap": 20, "tasks": ["replicate"]}
rows = st.lists(st.integers(0, 155), min_size=1, max_size=12, unique=True)

DAMAGES = {
    "nan": lambda t, r: _set(t, r, [FEATURES[r[0] % 24]], np.nan),
    "inf": lambda t, r: _set(t, r, [FEATURES[r[0] % 24]], -np.inf),
    "zero rows": lambda t, r: _set(t, r, FEATURES, 0.0),
    "duplicates": lambda t, r: pd.concat([t, t.iloc[r]], ignore_index=True),
    "no control type": lambda t, r: t.drop(columns=schema.CONTROL_TYPE),
    "a plate without negcon": lambda t, r: t[(t[schema.PLATE] != t[schema.PLATE].iloc[r[0]]) | (t[schema.CONTROL_TYPE] != "negcon")],
    "text among numbers": lambda t, r: _set(t.astype({"f3": object}), r, ["f3"], "n/a"),
}  # fmt: skip


def _set(table: pd.DataFrame, places: list[int], columns: list[str], value: object) -> pd.DataFrame:
    table.loc[table.index[places], columns] = value
    return table


@pytest.mark.parametrize("damage", DAMAGES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=rows)
def test_damage_is_refused_with_a_clear_error(make_screen, damage, places):
    table = DAMAGES[damage](make_screen(1), places)
    with pytest.raises(ValueError, match=r"[a-z]{3,}.*(:|negcon)") as error:
        score(table, **QUICK)
    said = str(error.value)
    if damage in ("nan", "inf", "zero rows", "duplicates"):
        broken = table.iloc[sorted(places)] if damage != "duplicates" else table.iloc[-len(places) :]
        wells = set(broken[schema.PLATE] + " " + broken[schema.WELL])
        assert any(well in said for well in wells), said


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=rows)
def test_lost_wells_are_scored_or_counted(make_screen, places):
    """Any wells may be missing: every perturbation that is left is scored, or said to have one well only."""
    table = make_screen(2)
    kept = table.drop(index=[p for p in places if table[schema.CONTROL_TYPE].iloc[p] != "negcon"])
    card = score(kept, **QUICK)
    treated = kept[kept[schema.CONTROL_TYPE] != "negcon"]
    wells = treated.groupby([schema.MODALITY, schema.PERTURBATION]).size()
    assert set(card.tables["replicate"][schema.PERTURBATION]) == set(wells[wells > 1].index.get_level_values(1))
    counted = sum(int(note.split(": ")[1].split(" of ")[0]) for note in card.notes if "only one well" in note)
    assert counted == (wells == 1).sum()


@settings(max_examples=20, deadline=None)
@given(
    plates=st.one_of(
        st.lists(st.integers(1, 10**7), min_size=2, max_size=2, unique=True),
        st.lists(st.floats(1, 10**6).map(round).map(float), min_size=2, max_size=2, unique=True),
        st.just(["0012", "12"]),
    )
)
def test_plate_ids_stay_what_they_are(plates):
    table = with_canonical_ids(pd.DataFrame({"Metadata_Plate": plates, "Metadata_Well": ["A1", "A2"], "x": [0.0, 1.0]}))
    assert table[schema.PLATE].tolist() == [p if isinstance(p, str) else str(int(p)) for p in plates]
    assert table[schema.WELL].tolist() == ["A01", "A02"]


def test_jump_and_cellprofiler_spellings_are_read(make_screen):
    ours = make_screen(3)
    jump = ours.rename(
        columns={
            schema.PERTURBATION: "Metadata_JCP2022",
            schema.CELL_LINE: "Metadata_Cell_Line",
            schema.TIMEPOINT: "Metadata_Time",
        }
    )
    named = score(with_canonical_ids(jump), **QUICK)
    pd.testing.assert_frame_equal(named.metrics, score(ours, **QUICK).metrics)
    own = ours.rename(columns={schema.PERTURBATION: "Metadata_my_id"})
    given_names = score(own, protocol=Protocol(columns={"Metadata_my_id": schema.PERTURBATION}), **QUICK)
    pd.testing.assert_frame_equal(given_names.metrics, named.metrics)


def test_integer_and_mixed_feature_types_score_alike(make_screen):
    table = make_screen(4)
    table[FEATURES] = (10 * table[FEATURES]).round()
    mixed = table.astype({"f0": "int64", "f1": "float32", "f2": "int16"})
    pd.testing.assert_frame_equal(score(mixed, **QUICK).metrics, score(table, **QUICK).metrics)


def test_a_million_duplicate_rows_are_refused_at_once():
    wells = pd.DataFrame({schema.PLATE: "P1", schema.WELL: "A01", schema.PERTURBATION: "x"}, index=range(1_000_000))
    table = wells.assign(
        **{
            schema.CONTROL_TYPE: "negcon",
            schema.MODALITY: "compound",
            schema.CELL_LINE: "U2OS",
            schema.TIMEPOINT: "24",
            "f": 1.0,
        }
    )
    with pytest.raises(ValueError, match="999999 rows repeat a plate and well, the first is P1 A01"):
        plate_sets(table, Protocol())


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("column", Protocol().set_by)
def test_wells_without_a_set_are_refused_and_counted(make_screen, column, missing):
    """A well without a value that defines its set would drop out of the grouping; a blank is a value."""
    table = make_screen(6).astype({column: object})
    some = table[schema.PLATE] == table[schema.PLATE].iloc[0]
    table.loc[some, column] = missing
    message = (
        rf"{some.sum()} of {len(table)} wells have no {column} \(plate {table[schema.PLATE].iloc[0]}\).*fill it in"
    )
    for refuse in (lambda: plate_sets(table, Protocol()), lambda: score(table, **QUICK)):
        with pytest.raises(ValueError, match=message):
            refuse()
    with pytest.raises(ValueError, match=rf"{len(table)} of {len(table)} wells have no {column}"):
        score(table.assign(**{column: missing}), **QUICK)
    if column != schema.MODALITY:  # the tasks need the modality
        assert not score(table.assign(**{column: ""}), **QUICK).metrics.empty


def test_files_with_different_features_are_joined_on_what_they_share(make_screen, tmp_path):
    table = make_screen(5)
    paths = []
    for name, part in table.groupby(schema.PLATE):
        paths.append(tmp_path / f"{name}.parquet")
        part.drop(columns=["f1"] if name == "compound1" else []).to_parquet(paths[-1])
    joined = read_tables(paths, as_is=True).table
    card = score(joined, **QUICK)
    assert "compound_U2OS_24: 1 features are absent from some of its plates and left out" in card.notes
    for whole, compound in ((table.drop(columns="f1"), True), (table, False)):  # the other sets keep it
        expected, found = (
            m[m["subset"].ne("all") & m["subset"].eq("compound_U2OS_24").eq(compound)]
            for m in (score(whole, **QUICK).metrics, card.metrics)
        )
        pd.testing.assert_frame_equal(found, expected, rtol=1e-12)
    table.iloc[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match=r"empty\.parquet has no rows"):
        read_tables([tmp_path / "empty.parquet"])
    table[[schema.PLATE]].to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(ValueError, match=r"bare\.parquet has no feature"):
        read_tables([tmp_path / "bare.parquet"])


def test_globs_that_match_nothing_are_named(tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").touch()
    assert [p.name for p in paths_of([str(tmp_path / "*.csv"), str(tmp_path / "a.csv")])] == ["a.csv", "b.csv"]
    with pytest.raises(FileNotFoundError, match=r"\*\.parquet"):
        paths_of([str(tmp_path / "*.csv"), str(tmp_path / "*.parquet")])


def test_no_profile_is_its_own_positive_or_negative():
    """Property of the rules: pair counts follow from group sizes, for any grouping."""

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=6, max_size=25))
    def check(cells):
        meta = pd.DataFrame(cells, columns=["pert", "plate"])
        feats = np.random.default_rng(len(cells)).standard_normal((len(cells), 4))
        sizes = meta["pert"].map(meta["pert"].value_counts())
        if meta["pert"].nunique() < 2 or sizes.max() < 2:
            return
        table = average_precision(meta, feats, ["pert"], [], [], ["pert"])
        assert (table["n_pos_pairs"] == sizes - 1).all()
        assert (table["n_total_pairs"] == len(meta) - 1).all()
        scored = table["average_precision"].dropna()
        assert ((scored > 0) & (scored <= 1)).all()

    check()
