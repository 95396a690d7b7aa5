"""What was asked for and is not scored, what was left out, what makes a score unreliable: an error, an alarm or a note."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import Protocol, score
from morphoclip.experiment.score import Arm, on_common_wells
from morphoclip.profiling import Normalizer, crossfit

QUICK = {"null_size": 50, "shuffles": 0, "bootstrap": 20}
SET_BY = [schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT]


@pytest.fixture
def compounds(make_screen) -> pd.DataFrame:
    table = make_screen(1, signal=2.0)
    return table[table[schema.MODALITY] == "compound"].reset_index(drop=True)


def test_without_columns_of_sets_all_plates_are_one_set(compounds):
    want = score(compounds, tasks=["replicate", "sister"], **QUICK)
    bare = compounds.drop(columns=SET_BY)
    card = score(bare, tasks=["replicate", "sister"], **QUICK)
    assert set(card.metrics["subset"]) == {"all"}
    assert not card.metrics.duplicated(["task", "subset", "metric"]).any()
    assert any(
        "no Metadata_modality, Metadata_cell_line, Metadata_timepoint_h: all plates are one set, 'all'" in n
        for n in card.notes
    )
    explicit = score(compounds, tasks=["replicate", "sister"], protocol=Protocol(set_by=[]), **QUICK)
    for metric in ("mean_average_precision", "fraction_retrieved"):
        assert card.value("sister", metric) == explicit.value("sister", metric) == want.value("sister", metric)
    partly = score(compounds.drop(columns=schema.TIMEPOINT), tasks=["replicate"], **QUICK)
    assert set(partly.metrics["subset"]) == {"all", "compound_U2OS"}
    assert any("no Metadata_timepoint_h: sets of plates are defined by Metadata_modality" in n for n in partly.notes)


def test_a_set_without_its_key_still_has_its_modality(make_screen):
    table = make_screen(1, signal=2.0)
    crispr = table[table[schema.MODALITY] == "crispr"]
    card = score(crispr, tasks=["sister"], protocol=Protocol(set_by=[]), **QUICK)
    assert len(card.tables["sister_ungated"]) == 8


def test_blank_modalities_are_compounds_and_unknown_ones_an_error(compounds):
    card = score(compounds.assign(**{schema.MODALITY: ""}), tasks=["sister"], **QUICK)
    assert any("96 wells have no Metadata_modality" in note or "taken for compounds" in note for note in card.notes)
    assert "sister" in card.tables
    with pytest.raises(ValueError, match=r"'Compound' .*is unknown: use compound, crispr, orf"):
        score(compounds.assign(**{schema.MODALITY: "Compound"}), tasks=["sister"], **QUICK)


def test_a_task_that_cannot_be_scored_is_an_error_alone_and_an_alarm_beside_others(compounds):
    with pytest.raises(ValueError, match="compound_gene: no two sets of compound and of crispr or orf"):
        score(compounds, tasks=["compound_gene"], **QUICK)
    card = score(compounds, tasks=["sister", "compound_gene"], **QUICK)
    assert any("task compound_gene was asked for and is not scored: no two sets" in alarm for alarm in card.alarms)
    with pytest.raises(ValueError, match=r"compound_gene was asked for and is not scored.*strict"):
        score(compounds, tasks=["sister", "compound_gene"], strict=True, **QUICK)
    card = score(compounds, **QUICK)
    assert not any("asked for" in alarm for alarm in card.alarms)
    assert any("compound_gene, no two sets" in note for note in card.notes)


def test_a_column_that_a_named_task_needs_is_an_error_and_else_a_note(compounds):
    bare = compounds.drop(columns=schema.TARGETS)
    with pytest.raises(ValueError, match="task sister: set compound_U2OS_24 needs the column Metadata_target_list"):
        score(bare, tasks=["replicate", "sister"], **QUICK)
    card = score(bare, **QUICK)
    assert any("sister, compound_U2OS_24: set compound_U2OS_24 needs the column" in note for note in card.notes)
    blank = compounds.assign(**{schema.TARGETS: ""})
    with pytest.raises(ValueError, match="sister: compound_U2OS_24: no two retrieved perturbations share a target"):
        score(blank, tasks=["sister"], **QUICK)
    with pytest.raises(ValueError, match=r"task mechanism|mechanism: it gives no number"):
        score(compounds, tasks=["mechanism"], **QUICK)


def test_no_replicates_speaks_of_perturbations(compounds):
    once = compounds[compounds[schema.PLATE] == "compound0"]
    with pytest.raises(ValueError, match="no Metadata_perturbation has two wells, so there are no replicates") as error:
        score(once, tasks=["replicate"], **QUICK)
    assert "sameby" not in str(error.value)
    with pytest.raises(ValueError, match="there are no replicates"):
        score(once, **QUICK)


def test_plates_without_controls_are_refused_with_what_to_do_or_ranked_among_others(compounds):
    bare = compounds[(compounds[schema.PLATE] != "compound1") | ~schema.is_negcon(compounds)]
    with pytest.raises(ValueError, match=r"plate compound1 .*control=….*negatives=others"):
        score(bare, tasks=["replicate"], **QUICK)
    some = score(bare, tasks=["replicate"], negatives="set", **QUICK)
    assert (some.queries["replicate"]["n_total_pairs"] - some.queries["replicate"]["n_pos_pairs"] == 24).all()
    treated = compounds[~schema.is_negcon(compounds)]
    with pytest.raises(ValueError, match="no negcon wells"):
        score(treated, tasks=["replicate"], negatives="set", **QUICK)
    without_column = treated.drop(columns=schema.CONTROL_TYPE)
    with pytest.raises(ValueError, match=r"needs the column Metadata_control_type.*negatives=others"):
        score(without_column, tasks=["replicate"], **QUICK)
    want = score(compounds, tasks=["replicate", "sister"], negatives="others", **QUICK)
    for table in (treated, without_column):
        card = score(table, tasks=["replicate", "sister"], negatives="others", **QUICK)
        pd.testing.assert_frame_equal(card.metrics, want.metrics)
    assert any("labels of the wells of a plate are permuted" in note for note in want.notes)


def test_a_control_well_may_have_no_name(compounds):
    unnamed = compounds.assign(
        **{schema.PERTURBATION: compounds[schema.PERTURBATION].mask(schema.is_negcon(compounds), "")}
    )
    want, found = (score(t, tasks=["replicate"], **QUICK).metrics for t in (compounds, unnamed))
    pd.testing.assert_frame_equal(found, want)


def test_fewer_than_eight_negatives_raise_the_alarm(make_screen):
    """Six controls a plate, three in each fold of a cross-fit: what shuffled labels get is far above nothing."""
    table = make_screen(2, controls=6)
    table = table[table[schema.MODALITY] == "compound"].reset_index(drop=True)
    folds = crossfit(Normalizer([{"step": "center", "fit_on": "negcon", "by": "plate"}]), table)
    card = score(folds, tasks=["replicate"], null_size=50, shuffles=3, bootstrap=20)
    (alarm,) = [a for a in card.alarms if a.startswith("few negatives")]
    assert "3 plates have fewer than 8 negative controls" in alarm
    assert "plate compound0 has 3 (half of them, by cross-fitting)" in alarm
    assert card.value("replicate", "shuffled_labels", "compound_U2OS_24") > 0.3
    card = score(make_screen(2, controls=8), tasks=["replicate"], **QUICK)
    assert not any(a.startswith("few negatives") for a in card.alarms)


def test_wells_left_out_are_counted_with_an_example(compounds):
    table = compounds.copy()
    table.loc[[3, 7], schema.PERTURBATION] = ""
    card = score(
        table, tasks=["replicate"], protocol=Protocol(select={schema.PLATE: ["compound0", "compound1"]}), **QUICK
    )
    assert any("2 wells are empty" in note and "e.g. compound0 A04" in note for note in card.notes)
    assert any("1 plates (36 wells), e.g. compound2, are not part of protocol generic" in note for note in card.notes)


def test_sources_may_share_names_of_plates(compounds):
    twice = pd.concat([compounds.assign(**{schema.SOURCE: s}) for s in ("s1", "s2")], ignore_index=True)
    noise = np.random.default_rng(0).standard_normal((len(twice), 24))
    twice[[f"f{i}" for i in range(24)]] += 0.1 * noise
    card = score(twice, tasks=["replicate", "replicate_other_source"], **QUICK)
    assert set(card.queries["replicate"][schema.PLATE]) == {f"{s}/compound{i}" for s in ("s1", "s2") for i in range(3)}
    assert (card.queries["replicate_other_source"]["n_pos_pairs"] == 3).all()
    assert any("sources share names of plates" in note for note in card.notes)


def test_positive_controls_are_the_queries_of_their_task(compounds):
    first = compounds[schema.PERTURBATION].isin(["compound-GENE0-0", "compound-GENE1-0"])
    table = compounds.assign(**{schema.CONTROL_TYPE: compounds[schema.CONTROL_TYPE].mask(first, "poscon_cp")})
    card = score(table, tasks=["positive_controls"], **QUICK)
    assert set(card.tables["positive_controls"][schema.PERTURBATION]) == {"compound-GENE0-0", "compound-GENE1-0"}
    with pytest.raises(ValueError, match=r"no well has Metadata_control_type among \['poscon\*'\]; it holds"):
        score(compounds, tasks=["positive_controls"], **QUICK)


def test_arms_are_scored_on_their_common_wells(compounds):
    other = compounds[compounds[schema.PLATE] != "compound0"].sample(frac=1, random_state=0)
    nothing = Normalizer([])
    arms, notes = on_common_wells({"baseline": Arm(compounds, nothing), "profiles": Arm(other, nothing)})
    assert [len(arm.table) for arm in arms.values()] == [72, 72]
    assert notes == ["baseline has 108 wells, profiles has 72 wells: all are scored on the 72 that they have in common"]
    same, notes = on_common_wells({"a": Arm(compounds, nothing), "b": Arm(compounds, nothing)})
    assert notes == []
    assert same["a"].table is compounds
    elsewhere = compounds.assign(**{schema.PLATE: "x"})
    with pytest.raises(ValueError, match=r"no well in common by .*: baseline has .* and profiles has"):
        on_common_wells({"baseline": Arm(compounds, nothing), "profiles": Arm(elsewhere, nothing)})


def test_a_few_features_with_gaps_are_left_out_and_many_are_refused(compounds):
    wide = compounds.join(
        pd.DataFrame(np.random.default_rng(0).standard_normal((108, 80)), compounds.index).add_prefix("g")
    )
    gaps = wide.assign(g3=wide["g3"].mask(wide.index == 40), g5=wide["g5"].mask(wide.index.isin([1, 2])))
    card = score(gaps, tasks=["replicate"], **QUICK)
    assert (
        "compound_U2OS_24: 2 of 104 features have no value in some wells and are left out, e.g. g3 in compound1 A05"
        in card.notes
    )
    want = score(wide.drop(columns=["g3", "g5"]), tasks=["replicate"], **QUICK)
    pd.testing.assert_frame_equal(card.metrics, want.metrics)
    with pytest.raises(ValueError, match="profiles hold NaN, the first are compound0 A02"):
        score(gaps.assign(g9=gaps["g3"]), tasks=["replicate"], **QUICK)
