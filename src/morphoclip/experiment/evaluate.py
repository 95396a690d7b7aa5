"""Score profiles of any origin: the code behind `evaluate.py` and `morphoclip evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hydra
from omegaconf import DictConfig

from morphoclip.data.metadata.annotations import read_annotations
from morphoclip.data.splits.units import seen_perturbations
from morphoclip.evaluation import Protocol, ScoreCard
from morphoclip.evaluation.card.leaks import mark_leaks
from morphoclip.evaluation.card.published import beside_published
from morphoclip.evaluation.report.provenance import file_hashes
from morphoclip.evaluation.tasks.completeness import absent_pairs, absent_sets
from morphoclip.experiment.announcement import announcement
from morphoclip.experiment.other_tables import perturbations_of_training, seen_unit, takes_profiles
from morphoclip.experiment.pictures import neighbours
from morphoclip.experiment.pipelines.sweep import sweep_pipelines
from morphoclip.experiment.plain import as_dict
from morphoclip.experiment.random_baseline import KINDS, random_arm
from morphoclip.experiment.report import Pictures, Published, arm_table, print_arms, report
from morphoclip.experiment.score import Arm, Scored, Scoring, on_common_wells, score_arms
from morphoclip.experiment.score_run import score_run
from morphoclip.experiment.tables import read_arms, read_baseline, read_training
from morphoclip.profiling.reading.metadata_files import has_annotations_folder
from morphoclip.profiling.reading.tables import paths_of

MAIN, BASELINE = "profiles", "baseline"
ANY_NUMBERS = "Numbers that the named sources publish, beside ours; checked: computed by us on the same data."
SWITCHES = ("strict", "crossfit", "umap", "trust_remote_code")


def run(config: DictConfig) -> Path:
    """Score the profiles named by `config` (configs/evaluate.yaml, composed), or sweep over pipelines.

    Returns:
        The path of the report.
    """
    if config.run is not None:
        return score_run(config.run)
    for switch in SWITCHES:
        if not isinstance(config[switch], bool):
            raise ValueError(f"{switch}={config[switch]!r}: give true or false")
    output = Path(config.output_dir)
    protocol: Protocol = hydra.utils.instantiate(config.protocol)
    if config.batch_columns is not None:
        protocol = replace(protocol, batch_columns=list(config.batch_columns))
    if config.get("sweep") is not None:
        return sweep_pipelines(config, protocol, output)
    arm, beside = read_arms(config, protocol)
    print(f"writes metrics.csv, a csv per task and report.html to {output}")
    arms = {**beside, MAIN: arm}
    notes: list[str] = []
    if config.baseline is not None:
        arms, notes = on_common_wells({BASELINE: baseline_arm(arm, config, protocol), **arms})
        arm = arms[MAIN]
    scoring = Scoring.of(config, protocol)
    print("\n".join(announcement(arms, MAIN, scoring)), flush=True)
    scored = score_arms(arms, scoring)
    card = marked(scored[MAIN].card, arm, config, protocol)
    card.notes += notes
    scored[MAIN] = Scored(card, scored[MAIN].wells)
    complete = note_absent_sets(card, arm, config, protocol)
    published = Published()
    if config.published or protocol.published:
        table = beside_published(card, config.published, protocol, complete)
        published = Published(table, ANY_NUMBERS) if "checked" in table else Published(table)
    inputs = [] if config.profiles is None else paths_of(as_dict(config)["profiles"])
    path = report(
        output,
        scored,
        main=MAIN,
        arms=arms,
        scoring=scoring,
        title=config.title or f"Scores by protocol {protocol.name}",
        pictures=pictures(scored[MAIN], config, protocol),
        published=published,
        umap=config.umap,
        inputs=file_hashes(inputs),
        configuration=config,
    )
    if takes_profiles(config):
        print_arms(arm_table(scored, MAIN), MAIN)
    print(card.metrics.to_string(index=False, float_format="{:.5f}".format, na_rep=""))
    for line in [*card.notes, *(f"ALARM {alarm}" for alarm in card.alarms)]:
        print(line)
    print(f"report: {path}")
    return path


def baseline_arm(arm: Arm, config: DictConfig, protocol: Protocol) -> Arm:
    """The arm that `config.baseline` names: a table of the same wells, or profiles without information."""
    if config.baseline in KINDS:
        return random_arm(arm, config.baseline, config.seed)
    return read_baseline(config, protocol)


def marked(card: ScoreCard, arm: Arm, config: DictConfig, protocol: Protocol) -> ScoreCard:
    """The card with separate scores of seen and unseen wells, as defined by `config.seen_by`.

    Seen are the wells in `config.training`; without it, those of perturbations that an encoder of profile tables records.
    """
    if config.training is None:
        training, fields = perturbations_of_training(config) if takes_profiles(config) else (None, [])
        if training is None:
            return card
        seen = seen_perturbations(arm.table, training, seen_unit(arm.table, config.seen_by))
        return mark_leaks(card, seen, list(config.prompt_fields) or fields)
    training = read_training(config, protocol)
    return mark_leaks(card, seen_perturbations(arm.table, training, config.seen_by), list(config.prompt_fields))


def note_absent_sets(card: ScoreCard, arm: Arm, config: DictConfig, protocol: Protocol) -> set[str]:
    """Add notes on sets that lack plates to the card; returns the complete sets."""
    if not has_annotations_folder(config.metadata):
        return set()
    annotations = read_annotations(config.metadata)
    missing = absent_sets(annotations, arm.table, protocol)
    card.notes += [
        f"{r.subset}: {r.plates_present} of {r.plates_expected} plates, {r.why}" for r in missing.itertuples()
    ]
    card.notes += absent_pairs(annotations, missing, protocol)
    return set(card.metrics["subset"]) - set(missing["subset"])


def pictures(scored: Scored, config: DictConfig, protocol: Protocol) -> Pictures:
    """Nearest neighbours with images, if `dataset` is a dataset folder."""
    from morphoclip.data import ShardDataset

    if config.dataset is None:
        return Pictures()
    if not Path(config.dataset).is_dir():
        why = (
            f"no pictures of neighbours: {config.dataset} is not a dataset folder (`morphoclip data prepare` makes one)"
        )
        return Pictures(notes=[why])
    return Pictures(galleries=neighbours(scored.card, scored.wells, ShardDataset(config.dataset), protocol))
