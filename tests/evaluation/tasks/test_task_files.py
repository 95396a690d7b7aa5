"""Tasks as files: each shipped one is read, fields can be changed, and wells are ranked as copairs ranks them."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from morphoclip import configs_dir, schema
from morphoclip.evaluation import Measure, Protocol, Task, score
from morphoclip.evaluation.measures.row import Detail, Note, Row
from morphoclip.evaluation.tasks.controls import CONTROLS, SHUFFLED
from morphoclip.evaluation.tasks.library import DEFAULT, chosen_tasks, read_task
from morphoclip.evaluation.tasks.protocol import plate_sets
from morphoclip.evaluation.tasks.questions import NotScored, ask
from morphoclip.evaluation.tasks.task import MEAN_COSINE

NAMES = sorted(path.stem for path in (configs_dir() / "task").glob("*.yaml"))
QUICK = {"null_size": 50, "shuffles": 1, "bootstrap": 20}


@pytest.fixture(scope="module")
def labs() -> pd.DataFrame:
    """Two sources of two batches of two plates; 8 compounds, each at another position on every plate, and 10 DMSO."""
    rng = np.random.default_rng(0)
    effect = rng.standard_normal((8, 12))
    rows, values = [], []
    for source in ("s1", "s2"):
        for batch in ("b1", "b2"):
            for plate in ("p1", "p2"):
                name = f"{source}{batch}{plate}"
                order = rng.permutation(18)
                for well, content in enumerate(order):
                    control = schema.NEGCON if content >= 8 else ""
                    drug = "DMSO" if content >= 8 else f"c{content}"
                    rows.append((source, f"{source}{batch}", name, schema.well_name(0, well), drug, control))
                    signal = np.zeros(12) if content >= 8 else effect[content]
                    values.append(signal + rng.standard_normal(12))
    columns = [schema.SOURCE, schema.BATCH, schema.PLATE, schema.WELL, schema.PERTURBATION, schema.CONTROL_TYPE]
    return pd.concat([pd.DataFrame(rows, columns=columns), pd.DataFrame(values).add_prefix("f")], axis=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_a_task(name):
    task = read_task(name)
    assert task.name == name
    if isinstance(task, Measure):
        assert len(task.caption) > 20
    else:
        assert set(task.controls) <= {*CONTROLS, SHUFFLED, MEAN_COSINE}
        assert task.title


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("replicate", ([], [schema.PLATE], ["_negcon"])),
        ("replicate_other_position", ([schema.WELL], [schema.PLATE], ["_negcon"])),
        ("replicate_other_batch", ([schema.BATCH], [schema.PLATE], ["_negcon"])),
        ("replicate_other_source", ([schema.SOURCE], [schema.PLATE], ["_negcon"])),
        ("same_compound", ([], [], [schema.PERTURBATION])),
    ],
)
@pytest.mark.parametrize("negatives", [None, "set"])
def test_wells_are_ranked_as_by_copairs(labs, name, rules, negatives):
    from copairs.map import average_precision

    (task,) = [t for t in chosen_tasks([name], Protocol(), negatives=negatives) if t.name == name]
    question = ask(task, plate_sets(labs, Protocol())[0][0], Protocol())
    ours = question.average_precision().set_index([schema.PLATE, schema.WELL])["average_precision"]
    different, same, other = rules
    if negatives == "set" and other == ["_negcon"]:
        same = []
    meta = labs[[c for c in labs if c.startswith("Metadata_")]].assign(_negcon=schema.is_negcon(labs))
    if name == "same_compound":
        meta = meta[~meta["_negcon"]]
    x = labs.loc[meta.index, [f"f{i}" for i in range(12)]].to_numpy()
    theirs = average_precision(
        meta.reset_index(drop=True), x, [schema.PERTURBATION], different, same, other, progress_bar=False
    )
    theirs = theirs[~theirs["_negcon"]].set_index([schema.PLATE, schema.WELL])["average_precision"]
    np.testing.assert_allclose(ours, theirs.loc[ours.index], atol=1e-12)
    assert len(ours) == 64


@pytest.mark.parametrize(("name", "column", "n"), [("perturbation_by_batch", schema.BATCH, 4), ("perturbation_by_source", schema.SOURCE, 2)])  # fmt: skip
def test_profiles_by_batch_and_source_find_their_perturbation(labs, name, column, n):
    from copairs.map import average_precision

    question = ask(read_task(name), plate_sets(labs, Protocol())[0][0], Protocol())
    treated = labs[~schema.is_negcon(labs)]
    by_hand = treated.groupby([schema.PERTURBATION, column])[[f"f{i}" for i in range(12)]].mean()
    assert len(by_hand) == 8 * n == len(question.meta)
    meta = by_hand.index.to_frame(index=False)
    theirs = average_precision(
        meta, by_hand.to_numpy(), [schema.PERTURBATION], [], [], [schema.PERTURBATION], progress_bar=False
    )
    ours = question.average_precision()
    np.testing.assert_allclose(ours["average_precision"], theirs["average_precision"], atol=1e-12)


def test_a_profile_without_another_batch_or_place_is_said_to_be_so(labs):
    one_batch = labs[labs[schema.BATCH] == "s1b1"]
    with pytest.raises(NotScored, match="no Metadata_perturbation has two wells that differ in Metadata_Batch"):
        ask(read_task("replicate_other_batch"), plate_sets(one_batch, Protocol())[0][0], Protocol())
    with pytest.raises(NotScored, match="the table has no Metadata_Batch"):
        ask(
            read_task("perturbation_by_batch"),
            plate_sets(labs.drop(columns=schema.BATCH), Protocol())[0][0],
            Protocol(),
        )


def test_default_tasks_and_those_of_a_protocol():
    assert [t.name for t in chosen_tasks(None, Protocol())] == list(DEFAULT)
    assert not any(t.asked for t in chosen_tasks(None, Protocol()))
    named = chosen_tasks(None, Protocol(tasks=("nsc", "replicate_other_batch")))
    assert [t.name for t in named] == ["replicate", "nsc", "replicate_other_batch"]
    assert [t.asked for t in chosen_tasks("nsc", Protocol())] == [False, True]


def test_fields_are_changed_by_name_and_mistakes_are_named():
    tasks = chosen_tasks(["replicate", "sister"], Protocol(), changes={"sister": {"dose": "top"}}, negatives="others")
    assert tasks[0].negatives == "others"
    assert tasks[1].dose == "top"
    for arguments, words in (
        ((["sistr"],), "'sistr'.*nearest: sister"),
        ((["replicate", "replicate"],), "listed twice"),
    ):
        with pytest.raises(ValueError, match=words):
            chosen_tasks(*arguments, Protocol())
    for changes, words in (
        ({"replicate": {"negative": "set"}}, "unknown field: choose among .*'negatives'"),
        ({"replicate": {"negatives": "plates"}}, r"negatives='plates': choose among \['plate', 'set', 'others'\]"),
        ({"replicate": {"different": "batch"}}, r"give a list, \[batch\]"),
        ({"replicate": {"distance": "cosinus"}}, "distance=.'cosinus'. is unknown"),
        ({"sister": {"dose": "top"}}, "task.sister is changed but not scored"),
    ):
        with pytest.raises(ValueError, match=words):
            chosen_tasks(["replicate"], Protocol(), changes=changes)


def own_measure(sets, protocol, *, seed: int, times: int = 1):
    """The number of wells of each set, as many times as asked."""
    for plate_set in sets:
        yield Row(plate_set.name, "wells", float(times * len(plate_set.table)), len(plate_set.table))
        yield Detail(pd.DataFrame({"subset": [plate_set.name], "seed": [seed]}))
        yield Note("counted")


def test_a_file_and_a_function_of_ones_own_are_a_task(labs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mytasks", sys.modules[__name__])
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "count.yaml").write_text(
        "_target_: morphoclip.evaluation.Measure\nfunction: mytasks.own_measure\noptions: {times: '${times}'}\n"
    )
    (tmp_path / "task" / "across.yaml").write_text(
        "_target_: morphoclip.evaluation.Task\nprofiles: well\ndifferent: [plate]\nnegatives: others\ncontrols: [random_features]\n"
    )
    tasks = chosen_tasks(["count", "across"], Protocol(), folders=[tmp_path], keys={"times": 2})
    card = score(labs, tasks=tasks, seed=7, **QUICK)
    assert card.value("count", "wells") == 2 * 144
    assert card.details["count"]["seed"].tolist() == [7]
    assert "counted" in card.notes
    noise = card.metrics.query("task == 'across' and metric == 'random_features'").iloc[0]
    assert abs(noise["value"] - noise["chance"]) < 0.1 < card.value("across") - noise["value"]
    (tmp_path / "task" / "wrong.yaml").write_text("function: mytasks.nothing\n")
    with pytest.raises(ValueError, match=r"wrong\.yaml has no _target_"):
        read_task("wrong", folders=[Path(tmp_path)])


def test_knockout_and_overexpression_have_the_mean_cosine_of_their_pairs(make_screen):
    table = make_screen(3, signal=2.0)
    card = score(table, tasks=["crispr_orf"], **QUICK)
    x = {}
    for modality in ("crispr", "orf"):
        wells = table[(table[schema.MODALITY] == modality) & ~schema.is_negcon(table)]
        medians = wells.groupby([schema.PERTURBATION, schema.GENE])[[f"f{i}" for i in range(24)]].median()
        x[modality] = medians.div(np.linalg.norm(medians, axis=1), axis=0)
    cosines = x["crispr"].to_numpy() @ x["orf"].to_numpy().T
    same = np.equal.outer(*(x[m].index.get_level_values(1) for m in ("crispr", "orf")))
    row = card.metrics.query("metric == 'mean_cosine'").iloc[0]
    assert row["value"] == pytest.approx(cosines[same].mean())
    assert row["chance"] == pytest.approx(cosines[~same].mean())
    assert row["n"] == 16
    assert row["ci_low"] > row["chance"]


def test_a_task_that_cannot_be_is_refused():
    for fields, words in (
        ({"profiles": "consensus", "negatives": "plate"}, "they need profiles=well"),
        ({"profiles": "consensus", "where": {"a": ["b"]}}, "it needs profiles=well"),
        ({"label": schema.MOA}, "use profiles=consensus, or score=nearest"),
        ({"score": "accuracy"}, "score='accuracy': choose among"),
    ):
        with pytest.raises(ValueError, match=words):
            Task("mine", **fields)


def protocol(name: str) -> Protocol:
    return hydra.utils.instantiate(OmegaConf.load(configs_dir() / "protocol" / f"{name}.yaml"))


def test_several_sources_are_one_set(labs):
    card = score(labs, protocol=protocol("jump_target2"), **QUICK)
    found = card.metrics.groupby("task")["metric"].agg(set)
    assert set(found.index) >= {
        "replicate",
        "replicate_other_source",
        "perturbation_by_batch",
        "perturbation_by_source",
        "batch_effects",
    }
    assert (card.queries["replicate_other_source"]["n_pos_pairs"] == 4).all()
    assert (card.queries["replicate"]["n_total_pairs"] == 7 + 10).all()
    assert set(card.metrics["subset"]) == {"all"}
    assert any(note.startswith("sister, all: set all needs the column Metadata_target_list") for note in card.notes)
    assert not any("asked for" in alarm for alarm in card.alarms)


def test_positive_controls_and_plates_are_two_axes(labs):
    """What a plate adds raises plate_map; positive controls lose by it."""
    marked = labs.assign(
        **{
            schema.CONTROL_TYPE: labs[schema.CONTROL_TYPE].mask(
                labs[schema.PERTURBATION].isin(["c0", "c1"]), "poscon_cp"
            )
        }
    )
    features = [c for c in labs if c.startswith("f")]
    shift = np.random.default_rng(1).standard_normal((8, len(features)))[pd.factorize(labs[schema.PLATE])[0]]
    shifted = marked.assign(**dict(zip(features, (marked[features].to_numpy() + 2 * shift).T, strict=True)))
    even, uneven = (score(t, protocol=protocol("jump_controls"), **QUICK) for t in (marked, shifted))
    assert even.tables["positive_controls"][schema.PERTURBATION].tolist() == ["c0", "c1"]
    assert (even.queries["positive_controls"]["n_pos_pairs"] == 7).all()
    assert even.value("batch_effects", "plate_map") < uneven.value("batch_effects", "plate_map") - 0.2
    assert even.value("positive_controls") > uneven.value("positive_controls")
