"""Score a run from its folder, at the end of its training or any time later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hydra.utils import instantiate

from morphoclip.evaluation.card.leaks import mark_leaks
from morphoclip.experiment.design import QUERY, TRAINED, Design
from morphoclip.experiment.pictures import run_pictures
from morphoclip.experiment.plain import load_config
from morphoclip.experiment.report import arm_table, print_arms, report
from morphoclip.experiment.score import Scoring, score_arms
from morphoclip.experiment.tables import arms_of_run


def score_run(folder: str | Path) -> Path:
    """Score a run from its folder: score cards of its arms, metrics.csv of the main one, report.html.

    Returns:
        The path of the report.
    """
    folder = Path(folder)
    config = load_config(folder / "config.yaml")
    design, about = Design.read(folder)
    arms = arms_of_run(folder, config, about)
    scoring = Scoring.of(config.score, instantiate(config.protocol))
    scored = score_arms(arms, scoring, design)
    main = about["main"]
    card = scored[main].card
    if design.wells.loc[design.wells[QUERY], TRAINED].all():
        card.notes.append("every query was trained on: the scores do not tell how the encoder does on unseen wells")
    if design.seen is not None:
        scored[main] = replace(scored[main], card=mark_leaks(card, design.seen, design.prompt_fields))
    path = report(
        folder,
        scored,
        main=main,
        arms=arms,
        scoring=scoring,
        title=f"{config.name}: {config.method._target_.rsplit('.', 1)[-1]} on {Path(config.data.root).parent.name}",
        lede=config.score.get("lede", ""),
        pictures=run_pictures(folder, config, scored[main], scoring.protocol),
        configuration=config,
    )
    print_arms(arm_table(scored, main), main)
    print(f"report: {path}")
    return path
