"""The command line: `morphoclip train | evaluate | sweep | runs | export | push | import | embed | features | attention | normalize | query | data`."""

from morphoclip.cli import encoders, experiments, exports, sweeps, tables
from morphoclip.cli.app import app
from morphoclip.cli.data import app as data
from morphoclip.cli.runs import app as runs

__all__ = ["app", "encoders", "experiments", "exports", "sweeps", "tables"]  # importing the modules adds their commands

app.add_typer(data, name="data")
app.add_typer(runs, name="runs")

if __name__ == "__main__":
    app()
