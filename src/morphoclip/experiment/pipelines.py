"""A sweep over orders of normalisation steps on one set of plates, written as a table and an HTML page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from morphoclip import schema
from morphoclip.evaluation import Protocol
from morphoclip.evaluation.report.sweep import count_pipelines, sweep, write_sweep_report
from morphoclip.evaluation.tasks.protocol import plate_sets
from morphoclip.experiment.plain import as_dict
from morphoclip.profiling import Normalizer, aggregate, negcon_folds
from morphoclip.progress import progress_bar


def sweep_pipelines(table: pd.DataFrame, settings: DictConfig, protocol: Protocol, output: Path, seed: int) -> Path:
    """Score every order of `settings.steps`, up to `settings.depth` of them, on the first set of plates.

    Writes sweep.csv and sweep.html to `output` and returns the path of the page. A table of sites is aggregated by mean
    and by median, which doubles the number of pipelines.
    """
    sets, notes = plate_sets(table, protocol)
    wells = sets[0].table
    by = [c for c in (schema.PLATE, schema.WELL) if c in wells]
    sites = wells.duplicated(by).any()
    tables = {how: aggregate(wells, by, how) for how in ("mean", "median")} if sites else {"wells": wells}
    steps = as_dict(settings.steps)
    print(f"writes sweep.csv and sweep.html to {output}")
    output.mkdir(parents=True, exist_ok=True)
    with progress_bar(total=count_pipelines(len(steps), settings.depth) * len(tables), unit="pipeline") as bar:
        result = sweep(
            tables,
            steps,
            lambda part, step: Normalizer([step]).fit_transform(part),
            depth=settings.depth,
            fold=lambda part: negcon_folds(part, seed),
            progress=bar.update,
        )
    result.to_csv(output / "sweep.csv", index=False, float_format="%.10g")
    page = write_sweep_report(output / "sweep.html", result, f"{len(result)} pipelines on {sets[0].name}")
    print("\n".join(notes))
    print(result[result["on_front"]].to_string(index=False, float_format="{:.4f}".format))
    print(f"report: {page}")
    return page
