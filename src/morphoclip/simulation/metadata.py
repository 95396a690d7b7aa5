"""The tables of a screen in JUMP's format: load_data.csv, plate maps, annotations, experiment metadata, and the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from morphoclip.schema import CHANNELS, well_position
from morphoclip.simulation import reagents
from morphoclip.simulation.compounds import Drug
from morphoclip.simulation.layout import Plate
from morphoclip.simulation.phenotype import AXES, NAMES
from morphoclip.simulation.screen import SIMULATOR_VERSION, ScreenConfig

CHANNEL_NUMBER = {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5}  # as CPJUMP1's microscope counts them
HOURS = {"compound": 48, "crispr": 144, "orf": 96}


def image_name(well: str, site: int, channel: str) -> str:
    """PerkinElmer's file name, e.g. r02c07f01p01-ch5sk1fk1fl1.tiff for DNA of B07."""
    row, column = well_position(well)
    return f"r{row + 1:02d}c{column + 1:02d}f{site:02d}p01-ch{CHANNEL_NUMBER[channel]}sk1fk1fl1.tiff"


def image_folder(plate: Plate) -> Path:
    """A plate's folder of images, relative to the screen's root."""
    return Path("images", plate.batch, "images", plate.name, "Images")


def write_metadata(root: Path, config: ScreenConfig, plates: list[Plate]) -> None:
    """Write the tables that an analyst of a real screen has, without the truth."""
    for plate in plates:
        folder = root / "workspace/load_data_csv" / plate.batch / plate.name
        folder.mkdir(parents=True, exist_ok=True)
        load_data(plate, config.sites).to_csv(folder / "load_data.csv", index=False)
    metadata = root / "workspace/metadata"
    _write_platemaps(metadata / "platemaps", plates)
    _write_annotations(metadata / "external_metadata", config)
    _experiment_metadata(config, plates).to_csv(metadata / "experiment-metadata.tsv", sep="\t", index=False)


def load_data(plate: Plate, sites: int) -> pd.DataFrame:
    """One row per field. `PathName_*` is relative to the folder of load_data.csv, so that a screen can be moved."""
    path = (Path("../../../..") / image_folder(plate)).as_posix()
    rows = []
    for well in plate.wells:
        for site in range(1, sites + 1):
            row = {f"FileName_Orig{channel}": image_name(well, site, channel) for channel in CHANNELS}
            row |= {f"PathName_Orig{channel}": path for channel in CHANNELS}
            row |= {"Metadata_Source": "simulator", "Metadata_Batch": plate.batch, "Metadata_Plate": plate.name}
            rows.append(row | {"Metadata_Well": well, "Metadata_Site": site})
    return pd.DataFrame(rows)


def _write_platemaps(folder: Path, plates: list[Plate]) -> None:
    for batch in dict.fromkeys(plate.batch for plate in plates):
        members = [plate for plate in plates if plate.batch == batch]
        (folder / batch / "platemap").mkdir(parents=True)
        barcodes = {"Assay_Plate_Barcode": [p.name for p in members], "Plate_Map_Name": [p.platemap for p in members]}
        pd.DataFrame(barcodes).to_csv(folder / batch / "barcode_platemap.csv", index=False)
        for plate in members:
            table = pd.DataFrame(
                {"well_position": list(plate.wells), "broad_sample": [r.broad_sample for r in plate.wells.values()]}
            )
            if plate.modality == "compound":
                table["solvent"] = "DMSO"
            table.to_csv(folder / batch / "platemap" / f"{plate.platemap}.txt", sep="\t", index=False)


def _write_annotations(folder: Path, config: ScreenConfig) -> None:
    folder.mkdir(parents=True)
    compounds, targets = _compound_tables(config)
    guides = [*reagents.guides(config), *reagents.nontargeting(config)]
    crispr = [(r.broad_sample, r.gene, *_control(r), r.guide, "NO_SITE (5 zeros)" if r.control else "") for r in guides]
    orf = [(r.broad_sample, r.gene, *_control(r)) for r in [*reagents.orfs(config), reagents.lacz()]]
    columns = ["broad_sample", "gene", "pert_type", "control_type"]
    tables = {
        "compound_metadata": compounds,
        "compound_metadata_targets": targets,
        "crispr_metadata": pd.DataFrame(crispr, columns=[*columns, "target_sequence", "negcon_control_type"]),
        "orf_metadata": pd.DataFrame(orf, columns=columns),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"simulated_{name}.tsv", sep="\t", index=False)


