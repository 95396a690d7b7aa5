from __future__ import annotations

import multiprocessing
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data import ShardDataset, holdout, write_splits
from morphoclip.data.shards.split_files import read_split, write_split


@pytest.fixture
def fields(rows_of_screen) -> pd.DataFrame:
    return pd.DataFrame(rows_of_screen).assign(**{schema.INCHIKEY: ""})


def held(fields, **options):
    assignment = holdout(fields, **{"batches": []} | options)
    return set(fields.loc[assignment == "heldout", schema.PERTURBATION])


def test_half_of_each_genes_compounds_everywhere_and_a_whole_batch(fields):
    assignment = holdout(fields, batches=["b2"])
    assert set(assignment[fields[schema.BATCH] == "b2"]) == {"heldout"}
    rest = fields[fields[schema.BATCH] == "b1"].assign(split=assignment)
    treated = rest[(rest[schema.MODALITY] == "compound") & (rest[schema.CONTROL_TYPE] == "")]
    per_compound = treated.groupby(schema.PERTURBATION)["split"].nunique()
    assert (per_compound == 1).all()
    sides = treated.drop_duplicates(schema.PERTURBATION).groupby([schema.GENE, "split"]).size()
    assert (sides == 2).all()
    assert len(sides) == 8
    others = rest[(rest[schema.MODALITY] == "crispr") | (rest[schema.CONTROL_TYPE] != "")]
    assert set(others["split"]) == {"train"}


def test_the_choice_depends_on_seed_and_ids_alone(fields):
    choice = held(fields)
    assert held(fields.sample(frac=1, random_state=3)) == choice
    assert held(fields, seed=1) != choice
    # the rest of the screen does not matter either: one gene alone is split the same way
    alone = fields[(fields[schema.GENE] == "GENE2") & (fields[schema.MODALITY] == "compound")]
    assert held(alone) == {name for name in choice if name.startswith("cpd-2")}


def test_the_choice_is_the_same_in_another_process(fields):
    """Python's own hash of strings changes from run to run."""
    code = (
        "import pandas as pd, sys; from morphoclip.data.splits.holdout import holdout;"
        "f = pd.read_json(sys.stdin, orient='split', dtype=str);"
        "print(*holdout(f, batches=[]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input=fields.to_json(orient="split"), capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == holdout(fields, batches=[]).tolist()


def test_an_odd_number_rounds_by_the_genes_hash_to_half_on_average():
    rows = [(f"c{g}-{i}", f"G{g}") for g in range(300) for i in range(3)]
    fields = pd.DataFrame(rows, columns=[schema.PERTURBATION, schema.GENE]).assign(
        **{
            schema.BATCH: "b",
            schema.MODALITY: "compound",
            schema.CONTROL_TYPE: "",
            schema.INCHIKEY: "",
            schema.NAME: "",
        }
    )
    split = holdout(fields, batches=[])
    counts = (split == "heldout").groupby(fields[schema.GENE]).sum()
    assert set(counts) == {1, 2}
    assert abs(counts.mean() - 1.5) < 0.1


def test_forms_of_one_drug_stay_on_one_side(fields):
    keys = {"cpd-00": "AAAAAAAAAAAAAA-L", "cpd-11": "AAAAAAAAAAAAAA-D"}  # stereoisomers, annotated with other genes
    names = {"cpd-11": "Quinine", "cpd-22": "quinine"}
    fields[schema.INCHIKEY] = fields[schema.PERTURBATION].map(keys).fillna("")
    fields[schema.NAME] = fields[schema.PERTURBATION].map(names).fillna("")
    trio = {"cpd-00", "cpd-11", "cpd-22"}
    sides = [len(trio & held(fields, seed=seed)) for seed in range(12)]
    assert set(sides) == {0, 3}


def test_what_cannot_be_held_out_is_said(fields):
    with pytest.raises(ValueError, match=r"held-out batches \['b9'\].*'b1', 'b2'"):
        holdout(fields, batches=["b9"])
    with pytest.raises(ValueError, match=r"no treated 'orf' fields"):
        holdout(fields, batches=[], modality="orf")


def test_splits_are_written_as_rows_of_the_index(make_screen):
    folder = make_screen()
    dataset = ShardDataset(folder)
    assignment = holdout(dataset.fields, batches=["b2"])
    sizes = write_splits(dataset, assignment)
    train, heldout = read_split(folder, "train"), read_split(folder, "heldout")
    assert sizes == {"heldout": len(heldout), "train": len(train)}
    assert sorted([*train, *heldout]) == list(range(len(dataset)))
    assert set(assignment.iloc[dataset.index["field"][train]]) == {"train"}
    assert train.dtype == np.int64
    assert [path.name for path in (folder / "splits").iterdir() if "partial" in path.name] == []
    with pytest.raises(ValueError, match="3 assignments for the 88 fields"):
        write_splits(dataset, assignment[:3])


def test_rows_are_stored_sorted(tmp_path):
    write_split(tmp_path, "few", np.array([5, 1, 3]))
    assert read_split(tmp_path, "few").tolist() == [1, 3, 5]


def _write_often(folder):
    for _ in range(100):
        write_split(folder, "train", np.arange(1000))


def test_runs_that_share_a_dataset_write_their_split_at_the_same_time(tmp_path):
    both = [multiprocessing.get_context("fork").Process(target=_write_often, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert [file.name for file in (tmp_path / "splits").iterdir()] == ["train.npy"]
