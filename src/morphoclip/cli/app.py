"""The command-line application, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from morphoclip.cli.errors import fail
from morphoclip.version import __version__

Trust = Annotated[bool, typer.Option(help="run the code that a Hugging Face model brings (OpenPhenom); read it first")]
Out = Annotated[Path, typer.Option(help="table to write: .parquet, .csv, .csv.gz or .h5ad")]
# For commands that pass all their arguments, --help included, to their own parser.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


class Commands(TyperGroup):
    """A group of commands that report errors as `errors.fail` does."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `| head`: typer ends quietly
            raise
        except Exception as error:
            if isinstance(error, typer.Exit | typer.Abort) or hasattr(
                error, "exit_code"
            ):  # typer's own, wrong usage too
                raise
            fail(error)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, score and use models of Cell Painting images.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"morphoclip {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Train, score and use models of Cell Painting images."""
