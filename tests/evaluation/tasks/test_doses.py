"""Several doses: replicates share the dose, profiles are by dose, and doses of one molecule never answer for each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import Protocol, score
from morphoclip.evaluation.measures.neighbours import nearest_neighbour_accuracy
from morphoclip.evaluation.ranking.exchange import exchange_nulls
from morphoclip.evaluation.tasks.library import chosen_tasks, read_task
from morphoclip.evaluation.tasks.protocol import plate_sets
from morphoclip.evaluation.tasks.questions import ask, profiles_of

QUICK = {"null_size": 200, "shuffles": 0, "bootstrap": 20}
FEATURES = [f"f{i}" for i in range(16)]


def doses(seed: int = 0, mechanisms: int = 4, compounds: int = 3, levels: int = 3, own: float = 3.0, shared: float = 0.0) -> pd.DataFrame:  # fmt: skip
    """Three plates: every compound at every dose, its effect `own` growing with the dose; `shared` by a mechanism."""
    rng = np.random.default_rng(seed)
    drugs = [(f"m{m}", f"c{m}{c}") for m in range(mechanisms) for c in range(compounds)]
    own_effect, shared_effect = rng.standard_normal((len(drugs), 16)), rng.standard_normal((mechanisms, 16))
    rows, values = [], []
    for plate in range(3):
        wells = [(m, c, f"{10.0 * 3**level}") for m, c in drugs for level in range(levels)] + [("", "DMSO", "")] * 12
        for place, (mechanism, compound, dose) in enumerate(wells):
            control = "" if mechanism else schema.NEGCON
            batch = f"b{plate % 2}"
            rows.append(
                (f"p{plate}", batch, schema.well_name(place // 24, place % 24), compound, dose, mechanism, control)
            )
            signal = np.zeros(16)
            if mechanism:
                weight = (1 + wells[place][2].count("0") + float(dose) / 30) / 3
                signal = weight * (own * own_effect[drugs.index((mechanism, compound))] + shared * shared_effect[int(mechanism[1])])  # fmt: skip
            values.append(signal + 0.5 * rng.standard_normal(16))
    columns = [
        schema.PLATE,
        schema.BATCH,
        schema.WELL,
        schema.PERTURBATION,
        schema.DOSE,
        schema.MOA,
        schema.CONTROL_TYPE,
    ]
    return pd.concat([pd.DataFrame(rows, columns=columns), pd.DataFrame(values, columns=FEATURES)], axis=1)


def test_replicates_share_the_dose_and_a_note_says_so():
    table = doses()
    card = score(table, tasks=["replicate"], **QUICK)
    replicates = card.tables["replicate"]
    assert len(replicates) == 36
    assert replicates.groupby(schema.PERTURBATION)[schema.DOSE].apply(set).map(len).eq(3).all()
    assert (replicates["n_pos_pairs"] == 2).all()
    assert any(
        "12 of 12 perturbations have several doses, e.g. c00 has 3: replicates share the dose" in n for n in card.notes
    )
    by_id = table.assign(
        **{schema.PERTURBATION: table[schema.PERTURBATION] + "@" + table[schema.DOSE], schema.DOSE: ""}
    )
    want = score(by_id, tasks=["replicate"], **QUICK).value("replicate")
    assert card.value("replicate") == pytest.approx(want, abs=1e-12)


def test_one_dose_each_changes_nothing():
    table = doses(levels=1)
    without = score(table.drop(columns=schema.DOSE), tasks=["replicate", "same_mechanism"], **QUICK)
    card = score(table, tasks=["replicate", "same_mechanism"], **QUICK)
    pd.testing.assert_frame_equal(card.metrics, without.metrics)
    assert schema.DOSE not in card.tables["replicate"]


def test_spellings_of_a_dose_are_one_dose():
    table = doses()
    spelled = table.assign(
        **{schema.DOSE: table[schema.DOSE].where(table[schema.PLATE] != "p1", table[schema.DOSE] + "0001")}
    )
    want, found = (score(t, tasks=["replicate"], **QUICK).value("replicate") for t in (table, spelled))
    assert found == want


@pytest.mark.parametrize(("dose", "n"), [("each", 36), ("top", 12), ("all", 12)])
def test_consensus_by_dose_of_the_top_dose_and_over_all(dose, n):
    table = doses()
    (task,) = [t for t in chosen_tasks("nsc", Protocol(), changes={"nsc": {"dose": dose}}) if t.name == "nsc"]
    profiles = profiles_of(task, plate_sets(table, Protocol())[0][0])
    assert len(profiles.table) == n
    treated = table[table[schema.MOA] != ""]
    if dose == "top":
        treated = treated[treated[schema.DOSE] == "90.0"]
    by = [schema.PERTURBATION, *([schema.DOSE] if dose == "each" else [])]
    np.testing.assert_allclose(
        np.sort(profiles.values(), axis=None), np.sort(treated.groupby(by)[FEATURES].median(), axis=None)
    )


@pytest.mark.parametrize("column", [schema.PERTURBATION, schema.SMILES, schema.NAME])
def test_doses_of_one_molecule_do_not_answer_for_each_other(column):
    """Compounds have nothing but themselves in common: with their other doses as candidates, the accuracy would be 1."""
    table = doses(own=6.0)
    if (
        column != schema.PERTURBATION
    ):  # the id of the table holds the dose: a structure or name tells what is one molecule
        drugs = table[schema.PERTURBATION]
        smiles = {name: "C" * (i + 1) + "O" for i, name in enumerate(sorted(drugs.unique()))}
        table = table.assign(**{
            column: drugs.map(smiles) if column == schema.SMILES else drugs,
            schema.PERTURBATION: drugs + "@" + table[schema.DOSE],
        }).drop(columns=schema.DOSE)  # fmt: skip
    question = ask(read_task("nsc"), plate_sets(table, Protocol())[0][0], Protocol())
    labels = [set(cell) for cell in question.meta["_label"]]
    leaking = nearest_neighbour_accuracy(question.feats, labels)[0]
    assert leaking == 1
    card = score(table, tasks=["nsc", "nscb"], **QUICK)
    row = card.metrics.query("task == 'nsc'").iloc[0]
    molecule = question.meta["Metadata__compound"]
    want, chance, n = nearest_neighbour_accuracy(question.feats, labels, molecule)
    assert molecule.nunique() == 12
    assert (row["value"], row["chance"], row["n"]) == pytest.approx((want, chance, n))
    assert row["chance"] == pytest.approx(2 / 11)
    assert row["value"] < 0.6
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_a_shared_mechanism_is_found_in_other_compounds():
    card = score(doses(own=0.5, shared=4.0), tasks=["nsc", "same_mechanism"], **QUICK)
    assert card.value("nsc", "accuracy") > 0.95
    assert card.value("same_mechanism") > 0.9
    assert (card.tables["same_mechanism"]["p_value"] <= 0.05).mean() > 0.4


def test_compound_and_batch_must_differ():
    """Hand-made: the nearest profile of another compound is of the same batch, the next one of another batch is wrong."""
    x = {"a": (1, 0, 0.0), "b": (1, 0.1, 0), "c": (1, 0.3, 0), "d": (0, 1, 0.2)}
    about = {"a": ("m", "1"), "b": ("m", "1"), "c": ("n", "2"), "d": ("n", "1")}
    rows = [
        (p, schema.well_name(0, i), name, *about[name], "", *x[name]) for p in ("p1", "p2") for i, name in enumerate(x)
    ]
    rows += [
        (p, schema.well_name(1, i), "DMSO", "", "", schema.NEGCON, *np.eye(3)[i % 3])
        for p in ("p1", "p2")
        for i in range(9)
    ]
    columns = [
        schema.PLATE,
        schema.WELL,
        schema.PERTURBATION,
        schema.MOA,
        schema.BATCH,
        schema.CONTROL_TYPE,
        "f0",
        "f1",
        "f2",
    ]
    card = score(pd.DataFrame(rows, columns=columns), tasks=["nsc", "nscb"], **QUICK)
    nsc, nscb = (card.details[task].set_index(schema.PERTURBATION) for task in ("nsc", "nscb"))
    assert nsc["hit"].to_dict() == {"a": 1, "b": 1, "c": 0, "d": 1}
    assert nscb["hit"].to_dict() == {"c": 0, "d": 1}
    assert nscb["chance"].to_dict() == pytest.approx({"c": 1 / 3, "d": 1})
    assert any("nscb" in note and "2 of 4 profiles have no candidate" in note for note in card.notes)


def test_labels_of_compounds_with_doses_are_permuted_as_one():
    """Doses of a compound are alike; their labels are noise. Permuted one by one, no label would ever be found."""
    found: dict[str, list[float]] = {"as one": [], "one by one": []}
    for seed in range(20):
        question = ask(read_task("same_mechanism"), plate_sets(doses(seed, mechanisms=6), Protocol())[0][0], Protocol())
        for how, units in (("as one", question.rules.units), ("one by one", ())):
            rules = replace(question.rules, units=units)
            nulls = exchange_nulls(question.meta, question.feats, rules, exchange_with="labels", draws=199)
            found[how].append(
                np.mean([(1 + (null >= score - 1e-9).sum()) / 200 < 0.05 for score, null in nulls.values()])
            )
    share = np.array(found["as one"])
    assert 0.01 < share.mean() <= 0.05 + 2 * share.std() / np.sqrt(len(share))
    assert np.mean(found["one by one"]) < 0.01
