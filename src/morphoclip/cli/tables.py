"""`morphoclip normalize | query`: normalise profile tables and query them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from morphoclip.cli.app import Out, Trust, app


@app.command()
def normalize(
    profiles: Annotated[str, typer.Argument(help="profile table or quoted glob")],
    out: Out,
    preset: Annotated[str, typer.Option(help="a file of configs/normalize")] = "center",
) -> None:
    """Write normalised profiles and the fitted statistics (<out>.normalizer), which apply to later plates."""
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
def query(
    encoder: Annotated[
        str,
        typer.Argument(
            help="encoder folder, run folder, checkpoint or hub id of an image-text or image-molecule model"
        ),
    ],
    profiles: Annotated[str, typer.Option(help="profile table of that encoder, not normalised")],
    text: Annotated[str | None, typer.Option(help="the perturbation, worded as in the training prompts")] = None,
    smiles: Annotated[str | None, typer.Option(help="a structure")] = None,
    plate: Annotated[str | None, typer.Option(help="rank candidate perturbations for one well: its plate")] = None,
    well: Annotated[str | None, typer.Option(help="… and its well name, e.g. B03")] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="with a well: table of texts (column text) or SMILES; default: training prompts")
    ] = None,
    level: Annotated[str | None, typer.Option(help="rank wells or perturbations (the default)")] = None,
    dose: Annotated[float | None, typer.Option(help="µM, for models that read doses")] = None,
    top: Annotated[int, typer.Option(min=1, help="rows to print")] = 20,
    out: Annotated[Path | None, typer.Option(help="csv of the whole ranking")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Rank wells or perturbations for a text or a structure, or candidate perturbations for a well."""
    _check_asked(text, smiles, plate, well, candidates, level, dose)
    from morphoclip import load_encoder
    from morphoclip.export.load import local_source
    from morphoclip.methods.query import embed_prompts, embed_query, embed_texts, load_clip
    from morphoclip.profiling import read_profiles
    from morphoclip.profiling.made_by import check_made_by
    from morphoclip.screening.candidates import read_candidates
    from morphoclip.screening.cross_modal import profile_of, rank_candidates, rank_profiles

    source = local_source(encoder)
    method, table = load_clip(source), read_profiles(profiles)
    for line in check_made_by(load_encoder(source, trust_remote_code=trust_remote_code), profiles):
        typer.echo(f"note: {line}", err=True)
    if plate is None or well is None:
        ranking = rank_profiles(table, embed_query(method, text, smiles, dose).numpy(), level or "perturbation")
    elif candidates is None:
        vectors, prompts = embed_prompts(method)
        ranking = rank_candidates(profile_of(table, plate, well), vectors.numpy(), prompts)
    else:
        named, kind, values = read_candidates(candidates)
        vectors = embed_texts(method, kind, values, dose)
        ranked = rank_candidates(profile_of(table, plate, well), vectors.numpy(), range(len(values)))
        ranking = named.iloc[ranked.pop("candidate")].reset_index(drop=True).join(ranked)
    if out is not None:
        ranking.to_csv(out, index=False)
    typer.echo(ranking.head(top).to_string(index=False))


def _check_asked(text, smiles, plate, well, candidates, level, dose) -> None:
    """Raise BadParameter unless there is exactly one question and every option applies to it."""
    said = {"--text": text, "--smiles": smiles, "--plate": plate, "--well": well}
    asked = [option for option, value in said.items() if value is not None]
    if asked not in (["--text"], ["--smiles"], ["--plate", "--well"]):
        raise typer.BadParameter(
            f"got {' '.join(asked) or 'no question'}: give --text, or --smiles, or --plate and --well"
        )
    if plate is None and candidates is not None:
        raise typer.BadParameter("--candidates are ranked for a well: give --plate and --well")
    if plate is not None and level is not None:
        raise typer.BadParameter(
            "--level applies to --text and --smiles: with --plate and --well, candidates are ranked"
        )
    if plate is not None and dose is not None and candidates is None:
        raise typer.BadParameter(
            "--dose applies to --text, --smiles and --candidates; training prompts state their own"
        )