def _control(reagent: reagents.Reagent) -> tuple[str, str]:
    return ("control", "negcon") if reagent.control else ("trt", "")


def _drug(compound: reagents.Reagent) -> Drug:
    assert compound.drug is not None  # every compound has one
    return compound.drug


def _compound_tables(config: ScreenConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The compound table and the one with targets; DMSO is the row without a broad_sample, as in JUMP-Target-1."""
    from rdkit import Chem

    common, genes, targets = [], [], []
    for reagent in reagents.compounds(config):
        drug = _drug(reagent)
        key = Chem.MolToInchiKey(Chem.MolFromSmiles(drug.smiles))
        common.append((reagent.broad_sample, key, drug.name, "", "trt", "", drug.smiles))
        genes.append(reagent.gene)
        targets.append("|".join(sorted(gene for gene in drug.targets if gene in config.genes)))
    common.append(("", "IAZDPXIOMUYVGZ-UHFFFAOYSA-N", "DMSO", "679", "control", "negcon", "CS(=O)C"))
    genes.append("")
    targets.append("")
    columns = ["broad_sample", "InChIKey", "pert_iname", "pubchem_cid", "pert_type", "control_type", "smiles"]
    plain, annotated = pd.DataFrame(common, columns=columns), pd.DataFrame(common, columns=columns)
    plain.insert(4, "gene", genes)
    annotated.insert(4, "target", genes)
    annotated.insert(5, "target_list", targets)
    return plain, annotated


def _experiment_metadata(config: ScreenConfig, plates: list[Plate]) -> pd.DataFrame:
    rows = [
        {
            "Batch": plate.batch,
            "Plate_Map_Name": plate.platemap,
            "Assay_Plate_Barcode": plate.name,
            "Perturbation": plate.modality,
            "Cell_type": "U2OS",
            "Time": HOURS[plate.modality],
            "Density": 100,
            "Antibiotics": "absent",
            "Cell_line": "Cas9" if plate.modality == "crispr" else "Parental",
            "Time_delay": "Day0",
            "Times_imaged": 1,
            "Anomaly": "none",
            "Number_of_images": len(plate.wells) * config.sites * len(CHANNELS),
        }
        for plate in plates
    ]
    return pd.DataFrame(rows)


def write_truth(root: Path, config: ScreenConfig, wells: pd.DataFrame) -> None:
    """Write the truth: realised phenotypes, directions of genes, and the genes that compounds really act on."""
    folder = root / "truth"
    folder.mkdir()
    wells.to_parquet(folder / "wells.parquet", index=False)
    directions = pd.DataFrame(reagents.gene_directions(config), index=list(NAMES)).T
    directions.rename_axis("gene").to_csv(folder / "genes.csv")
    pd.DataFrame([vars(axis) for axis in AXES]).to_csv(folder / "axes.csv", index=False)
    pd.DataFrame(
        [
            {
                "broad_sample": r.broad_sample,
                "pert_iname": _drug(r).name,
                "annotated_targets": "|".join(gene for gene in _drug(r).targets if gene in config.genes),
                "true_targets": "|".join(r.acts_on),
                "mislabelled": r.gene not in r.acts_on,
                "strength": r.strength,
                "penetrance": r.penetrance,
                "toxicity": r.toxicity,
                **dict(zip(NAMES, r.effect, strict=True)),
            }
            for r in reagents.compounds(config)
        ]
    ).to_csv(folder / "compounds.csv", index=False)
    (folder / "config.json").write_text(json.dumps(stamp(config), indent=2) + "\n")


def stamp(config: ScreenConfig) -> dict:
    """All settings that determine the bytes of a screen."""
    return {"simulator_version": SIMULATOR_VERSION, "config": config.as_dict()}
