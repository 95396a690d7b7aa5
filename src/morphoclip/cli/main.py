"""The command line: `morphoclip export | embed | normalize | attention | features | query | data`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from morphoclip.cli.data import app as data_commands


class Commands(TyperGroup):
    """Commands whose failures are one line on stderr and exit status 1, as those of train.py and evaluate.py are."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `| head`: typer ends quietly
            raise
        except (ValueError, KeyError, OSError, ImportError) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            what = error.args[0] if isinstance(error, KeyError) and error.args else error  # str() would quote it
            typer.echo(f"error: {what}\nHYDRA_FULL_ERROR=1 shows where", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
app.add_typer(data_commands, name="data")

Trust = Annotated[bool, typer.Option(help="run the code that a Hugging Face model brings (OpenPhenom); read it first")]
Out = Annotated[Path, typer.Option(help="table to write: .parquet, .csv, .csv.gz or .h5ad")]


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run folder, checkpoint or encoder folder")],
    to: Annotated[Path, typer.Option(help="encoder folder to make")],
    trust_remote_code: Trust = False,
) -> None:
    """Write an encoder folder: config.json, model.safetensors, a model card and, of image-text models, what reads words.

    The folder needs nothing besides itself: load it, embed with it, query it.
    """
    from morphoclip.profiling import export_encoder

    typer.echo(export_encoder(run, to, trust_remote_code=trust_remote_code))


