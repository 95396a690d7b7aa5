"""`morphoclip embed | features | attention`: profiles, cached features, attention maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from morphoclip.cli.app import Trust, app
from morphoclip.cli.data import Columns, Control, Features, control_wells, named_columns


@app.command()
def embed(
    encoder: Annotated[str, typer.Argument(help="encoder folder, checkpoint, run folder or hub id")],
    source: Annotated[
        str,
        typer.Argument(
            help="dataset folder, load_data.csv (path, quoted glob or URL), folder of TIFFs, or profile tables"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="table to write: .parquet, .csv, .csv.gz or .h5ad; a folder with --deep-profiler"),
    ] = None,
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
    num_workers: Annotated[
        int | None, typer.Option(help="threads or processes that read ahead; default: cores")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, or bf16: faster on a GPU, features to about 1 %")
    ] = "float32",
    deep_profiler: Annotated[
        bool, typer.Option("--deep-profiler", help="a folder PLATE/WELL/SITE.npz with features and centres of crops")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="time a sample: hours, core- or GPU-hours and disk")
    ] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write profiles of all images of a dataset, with a JSON sidecar on the encoder and settings.

    Plates are written one by one: the same command goes on where a killed one stopped. Several GPUs or processes share the
    plates: torchrun --nproc-per-node 8 -m morphoclip.cli.main embed …

    Encoders trained on cached features read a folder written by `morphoclip features`. Encoders trained on profile tables
    read other profile tables (with --columns, --control, --features as `morphoclip data import`), matched by name.
    """
    import torch

    from morphoclip import load_encoder
    from morphoclip.data.shards.parallel import cores
    from morphoclip.distributed import rank
    from morphoclip.export.crop_pool import check_attends, load_crop_pool
    from morphoclip.export.provenance import encoder_provenance
    from morphoclip.models import FeatureEncoder
    from morphoclip.preparation.sources import is_images
    from morphoclip.profiling import embed as embed_source
    from morphoclip.profiling import write_profiles
    from morphoclip.profiling.cost import cost_of
    from morphoclip.profiling.crop_attention import write_crop_attention
    from morphoclip.profiling.embedding import open_crops
    from morphoclip.profiling.encoding import Run
    from morphoclip.profiling.screen import default_device, embed_screen

    if out is None and not dry_run:
        raise typer.BadParameter("give --out FILE, or --dry-run for the cost only")
    join_launch()
    device = device or default_device()
    workers = cores() if num_workers is None else num_workers
    model = load_encoder(encoder, device=device, trust_remote_code=trust_remote_code)
    cut = {"bin": bin, "pixel_size_um": pixel_size, "mode": mode}
    read = {"columns": named_columns(columns) or None, "control": control_wells(control), "features": features}
    asked = {**cut, **read, "metadata": metadata}
    options: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if options and Path(source).is_dir() and not is_images(source):
        raise typer.BadParameter(
            f"{sorted(options)} are for a load_data.csv, a folder of TIFFs or a table; {source} is a dataset of crops already cut"
        )
    wrong = sorted(options.keys() & (cut if isinstance(model, FeatureEncoder) else read).keys())
    if wrong:
        raise typer.BadParameter(
            f"{wrong} are not for this encoder, which takes {'features' if isinstance(model, FeatureEncoder) else 'images'}"
        )
    if attention and not Path(source).is_dir():
        raise typer.BadParameter("--attention needs a dataset folder: make one with `morphoclip data prepare`")
    if attention:
        check_attends(model, load_crop_pool(encoder))
    if isinstance(model, FeatureEncoder):
        assert out is not None  # checked above; cached features are embedded in minutes
        notes: list[str] = []
        table = embed_source(model, source, level, batch_size=batch_size, device=device, notes=notes, **options)
        for note in notes:
            typer.echo(note)
        write_profiles(table, out, encoder_provenance(model) | {"source": source, "level": level, **options})
        rows = len(table)
    elif dry_run:
        crops = open_crops(model, source, batch_size, num_workers=workers, **options)
        for line in cost_of(model, crops, level, Run(batch_size, torch.device(device), precision)).lines():
            typer.echo(line)
        return
    else:
        options |= {"precision": precision, "deep_profiler": deep_profiler, "num_workers": workers}
        rows = embed_screen(
            model, source, out or "", level, batch_size=batch_size, device=device, say=typer.echo, **options
        )
    if rank() != 0:
        return
    typer.echo(f"{rows} rows: {out}")
    if attention:
        typer.echo(f"attention: {write_crop_attention(encoder, model, source, f'{out}.attention.parquet', device)}")


def join_launch() -> None:
    """Join the processes that torchrun or srun started, if any; a rank may wait for days for the others."""
    from datetime import timedelta

    from morphoclip.training.launch import join, read_launch

    join(read_launch(), timedelta(days=7))


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
