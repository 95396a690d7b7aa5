"""A finished run's report: its score cards, pictures and provenance as report.html, and the table that is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from morphoclip import schema
from morphoclip.evaluation.report.nearest import Gallery
from morphoclip.experiment.run_scores import TRAINED, shown_row

Attention = Callable[[Sequence[tuple[str, str]]], pd.DataFrame]
ATTENDED_WELLS, MOST, LEAST = 3, 4, 3


def run_report(
    config: DictConfig,
    cards: Mapping,
    table: pd.DataFrame,
    wells: pd.DataFrame,
    dataset,
    attention: Attention | None = None,
) -> Path:
    """Write report.html: all rows on the same wells, paired differences, pictures, provenance.

    `table` holds the trained encoder's profiles as they are, `wells` those scored, normalised; `dataset` is None where
    there are no images to show. `attention` gives the weights of the crops of some wells (`crop_attention`), None where
    crops are averaged.
    """
    from morphoclip.evaluation import compare, write_report
    from morphoclip.evaluation.measures.batch_effects import batch_scores_by_step
    from morphoclip.evaluation.report.heat_maps import consensus_heat_maps
    from morphoclip.evaluation.report.nearest import galleries, nearest_wells
    from morphoclip.evaluation.report.provenance import environment
    from morphoclip.evaluation.report.report import umap_coordinates
    from morphoclip.profiling.contact_sheet import well_pictures

    protocol = instantiate(config.protocol)
    normalizer = instantiate(config.normalize)
    near = nearest_wells(wells, cards[TRAINED].tables["replicate"], protocol)
    tasks = [task for task in ("sister", "compound_gene") if f"{task}_ungated" in cards[TRAINED].tables]
    for name in [name for name in cards if name != TRAINED and tasks]:
        difference = compare([cards[TRAINED]], [cards[name]], tasks)
        cards[TRAINED].notes.append(f"trained − {name}, mean mAP of {' and '.join(tasks)}: {difference}")
    if attention is None:
        cards[TRAINED].notes.append("crops are averaged: all of a well weigh the same, so no crop is the most attended")
    return write_report(
        Path(config.folder) / "report.html",
        cards,
        title=f"{config.name}: {config.method._target_.rsplit('.', 1)[-1]} on {Path(config.data.root).parent.name}",
        main=TRAINED,
        lede=config.score.lede,
        umap=umap_coordinates(wells, config.score.seed),
        contact_sheet=dataset and pictures(cards[TRAINED], wells, dataset, config.score.contact_sheet),
        galleries=galleries(wells, near, lambda rows: well_pictures(dataset, rows)) if dataset else (),
        attended=attended_crops(attention, best_wells(cards[TRAINED], wells, ATTENDED_WELLS), dataset)
        if dataset and attention
        else (),
        heat_maps=consensus_heat_maps(wells, protocol),
        batch_steps=batch_scores_by_step(table, protocol, normalizer.after_each_step, config.score.seed),
        provenance={
            "command": " ".join(["train.py", *sys.argv[1:]]),
            **environment(),
            "configuration": OmegaConf.to_yaml(config, resolve=True),
        },
    )


def pictures(card, wells: pd.DataFrame, dataset, count: int) -> list[tuple[str, np.ndarray]]:
    """Crops of the `best_wells`, in one contrast."""
    from morphoclip.profiling.contact_sheet import contact_sheet

    shown = best_wells(card, wells, count)
    with_crops = dataset.fields.reset_index().iloc[np.unique(dataset.index["field"])]
    fields = with_crops.merge(shown[[schema.PLATE, schema.WELL]].assign(order=range(len(shown))))
    first = fields.sort_values(["order", schema.SITE]).drop_duplicates("order")["index"]
    return list(zip(captions(shown), contact_sheet(dataset, first.tolist()), strict=True))


def best_wells(card, wells: pd.DataFrame, count: int) -> pd.DataFrame:
    """A control, then the perturbations whose replicates find each other best, all on one plate."""
    found = card.tables["replicate"].sort_values("mean_average_precision", ascending=False)
    best = wells[wells[schema.PERTURBATION].isin(found[schema.PERTURBATION].head(count))]
    best = best[best[schema.PLATE] == best[schema.PLATE].mode()[0]].drop_duplicates(schema.PERTURBATION)
    control = wells[(wells[schema.PLATE].isin(best[schema.PLATE])) & (wells[schema.CONTROL_TYPE] == schema.NEGCON)]
    return pd.concat([control.head(1), best])


def captions(shown: pd.DataFrame) -> pd.Series:
    names = shown[schema.NAME].where(shown[schema.NAME] != "", shown[schema.GENE])
    return names.where(shown[schema.CONTROL_TYPE] != schema.NEGCON, "negative control") + " " + shown[schema.WELL]


def attended_crops(attention: Attention, shown: pd.DataFrame, dataset) -> list[Gallery]:
    """The crops of each well that weigh most in its embedding, and those that weigh least; each row in one contrast."""
    from morphoclip.profiling.contact_sheet import crop_pictures

    rows = []
    table = attention(list(zip(shown[schema.PLATE], shown[schema.WELL], strict=True)))
    for caption, plate, well in zip(captions(shown), shown[schema.PLATE], shown[schema.WELL], strict=True):
        crops = table[(table[schema.PLATE] == plate) & (table[schema.WELL] == well)]
        crops = crops.sort_values("attention", ascending=False, kind="stable")
        most, least = crops.head(MOST), crops.iloc[MOST:].tail(LEAST)
        both = pd.concat([most, least])
        relations = ["most attended"] * len(most) + ["least attended"] * len(least)
        said = [f"{share * len(crops):.2f} × an even share" for share in both["attention"]]
        rows.append(
            Gallery(
                f"{caption}, {len(crops)} crops",
                list(zip(said, relations, crop_pictures(dataset, both["Metadata_crop"]), strict=True)),
            )
        )
    return rows


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
