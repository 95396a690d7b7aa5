"""The command line: `morphoclip train | evaluate | export | embed | features | attention | normalize | query | sweep | data`."""

from morphoclip.cli import encoders, experiments, sweeps, tables
from morphoclip.cli.app import app
from morphoclip.cli.data import app as data

__all__ = ["app", "encoders", "experiments", "sweeps", "tables"]  # importing the modules adds their commands

app.add_typer(data, name="data")

if __name__ == "__main__":
    app()
