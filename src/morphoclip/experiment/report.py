"""The report of scored arms: one HTML file, the csv files of the main arm, and the printed table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from morphoclip.evaluation import ScoreCard, compare, write_report
from morphoclip.evaluation.measures.batch_effects import batch_scores_by_step
from morphoclip.evaluation.report.heat_maps import consensus_heat_maps
from morphoclip.evaluation.report.nearest import Gallery
from morphoclip.evaluation.report.provenance import environment
from morphoclip.evaluation.report.umap import umap_coordinates
from morphoclip.evaluation.tasks.task import REPLICATE
from morphoclip.experiment.design import FOLD
from morphoclip.experiment.score import Arm, Scored, Scoring
from morphoclip.experiment.score_files import replacing_scores

REPORT = "report.html"
GROUPED = ("sister", "compound_gene")  # tasks whose mean is reported too: perturbations with the same target


@dataclass(frozen=True)
class Pictures:
    """Images of the main arm's wells, and `notes` on images that are missing."""

    contact_sheet: Sequence[tuple[str, np.ndarray]] = ()
    galleries: Sequence[Gallery] = ()
    attended: Sequence[Gallery] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Published:
    """Published numbers next to ours, and a note on which are comparable."""

    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    note: str = (
        "Fractions retrieved by CellProfiler features as the paper's repository gives them, beside ours. Rows marked "
        "comparable were scored on the paper's plates (known from metadata=) and with its p-values."
    )


def report(
    folder: Path,
    scored: Mapping[str, Scored],
    *,
    main: str,
    arms: Mapping[str, Arm],
    scoring: Scoring,
    title: str,
    configuration: DictConfig,
    lede: str = "",
    pictures: Pictures = Pictures(),
    published: Published = Published(),
    umap: bool = True,
    inputs: Mapping[str, str] | None = None,
) -> Path:
    """Write metrics.csv, a csv per task, arms.csv, batch_effects_by_step.csv and report.html into `folder`.

    They replace the files of an earlier report there, which are removed where this one has no such table.

    Args:
        scored: name -> card and wells, in the order shown. main: the arm whose details are shown and written.
        arms: the same arms before normalisation.
        configuration: recorded unchanged. inputs: name -> hash of the input files.

    Returns:
        The path of report.html.
    """
    card, wells, table = scored[main].card, scored[main].wells, arms[main].table
    if FOLD in wells:  # with several models, pictures are of the first
        wells = wells[wells[FOLD] == wells[FOLD].iloc[0]].reset_index(drop=True)
        table = table[table[FOLD] == wells[FOLD].iloc[0]].reset_index(drop=True) if FOLD in table else table
    card.notes += [*differences(scored, main), *pictures.notes]
    with replacing_scores(folder) as working:
        card.write(working)
        comparisons = arm_table(scored, main)
        comparisons.to_csv(working / "arms.csv", index=False, float_format="%.10g")
        normalizer = arms[main].normalizer
        steps = pd.DataFrame()
        if normalizer.steps:
            steps = batch_scores_by_step(table, scoring.protocol, normalizer.after_each_step, scoring.seed)
        if not steps.empty:
            steps.to_csv(working / "batch_effects_by_step.csv", index=False, float_format="%.10g")
        write_report(
            working / REPORT,
            {name: result.card for name, result in scored.items()},
            title=title,
            main=main,
            lede=lede,
            umap=umap_coordinates(wells, scoring.seed) if umap else None,
            contact_sheet=pictures.contact_sheet,
            galleries=pictures.galleries,
            attended=pictures.attended,
            heat_maps=consensus_heat_maps(wells, scoring.protocol),
            batch_steps=steps,
            published=published.table,
            published_note=published.note,
            extra=[*gains(comparisons), *other_scores(scored, main)],
            provenance={
                "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                **environment(),
                **(inputs or {}),
                "configuration": OmegaConf.to_yaml(configuration, resolve=True),
            },
        )
    return folder / REPORT


def arm_table(scored: Mapping[str, Scored], main: str) -> pd.DataFrame:
    """One row per arm and task: score, controls, and the gain of the main arm over this one on common rows.

    Returns:
        arm, task, mean_average_precision, ci_low, ci_high, chance, n; the controls of the task as means over the sets of
        plates, weighted by their n (`shuffled_labels`, `same_position_dmso`, …); gain, gain_low, gain_high of the main
        arm over this one, paired and ungated, and gain_wilcoxon_p, of the signed-rank test (`Difference`).
    """
    rows = []
    for name, result in scored.items():
        for task in result.card.ranking_tasks:
            row = shown_row(result.card, task)
            line = {"arm": name, "task": task, "mean_average_precision": row["value"]}
            line |= {column: row[column] for column in ("ci_low", "ci_high", "chance", "n")}
            line |= controls_of(result.card, task)
            if name != main and task in scored[main].card.ranking_tasks:
                gain = compare([scored[main].card], [result.card], [task])
                line |= {"gain": gain.value, "gain_low": gain.ci_low, "gain_high": gain.ci_high}
                line |= {"gain_wilcoxon_p": gain.wilcoxon_p}
            rows.append(line)
    return pd.DataFrame(rows)


