"""Settings of a simulated screen."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from morphoclip.simulation.compounds import GENES

SIMULATOR_VERSION = 1
FINAL_SEED = 2026


@dataclass(frozen=True)
class ScreenConfig:
    """Settings of a simulated screen. The appearance of cells and the confounders are fixed.

    Attributes:
        seed: seed of everything; `FINAL_SEED` is reserved for the final table of results.
        layout: "fixed": one layout for all plates of a modality; "scrambled": a different one per plate.
        compound_plates, crispr_plates, orf_plates: number of plates in each batch; equal lengths.
        n_genes: number of genes, the first of `compounds.GENES`; the last two are silent.
        compounds_per_gene: at most 6.
        mislabelled: fraction of compounds whose annotated gene is not the one they act on.
        dmso_wells, guides_per_gene, wells_per_guide, nontargeting_wells, wells_per_orf, lacz_wells: numbers per plate.
        sites: fields per well.
        field_size: px, side of a field.
        cells_per_field: mean number of cells in an untreated field of 256 x 256 px (scaled with the area).
    """

    seed: int = 0
    layout: str = "fixed"
    compound_plates: tuple[int, ...] = (1, 1, 2)
    crispr_plates: tuple[int, ...] = (1, 1, 1)
    orf_plates: tuple[int, ...] = (1, 1, 1)
    n_genes: int = 16
    compounds_per_gene: int = 6
    mislabelled: float = 0.2
    dmso_wells: int = 24
    guides_per_gene: int = 2
    wells_per_guide: int = 2
    nontargeting_wells: int = 16
    wells_per_orf: int = 2
    lacz_wells: int = 16
    sites: int = 1
    field_size: int = 256
    cells_per_field: float = 22.0

    def __post_init__(self) -> None:
        if self.layout not in ("fixed", "scrambled"):
            raise ValueError(f"layout={self.layout!r}: use fixed or scrambled")
        if len({len(self.compound_plates), len(self.crispr_plates), len(self.orf_plates)}) != 1:
            raise ValueError(
                "compound_plates, crispr_plates and orf_plates must have the same length, one number per batch"
            )
        if not 2 <= self.n_genes <= len(GENES):
            raise ValueError(f"n_genes={self.n_genes} must be between 2 and {len(GENES)}")
        if not 1 <= self.compounds_per_gene <= 6:
            raise ValueError(f"compounds_per_gene={self.compounds_per_gene} must be between 1 and 6")
        if not 1 <= self.sites <= 99:
            raise ValueError(f"sites={self.sites} must be between 1 and 99")
        if self.field_size < 64:
            raise ValueError(f"field_size={self.field_size} is too small for a cell of 45 px: use at least 64")

    @property
    def genes(self) -> tuple[str, ...]:
        return GENES[: self.n_genes]

    def as_dict(self) -> dict:
        """The settings as plain containers, equal after a round trip through JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
