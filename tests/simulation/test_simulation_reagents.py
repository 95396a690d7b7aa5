"""What is given to the wells: real structures, planted directions, controls that do nothing, and honest annotation noise."""

from __future__ import annotations

import numpy as np
import pytest

from morphoclip.simulation.compounds import DRUGS, GENES, drugs_of
from morphoclip.simulation.layout import plan
from morphoclip.simulation.phenotype import AXES, KINDS
from morphoclip.simulation.reagents import (
    CORRELATED,
    GENE_NORM,
    SILENT,
    compounds,
    dmso,
    gene_directions,
    guides,
    lacz,
    nontargeting,
    orfs,
)
from morphoclip.simulation.screen import ScreenConfig

CONFIG = ScreenConfig(seed=4)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_every_gene_has_six_drugs_whose_structures_parse_and_differ():
    Chem = pytest.importorskip("rdkit.Chem")
    keys = set()
    for drug in DRUGS:
        molecule = Chem.MolFromSmiles(drug.smiles)
        assert molecule is not None, drug.name
        keys.add(Chem.MolToInchiKey(molecule))
        assert set(drug.targets) <= set(GENES)
    assert len(keys) == len({drug.name for drug in DRUGS}) == len(DRUGS) == 96
    assert all(len(drugs_of(gene)) == 6 for gene in GENES)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("colchicine", "C22H25NO6"),
        ("alisertib", "C27H20ClFN4O4"),
        ("BI-2536", "C28H39N7O3"),
        ("volasertib", "C34H50N8O3"),
        ("tanespimycin", "C31H43N3O8"),
        ("sirolimus", "C51H79NO13"),
        ("osimertinib", "C28H33N7O2"),
        ("trametinib", "C26H23FIN5O4"),
        ("JQ1", "C23H25ClN4O2S"),
        ("carfilzomib", "C40H57N5O7"),
        ("bortezomib", "C19H25BN4O4"),
        ("dinaciclib", "C21H28N6O2"),
        ("hesperadin", "C29H32N4O3S"),
        ("torin-1", "C35H28F3N5O2"),
        ("vorinostat", "C14H20N2O3"),
        ("netarsudil", "C28H27N3O3"),
        ("onvansertib", "C24H27F3N8O3"),
        ("AMG-900", "C28H21N7OS"),
    ],
)
def test_structures_have_the_formulas_of_the_drugs(name, formula):
    pytest.importorskip("rdkit")
    from rdkit import Chem
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    smiles = next(drug.smiles for drug in DRUGS if drug.name == name)
    assert CalcMolFormula(Chem.MolFromSmiles(smiles)) == formula


@pytest.mark.parametrize("seed", range(4))
def test_directions_are_sparse_with_correlated_and_silent_genes(seed):
    directions = gene_directions(ScreenConfig(seed=seed))
    for gene, direction in directions.items():
        assert np.linalg.norm(direction) == pytest.approx(0 if gene in SILENT else GENE_NORM)
        if gene not in CORRELATED:
            assert np.count_nonzero(direction) <= len(KINDS)
    for gene, (like, aim) in CORRELATED.items():
        assert cosine(directions[gene], directions[like]) == pytest.approx(aim)
    relation = [i for i, axis in enumerate(AXES) if axis.kind == "relation"]
    power = np.square(np.stack(list(directions.values())))
    assert power[:, relation].sum() / power.sum() > 0.4


def test_a_fifth_of_the_compounds_acts_through_another_gene_than_annotated():
    treated = compounds(CONFIG)
    wrong = [r for r in treated if r.gene not in r.acts_on]
    assert len(wrong) == round(0.2 * len(treated))
    assert not any(set(r.acts_on) & (set(r.drug.targets) | set(SILENT)) for r in wrong)
    directions = gene_directions(CONFIG)
    right = [r for r in treated if r.acts_on == (r.gene,) and r.gene not in SILENT]
    assert np.mean([cosine(r.effect, directions[r.gene]) for r in right]) > 0.95
    assert abs(np.mean([cosine(r.effect, directions[r.gene]) for r in wrong if r.gene not in SILENT])) < 0.4
    assert any(len(r.acts_on) == 2 for r in treated)


def test_toxicity_is_shared_by_unrelated_genes():
    toxic = {r.acts_on[0] for r in compounds(CONFIG) if r.toxicity > 0.1}
    assert len(toxic) >= 6


def test_guides_agree_and_orfs_oppose_more_weakly():
    directions = gene_directions(CONFIG)
    for guide in guides(CONFIG):
        if guide.gene not in SILENT:
            assert cosine(guide.effect, directions[guide.gene]) > 0.9
    for orf in orfs(CONFIG):
        if orf.gene not in SILENT:
            assert cosine(orf.effect, directions[orf.gene]) < -0.9
            assert np.linalg.norm(orf.effect) < np.linalg.norm(directions[orf.gene])
    by_gene = {gene: [g.strength for g in guides(CONFIG) if g.gene == gene] for gene in CONFIG.genes}
    assert all(first != second for first, second in by_gene.values())


def test_controls_do_nothing():
    for control in [dmso(), lacz(), *nontargeting(CONFIG)]:
        assert control.control
        assert not control.effect.any()
        assert control.toxicity == 0


def test_broad_samples_are_unique():
    ids = [r.broad_sample for r in [*compounds(CONFIG), *guides(CONFIG), *orfs(CONFIG), *nontargeting(CONFIG), lacz()]]
    assert len(set(ids)) == len(ids)


def test_demo_screen_has_ten_plates_and_864_wells():
    plates = plan(CONFIG)
    assert len(plates) == 10
    assert sum(len(plate.wells) for plate in plates) == 864
    assert [p.modality for p in plates if p.batch == "SIM_batch3"] == ["compound", "compound", "crispr", "orf"]


def test_layouts():
    def positions(layout: str) -> list[dict[str, str]]:
        plates = [p for p in plan(ScreenConfig(seed=1, layout=layout)) if p.modality == "compound"]
        return [{well: r.broad_sample for well, r in plate.wells.items()} for plate in plates]

    fixed, scrambled = positions("fixed"), positions("scrambled")
    assert all(plate == fixed[0] for plate in fixed)
    assert all(plate != scrambled[0] for plate in scrambled[1:])
    assert all(sorted(a.values()) == sorted(b.values()) for a, b in zip(fixed, scrambled, strict=True))
    edge = [well for well in fixed[0] if well[0] in "AP" or well[1:] in ("01", "24")]
    assert 10 < len(edge) < 45  # 76 of 384 wells lie on the edge: 24 of 120 expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "random"}, "use fixed or scrambled"),
        ({"orf_plates": (1,)}, "the same length"),
        ({"n_genes": 17}, "between 2 and 16"),
        ({"compounds_per_gene": 7}, "between 1 and 6"),
        ({"field_size": 32}, "at least 64"),
        ({"sites": 0}, "between 1 and 99"),
    ],
)
def test_bad_config_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ScreenConfig(**change)


def test_too_many_wells_are_refused():
    with pytest.raises(ValueError, match="has 384"):
        plan(ScreenConfig(dmso_wells=300))
