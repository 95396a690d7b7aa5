"""What an evaluation is about to score, and for about how long: printed before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

from morphoclip import schema
from morphoclip.evaluation.card.builder import Settings
from morphoclip.evaluation.ranking.exchange import exchange_questions
from morphoclip.evaluation.tasks.protocol import PlateSet, plate_sets
from morphoclip.evaluation.tasks.questions import NotScored, Question, ask
from morphoclip.evaluation.tasks.task import REPLICATE, Task
from morphoclip.experiment.score import Arm, Scoring

FEW, MORE = 500, 5_000  # draws of the two trials whose difference is the time of one draw
GROUPS = 8  # of a trial


def announcement(arms: Mapping[str, Arm], main: str, scoring: Scoring) -> list[str]:
    """Lines on wells, plates, sets, features and draws of the main arm; with `exact` p-values also the minutes of all.

    The minutes follow from the processor time of a few groups of the largest set with a few draws. p-values take two
    threads, and all else takes about as long as they do.
    """
    sets, _ = plate_sets(arms[main].table, scoring.protocol)
    halves = 2 if scoring.crossfit and any(arm.normalizer.uses_negcon for arm in arms.values()) else 1
    wells, plates = sum(len(one.table) for one in sets), sum(one.table[schema.PLATE].nunique() for one in sets)
    groups = sum(one.table.loc[schema.is_treated(one.table), schema.PERTURBATION].nunique() for one in sets)
    features = sorted({len(one.features) for one in sets})
    draws = Settings(scoring.p_convention, null_size=scoring.null_size).draws
    lines = [
        f"{wells:,} wells of {plates:,} plates in {len(sets)} sets, {groups:,} perturbations, "
        f"{'–'.join(f'{n:,}' for n in dict.fromkeys([features[0], features[-1]]))} features",
        f"{draws:,} draws for each p-value ({scoring.p_convention})"
        + (" in each half of the controls" if halves > 1 else ""),
    ]
    if scoring.p_convention == "exact" and (seconds := seconds_of_a_draw(sets, scoring)) is not None:
        minutes = seconds * groups * draws * halves * len(arms) / 60
        lines[-1] += f"; about {math.ceil(minutes)} min" if minutes > 1 / 6 else ""
    return lines


def seconds_of_a_draw(sets: list[PlateSet], scoring: Scoring) -> float | None:
    """Processor seconds of one draw of one group of the replicate task; None where no set can be asked."""
    task = next((one for one in scoring.tasks or () if isinstance(one, Task) and one.name == REPLICATE), None)
    if task is None:
        return None
    largest = max(sets, key=lambda one: len(one.table))
    try:
        question = ask(task, largest, scoring.protocol)
        names = question.meta.loc[question.queries, schema.PERTURBATION]
        several = names.value_counts()
        chosen = several[several > 1].index[:GROUPS]
        trial = replace(question, queries=question.queries & question.meta[schema.PERTURBATION].isin(chosen).to_numpy())
        once, again = (_seconds(trial, draws, scoring.seed) for draws in (FEW, MORE))
    except (NotScored, ValueError):  # scoring says what is wrong
        return None
    return max(again - once, 0.0) / (MORE - FEW) / max(len(chosen), 1)


def _seconds(question: Question, draws: int, seed: int) -> float:
    began = time.process_time()
    rows = question.average_precision()
    exchange_questions([question], rows.assign(_fold=0), draws, 0.05, seed)
    return time.process_time() - began
