"""The plates of a screen, and the reagent in each well."""

from __future__ import annotations

from dataclasses import dataclass

from morphoclip.schema import well_name
from morphoclip.simulation import reagents
from morphoclip.simulation.screen import ScreenConfig
from morphoclip.simulation.streams import stream

ROWS, COLUMNS = 16, 24  # a 384-well plate


@dataclass(frozen=True)
class Plate:
    """A plate of the plan; `wells` maps well names to reagents."""

    name: str
    batch: str
    modality: str
    platemap: str
    wells: dict[str, reagents.Reagent]


def plan(config: ScreenConfig) -> list[Plate]:
    """All plates of a screen in order.

    Raises:
        ValueError: more wells are planned than a plate has.
    """
    plates = []
    for b in range(len(config.compound_plates)):
        for modality, counts in _plate_counts(config).items():
            for number in range(1, counts[b] + 1):
                name = f"SIM{b + 1}-{modality}-{number}"
                own = config.layout == "scrambled"
                platemap = f"simulated_{modality}_{name}" if own else f"simulated_{modality}"
                wells = _wells(config, modality, name if own else "all plates")
                plates.append(Plate(name, f"SIM_batch{b + 1}", modality, platemap, wells))
    return plates


def _plate_counts(config: ScreenConfig) -> dict[str, tuple[int, ...]]:
    return {"compound": config.compound_plates, "crispr": config.crispr_plates, "orf": config.orf_plates}


def _contents(config: ScreenConfig, modality: str) -> list[reagents.Reagent]:
    """The reagents of a plate, one per well."""
    if modality == "compound":
        return reagents.compounds(config) + [reagents.dmso()] * config.dmso_wells
    if modality == "crispr":
        controls = reagents.nontargeting(config)
        controls = [controls[i % len(controls)] for i in range(config.nontargeting_wells)]
        return reagents.guides(config) * config.wells_per_guide + controls
    return reagents.orfs(config) * config.wells_per_orf + [reagents.lacz()] * config.lacz_wells


def _wells(config: ScreenConfig, modality: str, layout: str) -> dict[str, reagents.Reagent]:
    """Well name ▶ reagent, at random positions over the whole plate including edges."""
    contents = _contents(config, modality)
    if len(contents) > ROWS * COLUMNS:
        raise ValueError(
            f"a {modality} plate would need {len(contents)} wells but has {ROWS * COLUMNS}: lower the numbers of "
            "compounds, guides or control wells"
        )
    positions = stream(config.seed, "layout", modality, layout).permutation(ROWS * COLUMNS)[: len(contents)]
    wells = {well_name(*divmod(int(p), COLUMNS)): reagent for p, reagent in zip(positions, contents, strict=True)}
    return dict(sorted(wells.items()))