@app.command()
def embed(
    encoder: Annotated[str, typer.Argument(help="encoder folder, checkpoint, run folder or hub id")],
    source: Annotated[str, typer.Argument(help="dataset folder or load_data.csv (path, quoted glob or URL)")],
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
    metadata: Annotated[str | None, typer.Option(help="load_data.csv: folder of plate maps and annotations")] = None,
    attention: Annotated[
        bool, typer.Option(help="also the weight of each crop of a dataset, <out>.attention.parquet")
    ] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Profiles of everything in a dataset, with a JSON sidecar that says what made them.

    Encoders of cached features read a folder that `morphoclip features` wrote.
    """
    import torch

    from morphoclip import load_encoder
    from morphoclip.export.crop_pool import check_attends, load_crop_pool
    from morphoclip.export.provenance import encoder_provenance
    from morphoclip.profiling import embed as embed_source
    from morphoclip.profiling import write_profiles
    from morphoclip.profiling.crop_attention import write_crop_attention

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_encoder(encoder, device=device, trust_remote_code=trust_remote_code)
    asked = {"bin": bin, "pixel_size_um": pixel_size, "mode": mode, "metadata": metadata}
    options = {key: value for key, value in asked.items() if value is not None}
    if options and Path(source).is_dir():
        raise typer.BadParameter(f"{sorted(options)} are for a load_data.csv; {source} is a dataset, cut already")
    if attention and not Path(source).is_dir():
        raise typer.BadParameter("--attention needs a dataset folder: prepare one with data_prep.make_shards")
    if attention:
        check_attends(model, load_crop_pool(encoder))
    table = embed_source(model, source, level, batch_size=batch_size, device=device, **options)
    write_profiles(table, out, encoder_provenance(model) | {"source": source, "level": level, **options})
    typer.echo(f"{len(table)} rows: {out}")
    if attention:
        typer.echo(f"attention: {write_crop_attention(encoder, model, source, f'{out}.attention.parquet', device)}")


@app.command()
def normalize(
    profiles: Annotated[str, typer.Argument(help="profile table or quoted glob")],
    out: Out,
    preset: Annotated[str, typer.Option(help="a file of configs/normalize")] = "center",
) -> None:
    """Normalised profiles, with the fitted statistics beside them (<out>.normalizer) for plates to come."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from morphoclip import configs_dir
    from morphoclip.profiling import read_profiles, write_profiles

    config = configs_dir() / "normalize" / f"{preset}.yaml"
    if not config.is_file():
        known = sorted(p.stem for p in config.parent.glob("*.yaml"))
        raise typer.BadParameter(f"no preset {preset!r}: choose among {known}")
    normalizer = instantiate(OmegaConf.load(config))
    table = normalizer.fit_transform(read_profiles(profiles))
    normalizer.save(f"{out}.normalizer")
    write_profiles(table, out, {"profiles": profiles, "steps": [step.to_dict() for step in normalizer.steps]})
    typer.echo(f"{len(table)} rows: {out}")


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
    """Where the encoder looks in a field: the field, the field lit by mean attention, a tile a head.

    Of frozen backbones on each channel alone (per_channel), a tile a channel.
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
            help="less the mean of the plate's negative controls, in units of their deviation",
        ),
    ] = False,
    revision: Annotated[str | None, typer.Option(help="hf: branch, tag or commit; pins a model's code too")] = None,
) -> None:
    """Features of every crop, written once, to train on (data=features).

    Features that an encoder of features shall embed later must be made as those it was trained on.
    """
    if revision is not None and not encoder.startswith("hf:"):
        raise typer.BadParameter(f"--revision is of a Hugging Face model, hf:<id>; {encoder} has none")
    import torch

    from morphoclip import load_encoder
    from morphoclip.data import ShardDataset
    from morphoclip.models import create_encoder
    from morphoclip.profiling.features import write_features, write_standardised_features

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    known = ShardDataset(dataset)
    if encoder.startswith(("timm:", "hf:")):
        backbone = encoder.removeprefix("timm:")
        channels = list(known.channels)
        of_hub = {"revision": revision, "trust_remote_code": trust_remote_code}
        model = create_encoder(
            "per_channel", len(channels), channels=channels, backbone=backbone, pretrained=True, **of_hub
        )
    else:
        model = load_encoder(encoder, device=device, trust_remote_code=trust_remote_code)
    write = write_standardised_features if standardise_by_plate else write_features
    typer.echo(write(model, known, out, batch_size=batch_size, device=device, dtype=dtype))


@app.command()
def query(
    encoder: Annotated[
        str,
        typer.Argument(
            help="encoder folder, run folder, checkpoint or hub id of an image-text or image-molecule model"
        ),
    ],
    profiles: Annotated[str, typer.Option(help="profile table of that encoder, not normalised")],
    text: Annotated[
        str | None, typer.Option(help="what was done to the cells, in the words of the training prompts")
    ] = None,
    smiles: Annotated[str | None, typer.Option(help="a structure")] = None,
    plate: Annotated[str | None, typer.Option(help="rank what may have been done to a well: its plate")] = None,
    well: Annotated[str | None, typer.Option(help="… and its name")] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="with a well: table of texts (column text) or SMILES; default: training prompts")
    ] = None,
    level: Annotated[str | None, typer.Option(help="rank wells or perturbations (the default)")] = None,
    dose: Annotated[float | None, typer.Option(help="µM, for models that read doses")] = None,
    top: Annotated[int, typer.Option(min=1, help="rows to print")] = 20,
    out: Annotated[Path | None, typer.Option(help="csv of the whole ranking")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Wells or perturbations that look like a text or a structure says; or what a well looks like."""
    _check_asked(text, smiles, plate, well, candidates, level, dose)
    from morphoclip import load_encoder
    from morphoclip.export.load import local_source
    from morphoclip.methods.query import embed_prompts, embed_query, embed_words, load_clip
    from morphoclip.profiling import read_profiles
    from morphoclip.profiling.made_by import check_made_by
    from morphoclip.screening.candidates import read_candidates
    from morphoclip.screening.cross_modal import profile_of, rank_candidates, rank_profiles

    source = local_source(encoder)
    method, table = load_clip(source), read_profiles(profiles)
    for line in check_made_by(load_encoder(source, trust_remote_code=trust_remote_code), profiles):
        typer.echo(f"note: {line}", err=True)
    if plate is None:
        ranking = rank_profiles(table, embed_query(method, text, smiles, dose).numpy(), level or "perturbation")
    elif candidates is None:
        ranking = rank_candidates(profile_of(table, plate, well), *embed_prompts(method))
    else:
        named, kind, words = read_candidates(candidates)
        vectors = embed_words(method, kind, words, dose).numpy()
        ranked = rank_candidates(profile_of(table, plate, well), vectors, range(len(words)))
        ranking = named.iloc[ranked.pop("candidate")].reset_index(drop=True).join(ranked)
    if out is not None:
        ranking.to_csv(out, index=False)
    typer.echo(ranking.head(top).to_string(index=False))


def _check_asked(text, smiles, plate, well, candidates, level, dose) -> None:
    """Raise BadParameter unless one thing is asked, and nothing is said that the answer would not heed."""
    said = {"--text": text, "--smiles": smiles, "--plate": plate, "--well": well}
    asked = [option for option, value in said.items() if value is not None]
    if asked not in (["--text"], ["--smiles"], ["--plate", "--well"]):
        raise typer.BadParameter(
            f"got {' '.join(asked) or 'no question'}: ask with --text, with --smiles, or with --plate and --well"
        )
    if plate is None and candidates is not None:
        raise typer.BadParameter("--candidates are ranked for a well: give --plate and --well")
    if plate is not None and level is not None:
        raise typer.BadParameter("--level is of rankings of profiles: with --plate and --well, candidates are ranked")
    if plate is not None and dose is not None and candidates is None:
        raise typer.BadParameter("--dose is of a --text, --smiles or --candidates; training prompts have their own")


if __name__ == "__main__":
    app()
