"""The command line of what a profiling user does: `morphoclip export | embed | normalize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Out = Annotated[Path, typer.Option(help="table to write: .parquet, .csv, .csv.gz or .h5ad")]


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run folder, checkpoint or encoder folder")],
    to: Annotated[Path, typer.Option(help="encoder folder to make")],
) -> None:
    """Write an encoder folder: config.json, model.safetensors and a model card."""
    from morphoclip.profiling import export_encoder

    typer.echo(export_encoder(run, to))


@app.command()
def embed(
    encoder: Annotated[str, typer.Argument(help="encoder folder, checkpoint, run folder or hub id")],
    source: Annotated[Path, typer.Argument(help="dataset folder or load_data.csv")],
    out: Out,
    level: Annotated[str, typer.Option(help="crop, site, well or perturbation")] = "well",
    batch_size: int = 256,
    device: Annotated[str | None, typer.Option(help="default: a GPU where there is one")] = None,
) -> None:
    """Profiles of everything in a dataset, with a JSON sidecar that says what made them."""
    import torch

    from morphoclip import load_encoder
    from morphoclip.data import ShardDataset
    from morphoclip.profiling import embed as embed_source
    from morphoclip.profiling import write_profiles
    from morphoclip.profiling.export import encoder_provenance

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_encoder(encoder, device=device)
    scaling = {k: v for k, v in model.trained_on.items() if k in ("scale_by", "low_percentile", "high_percentile")}
    data = ShardDataset(source, **scaling) if source.is_dir() else source
    table = embed_source(model, data, level, batch_size=batch_size, device=device)
    write_profiles(table, out, encoder_provenance(model) | {"source": str(source), "level": level})
    typer.echo(f"{len(table)} rows: {out}")


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


if __name__ == "__main__":
    app()
