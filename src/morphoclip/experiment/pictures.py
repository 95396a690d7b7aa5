"""Images of a report: the best wells, their nearest neighbours, and their most and least attended crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from morphoclip import schema
from morphoclip.evaluation import Protocol, ScoreCard
from morphoclip.evaluation.report.nearest import Gallery, galleries, nearest_wells
from morphoclip.experiment.arms import image_dataset, runs_own_code
from morphoclip.experiment.report import Pictures
from morphoclip.experiment.score import Scored

if TYPE_CHECKING:
    from morphoclip.data import ShardDataset

Attention = Callable[[Sequence[tuple[str, str]]], pd.DataFrame]
ATTENDED_WELLS, MOST, FEWEST = 3, 4, 3
AVERAGED = "crops are averaged with equal weights, so no crop is the most attended"


def run_pictures(folder: Path, config: DictConfig, main: Scored, protocol: Protocol) -> Pictures:
    """Pictures for a run's trained arm, from its dataset and its encoder folder; none of profile tables, which have no images."""
    from hydra.utils import instantiate

    from morphoclip.experiment.fit import open_dataset
    from morphoclip.export import load_encoder
    from morphoclip.export.crop_pool import attends, load_crop_pool
    from morphoclip.profiling.crop_attention import crop_attention

    if not (folder / "encoder").is_dir():
        return Pictures()
    loader = instantiate(config.data.loader)
    dataset = open_dataset(config, loader)
    if dataset.unit == "well":
        return Pictures()
    images = image_dataset(dataset)
    encoder = load_encoder(folder / "encoder", trust_remote_code=runs_own_code(config.encoder))
    pool = load_crop_pool(folder / "encoder")
    weighted = attends(encoder, pool)
    notes = [] if weighted else [AVERAGED]
    if images is None:
        return Pictures(notes=notes)
    attention = partial(crop_attention, encoder, dataset, pool)
    card, wells = main.card, main.wells
    shown = best_wells(card, wells, ATTENDED_WELLS)
    return Pictures(
        contact_sheet=contact_sheet(card, wells, images, config.score.contact_sheet),
        galleries=neighbours(card, wells, images, protocol),
        attended=attended_crops(attention, shown, images) if weighted else (),
        notes=notes,
    )


def neighbours(card: ScoreCard, wells: pd.DataFrame, dataset: ShardDataset, protocol: Protocol) -> list[Gallery]:
    """Nearest neighbours of a few wells, with the images of `dataset`."""
    from morphoclip.profiling.contact_sheet import well_pictures

    near = nearest_wells(wells, card.tables["replicate"], protocol)
    return galleries(wells, near, lambda rows: well_pictures(dataset, rows))


def contact_sheet(
    card: ScoreCard, wells: pd.DataFrame, dataset: ShardDataset, count: int
) -> list[tuple[str, np.ndarray]]:
    """A crop of each of the `best_wells`, all with the same contrast."""
    from morphoclip.profiling.contact_sheet import contact_sheet

    shown = best_wells(card, wells, count)
    with_crops = dataset.fields.reset_index().iloc[np.unique(dataset.index["field"])]
    fields = with_crops.merge(shown[[schema.PLATE, schema.WELL]].assign(order=range(len(shown))))
    first = fields.sort_values(["order", schema.SITE]).drop_duplicates("order")["index"]
    return list(zip(captions(shown), contact_sheet(dataset, first.tolist()), strict=True))


def best_wells(card: ScoreCard, wells: pd.DataFrame, count: int) -> pd.DataFrame:
    """A control and the perturbations with the highest replicate scores, all from one plate."""
    found = card.tables["replicate"].sort_values("mean_average_precision", ascending=False)
    best = wells[wells[schema.PERTURBATION].isin(found[schema.PERTURBATION].head(count))]
    best = best[best[schema.PLATE] == best[schema.PLATE].mode()[0]].drop_duplicates(schema.PERTURBATION)
    control = wells[wells[schema.PLATE].isin(best[schema.PLATE]) & schema.is_negcon(wells)]
    return pd.concat([control.head(1), best])


def captions(shown: pd.DataFrame) -> pd.Series:
    """Name (or else gene) and well of each row."""
    names = shown[schema.NAME].where(shown[schema.NAME] != "", shown[schema.GENE])
    return names.where(~schema.is_negcon(shown), "negative control") + " " + shown[schema.WELL]


def attended_crops(attention: Attention, shown: pd.DataFrame, dataset: ShardDataset) -> list[Gallery]:
    """The most and the least attended crops of each well; all crops of a row have the same contrast."""
    from morphoclip.profiling.contact_sheet import crop_pictures

    rows = []
    table = attention(list(zip(shown[schema.PLATE], shown[schema.WELL], strict=True)))
    for caption, plate, well in zip(captions(shown), shown[schema.PLATE], shown[schema.WELL], strict=True):
        crops = table[(table[schema.PLATE] == plate) & (table[schema.WELL] == well)]
        crops = crops.sort_values("attention", ascending=False, kind="stable")
        most, fewest = crops.head(MOST), crops.iloc[MOST:].tail(FEWEST)
        both = pd.concat([most, fewest])
        relations = ["most attended"] * len(most) + ["least attended"] * len(fewest)
        shares = [f"{share * len(crops):.2f} × an even share" for share in both["attention"]]
        images = crop_pictures(dataset, both["Metadata_crop"])
        rows.append(Gallery(f"{caption}, {len(crops)} crops", list(zip(shares, relations, images, strict=True))))
    return rows
