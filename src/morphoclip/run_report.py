"""A finished run's report: its score cards, pictures and provenance as report.html, and the table that is printed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from morphoclip.data import schema
from morphoclip.scoring import TRAINED, shown_row


def run_report(config: DictConfig, cards: Mapping, table: pd.DataFrame, wells: pd.DataFrame, dataset) -> Path:
    """Write report.html: all rows on the same wells, paired differences, pictures, provenance.

    `table` holds the trained encoder's profiles as they are, `wells` those scored, normalised; `dataset` is None where
    there are no images to show.
    """
    from morphoclip.evaluation import compare, write_report
    from morphoclip.evaluation.batch_effects import batch_scores_by_step
    from morphoclip.evaluation.heat_maps import consensus_heat_maps
    from morphoclip.evaluation.nearest import galleries, nearest_wells
    from morphoclip.evaluation.provenance import environment
    from morphoclip.evaluation.report import umap_coordinates
    from morphoclip.profiling.contact_sheet import well_pictures

    protocol = instantiate(config.protocol)
    normalizer = instantiate(config.normalize)
    near = nearest_wells(wells, cards[TRAINED].tables["replicate"], protocol)
    tasks = [task for task in ("sister", "compound_gene") if f"{task}_ungated" in cards[TRAINED].tables]
    for name in [name for name in cards if name != TRAINED and tasks]:
        difference = compare([cards[TRAINED]], [cards[name]], tasks)
        cards[TRAINED].notes.append(f"trained − {name}, mean mAP of {' and '.join(tasks)}: {difference}")
    return write_report(
        Path(config.folder) / "report.html",
        cards,
        title=f"{config.name}: {config.method._target_.rsplit('.', 1)[-1]} on {Path(config.data.root).parent.name}",
        main=TRAINED,
        lede=config.score.lede,
        umap=umap_coordinates(wells, config.score.seed),
        contact_sheet=dataset and pictures(cards[TRAINED], wells, dataset, config.score.contact_sheet),
        galleries=galleries(wells, near, lambda rows: well_pictures(dataset, rows)) if dataset else (),
        heat_maps=consensus_heat_maps(wells, protocol),
        batch_steps=batch_scores_by_step(table, protocol, normalizer.after_each_step, config.score.seed),
        provenance={
            "command": " ".join(["train.py", *sys.argv[1:]]),
            **environment(),
            "configuration": OmegaConf.to_yaml(config, resolve=True),
        },
    )


def pictures(card, wells: pd.DataFrame, dataset, count: int) -> list[tuple[str, np.ndarray]]:
    """Crops of a control and of the perturbations whose replicates find each other best, on one plate and in one contrast."""
    from morphoclip.profiling.contact_sheet import contact_sheet

    found = card.tables["replicate"].sort_values("mean_average_precision", ascending=False)
    best = wells[wells[schema.PERTURBATION].isin(found[schema.PERTURBATION].head(count))]
    best = best[best[schema.PLATE] == best[schema.PLATE].mode()[0]].drop_duplicates(schema.PERTURBATION)
    control = wells[(wells[schema.PLATE].isin(best[schema.PLATE])) & (wells[schema.CONTROL_TYPE] == schema.NEGCON)]
    shown = pd.concat([control.head(1), best])
    with_crops = dataset.fields.reset_index().iloc[np.unique(dataset.index["field"])]
    fields = with_crops.merge(shown[[schema.PLATE, schema.WELL]].assign(order=range(len(shown))))
    first = fields.sort_values(["order", schema.SITE]).drop_duplicates("order")["index"]
    names = shown[schema.NAME].where(shown[schema.NAME] != "", shown[schema.GENE])
    captions = names.where(shown[schema.CONTROL_TYPE] != schema.NEGCON, "negative control") + " " + shown[schema.WELL]
    return list(zip(captions, contact_sheet(dataset, first.tolist()), strict=True))


def print_scores(cards: Mapping) -> None:
    """The score table: a line a row of the report, mean AP [95 % interval] a task."""
    from rich.console import Console
    from rich.table import Table

    reference = next(iter(cards.values())).metrics
    tasks = list(dict.fromkeys(reference["task"]))
    table = Table("mean average precision", *tasks, title="held-out wells, 95 % intervals")
    lines = {name: [shown_score(card, task) for task in tasks] for name, card in cards.items()}
    chance = [f"{shown_row(cards[TRAINED], task)['chance']:.3f}" for task in tasks]
    for name, cells in {"chance": chance, **lines}.items():
        table.add_row(name, *cells, style="bold" if name == TRAINED else None)
    Console().print(table)


def shown_score(card, task: str) -> str:
    row = shown_row(card, task)
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}] n={int(row['n'])}"
