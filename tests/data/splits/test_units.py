"""What a split never separates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data.splits.units import seen_perturbations, split_units

METADATA = Path(__file__).parents[3] / "../shared/data/cpjump1/metadata"


def compounds(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    return pd.DataFrame({schema.PERTURBATION: list("abcdefgh"[:count]), **columns})


def test_names_inchikeys_and_structures_link_and_chains_are_followed():
    table = compounds(
        **{
            schema.NAME: ["X", "x", "", "", "Z"],
            schema.INCHIKEY: ["", "AAAAAAAAAAAAAA-B", "AAAAAAAAAAAAAA-C", "", ""],
            schema.SMILES: ["", "", "Oc1ccccn1", "O=c1cccc[nH]1", "CCO"],
        }
    )
    assert split_units(table).tolist() == ["a", "a", "a", "a", "e"]
    assert split_units(table.drop(columns=schema.NAME)).tolist() == ["a", "b", "b", "b", "e"]
    order = np.random.default_rng(0).permutation(5)
    assert split_units(table.iloc[order]).tolist() == split_units(table).iloc[order].tolist()


def test_what_cannot_be_read_and_what_is_acyclic_is_its_own_unit():
    table = compounds(**{schema.SMILES: ["not a molecule", "CCO", "c1ccccc1C", None, "c1ccccc1CC"]})
    assert split_units(table).tolist() == list("abcde")
    assert split_units(table, "scaffold").tolist() == ["a", "b", "c1ccccc1", "d", "c1ccccc1"]


def test_plates_of_one_name_in_two_batches_are_two_units():
    table = compounds(**{schema.BATCH: ["1", "2", None], schema.PLATE: ["P", "P", "P"]})
    assert split_units(table, "plate").tolist() == ["1/P", "2/P", "/P"]
    assert split_units(table.drop(columns=schema.BATCH), "plate").nunique() == 1


def test_mistakes_are_named():
    table = compounds(**{schema.PLATE: ["P"]})
    with pytest.raises(ValueError, match="'barcode': use one of structure"):
        split_units(table, "barcode")
    with pytest.raises(ValueError, match="Metadata_gene"):
        split_units(table, "gene")
    with pytest.raises(ValueError, match="a split by structure needs Metadata_pert_iname or"):
        split_units(table)
    with pytest.raises(ValueError, match="a split by source needs the column Metadata_Source"):
        split_units(table, "source")


def test_seen_is_what_shares_a_unit_with_training_also_where_the_tables_differ_in_columns():
    meta = compounds(**{schema.SMILES: ["Oc1ccccn1", "CCO"], schema.BATCH: ["1", "1"]})
    training = pd.DataFrame({schema.PERTURBATION: ["other"], schema.SMILES: ["O=c1cccc[nH]1"], schema.GENE: ["G"]})
    assert seen_perturbations(meta, training) == {"a"}
    assert seen_perturbations(meta, training, by="perturbation") == set()


TAUTOMERS = {  # BVT-948: the two entries of JUMP-Target-1
    "a": ("AJVXVYTVAAWZAP-UHFFFAOYSA-N", "CC1(C)C2C(=NC1=O)c1ccccc1C(=O)C2=O"),
    "b": ("LLPBUXODFQZPFH-UHFFFAOYSA-N", "CC1(C)C(=O)NC2=C1C(=O)C(=O)c1ccccc21"),
}


def entries(ids: str, *columns: str) -> pd.DataFrame:
    rows = [(one, *TAUTOMERS[one]) for one in ids]
    return pd.DataFrame(rows, columns=[schema.PERTURBATION, schema.INCHIKEY, schema.SMILES])[
        [schema.PERTURBATION, *columns]
    ]


def test_splits_and_leaks_are_judged_by_one_rule_on_all_that_is_known_of_each_table():
    """The columns that only one table has count as well, and a second row of a perturbation can say more than its first."""
    both = entries("ab", schema.INCHIKEY, schema.SMILES)
    assert split_units(both).tolist() == ["a", "a"]
    assert seen_perturbations(both, entries("b", schema.INCHIKEY)) == {"a", "b"}
    keys, structures = entries("b", schema.INCHIKEY), entries("ab", schema.SMILES)
    assert seen_perturbations(structures, keys.assign(**{schema.PERTURBATION: "x"})) == {
        "a",
        "b",
    }  # the key is computed
    bare = entries("a", schema.SMILES).assign(**{schema.SMILES: ""})
    twice = pd.concat([bare, entries("a", schema.SMILES)])
    assert seen_perturbations(entries("b", schema.SMILES), twice) == {"b"}
    with pytest.raises(
        ValueError, match=r"the profiles have \['Metadata_pert_iname'\] and the training table \['Metadata_s"
    ):
        seen_perturbations(compounds(**{schema.NAME: ["x"]}), structures)


def test_a_blank_id_or_a_placeholder_for_a_name_links_nothing():
    table = compounds(**{schema.NAME: ["unknown", "NA", "Unknown", "x", "X "]})
    table.loc[5] = ["", "x"]
    assert split_units(table).tolist() == ["a", "b", "c", "d", "d", ""]


def test_real_duplicates_are_seen_together():
    """Dexamethasone and thiostrepton appear twice, BVT-948 as two tautomers, quinine and quinidine as stereoisomers."""
    if not METADATA.is_dir():
        pytest.skip("no ../shared/data/cpjump1 beside the checkout")
    from morphoclip.data.metadata.annotations import read_annotations

    wells = read_annotations(METADATA)
    table = wells[(wells[schema.MODALITY] == "compound").to_numpy() & schema.is_treated(wells)]
    table = table.drop_duplicates(schema.PERTURBATION)
    unit = split_units(table)
    for names in (["dexamethasone"], ["thiostrepton"], ["BVT-948"], ["quinine", "quinidine"]):
        entries = table[schema.NAME].isin(names)
        assert entries.sum() >= 2, names
        assert unit[entries].nunique() == 1, names
    assert unit.nunique() > 0.95 * len(table)  # and nearly nothing else is one molecule
    by_structure = split_units(table.drop(columns=[schema.NAME, schema.INCHIKEY]))
    assert by_structure[table[schema.NAME] == "BVT-948"].nunique() == 1
    first, second = table[table[schema.NAME] == "BVT-948"][schema.PERTURBATION]
    profiles = table[table[schema.PERTURBATION] != second].drop(columns=schema.NAME)
    trained = table.loc[table[schema.PERTURBATION] == second, [schema.PERTURBATION, schema.SMILES]]
    assert seen_perturbations(profiles, trained) == {first}
