"""What a user may choose about a simulated screen."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from morphoclip.simulation.compounds import GENES

SIMULATOR_VERSION = 1
FINAL_SEED = 2026


@dataclass(frozen=True)
class ScreenConfig:
    """Everything a user may choose about a simulated screen. How cells look and plates err is not among it.

    Attributes:
        seed: everything follows from it; `FINAL_SEED` is kept for the final table.
        layout: "fixed": one layout for all plates of a modality; "scrambled": every plate its own.
        compound_plates, crispr_plates, orf_plates: number of plates in each batch; equal lengths.
        n_genes: how many of `compounds.GENES`, from the first; the two last are silent.
        compounds_per_gene: at most 6.
        mislabelled: share of compounds whose annotated gene is not the one they act on.
        dmso_wells, guides_per_gene, wells_per_guide, nontargeting_wells, wells_per_orf, lacz_wells: a plate.
        sites: fields a well.
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
            raise ValueError(f"layout {self.layout!r} is neither 'fixed' nor 'scrambled'")
        if len({len(self.compound_plates), len(self.crispr_plates), len(self.orf_plates)}) != 1:
            raise ValueError("compound_plates, crispr_plates and orf_plates must name the same number of batches")
        if not 2 <= self.n_genes <= len(GENES):
            raise ValueError(f"n_genes={self.n_genes} must lie between 2 and {len(GENES)}")
        if not 1 <= self.compounds_per_gene <= 6:
            raise ValueError(f"compounds_per_gene={self.compounds_per_gene} must lie between 1 and 6")
        if not 1 <= self.sites <= 99:
            raise ValueError(f"sites={self.sites} must lie between 1 and 99")
        if self.field_size < 64:
            raise ValueError(f"field_size={self.field_size} is too small for a cell of 45 px; take at least 64")

    @property
    def genes(self) -> tuple[str, ...]:
        return GENES[: self.n_genes]

    def as_dict(self) -> dict:
        """Plain containers, as JSON gives them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
