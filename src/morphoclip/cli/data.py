"""`morphoclip data …`: make a dataset from images or tables, inspect it, verify it, derive others from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from morphoclip.cli.annotations import annotation_table
from morphoclip.cli.app import PASS_ON
from morphoclip.cli.table import table
from morphoclip.progress import progress_bar

app = typer.Typer(no_args_is_help=True, help=__doc__)
app.command()(table)
app.command("annotations")(annotation_table)


@app.command(context_settings=PASS_ON)
def prepare(context: typer.Context) -> None:
    """Turn five-channel TIFF fields into a dataset for training (--help lists the options)."""
    from morphoclip.preparation.command import main

    raise typer.Exit(main(context.args))


@app.command(context_settings=PASS_ON)
def simulate(context: typer.Context) -> None:
    """Write a simulated Cell Painting screen (--help lists the options)."""
    from morphoclip.simulation.command import main

    raise typer.Exit(main(context.args))


Dataset = Annotated[str, typer.Argument(help="dataset folder, or the URL of one")]
Split = Annotated[str | None, typer.Option(help="only the crops of this split")]
Workers = Annotated[int | None, typer.Option(help="threads (default: all cores)")]
Out = Annotated[Path, typer.Option(help="dataset folder to make; it is never overwritten")]
Codec = Annotated[str | None, typer.Option(help="blosc, raw, sqrt, png16 or tiff (default: that of the dataset)")]


Columns = Annotated[list[str] | None, typer.Option(help="ours=theirs, e.g. perturbation=Compound; may be repeated")]
Control = Annotated[str | None, typer.Option(help="negative controls: a perturbation, or column=value")]
Features = Annotated[str | None, typer.Option(help="feature columns: a name, a pattern or a file of names")]


@app.command("import")
def import_(
    tables: Annotated[list[str], typer.Argument(help="profile tables of the same features: paths or quoted globs")],
    out: Out,
    metadata: Annotated[str | None, typer.Option(help="folder of plate maps and annotations, or a table")] = None,
    columns: Columns = None,
    control: Control = None,
    features: Features = None,
    standardise_by_plate: Annotated[
        bool,
        typer.Option(
            "--standardise-by-plate",
            "--standardize-by-plate",
            help="for tables that are not normalised: by the plate's negative controls",
        ),
    ] = False,
    not_finite: Annotated[
        str, typer.Option(help="missing values: error, or leave out the features or wells")
    ] = "error",
) -> None:
    """Make a dataset of profile tables: a sample per well, one channel. Train on it with data=features data.root=OUT."""
    from morphoclip.profiling.import_table import import_tables

    notes: list[str] = []
    try:
        import_tables(
            tables,
            out,
            metadata=metadata,
            columns=named_columns(columns),
            control=control_wells(control),
            features=features,
            standardise_by_plate=standardise_by_plate,
            not_finite=not_finite,
            notes=notes,
        )
    except (OSError, ValueError, KeyError) as error:
        raise typer.BadParameter(str(error)) from error
    for note in notes:
        typer.echo(f"note: {note}")
    made = _open(out)
    counts = ", ".join(f"{number} {name}" for name, number in made.manifest["counts"].items())
    typer.echo(f"{counts}, {made.shape[-1]} features: {out}")


def named_columns(given: list[str] | None) -> dict[str, str]:
    """The columns of `--columns ours=theirs …`."""
    pairs = [part.partition("=") for part in given or []]
    if wrong := [name for name, _, column in pairs if not (name and column)]:
        raise typer.BadParameter(f"--columns {wrong[0]}: give ours=theirs, e.g. --columns perturbation=Compound")
    return {name: column for name, _, column in pairs}


def control_wells(given: str | None) -> str | dict[str, str] | None:
    """`--control DMSO` as it is, `--control column=value` as a dict."""
    column, equals, value = (given or "").partition("=")
    return {column: value} if equals else given


def _open(dataset: str | Path, split: str | None = None, scale_by: str = "field"):
    from morphoclip.data.loading.features import open_folder

    try:
        return open_folder(dataset, split, scale_by)
    except (FileNotFoundError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


def _open_images(dataset: str | Path, split: str | None = None, scale_by: str = "field"):
    data = _open(dataset, split, scale_by)
    if "features" in data.manifest:
        raise typer.BadParameter(f"{dataset} holds features, no images: give a dataset of crops")
    return data


@app.command()
def info(
    dataset: Dataset,
    split: Split = None,
    by: Annotated[str, typer.Option(help="also count each value of this Metadata_ column")] = "Metadata_perturbation",
    rows: Annotated[int, typer.Option(help="rows to show of each table")] = 20,
) -> None:
    """Print format, counts, splits, and the wells and crops per plate and per perturbation."""
    from morphoclip import schema
    from morphoclip.data.shards.inspection import count_crops

    data = _open(dataset, split)
    manifest, features = data.manifest, data.manifest.get("features")
    counts = ", ".join(f"{number} {name}" for name, number in manifest["counts"].items())
    typer.echo(f"{dataset}: {counts}")
    if features is None:
        size = sum(shard["nbytes"] for shard in manifest["shards"]) / 1e9
        typer.echo(
            f"  {' '.join(data.channels)}, {data.shape[1]} px of {data.pixel_size_um} µm, codec {manifest['codec']}"
        )
        typer.echo(f"  {len(manifest['shards'])} shards, {size:.3g} GB; made by {manifest['made_by'].get('tool', '?')}")
    else:
        source = features.get("source") or ", ".join(manifest["made_by"]["arguments"]["tables"])
        typer.echo(
            f"  {data.shape[0]} x {data.shape[1]} features of each {data.unit}, {data.features.dtype}; of {source}"
        )
        if "standardised_by_plate" in features:
            typer.echo("  standardised by the negative controls of each plate")
    if data.store is None:
        names = sorted(path.stem for path in (data.folder / "splits").glob("*.npy"))
        typer.echo(f"  splits: {', '.join(names) or 'none'}")
    if by not in data.fields:
        raise typer.BadParameter(f"the fields have no column {by}; they have {', '.join(data.fields.columns[:20])}")
    for columns in (list(schema.PLATE_KEY), [by]):
        table = count_crops(data, columns)
        table = table[[c for c in table if c not in columns or (table[c] != "").any()]]
        typer.echo(f"\n{table.head(rows).to_string(index=False)}")
        if len(table) > rows:
            typer.echo(f"… {len(table) - rows} more (--rows)")


@app.command()
def verify(dataset: Dataset, workers: Workers = None) -> None:
    """Read, check and decode every sample; list the damaged ones and exit with status 1 if there are any."""
    from morphoclip.data.shards.inspection import check_files
    from morphoclip.data.shards.inspection import verify as verify_samples

    data = _open(dataset)
    features = "features" in data.manifest
    problems = data.problems() if features else check_files(data)
    with progress_bar(total=len(data), unit="crop", desc="verify") as bar:
        for count, wrong in [] if features else verify_samples(data, workers):
            bar.update(count)
            problems += [what for _, what in wrong]
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{len(data)} samples, {len(problems)} problems")
    raise typer.Exit(int(bool(problems)))


@app.command()
def stats(
    dataset: Dataset,
    split: Split = None,
    scale_by: Annotated[str, typer.Option(help="field, plate or negcon")] = "field",
    workers: Workers = None,
) -> None:
    """Print mean and standard deviation per channel over all pixels, raw and scaled, as JSON."""
    from morphoclip.data.shards.inspection import channel_statistics

    data, seen = _open_images(dataset, split, scale_by), 0
    statistics: dict = {}
    with progress_bar(total=len(data), unit="crop", desc="stats") as bar:
        for crops, statistics in channel_statistics(data, workers):  # noqa: B007
            bar.update(crops - seen)
            seen = crops
    typer.echo(json.dumps({"channels": list(data.channels), "crops": seen, **statistics}, indent=2))


@app.command()
def subset(
    dataset: Dataset,
    out: Out,
    where: Annotated[str | None, typer.Option(help="""query over the fields: 'Metadata_Batch == "b1"'""")] = None,
    split: Split = None,
    crops_per_field: Annotated[
        int | None, typer.Option(help="at most this many crops per field, drawn at random")
    ] = None,
    codec: Codec = None,
    seed: int = 0,
    workers: Workers = None,
) -> None:
    """Write a smaller dataset: the crops of some fields, of one split, or a few per field."""
    from morphoclip.data.shards.repack import choose_rows
    from morphoclip.profiling.import_table import subset_table

    data = _open(dataset, split)
    try:
        items = choose_rows(data, where, crops_per_field, seed)
        if "features" in data.manifest:
            typer.echo(f"{len(items)} of {len(data)} wells: {subset_table(data, items, out)}")
            return
    except (ValueError, FileExistsError) as error:
        raise typer.BadParameter(str(error)) from error
    _write(data, out, codec, items, workers)


@app.command()
def repack(
    dataset: Dataset,
    out: Out,
    codec: Codec = None,
    shard_mb: Annotated[int, typer.Option(help="shard size in MiB")] = 256,
    workers: Workers = None,
) -> None:
    """Write the same crops with another codec or shard size."""
    _write(_open_images(dataset), out, codec, None, workers, shard_mb * 2**20)


def _write(data, out: Path, codec: str | None, items, workers: int | None, shard_bytes: int = 2**28) -> None:
    from morphoclip.data.shards.repack import repack as write

    try:
        write(data, out, codec, items, shard_bytes=shard_bytes, workers=workers)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    made = _open(out)
    typer.echo(f"{len(made)} of {len(data)} crops, codec {made.manifest['codec']}: {out}")


@app.command()
def split(
    dataset: Dataset,
    by: Annotated[str, typer.Option(help="perturbation, scaffold, plate, batch, source or a Metadata_ column")],
    fractions: Annotated[str, typer.Option(help="name=share, …")] = "train=0.8,val=0.1,test=0.1",
    seed: int = 0,
) -> None:
    """Write splits that share no perturbation (scaffold, plate, …), assigned by a stable hash."""
    from morphoclip.data.shards.assignments import write_splits
    from morphoclip.data.splits.hashed import hash_split

    data = _open(dataset)
    if data.store is not None:
        raise typer.BadParameter(
            f"splits are written into the dataset, and {dataset} is not a local folder: copy it first"
        )
    try:
        shares = {name: float(share) for name, share in (part.split("=") for part in fractions.split(","))}
        sizes = write_splits(data, hash_split(data.fields, by, shares, seed))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    for name, size in sizes.items():
        typer.echo(f"{name}: {size} {data.unit}s")
