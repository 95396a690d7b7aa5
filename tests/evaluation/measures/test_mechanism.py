"""The mechanism probe keeps a molecule's doses and forms together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import Protocol
from morphoclip.evaluation.measures.battery import mechanism
from morphoclip.evaluation.measures.probes import mechanism_probe
from morphoclip.evaluation.tasks.protocol import PlateSet


def set_of(table: pd.DataFrame) -> PlateSet:
    features = schema.split_columns(table)[1]
    return PlateSet("set", {schema.MODALITY: "compound"}, table, features)


def accuracy_of(table: pd.DataFrame) -> float:
    rows = {row.metric: row for row in mechanism([set_of(table)], Protocol())}
    return rows["mechanism_accuracy"].value


def test_doses_of_a_compound_with_no_common_mechanism_score_at_chance():
    """A profile says which compound it is, and nothing of the mechanism: only leaking doses could be predicted."""
    rng = np.random.default_rng(0)
    rows, values = [], []
    for compound in range(24):
        own = 3 * rng.standard_normal(40)
        for dose in range(6):
            rows.append((f"c{compound}@{dose}", f"c{compound}", f"m{compound % 3}", ""))
            values.append(own + 0.3 * rng.standard_normal(40))
    meta = pd.DataFrame(rows, columns=[schema.PERTURBATION, schema.NAME, schema.MOA, schema.CONTROL_TYPE])
    x = np.array(values)
    table = pd.concat([meta, pd.DataFrame(x, columns=[f"f{i}" for i in range(40)])], axis=1)
    leaking = mechanism_probe(x, meta[schema.MOA], meta[schema.PERTURBATION])
    assert leaking["accuracy"] > 0.9
    assert accuracy_of(table) < 0.55
    assert accuracy_of(table.drop(columns=schema.NAME)) > 0.9  # without a name or structure nothing links the doses


def test_real_doses_of_cell_injury_leak_and_molecules_do_not(cpjump1):
    path = cpjump1.parent / "cell_injury" / "wells_24h.parquet"
    if not path.is_file():
        pytest.skip("no cell_injury beside the checkout")
    wells = pd.read_parquet(path)
    classes = ["Genotoxin", "Cytoskeletal", "Kinase", "Redox", "Saponin", "HDAC", "Nonspecific reactive"]
    wells = wells[wells["injury"].isin(classes) & wells["conc_um"].notna()]
    known = ["plate", "well", "compound", "smiles", "inchikey", "brd", "conc_um", "time_h", "batch", "cell_line"]
    known += ["compound_class", "injury", "control_type", "rel_cellcount", "mahalanobis"]
    x = wells.drop(columns=known)
    x = x.loc[:, x.notna().all()].iloc[:, ::8]
    meta = pd.DataFrame(
        {
            schema.PERTURBATION: wells["compound"] + "@" + wells["conc_um"].astype(str),
            schema.NAME: wells["compound"],
            schema.SMILES: wells["smiles"],
            schema.MOA: wells["injury"],
            schema.CONTROL_TYPE: "",
        }
    )
    table = pd.concat([meta, x], axis=1).reset_index(drop=True)
    by_id = table.drop(columns=[schema.NAME, schema.SMILES])
    assert accuracy_of(by_id) > accuracy_of(table) + 0.04
    assert accuracy_of(table) == accuracy_of(table.drop(columns=schema.NAME))  # by structure alone
