"""What counts as seen, and what may be called clean."""

from __future__ import annotations

import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import score
from morphoclip.evaluation.card.leaks import mark_leaks


def test_rows_are_as_bad_as_the_worst_of_their_perturbations(make_screen):
    card = score(make_screen(0, signal=3.0), tasks=["sister", "compound_gene"], null_size=50, shuffles=0, bootstrap=50)
    seen = {"compound-GENE0-1", "crispr-GENE5-0"}
    marked = mark_leaks(card, seen, ["smiles", "Targets"])
    replicate = marked.tables["replicate"].set_index(schema.PERTURBATION)["seen"]
    assert replicate.loc["compound-GENE0-1"] == "seen"  # its own replicates tell no target
    assert set(replicate.drop([*seen])) == {"clean"}
    for table in (marked.tables["sister_ungated"], marked.tables["compound_gene_ungated"]):
        touched = table["members"].map(lambda members: bool(seen & set(members.split("|"))))
        assert (table["seen"] == touched.map({True: "leaked", False: "clean"})).all()
        assert touched.any()
    gene5 = marked.tables["compound_gene_ungated"].set_index(schema.GENE).loc["GENE5", "seen"]
    assert set(gene5 if isinstance(gene5, pd.Series) else [gene5]) >= {"leaked"}  # by its guide alone
    assert any(alarm.startswith("leak") and "targets" in alarm for alarm in marked.alarms)
    clean = marked.metrics.query("task == 'sister' and metric == 'mean_average_precision_ungated_clean'")
    rows = marked.tables["sister_ungated"].query("seen == 'clean'")
    assert clean["value"].iloc[0] == pytest.approx(rows["mean_average_precision"].mean())
    assert clean["n"].iloc[0] == len(rows)


def test_without_telling_prompts_nothing_leaks(make_screen):
    card = score(make_screen(0), tasks=["sister"], null_size=500, shuffles=0, bootstrap=50)
    marked = mark_leaks(card, {"compound-GENE0-1"}, ["smiles"])
    assert set(marked.tables["sister_ungated"]["seen"]) == {"clean", "seen"}
    assert not marked.alarms
    assert not card.tables["sister"].columns.isin(["seen"]).any()


@pytest.mark.parametrize("field", ["Metadata_pathways", "gene_group", "protein_function"])
def test_a_family_a_pathway_or_a_function_tells_the_target(make_screen, field):
    card = score(make_screen(0), tasks=["sister"], null_size=500, shuffles=0, bootstrap=50)
    marked = mark_leaks(card, {"compound-GENE0-1"}, ["smiles", field])
    assert set(marked.tables["sister_ungated"]["seen"]) == {"clean", "leaked"}
