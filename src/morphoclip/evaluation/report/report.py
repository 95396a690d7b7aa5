"""Score cards ▶ one HTML file that works offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.card.scorecard import ScoreCard
from morphoclip.evaluation.report.images import encoded, gallery_data
from morphoclip.evaluation.report.nearest import Gallery, spoken_names
from morphoclip.evaluation.report.plate_maps import plate_maps
from morphoclip.evaluation.report.score_table import control_rows, score_rows
from morphoclip.evaluation.report.sheets import batch_step_sheets, pair_sheets, sheet, task_sheet
from morphoclip.evaluation.tasks.task import REPLICATE
from morphoclip.files import write_atomically

_NO_MAP = "no map of the wells: it was switched off, or too few features are complete over all wells"


def write_report(
    path: str | Path,
    rows: Mapping[str, ScoreCard],
    *,
    title: str,
    main: str | None = None,
    lede: str = "",
    alarms: Sequence[str] = (),
    umap: pd.DataFrame | None = None,
    contact_sheet: Sequence[tuple[str, np.ndarray]] | None = None,
    galleries: Sequence[Gallery] = (),
    attended: Sequence[Gallery] = (),
    heat_maps: Sequence[Mapping[str, Any]] = (),
    batch_steps: pd.DataFrame | None = None,
    provenance: Mapping[str, object] | None = None,
    published: pd.DataFrame | None = None,
    published_note: str = "",
    extra: Sequence[tuple[str, str, pd.DataFrame]] = (),
    threshold: float = 0.05,
) -> Path:
    """Write the report of one or several methods scored on the same wells.

    Args:
        rows: name -> score card, in the order shown; a row of chance comes first.
        main: the row whose details are shown; default: 'trained' if present, else the last.
        alarms: further alarms, shown with those of the main card.
        umap: columns x, y, and the Metadata_Plate, _Well, _perturbation and _control_type of each well; with None the
            map is left out and a note says so.
        contact_sheet: (caption, uint8 image (H, W) or (H, W, 3)).
        galleries: nearest neighbours of a few wells with their images. attended: most and least attended crops.
        heat_maps: from `consensus_heat_maps`.
        batch_steps: from `batch_scores_by_step`.
        provenance: name -> value: command, configuration, commit, hashes.
        published: table of published numbers next to ours.
        extra: (title, caption, table) of further scores.

    Returns:
        `path`. It is written under a temporary name first; the same input gives the same bytes.
    """
    if not rows:
        raise ValueError("a report needs at least one score card")
    main = main or ("trained" if "trained" in rows else list(rows)[-1])
    card = rows[main]
    titles = {task: c.captions.get(task, task) for c in [*rows.values(), card] for task in c.ranking_tasks}
    tasks = [*card.ranking_tasks, *(task for task in titles if task not in card.ranking_tasks)]
    scatters = {task: _scatter(card.tables[task]) for task in tasks if task in card.tables}
    data = {"scatters": scatters, "umap": None if umap is None else _umap(umap), "heat_maps": list(heat_maps)}
    html = _template().render(
        title=title,
        lede=lede or _lede(rows, card),
        main=main,
        alarms=list(dict.fromkeys([*alarms, *card.alarms])),
        columns=[{"title": titles[task]} for task in tasks],
        rows=score_rows(rows, main, tasks),
        scatters=[{"id": task, "title": titles[task]} for task in scatters],
        plates=plate_maps(card.queries[REPLICATE]) if REPLICATE in card.queries else [],
        controls=control_rows(card),
        published=None if published is None or published.empty else published.to_dict("records"),
        published_note=published_note,
        umap=umap is not None,
        heat_maps=[{"name": m["name"], "n": len(m["names"]), "of": m["of"]} for m in heat_maps],
        extra=[sheet(*parts) for parts in [*batch_step_sheets(batch_steps), *extra]],
        galleries=[gallery_data(gallery) for gallery in galleries],
        attended=[gallery_data(gallery) for gallery in attended],
        contact_sheet=[{"caption": text, "png": encoded(image, "PNG")} for text, image in contact_sheet or ()],
        tables=[
            *(task_sheet(task, card.tables[task]) for task in tasks if task in card.tables),
            *pair_sheets(card.pairs),
        ],
        provenance={str(k): str(v) for k, v in (provenance or {}).items()},
        notes=card.notes if umap is not None else [*card.notes, _NO_MAP],
        threshold=threshold,
        data=data,
    )
    with write_atomically(path) as partial:
        partial.write_text(html, encoding="utf-8")
    return Path(path)


def _template():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("morphoclip.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _lede(rows: Mapping[str, ScoreCard], card: ScoreCard) -> str:
    if REPLICATE not in card.tables:
        return f"{len(rows)} set{'s' if len(rows) > 1 else ''} of profiles of the same wells."
    groups = card.tables[REPLICATE]
    subsets = groups["subset"].nunique()
    return (
        f"{len(rows)} set{'s' if len(rows) > 1 else ''} of profiles of the same wells: {len(groups)} perturbations in "
        f"{subsets} set{'s' if subsets > 1 else ''} of plates, {int(groups['n_queries'].sum())} queries."
    )


def _scatter(table: pd.DataFrame) -> dict:
    null = table["shuffled_labels"].fillna(table["chance"]) if "shuffled_labels" in table else table["chance"]
    return {
        "x": null.round(5).tolist(),
        "y": table["mean_average_precision"].round(5).tolist(),
        "found": table["below_corrected_p"].astype(int).tolist(),
        "name": table["row"].astype(str).tolist(),
    }


def _umap(points: pd.DataFrame) -> dict:
    plates, plate_names = pd.factorize(points[schema.PLATE], sort=True)
    perturbations, names = pd.factorize(spoken_names(points), sort=True)
    return {
        "x": points["x"].round(3).tolist(),
        "y": points["y"].round(3).tolist(),
        "plate": plates.tolist(),
        "plates": [str(p) for p in plate_names],
        "perturbation": perturbations.tolist(),
        "perturbations": [str(p) for p in names],
        "well": points[schema.WELL].astype(str).tolist(),
        "treated": (~schema.is_negcon(points)).astype(int).tolist(),
    }
