"""`morphoclip normalize | query`: profile tables, normalised and asked."""

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
