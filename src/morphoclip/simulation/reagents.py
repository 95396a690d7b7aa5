"""Reagents and their true effects: directions of genes, then compounds, guides, ORFs and controls.

The annotation of a reagent and its effect are separate: about a fifth of the compounds act through a gene that they are
not annotated with, some act through two, two genes have no effect, and unrelated compounds share toxicity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from morphoclip.simulation.compounds import GENES, Drug, drugs_of
from morphoclip.simulation.phenotype import AXES, KINDS
from morphoclip.simulation.screen import ScreenConfig
from morphoclip.simulation.streams import stable_hash, stream

SILENT = ("PTGS2", "ADRB2")
CORRELATED = {
    "AURKB": ("AURKA", 0.6),
    "PIK3CA": ("MTOR", 0.6),
    "MAP2K1": ("EGFR", 0.4),
}  # gene: (similar gene, target cosine)
GENE_NORM = 3.2  # axis units, shift of a fully responding cell along its gene's direction
KIND_WEIGHT = {"shape": 0.75, "texture": 0.75, "localisation": 1.05, "relation": 1.5}


@dataclass(frozen=True)
class Reagent:
    """A reagent for a well.

    Attributes:
        broad_sample: its id on the plate maps; empty for DMSO.
        modality: compound, crispr or orf.
        gene: annotated gene, empty for compounds' and guides' negative controls.
        control: True for negative controls.
        effect: (axes,) shift of a fully responding cell.
        toxicity: 0 to 1, share of cells lost or rounded.
        penetrance: share of cells that respond.
        acts_on: the genes through which it really acts.
        drug, guide: further entries of the annotation tables.
    """

    broad_sample: str
    modality: str
    gene: str = ""
    control: bool = False
    effect: np.ndarray = field(default_factory=lambda: np.zeros(len(AXES)))
    toxicity: float = 0.0
    penetrance: float = 0.0
    strength: float = 0.0
    acts_on: tuple[str, ...] = ()
    drug: Drug | None = None
    guide: str = ""


def gene_directions(config: ScreenConfig) -> dict[str, np.ndarray]:
    """Gene ▶ (axes,) effect of its loss, with norm `GENE_NORM`, or zero for a silent gene.

    A direction has one relation axis and two or three of the other kinds; all axes are used by about equally many genes.
    """
    rng = stream(config.seed, "genes")
    rows = {kind: [i for i, axis in enumerate(AXES) if axis.kind == kind] for kind in KINDS}
    decks = {kind: np.concatenate([rng.permutation(rows[kind]) for _ in range(-(-len(GENES) // 4))]) for kind in KINDS}
    directions: dict[str, np.ndarray] = {}
    for g, gene in enumerate(GENES):
        direction = np.zeros(len(AXES))
        left_out = rng.choice(["shape", "texture", "localisation", "none"])
        for kind in KINDS:
            size = KIND_WEIGHT[kind] * rng.uniform(0.75, 1.25) * rng.choice([-1, 1])
            direction[decks[kind][g]] = 0.0 if kind == left_out else size
        directions[gene] = direction / np.linalg.norm(direction)
    for gene, (like, cosine) in CORRELATED.items():
        own = directions[gene] - (directions[gene] @ directions[like]) * directions[like]
        directions[gene] = cosine * directions[like] + np.sqrt(1 - cosine**2) * own / np.linalg.norm(own)
    return {gene: np.zeros(len(AXES)) if gene in SILENT else GENE_NORM * directions[gene] for gene in config.genes}


def compounds(config: ScreenConfig) -> list[Reagent]:
    """The screen's compounds; a fraction `config.mislabelled` acts through a gene they are not annotated with."""
    directions = gene_directions(config)
    active = [gene for gene in config.genes if gene not in SILENT]
    drugs = [drug for gene in config.genes for drug in drugs_of(gene)[: config.compounds_per_gene]]
    rng = stream(config.seed, "mislabelled")
    wrong = set(rng.choice(len(drugs), round(config.mislabelled * len(drugs)), replace=False).tolist())
    reagents = []
    for i, drug in enumerate(drugs):
        rng = stream(config.seed, "compound", drug.name)
        acts_on = tuple(gene for gene in drug.targets if gene in config.genes)
        if i in wrong:
            acts_on = (str(rng.choice([gene for gene in active if gene not in drug.targets])),)
        strength = float(np.clip(np.exp(0.05 + 0.3 * rng.standard_normal()), 0.4, 1.7))
        weights = (1.0,) if len(acts_on) == 1 else (0.8, 0.6)
        effect = sum(w * directions[gene] for w, gene in zip(weights, acts_on, strict=True))
        toxicity = float(rng.beta(1.5, 3.0)) if rng.random() < 0.3 else 0.0
        reagents.append(
            Reagent(
                broad_sample=f"BRD-K{stable_hash('compound', drug.name) % 10**8:08d}-001-01-1",
                modality="compound",
                gene=drug.targets[0],
                effect=strength * effect + _off_target(rng),
                toxicity=toxicity,
                penetrance=float(rng.uniform(0.6, 0.95)),
                strength=strength,
                acts_on=acts_on,
                drug=drug,
            )
        )
    return reagents


