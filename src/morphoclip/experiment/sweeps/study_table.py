"""The table of a study's trials."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from morphoclip.experiment.runs import FAILED, FINISHED, PRUNED, RUNNING, read_record
from morphoclip.experiment.sweeps.study import REASON, Study
from morphoclip.experiment.sweeps.table import Row, SweepTable

if TYPE_CHECKING:
    import optuna

STATES = {"COMPLETE": FINISHED, "PRUNED": PRUNED, "FAIL": FAILED, "RUNNING": RUNNING}


def study_table(study: Study, importance: bool = False) -> SweepTable:
    """The trials of a study by number, with their objective; `importance` is that of the settings, which takes seconds."""
    settings = study.settings
    return SweepTable(
        f"Sweep {settings.name}",
        [_row(study, trial) for trial in study.trials],
        {str(settings.objective): settings.objective.maximize},
        study.importance() if importance else {},
    )


def _row(study: Study, trial: optuna.trial.FrozenTrial) -> Row:
    folder = study.settings.folder / f"trial-{trial.number}"
    record = read_record(folder)
    state = STATES.get(trial.state.name, trial.state.name.lower())
    if state == RUNNING and record.get("state") not in (None, RUNNING):
        state = record["state"]  # as it was when the sweep was interrupted
    finished = trial.state.name == "COMPLETE" and trial.value is not None
    return Row(
        folder.name,
        state,
        dict(trial.params),
        {str(study.settings.objective): float(trial.value or 0.0)} if finished else {},
        folder,
        trial.user_attrs.get(REASON) or (record.get("reason") or "" if not finished else ""),
        record.get("step"),
        seconds_of(record),
    )


def seconds_of(record: dict) -> float | None:
    """Seconds from the last start of a run to its end; None if it runs."""
    if not record.get("ended") or record.get("state") == RUNNING:
        return None
    return (datetime.fromisoformat(record["ended"]) - datetime.fromisoformat(record["started"])).total_seconds()
