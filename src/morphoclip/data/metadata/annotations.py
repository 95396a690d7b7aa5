"""A metadata folder ▶ the content of each well: plate maps, annotation tables and experiment-metadata.tsv, joined."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from morphoclip import schema

# `Cell_line` of experiment-metadata.tsv holds Parental or Cas9; the cell line itself is in `Cell_type`.
EXPERIMENT_COLUMNS = {
    "Perturbation": schema.MODALITY,
    "Cell_type": schema.CELL_LINE,
    "Time": schema.TIMEPOINT,
    "Density": "Metadata_density",
    "Antibiotics": "Metadata_antibiotics",
    "Cell_line": "Metadata_cell_variant",
    "Anomaly": "Metadata_anomaly",
}
_REAGENT = (
    schema.PERT_TYPE,
    schema.CONTROL_TYPE,
    schema.GENE,
    schema.GUIDE,
    schema.TARGETS,
    schema.MOA,
    schema.SMILES,
    schema.INCHIKEY,
    schema.NAME,
)
DMSO = "DMSO"
MAPS_FILE, EXPERIMENT_FILE = "barcode_platemap.csv", "experiment-metadata.tsv"


def read_annotations(folder: str | Path) -> pd.DataFrame:
    """The content of every well of every plate, from a metadata folder laid out like CPJUMP1's.

    The folder holds, at any depth, `barcode_platemap.csv` with its `platemap/<map>.txt` beside it (one pair per
    batch), `experiment-metadata.tsv`, and annotation tables named `*compound_metadata*.tsv`, `*crispr_metadata*.tsv`
    and `*orf_metadata*.tsv`.

    Wells without a `broad_sample` are DMSO negative controls on compound plates and empty on the others.

    Returns:
        One row per batch, plate and well, all strings, missing values as ''. Columns as in `schema`, and
        Metadata_density, Metadata_antibiotics, Metadata_cell_variant (Parental | Cas9), Metadata_anomaly.

    Raises:
        FileNotFoundError: a file named above is missing.
        ValueError: a plate is missing from experiment-metadata.tsv, or a reagent from the annotation tables.
    """
    folder = Path(folder)
    wells = read_maps(folder)
    wells = wells.merge(_read_experiments(folder), on=[schema.BATCH, schema.PLATE], how="left", indicator=True)
    unknown = wells.loc[wells["_merge"] != "both", schema.PLATE].unique()
    if len(unknown):
        raise ValueError(
            f"plates {list(unknown[:5])} are in barcode_platemap.csv but not, for the same batch, in "
            f"{_experiment_file(folder)}: add a row with their Perturbation, Cell_type and Time"
        )
    wells = wells.drop(columns="_merge")
    parts = [_add_reagents(part, str(modality), folder) for modality, part in wells.groupby(schema.MODALITY, sort=True)]
    table = pd.concat(parts, ignore_index=True).fillna("")
    return table.sort_values([schema.BATCH, schema.PLATE, schema.WELL], ignore_index=True)


def annotate(table: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """Left-join the annotations of a metadata folder onto a profile or field table.

    Rows and their order are kept. Annotation columns that the table already has are replaced by the folder's. For a
    plate imaged in several batches, the table's Metadata_Batch selects the batch.

    Raises:
        KeyError: the table has no plate or well column.
        ValueError: a plate or well is on no map, or a plate is in several batches and the table has no Metadata_Batch.
    """
    annotations = read_annotations(folder)
    table = with_canonical_ids(table)
    known = annotations[annotations[schema.PLATE].isin(table[schema.PLATE])]
    missing = sorted(set(table[schema.PLATE]) - set(known[schema.PLATE]))
    if missing:
        raise ValueError(
            f"plates {missing[:5]} ({len(missing)} in all) are in no barcode_platemap.csv under {folder}: "
            "add their maps there or leave these plates out"
        )
    keys = [schema.PLATE, schema.WELL]
    several = known.groupby(schema.PLATE)[schema.BATCH].nunique()
    if (several > 1).any():
        if schema.BATCH not in table:
            raise ValueError(
                f"plate {several.idxmax()} is in several batches under {folder}: give the table a {schema.BATCH} column"
            )
        keys = [schema.BATCH, *keys]
    known = known.assign(_known=True)
    kept = table.drop(columns=[c for c in annotations.columns if c in table and c not in keys])
    joined = kept.merge(known, on=keys, how="left", validate="many_to_one")
    unmapped = joined["_known"].isna().to_numpy()
    if unmapped.any():
        row = table.loc[unmapped].iloc[0]
        raise ValueError(
            f"{int(unmapped.sum())} wells are on no plate map, the first is {row[schema.PLATE]} {row[schema.WELL]}: "
            f"check the map under {folder}"
        )
    joined.index = table.index
    metadata = [c for c in joined.columns if c.startswith(schema.PREFIX)]
    return joined[metadata + [c for c in kept.columns if not c.startswith(schema.PREFIX)]]


def with_canonical_ids(table: pd.DataFrame) -> pd.DataFrame:
    """Canonical column names, plate ids as strings ('117024', never '117024.0') and wells as B07.

    Raises:
        KeyError: no column can be read as plate or as well.
    """
    table = schema.canonicalize(table)
    for column in (schema.PLATE, schema.WELL):
        if column not in table:
            metadata = [c for c in table.columns if c.startswith(schema.PREFIX)]
            raise KeyError(f"the table has no column {column} or a known synonym; its metadata columns: {metadata}")
    names = {well: schema.well_name(*schema.well_position(str(well))) for well in table[schema.WELL].unique()}
    return table.assign(
        **{schema.PLATE: plate_ids(table[schema.PLATE]), schema.WELL: table[schema.WELL].map(names).astype(object)}
    )


def plate_ids(plates: pd.Series) -> pd.Series:
    """Plate ids as strings; a whole number read as a float loses its '.0'."""
    if pd.api.types.is_float_dtype(plates) and (plates == plates.round()).all():
        plates = plates.astype("int64")
    return plates.astype(str).astype(object)


def read_maps(folder: Path) -> pd.DataFrame:
    """Batch, plate, well and what each map says of the well, of all plates listed in `barcode_platemap.csv`; strings."""
    barcode_files = sorted(folder.rglob(MAPS_FILE))
    if not barcode_files:
        raise FileNotFoundError(f"no barcode_platemap.csv under {folder}: point metadata= at a folder with plate maps")
    parts = []
    for barcode_file in barcode_files:
        barcodes = _read(barcode_file, ",").rename(columns={"Assay_Plate_Barcode": schema.PLATE})
        barcodes = barcodes[[schema.PLATE, "Plate_Map_Name"]].drop_duplicates()
        barcodes[schema.BATCH] = barcode_file.parent.name.removeprefix("platemaps_")
        maps = [_read_map(barcode_file.parent / "platemap", name) for name in barcodes["Plate_Map_Name"].unique()]
        parts.append(barcodes.merge(pd.concat(maps, ignore_index=True), on="Plate_Map_Name"))
    return pd.concat(parts, ignore_index=True).drop(columns="Plate_Map_Name")


def _read_map(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"plate map {path} is named in barcode_platemap.csv but does not exist")
    plate_map = schema.canonicalize(_read(path, "\t"))
    plate_map[schema.WELL] = [schema.well_name(*schema.well_position(well)) for well in plate_map[schema.WELL]]
    columns = [c for c in (schema.WELL, schema.PERTURBATION, schema.DOSE) if c in plate_map]
    return plate_map[columns].assign(Plate_Map_Name=name)


def _experiment_file(folder: Path) -> Path:
    files = sorted(folder.rglob(EXPERIMENT_FILE))
    if not files:
        raise FileNotFoundError(
            f"no experiment-metadata.tsv under {folder}: it must list each plate's Batch, Perturbation, Cell_type and Time"
        )
    return files[0]


def _read_experiments(folder: Path) -> pd.DataFrame:
    experiments = _read(_experiment_file(folder), "\t")
    columns = {"Batch": schema.BATCH, "Assay_Plate_Barcode": schema.PLATE, **EXPERIMENT_COLUMNS}
    required = ["Batch", "Assay_Plate_Barcode", "Perturbation", "Cell_type", "Time"]
    absent = [c for c in required if c not in experiments]
    if absent:
        raise ValueError(f"{_experiment_file(folder)} has no column {absent}")
    experiments = experiments[[c for c in columns if c in experiments]].rename(columns=columns)
    experiments[schema.MODALITY] = experiments[schema.MODALITY].str.lower()
    return experiments.drop_duplicates()


def _add_reagents(wells: pd.DataFrame, modality: str, folder: Path) -> pd.DataFrame:
    """Annotate the wells of one modality; wells without a reagent become DMSO (compounds) or empty."""
    reagents = _read_reagents(folder, modality).reindex(columns=[schema.PERTURBATION, *_REAGENT]).astype(object)
    wells = wells.merge(reagents, on=schema.PERTURBATION, how="left", validate="many_to_one", indicator=True)
    bare = wells[schema.PERTURBATION] == ""
    unknown = wells.loc[~bare & (wells["_merge"] != "both"), schema.PERTURBATION].unique()
    if len(unknown):
        raise ValueError(
            f"{modality} reagents {list(unknown[:5])} ({len(unknown)} in all) are on a plate map but in no "
            f"*{modality}_metadata*.tsv under {folder}"
        )
    wells = wells.drop(columns="_merge")
    wells.loc[bare, schema.PERT_TYPE] = "control"
    if modality == "compound":
        wells.loc[bare, [schema.PERTURBATION, schema.CONTROL_TYPE, schema.NAME]] = [DMSO, schema.NEGCON, DMSO]
        wells.loc[bare, [schema.GENE, schema.TARGETS]] = ""
    else:
        wells.loc[bare, schema.CONTROL_TYPE] = schema.EMPTY
    return wells


def reagent_precedence(path: Path) -> tuple[bool, bool, str]:
    """Sort key: `_additional_annotations` (its target lists are those of the paper) before `_targets` (older symbols)."""
    return "additional_annotations" not in path.name, "targets" not in path.name, path.name


def _read_reagents(folder: Path, modality: str) -> pd.DataFrame:
    """All tables of a modality as one; where they differ the first wins, as in the CPJUMP1 paper's own notebook."""
    files = sorted(folder.rglob(f"*{modality}_metadata*.tsv"), key=reagent_precedence)
    if not files:
        raise FileNotFoundError(f"no *{modality}_metadata*.tsv under {folder}, but there are {modality} plates")
    reagents = pd.DataFrame()
    for path in files:
        table = _read(path, "\t").rename(columns={"target": "gene"} if modality == "compound" else {})
        table = schema.canonicalize(table.loc[:, ~table.columns.duplicated()])
        table.columns = [c if c.startswith(schema.PREFIX) else schema.PREFIX + c for c in table.columns]
        twice = table.loc[table[schema.PERTURBATION].duplicated(), schema.PERTURBATION]
        if len(twice):
            raise ValueError(f"{path} lists {twice.iloc[0]!r} twice: keep one row per reagent")
        if reagents.empty:
            reagents = table
        else:
            new = [c for c in table.columns if c not in reagents]
            reagents = reagents.merge(table[[schema.PERTURBATION, *new]], on=schema.PERTURBATION, how="left")
    return reagents


def _read(path: Path, separator: str) -> pd.DataFrame:
    return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
