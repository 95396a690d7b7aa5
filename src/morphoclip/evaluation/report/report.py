"""Score cards ▶ one HTML file that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.card.scorecard import ALL, ScoreCard
from morphoclip.evaluation.report.nearest import Gallery, spoken_names
from morphoclip.evaluation.report.plate_maps import plate_maps
from morphoclip.evaluation.tasks.questions import COMPOUND_GENE, CRISPR_ORF, REPLICATE, SISTER, TASKS

_TITLES = {
    REPLICATE: "Replicates find each other",
    SISTER: "Same target, same modality",
    COMPOUND_GENE: "Compound and gene",
    CRISPR_ORF: "Knockout and overexpression",
}
_ROW_TITLES = {REPLICATE: "Perturbations", SISTER: "Targets", COMPOUND_GENE: "Genes", CRISPR_ORF: "Genes"}
_ACCENT, _GREY = "#0f6b74", "#8d99a6"
_TABLE_COLUMNS = {
    schema.PERTURBATION: "Perturbation",
    schema.NAME: "Name",
    "Metadata_target": "Target",
    schema.GENE: "Gene",
    "subset": "Subset",
    "mean_average_precision": "mAP",
    "chance": "Chance",
    "p_value": "p",
    "corrected_p_value": "q",
    "below_corrected_p": "Retrieved",
    "n_queries": "Queries",
    "mean_average_precision_from_compound": "mAP from compounds",
    "mean_average_precision_from_gene": "mAP from genes",
    "seen": "Seen in training",
}
_WIDTH = 170
MOST_PAIRS = 500
_NO_MAP = "no map of the wells: none was asked for, or too few features are complete over all of them"


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
    heat_maps: Sequence[Mapping[str, object]] = (),
    batch_steps: pd.DataFrame | None = None,
    provenance: Mapping[str, object] | None = None,
    published: pd.DataFrame | None = None,
    published_note: str = "",
    extra: Sequence[tuple[str, str, pd.DataFrame]] = (),
    threshold: float = 0.05,
) -> Path:
    """Write the report of one or several methods scored on the same wells.

    Args:
        rows: name -> score card, in the order shown; a row of chance is put before them.
        main: the row whose details are shown; default 'trained' where there is one, else the last.
        alarms: shown with the alarms of the main card.
        umap: columns x, y, and the Metadata_Plate, _Well, _perturbation and _control_type of each well;
            None leaves the map out, and a note says so.
        contact_sheet: (caption, uint8 image (H, W) or (H, W, 3)).
        galleries: nearest neighbours of a few wells with their images. attended: their most and least attended crops.
        heat_maps: as `consensus_heat_maps` gives them.
        batch_steps: as `batch_scores_by_step` gives them.
        provenance: name -> value: command, configuration, commit, hashes.
        published: a table of published numbers beside ours, shown as it is.
        extra: (title, caption, table) of further scores.

    Returns:
        `path`. It is written under a temporary name first; the same input gives the same bytes.
    """
    if not rows:
        raise ValueError("a report needs at least one score card")
    main = main or ("trained" if "trained" in rows else list(rows)[-1])
    card = rows[main]
    tasks = [t for t in TASKS if any(t in c.tables or f"{t}_ungated" in c.tables for c in rows.values())]
    scatters = {task: _scatter(card.tables[task]) for task in tasks if task in card.tables}
    data = {"scatters": scatters, "umap": None if umap is None else _umap(umap), "heat_maps": list(heat_maps)}
    html = _template().render(
        title=title,
        lede=lede or _lede(rows, card),
        main=main,
        alarms=list(dict.fromkeys([*alarms, *card.alarms])),
        columns=[{"title": _TITLES[task]} for task in tasks],
        rows=_score_rows(rows, main, tasks),
        scatters=[{"id": task, "title": _TITLES[task]} for task in scatters],
        plates=plate_maps(card.queries[REPLICATE]),
        controls=_controls(card),
        published=None if published is None or published.empty else published.to_dict("records"),
        published_note=published_note,
        umap=umap is not None,
        heat_maps=[{"name": m["name"], "n": len(m["names"]), "of": m["of"]} for m in heat_maps],
        extra=[_extra(*sheet) for sheet in [*_batch_steps(batch_steps), *extra]],
        galleries=[_gallery(gallery) for gallery in galleries],
        attended=[_gallery(gallery) for gallery in attended],
        contact_sheet=[{"caption": text, "png": _encoded(image, "PNG")} for text, image in contact_sheet or ()],
        tables=[*(_table(task, card.tables[task]) for task in tasks if task in card.tables), *_pairs(card.pairs)],
        provenance={str(k): str(v) for k, v in (provenance or {}).items()},
        notes=card.notes if umap is not None else [*card.notes, _NO_MAP],
        threshold=threshold,
        data=data,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
    return path


def umap_coordinates(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame | None:
    """UMAP of well profiles as Kim et al. 2025: 200 principal components, correlation, 50 neighbours, distance .7.

    Sets of plates may have different features (a selection made a set at a time), which leaves NaN where they are put
    below each other: the map rests on the features that are complete over all rows.

    Returns:
        x, y and the metadata `write_report` wants, in the rows' order. One thread, so that a seed means something.
        None where fewer than three rows or two complete features leave nothing to draw.
    """
    metadata, features = schema.split_columns(table)
    x = table[features].dropna(axis="columns").to_numpy(np.float64)
    if x.shape[0] < 3 or x.shape[1] < 2:
        return None

    import umap
    from sklearn.decomposition import PCA

    x = PCA(min(200, *x.shape), random_state=seed).fit_transform(x)
    neighbours = min(50, len(x) - 1)
    model = umap.UMAP(
        n_neighbors=neighbours, min_dist=0.7, metric="correlation", random_state=seed, n_jobs=1, init="pca"
    )
    place = model.fit_transform(x)
    keep = [
        c
        for c in (schema.PLATE, schema.WELL, schema.PERTURBATION, schema.NAME, schema.GENE, schema.CONTROL_TYPE)
        if c in metadata
    ]
    return table[keep].reset_index(drop=True).assign(x=place[:, 0], y=place[:, 1])


def _template():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("morphoclip.evaluation.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2")


def _lede(rows: Mapping[str, ScoreCard], card: ScoreCard) -> str:
    groups = card.tables[REPLICATE]
    subsets = groups["subset"].nunique()
    return (
        f"{len(rows)} set{'s' if len(rows) > 1 else ''} of profiles of the same wells: {len(groups)} perturbations in "
        f"{subsets} set{'s' if subsets > 1 else ''} of plates, {int(groups['n_queries'].sum())} queries."
    )


def _score_rows(rows: Mapping[str, ScoreCard], main: str, tasks: Sequence[str]) -> list[dict]:
    found = {name: [_cell(card, task) for task in tasks] for name, card in rows.items()}
    tops = [max([c["high"] for cells in found.values() if (c := cells[i])] or [1]) for i in range(len(tasks))]
    lines = [{"name": "chance", "kind": "reference", "cells": [_chance(rows[main], t) for t in tasks]}]
    lines += [{"name": n, "kind": "main" if n == main else "", "cells": cells} for n, cells in found.items()]
    for line in lines:
        for cell, top in zip(line["cells"], tops, strict=True):
            if cell:
                cell["colour"] = _ACCENT if line["kind"] == "main" else "#49586a" if not line["kind"] else _GREY
                scale = {"x": "value", "x_low": "low", "x_high": "high", "x_chance": "chance"}
                for place, source in scale.items():
                    at = cell[source]
                    cell[place] = None if at is None or np.isnan(at) else round(4 + (_WIDTH - 8) * min(at / top, 1), 1)
    return lines


def _metric(card: ScoreCard, task: str, metric: str) -> pd.Series | None:
    m = card.metrics
    found = m[(m["task"] == task) & (m["subset"] == ALL) & (m["metric"] == metric)]
    return None if found.empty else found.iloc[0]


def _cell(card: ScoreCard, task: str) -> dict | None:
    gated = _metric(card, task, "mean_average_precision")
    shown = _metric(card, task, "mean_average_precision_ungated")
    if shown is None:
        shown = gated
    if shown is None:
        return None
    also = f"n = {int(shown['n'])}"
    fraction = _metric(card, task, "fraction_retrieved")
    if task == REPLICATE and fraction is not None:
        also += f" · {fraction['value']:.1%} retrieved"
    elif task != REPLICATE and gated is not None:
        also += f" · retrieved only {gated['value']:.3f}, n = {int(gated['n'])}"
    low, high = float(shown["ci_low"]), float(shown["ci_high"])
    return {
        "value": float(shown["value"]),
        "low": low,
        "high": float(shown["value"]) if np.isnan(high) else high,
        "chance": float(shown["chance"]),
        "interval": "" if np.isnan(low) else f"{low:.3f} – {high:.3f}",
        "also": also,
    }


def _chance(card: ScoreCard, task: str) -> dict | None:
    cell = _cell(card, task)
    if cell is None:
        return None
    nothing = float("nan")
    return {"value": cell["chance"], "low": nothing, "high": nothing, "chance": None, "interval": "", "also": ""}


def _controls(card: ScoreCard) -> list[dict]:
    names = {"shuffled_labels", "same_position_dmso", "cell_count_alone", "structure_alone", "replicate_other_well"}
    rows = card.metrics[card.metrics["metric"].isin(names)]
    return [
        {
            "metric": row.metric.replace("_", " "),
            "task": row.task.replace("_", "–") if row.task != REPLICATE else row.task,
            "subset": row.subset,
            "value": float(row.value),
            "interval": "" if np.isnan(row.ci_low) else f"{row.ci_low:.3f} – {row.ci_high:.3f}",
            "chance": "" if np.isnan(row.chance) else f"{row.chance:.3f}",
            "n": int(row.n),
        }
        for row in rows.itertuples()
    ]


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
        "treated": (points[schema.CONTROL_TYPE] != schema.NEGCON).astype(int).tolist(),
    }


def _table(task: str, table: pd.DataFrame) -> dict:
    columns = [c for c in _TABLE_COLUMNS if c in table and not (c == schema.PERTURBATION and task != REPLICATE)]
    ordered = table.sort_values("mean_average_precision", ascending=False, kind="stable")
    shown = [{"title": _TABLE_COLUMNS[c], "number": _is_number(table[c])} for c in columns]
    lines = [
        [_text(v, c["number"]) for v, c in zip(row, shown, strict=True)] for row in ordered[columns].to_numpy(object)
    ]
    return {"name": task, "title": f"{_ROW_TITLES[task]} ({task.replace('_', '–')})", "columns": shown, "lines": lines}


def _pairs(pairs: pd.DataFrame) -> list[dict]:
    """The best (compound, target) pairs of retrieved perturbations; all of them are in compound_gene_pairs.csv."""
    if pairs.empty or not pairs["retrieved"].any():
        return []
    shown = pairs[pairs["retrieved"]].sort_values("average_precision", ascending=False, kind="stable").head(MOST_PAIRS)
    titles = {schema.PERTURBATION: "Compound", schema.NAME: "Name", "Metadata_target": "Target", "subset": "Subset"}
    titles |= {"average_precision": "AP", "chance": "Chance", "cosine": "Cosine", "sign": "Sign"}
    table = shown[[c for c in titles if c in shown]].rename(columns=titles)
    return [{**_extra("Compound and target", "", table), "name": "pairs"}]


def _batch_steps(steps: pd.DataFrame | None) -> list[tuple[str, str, pd.DataFrame]]:
    caption = (
        "How well the batch of a well can be told, before normalisation and after each step. Higher silhouette, graph "
        "connectivity and plate mAP, and lower LISI, mean more batch effect; the last row of a set is what is left to chance."
    )
    return [] if steps is None or steps.empty else [("Batch effects step by step", caption, steps)]


def _extra(title: str, caption: str, table: pd.DataFrame) -> dict:
    columns = [{"title": str(c).replace("_", " "), "number": _is_number(table[c])} for c in table.columns]
    lines = [[_text(v, c["number"]) for v, c in zip(row, columns, strict=True)] for row in table.to_numpy(object)]
    return {"title": title, "caption": caption, "columns": columns, "lines": lines}


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _text(value: object, number: bool) -> dict:
    if not number:
        text = ("yes" if value else "no") if isinstance(value, bool | np.bool_) else str(value)
        return {"number": False, "value": None, "text": text}
    if pd.isna(value):
        return {"number": True, "value": "-1", "text": "—"}
    whole = float(value).is_integer() and (value > 1 or isinstance(value, int | np.integer))
    text = f"{value:.0f}" if whole else f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
    return {"number": True, "value": f"{value:.6g}", "text": text}


def _gallery(gallery: Gallery) -> dict:
    pictures = [
        {
            "caption": caption,
            "relation": relation,
            "kind": relation.split()[0],
            "jpeg": _encoded(image, "JPEG", quality=88),
        }
        for caption, relation, image in gallery.pictures
    ]
    return {"title": gallery.title, "pictures": pictures}


def _encoded(image: np.ndarray, form: str, **options: object) -> str:
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"a picture of the report is {image.dtype} {image.shape}: expected uint8 (H, W[, 3])")
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=form, optimize=True, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")
