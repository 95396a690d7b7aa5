"""`morphoclip data table`: what a table of profiles was taken for, before anything is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def table(
    profiles: Annotated[list[str], typer.Argument(help="table files or quoted globs: csv, tsv, Excel, Parquet, …")],
    columns: Annotated[
        list[str] | None,
        typer.Option(help="ours=theirs, e.g. perturbation=Compound (repeat it), or a YAML file of such lines"),
    ] = None,
    control: Annotated[str | None, typer.Option(help="negative controls: DMSO, or {column: value}")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="metadata folder or tables to join (repeat it)")] = None,
    features: Annotated[
        str | None, typer.Option(help="names or patterns separated by commas, or a file with a name per line")
    ] = None,
) -> None:
    """Print what each column was taken for, which wells are controls, perturbations, doses and sets; nothing is scored."""
    from morphoclip.profiling.reading.description import described
    from morphoclip.profiling.reading.dominance import dominating_features
    from morphoclip.profiling.reading.features import UndecidedFeatures
    from morphoclip.profiling.reading.tables import paths_of, read_tables

    options: dict[str, Any] = {"columns": _mapping(columns or []), "control": _control(control)}
    options["metadata"] = metadata[0] if metadata and len(metadata) == 1 else metadata or None
    paths, undecided = paths_of(profiles), ""
    try:
        reading = read_tables(paths, features=features, **options)
    except UndecidedFeatures as error:
        undecided = str(error)
        reading = read_tables(paths, features="*", **options)
    for line in described(reading):
        typer.echo(line)
    notes = [note for note in reading.notes if not (undecided and "by features=" in note)]
    alarms = [] if undecided else dominating_features(reading.table)
    if notes or alarms or undecided:
        typer.echo("\nNOTES")
    for note in notes:
        typer.echo(f"  {note}")
    for alarm in alarms:
        typer.echo(f"  ALARM {alarm}")
    if undecided:
        typer.echo(f"  TO DECIDE before this table is scored: {undecided}")


def _mapping(columns: list[str]) -> dict[str, str]:
    """{ours: theirs} of `ours=theirs` and of YAML or JSON files."""
    from morphoclip.experiment.plain import as_dict, load_config

    mapping: dict[str, str] = {}
    for given in columns:
        ours, equals, theirs = given.partition("=")
        if equals:
            mapping[ours] = theirs
        elif Path(given).is_file():
            mapping |= as_dict(load_config(Path(given)))
        else:
            raise ValueError(
                f"--columns {given}: give ours=theirs, e.g. perturbation=Compound, or a YAML file of such lines"
            )
    return mapping


def _control(control: str | None) -> Any:
    """The control as text, or the mapping of `{column: value}`."""
    if control is None or not control.startswith("{"):
        return control
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(control))
