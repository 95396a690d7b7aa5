"""`morphoclip train | evaluate`: the same as train.py and evaluate.py of a checkout, from any folder."""

from __future__ import annotations

import typer

from morphoclip.cli.app import PASS_ON, app
from morphoclip.cli.hydra_app import main


@app.command(context_settings=PASS_ON)
def train(context: typer.Context) -> None:
    """Train one model and score it: experiment=NAME key=value … (Hydra's arguments; --help lists the keys)."""
    main("train", context.args)


@app.command(context_settings=PASS_ON)
def evaluate(context: typer.Context) -> None:
    """Score profiles, an encoder, a checkpoint or a finished run: profiles=… metadata=… (Hydra's arguments)."""
    main("evaluate", context.args)
