"""`morphoclip export | import | embed | features | attention`: encoder folders, profiles, cached features, attention maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from morphoclip.cli.app import Out, Trust, app
from morphoclip.cli.data import Columns, Control, Features, control_wells, named_columns


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run folder, checkpoint or encoder folder")],
    to: Annotated[Path, typer.Option(help="encoder folder to make")],
    trust_remote_code: Trust = False,
) -> None:
    """Write an encoder folder: config.json, model.safetensors, a model card and, for image-text models, the text tower.

    The folder is complete in itself: load it, embed with it, query it.
    """
    from morphoclip.profiling import export_encoder

    typer.echo(export_encoder(run, to, trust_remote_code=trust_remote_code))


@app.command("import")
def import_weights(
    kind: Annotated[str, typer.Argument(help="cellpaintssl (Kim et al. 2025) or cellclip (Lu et al. 2025)")],
    file: Annotated[Path, typer.Argument(help="their checkpoint; no code in it is run")],
    to: Annotated[Path, typer.Option(help="encoder folder to make")],
    channels: Annotated[
        str | None, typer.Option(help="names in the order of its training: Mito,AGP,RNA,ER,DNA")
    ] = None,
) -> None:
    """Write an encoder folder from weights that others have published, by their names of weights.

    Any other file of weights starts a training by init=FILE.
    """
    from morphoclip.export.published import import_published

    typer.echo(import_published(kind, file, to, None if channels is None else channels.split(",")))


@app.command()
def embed(
    encoder: Annotated[str, typer.Argument(help="encoder folder, checkpoint, run folder or hub id")],
    source: Annotated[
        str, typer.Argument(help="dataset folder, load_data.csv, or profile tables (path, quoted glob or URL)")
    ],
    out: Out,
    level: Annotated[str, typer.Option(help="crop, site, well or perturbation")] = "well",
    batch_size: int = 256,
    device: Annotated[str | None, typer.Option(help="default: a GPU where there is one")] = None,
    bin: Annotated[
        int | None, typer.Option(help="load_data.csv: average bin x bin pixels; default: as trained")
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option(help="load_data.csv: µm before binning; default: as trained")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="load_data.csv: grid, nuclei or random; default: as trained")] = None,
    metadata: Annotated[
        str | None, typer.Option(help="load_data.csv, profile tables: folder of plate maps and annotations")
    ] = None,
    columns: Columns = None,
    control: Control = None,
    features: Features = None,
    attention: Annotated[
        bool, typer.Option(help="also the weight of each crop of a dataset, <out>.attention.parquet")
    ] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write profiles of all images of a dataset, with a JSON sidecar on the encoder and settings.

    Encoders trained on cached features read a folder written by `morphoclip features`. Encoders trained on profile tables
    read other profile tables (with --columns, --control, --features as `morphoclip data import`), matched by name.
    """
    import torch

    from morphoclip import load_encoder
    from morphoclip.export.crop_pool import check_attends, load_crop_pool
    from morphoclip.export.provenance import encoder_provenance
    from morphoclip.models import FeatureEncoder
    from morphoclip.profiling import embed as embed_source
    from morphoclip.profiling import write_profiles
    from morphoclip.profiling.crop_attention import write_crop_attention

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_encoder(encoder, device=device, trust_remote_code=trust_remote_code)
    cut = {"bin": bin, "pixel_size_um": pixel_size, "mode": mode}
    read = {"columns": named_columns(columns) or None, "control": control_wells(control), "features": features}
    asked = {**cut, **read, "metadata": metadata}
    options: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if options and Path(source).is_dir():
        raise typer.BadParameter(f"{sorted(options)} are for a load_data.csv or a table; {source} is a dataset")
    wrong = sorted(options.keys() & (cut if isinstance(model, FeatureEncoder) else read).keys())
    if wrong:
        raise typer.BadParameter(
            f"{wrong} are not for this encoder, which takes {'features' if isinstance(model, FeatureEncoder) else 'images'}"
        )
    if attention and not Path(source).is_dir():
        raise typer.BadParameter("--attention needs a dataset folder: make one with `morphoclip data prepare`")
    if attention:
        check_attends(model, load_crop_pool(encoder))
    notes: list[str] = []
    table = embed_source(model, source, level, batch_size=batch_size, device=device, notes=notes, **options)
    for note in notes:
        typer.echo(note)
    write_profiles(table, out, encoder_provenance(model) | {"source": source, "level": level, **options})
    typer.echo(f"{len(table)} rows: {out}")
    if attention:
        typer.echo(f"attention: {write_crop_attention(encoder, model, source, f'{out}.attention.parquet', device)}")


