"""A simulated screen with more compounds than the simulator knows: substituted analogues of its drugs.

An analogue carries a fluorine, chlorine, methyl or methoxy where its drug has an aromatic C–H. It is annotated with the
drug's targets; what it does (strength, penetrance, toxicity, off-target effect, whether the annotation is wrong) is drawn
for it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest

from morphoclip.data.splits.draws import uniform
from morphoclip.simulation import ScreenConfig, compounds
from morphoclip.simulation.compounds import DRUGS, GENES, Drug, drugs_of

SUBSTITUENTS = {"F": "F", "Cl": "Cl", "methyl": "C", "methoxy": "OC"}


@dataclass(frozen=True)
class LargerScreen(ScreenConfig):
    """A `ScreenConfig` of up to as many compounds a gene as `larger_catalogue` has; the other limits stay."""

    compounds_per_gene: int = 14

    def __post_init__(self) -> None:
        ScreenConfig(**{**self.as_dict(), "compounds_per_gene": min(self.compounds_per_gene, 6)})


@contextmanager
def larger_catalogue(per_gene: int) -> Iterator[None]:
    """Within it the simulator knows `per_gene` compounds a gene, its own drugs first."""
    known = compounds.DRUGS
    compounds.DRUGS = known + tuple(chain.from_iterable(more_drugs(gene, per_gene) for gene in GENES))
    try:
        yield
    finally:
        compounds.DRUGS = known


def more_drugs(gene: str, per_gene: int) -> list[Drug]:
    """Analogues of a gene's drugs, each drug in turn, so that there are `per_gene` with the drugs themselves.

    Raises:
        ValueError: the drugs have too few aromatic C–H.
    """
    drugs = drugs_of(gene)
    in_turn = filter(None, chain.from_iterable(zip_longest(*map(analogues, drugs))))
    seen = {canonical(drug.smiles) for drug in DRUGS}
    found: list[Drug] = []
    for drug in in_turn:
        if len(drugs) + len(found) >= per_gene:
            break
        if drug.smiles not in seen:
            seen.add(drug.smiles)
            found.append(drug)
    if len(drugs) + len(found) < per_gene:
        raise ValueError(f"{gene} has {len(drugs) + len(found)} compounds with analogues, {per_gene} are asked for")
    return found


def analogues(drug: Drug) -> list[Drug]:
    """All singly substituted analogues of a drug in a fixed order that favours no position."""
    from rdkit import Chem

    parent = Chem.MolFromSmiles(drug.smiles)
    places = [a.GetIdx() for a in parent.GetAtoms() if a.GetIsAromatic() and a.GetSymbol() == "C" and a.GetTotalNumHs()]
    found: dict[str, Drug] = {}
    for name, smiles in SUBSTITUENTS.items():
        group = Chem.MolFromSmiles(smiles)
        for place in places:
            joined = Chem.RWMol(Chem.CombineMols(parent, group))
            joined.AddBond(place, parent.GetNumAtoms(), Chem.BondType.SINGLE)
            Chem.SanitizeMol(joined)
            text = Chem.MolToSmiles(joined)
            found.setdefault(text, Drug(f"{drug.name}-{name}-{place}", drug.targets, text))
    return sorted(found.values(), key=lambda analogue: uniform("analogue", analogue.name))


def canonical(smiles: str) -> str:
    from rdkit import Chem

    return Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