def controls_of(card: ScoreCard, task: str) -> dict[str, float]:
    """Control -> its mean over the sets of plates, weighted by their number of rows."""
    rows = card.metrics[card.metrics["task"] == task]
    scores = rows["metric"].str.startswith(("mean_average_precision", "fraction_retrieved"))
    return {
        str(name): float(np.average(part["value"], weights=part["n"]))
        for name, part in rows[~scores].groupby("metric", sort=False)
    }


def differences(scored: Mapping[str, Scored], main: str) -> list[str]:
    """One line per other arm: the gain of the main arm in each task, paired and ungated, with intervals."""
    card = scored[main].card
    lines = []
    for name, result in scored.items():
        if name == main:
            continue
        both = [task for task in card.ranking_tasks if task in result.card.ranking_tasks]
        sets = [(task, [task]) for task in both]
        if set(GROUPED) <= set(both):
            sets.append((f"mean of {' and '.join(GROUPED)}", list(GROUPED)))
        gains = [f"{label} {compare([card], [result.card], tasks)}" for label, tasks in sets]
        lines.append(f"{main} − {name}: {'; '.join(gains)}")
    return lines


def gains(arms: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """The gains of `arm_table` as a table of the report; nothing with a single arm."""
    if "gain" not in arms:
        return []
    columns = ["arm", "task", "gain", "gain_low", "gain_high", "gain_wilcoxon_p"]
    caption = (
        "Gain of the main profiles over each other arm in mean AP on common rows, its 95 % interval, and the p-value of a "
        "signed-rank test of the mean gains of clusters of rows that share perturbations."
    )
    return [("Gains", caption, arms.loc[arms["gain"].notna(), columns])]


def other_scores(scored: Mapping[str, Scored], main: str) -> list[tuple[str, str, pd.DataFrame]]:
    """(title, caption, table) of the main card's scores other than average precision; other arms' values beside them."""
    key, card = ["subset", "metric"], scored[main].card
    tables = []
    for name, caption in card.captions.items():
        rows = card.metrics[card.metrics["task"] == name]
        if name in card.ranking_tasks or rows.empty:
            continue
        table = rows[[*key, "value", "chance", "n"]]
        for arm, result in scored.items():
            other = result.card.metrics
            if arm != main:
                other = other[other["task"] == name].drop_duplicates(key)[[*key, "value"]]
                table = table.merge(other.rename(columns={"value": arm}), on=key, how="left")
        tables.append((name.replace("_", " ").capitalize(), caption.split("\n\n")[0], table))
    return tables


def shown_row(card: ScoreCard, task: str) -> pd.Series:
    """The row of `metrics` reported for a task: over all perturbations, not only retrieved ones."""
    rows = card.metrics[(card.metrics["task"] == task) & (card.metrics["subset"] == "all")].set_index("metric")
    ungated = "mean_average_precision_ungated"
    return rows.loc[ungated if ungated in rows.index else "mean_average_precision"]


def print_arms(table: pd.DataFrame, main: str) -> None:
    """Print `arm_table`: one line per arm with mean AP [95 % interval] of each task and the same-position control."""
    from rich.console import Console
    from rich.table import Table

    tasks, layout = list(dict.fromkeys(table["task"])), "same_position_dmso"
    by_arm = {arm: rows.set_index("task") for arm, rows in table.groupby("arm", sort=False)}
    with_layout = layout in table and table[layout].notna().any()
    heads = [f"{task}, n={by_arm[main].loc[task, 'n']:.0f}" for task in tasks if task in by_arm[main].index]
    shown = Table("mean average precision [95 %]", *heads, *(["DMSO at one position"] if with_layout else []))
    chance = [f"{by_arm[main].loc[task, 'chance']:.3f}" for task in tasks if task in by_arm[main].index]
    shown.add_row("chance", *chance)
    for arm, rows in by_arm.items():
        cells = [_shown(rows.loc[task]) if task in rows.index else "" for task in tasks if task in by_arm[main].index]
        if with_layout:
            cells.append(f"{rows.loc[REPLICATE, layout]:.3f}")
        shown.add_row(arm, *cells, style="bold" if arm == main else None)
    console = Console()
    console.print(shown) if console.width >= 100 else Console(width=100).print(shown)


def _shown(row: pd.Series) -> str:
    return f"{row['mean_average_precision']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