@app.command()
def attention(
    encoder: Annotated[str, typer.Argument(help="encoder folder, checkpoint or run folder of a vision transformer")],
    field: Annotated[str, typer.Argument(help="load_data.csv; its first field unless chosen below")],
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    plate: Annotated[str | None, typer.Option(help="Metadata_Plate")] = None,
    well: Annotated[str | None, typer.Option(help="Metadata_Well, e.g. B03")] = None,
    site: Annotated[str | None, typer.Option(help="Metadata_Site")] = None,
    block: Annotated[int, typer.Option(help="transformer block; -1 is the last")] = -1,
    trust_remote_code: Trust = False,
) -> None:
    """Draw the attention in a field: the field, the field weighted by mean attention, and one tile per head.

    For frozen backbones applied to each channel (per_channel), one tile per channel.
    """
    from morphoclip.profiling.attention import draw_attention

    trust = {"trust_remote_code": trust_remote_code}
    typer.echo(draw_attention(encoder, field, out, plate=plate, well=well, site=site, block=block, **trust))


@app.command()
def features(
    encoder: Annotated[str, typer.Argument(help="encoder folder, or timm:<name> | hf:<id or folder> for each channel")],
    dataset: Annotated[Path, typer.Argument(help="dataset folder")],
    out: Annotated[Path, typer.Option(help="folder of features to make")],
    batch_size: int = 64,
    device: Annotated[str | None, typer.Option(help="default: a GPU where there is one")] = None,
    dtype: Annotated[str, typer.Option(help="float16 or float32 on disk")] = "float16",
    trust_remote_code: Trust = False,
    standardise_by_plate: Annotated[
        bool,
        typer.Option(
            "--standardise-by-plate",
            "--standardize-by-plate",
            help="subtract the mean of the plate's negative controls and divide by their standard deviation",
        ),
    ] = False,
    revision: Annotated[str | None, typer.Option(help="hf: branch, tag or commit; pins a model's code too")] = None,
) -> None:
    """Write the features of every crop once, to train on them (data=features).

    An encoder trained on features embeds only features made with the same command and options.
    """
    if revision is not None and not encoder.startswith("hf:"):
        raise typer.BadParameter(f"--revision applies to Hugging Face models (hf:<id>) only, not to {encoder}")
    import torch

    from morphoclip import load_encoder
    from morphoclip.data.loading.features import open_folder
    from morphoclip.models import create_encoder
    from morphoclip.profiling.features import write_features, write_standardised_features

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    known = open_folder(dataset)
    if "features" in known.manifest:
        raise typer.BadParameter(f"{dataset} holds features, no images: give a dataset of crops")
    if encoder.startswith(("timm:", "hf:")):
        backbone = encoder.removeprefix("timm:")
        channels = list(known.channels)
        of_hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        model = create_encoder(
            "per_channel", len(channels), channels=channels, backbone=backbone, pretrained=True, **of_hub
        )
    else:
        model = load_encoder(encoder, device=device, trust_remote_code=trust_remote_code)
    write = write_standardised_features if standardise_by_plate else write_features
    typer.echo(write(model, known, out, batch_size=batch_size, device=device, dtype=dtype))
