"""Score profiles of any origin: the code behind `evaluate.py` and `morphoclip evaluate`."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from morphoclip.data.metadata.annotations import read_annotations
from morphoclip.data.splits.units import seen_perturbations
from morphoclip.evaluation import Protocol, ScoreCard
from morphoclip.evaluation.card.leaks import mark_leaks
from morphoclip.evaluation.card.published import beside_published
from morphoclip.evaluation.report.provenance import file_hashes
from morphoclip.evaluation.tasks.protocol import absent_pairs, absent_sets
from morphoclip.evaluation.tasks.tables import profile_paths
from morphoclip.experiment.other_tables import perturbations_of_training, seen_unit, takes_profiles, through_encoder
from morphoclip.experiment.pictures import neighbours
from morphoclip.experiment.pipelines import sweep_pipelines
from morphoclip.experiment.plain import as_dict
from morphoclip.experiment.report import Pictures, Published, arm_table, print_arms, report
from morphoclip.experiment.score import Arm, Scored, Scoring, score_arms
from morphoclip.experiment.score_run import score_run
from morphoclip.experiment.tables import annotated, as_arm, read_arm, read_tables

MAIN, BASELINE = "profiles", "baseline"
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
    arm = read_arm(config, protocol)
    given: dict[str, Arm] = {}
    notes: list[str] = []
    if takes_profiles(config):
        made, notes = through_encoder(arm.table, config)
        *others, (_, encoded) = made.items()
        arm, given = Arm(*encoded), {name: Arm(*parts) for name, parts in others}
    if config.get("sweep") is not None:
        return sweep_pipelines(arm.table, config.sweep, protocol, output, config.seed)
    print(f"writes metrics.csv, a csv per task and report.html to {output}")
    arms = {**given, MAIN: arm}
    if config.baseline is not None:
        arms = {BASELINE: as_arm(read_tables(config.baseline), config, protocol), **arms}
    scoring = Scoring.of(config, protocol)
    scored = score_arms(arms, scoring)
    card = marked(scored[MAIN].card, arm, config, protocol)
    card.notes[:0] = notes
    scored[MAIN] = Scored(card, scored[MAIN].wells)
    complete = note_absent_sets(card, arm, config, protocol)
    published = Published()
    if config.published or protocol.published:
        published = Published(beside_published(card, config.published, protocol, complete))
    inputs = [] if config.profiles is None else profile_paths(as_dict(config)["profiles"])
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
    training = annotated(read_tables(config.training), config.metadata, protocol)
    return mark_leaks(card, seen_perturbations(arm.table, training, config.seen_by), list(config.prompt_fields))


def note_absent_sets(card: ScoreCard, arm: Arm, config: DictConfig, protocol: Protocol) -> set[str]:
    """Add notes on sets that lack plates to the card; returns the complete sets."""
    if config.metadata is None:
        return set()
    annotations = read_annotations(config.metadata)
    missing = absent_sets(annotations, arm.table, protocol)
    card.notes += [
        f"{r.subset}: {r.plates_present} of {r.plates_expected} plates, {r.why}" for r in missing.itertuples()
    ]
    card.notes += absent_pairs(annotations, missing, protocol)
    return set(card.tables["replicate"]["subset"]) - set(missing["subset"])


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