def _off_target(rng: np.random.Generator) -> np.ndarray:
    """(axes,) a compound's own sparse effect, of norm about 0.5."""
    direction = np.zeros(len(AXES))
    direction[rng.choice(len(AXES), 3, replace=False)] = 0.3 * rng.standard_normal(3)
    return direction


def guides(config: ScreenConfig) -> list[Reagent]:
    """`config.guides_per_gene` CRISPR guides per gene, of unequal efficacy."""
    directions = gene_directions(config)
    reagents = []
    for gene in config.genes:
        for number in range(config.guides_per_gene):
            rng = stream(config.seed, "guide", gene, number)
            strength = float(rng.uniform(0.5, 1.05))
            reagents.append(
                Reagent(
                    broad_sample=_guide_id(gene, number),
                    modality="crispr",
                    gene=gene,
                    effect=strength * directions[gene] + 0.4 * _off_target(rng),
                    penetrance=float(rng.uniform(0.65, 0.95)),
                    strength=strength,
                    acts_on=(gene,),
                    guide=_guide_sequence(gene, number),
                )
            )
    return reagents


def orfs(config: ScreenConfig) -> list[Reagent]:
    """One overexpression reagent per gene: the opposite of its loss, and weaker."""
    reagents = []
    for gene, direction in gene_directions(config).items():
        rng = stream(config.seed, "orf", gene)
        strength = float(rng.uniform(0.4, 0.75))
        reagents.append(
            Reagent(
                broad_sample=f"ccsbBroad304_{stable_hash('orf', gene) % 10**5:05d}",
                modality="orf",
                gene=gene,
                effect=-strength * direction + 0.4 * _off_target(rng),
                penetrance=float(rng.uniform(0.6, 0.9)),
                strength=strength,
                acts_on=(gene,),
            )
        )
    return reagents


def dmso() -> Reagent:
    """The compounds' negative control: no broad_sample, as on JUMP's plate maps."""
    return Reagent(broad_sample="", modality="compound", control=True)


def nontargeting(config: ScreenConfig) -> list[Reagent]:
    """Guides without a target: the CRISPR plates' negative controls."""
    numbers = range(max(1, config.nontargeting_wells // 4))
    return [
        Reagent(_guide_id("no site", n), "crispr", control=True, guide=_guide_sequence("no site", n)) for n in numbers
    ]


def lacz() -> Reagent:
    """The ORF plates' negative control."""
    return Reagent("ccsbBroad304_99994", "orf", gene="LacZ", control=True)


def _guide_id(gene: str, number: int) -> str:
    return f"BRDN{stable_hash('guide', gene, number) % 10**10:010d}"


def _guide_sequence(gene: str, number: int) -> str:
    return "".join(stream("guide sequence", gene, number).choice(list("ACGT"), 20))
