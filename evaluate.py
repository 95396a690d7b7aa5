"""Score profiles: `uv run evaluate.py profiles='plates/*.csv.gz' metadata=folder/ protocol=cpjump1 [key=value …]`.

Scores an encoder folder or a checkpoint too, with `dataset=`. Writes metrics.csv, a csv a task and report.html to
`output_dir`. Every key is in configs/evaluate.yaml.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from morphoclip import configs_dir, profiling, schema
from morphoclip.data import ShardDataset
from morphoclip.data.metadata.annotations import annotate, read_annotations, with_canonical_ids
from morphoclip.evaluation import Protocol, ScoreCard, compare, score, write_report
from morphoclip.evaluation.card.alarms import shuffled_labels
from morphoclip.evaluation.card.published import beside_published
from morphoclip.evaluation.measures.batch_effects import batch_scores_by_step
from morphoclip.evaluation.measures.battery import BATTERY
from morphoclip.evaluation.report.heat_maps import consensus_heat_maps
from morphoclip.evaluation.report.nearest import Gallery, galleries, nearest_wells
from morphoclip.evaluation.report.provenance import environment, file_hashes
from morphoclip.evaluation.report.report import umap_coordinates
from morphoclip.evaluation.report.sweep import count_pipelines, sweep, write_sweep_report
from morphoclip.evaluation.tasks.leaks import mark_leaks, seen_perturbations
from morphoclip.evaluation.tasks.protocol import absent_pairs, absent_sets, plate_sets
from morphoclip.evaluation.tasks.tables import join_profiles, normalized_folds, profile_paths
from morphoclip.profiling.contact_sheet import well_pictures

EMBEDDING = "embedding_"


@hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="evaluate")
def main(config: DictConfig) -> None:
    run(config)


def run(config: DictConfig) -> Path:
    """Score what the config names, or sweep over pipelines; returns the path of the report."""
    for switch in ("strict", "crossfit", "umap", "trust_remote_code"):
        if not isinstance(config[switch], bool):
            raise ValueError(f"{switch}={config[switch]!r}: give true or false")
    output = Path(config.output_dir)
    protocol: Protocol = hydra.utils.instantiate(config.protocol)
    table = annotated(read(config), config.metadata, protocol)
    if config.get("sweep") is not None:
        return run_sweep(table, config, protocol, output)
    print(f"writes metrics.csv, a csv a task and report.html to {output}")
    card, folds = scored(table, config, protocol)
    if config.training is not None:
        training = annotated(read_tables(config.training), config.metadata, protocol)
        card = mark_leaks(card, seen_perturbations(table, training, config.seen_by), list(config.prompt_fields))
    cards, lines = {"profiles": card}, []
    complete: set[str] = set()
    if config.metadata is not None:
        annotations = read_annotations(config.metadata)
        missing = absent_sets(annotations, table, protocol)
        complete = set(card.tables["replicate"]["subset"]) - set(missing["subset"])
        card.notes += [
            f"{r.subset}: {r.plates_present} of {r.plates_expected} plates, {r.why}" for r in missing.itertuples()
        ]
        card.notes += absent_pairs(annotations, missing, protocol)
    published = None
    if config.published or protocol.published:
        published = beside_published(card, config.published, protocol, complete)
    if config.baseline is not None:
        baseline = annotated(read_tables(config.baseline), config.metadata, protocol)
        cards = {"baseline": scored(baseline, config, protocol)[0], **cards}
        lines = [f"{task}: {compare([card], [cards['baseline']], [task])}" for task in card.queries]
        card.notes += [f"profiles against baseline, {line}" for line in lines]
    card.write(output)
    normalizer = chosen_normalizer(config, table)
    steps = pd.DataFrame()
    if normalizer.steps:
        steps = batch_scores_by_step(table, protocol, normalizer.after_each_step, config.seed)
    if not steps.empty:
        steps.to_csv(output / "batch_effects_by_step.csv", index=False, float_format="%.10g")
    report = write_report(
        output / "report.html",
        cards,
        title=config.title or f"Scores by protocol {protocol.name}",
        umap=umap_coordinates(folds[0], config.seed) if config.umap else None,
        provenance=provenance(config),
        published=published,
        published_note="Only rows marked comparable were scored on the plates, known from metadata=, and with the p-values of the paper.",
        batch_steps=steps,
        extra=other_scores(card),
        galleries=pictured_neighbours(card, folds[0], config, protocol),
        heat_maps=consensus_heat_maps(folds[0], protocol),
    )
    print(card.metrics.to_string(index=False, float_format="{:.5f}".format, na_rep=""))
    for line in [*lines, *card.notes, *(f"ALARM {alarm}" for alarm in card.alarms)]:
        print(line)
    print(f"report: {report}")
    return report


def pictured_neighbours(card: ScoreCard, wells: pd.DataFrame, config: DictConfig, protocol: Protocol) -> list[Gallery]:
    """Nearest neighbours with images, where `dataset` is a folder that holds them."""
    if config.dataset is None:
        return []
    if not Path(config.dataset).is_dir():
        card.notes.append(
            f"no pictures of neighbours: {config.dataset} is not a dataset folder (make_shards writes one)"
        )
        return []
    dataset = ShardDataset(config.dataset)
    return galleries(
        wells, nearest_wells(wells, card.tables["replicate"], protocol), lambda rows: well_pictures(dataset, rows)
    )


def other_scores(card: ScoreCard) -> list[tuple[str, str, pd.DataFrame]]:
    """The scores of EVALUATION §4 as tables for the report."""
    columns = ["subset", "metric", "value", "chance", "n"]
    return [
        (name.replace("_", " ").capitalize(), (function.__doc__ or "").strip(), rows[columns])
        for name, function in BATTERY.items()
        if len(rows := card.metrics[card.metrics["task"] == name])
    ]


def run_sweep(table: pd.DataFrame, config: DictConfig, protocol: Protocol, output: Path) -> Path:
    """Score every order of the sweep's steps on the first set of plates; writes sweep.csv and sweep.html."""
    from tqdm import tqdm

    sets, notes = plate_sets(table, protocol)
    wells = sets[0].table
    by = [c for c in (schema.PLATE, schema.WELL) if c in wells]
    sites = wells.duplicated(by).any()
    tables = {how: profiling.aggregate(wells, by, how) for how in ("mean", "median")} if sites else {"wells": wells}
    steps = OmegaConf.to_object(config.sweep.steps)
    print(f"writes sweep.csv and sweep.html to {output}")
    output.mkdir(parents=True, exist_ok=True)
    with tqdm(total=count_pipelines(len(steps), config.sweep.depth) * len(tables), unit="pipeline") as bar:
        result = sweep(
            tables,
            steps,
            lambda part, step: profiling.Normalizer([step]).fit_transform(part),
            depth=config.sweep.depth,
            fold=lambda part: profiling.negcon_folds(part, config.seed),
            progress=bar.update,
        )
    result.to_csv(output / "sweep.csv", index=False, float_format="%.10g")
    report = write_sweep_report(output / "sweep.html", result, f"{len(result)} pipelines on {sets[0].name}")
    print("\n".join(notes))
    print(result[result["on_front"]].to_string(index=False, float_format="{:.4f}".format))
    print(f"report: {report}")
    return report


def read(config: DictConfig) -> pd.DataFrame:
    """The profiles the config names: read from disk, or embedded now."""
    sources = [key for key in ("profiles", "encoder", "checkpoint") if config[key] is not None]
    if len(sources) != 1:
        raise ValueError(f"give exactly one of profiles=, encoder= and checkpoint=; got {sources or 'none'}")
    if sources == ["profiles"]:
        table = read_tables(config.profiles)
    else:
        if config.dataset is None:
            raise ValueError(f"{sources[0]}= needs dataset=<dataset folder or load_data.csv> to embed")
        table = embedded(config[sources[0]], config.dataset, config.trust_remote_code)
    if config.aggregate is not None:
        by = [c for c in (schema.SOURCE, schema.BATCH, schema.PLATE, schema.WELL) if c in table]
        table = profiling.aggregate(table, by, config.aggregate)
    return table


def embedded(encoder: str, dataset: str, trust_remote_code: bool = False) -> pd.DataFrame:
    """Well profiles of a dataset folder, scaled as the encoder was trained, or of a load_data.csv."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = profiling.load_encoder(encoder, device=device, trust_remote_code=trust_remote_code)
    return profiling.embed(model, dataset, level="well", device=device)


def read_tables(patterns: str | Sequence[str]) -> pd.DataFrame:
    patterns = patterns if isinstance(patterns, str) else list(patterns)
    return join_profiles({str(path): profiling.read_profiles(path) for path in profile_paths(patterns)})


def annotated(table: pd.DataFrame, metadata: str | None, protocol: Protocol) -> pd.DataFrame:
    table = with_canonical_ids(table.rename(columns=dict(protocol.columns)))
    return table if metadata is None else annotate(table, metadata)


def scored(table: pd.DataFrame, config: DictConfig, protocol: Protocol) -> tuple[ScoreCard, list[pd.DataFrame]]:
    """Normalise within each set of plates, cross-fitting where controls are fitted on, and score."""
    normalizer = chosen_normalizer(config, table)

    def normalize(part: pd.DataFrame) -> list[pd.DataFrame]:
        if config.crossfit:
            return profiling.crossfit(normalizer, part, seed=config.seed)
        return [normalizer.fit_transform(part)]

    folds, notes = normalized_folds(table, protocol, normalize)
    keys = ("p_convention", "ties", "null_size", "seed", "strict")
    card = score(
        folds,
        tasks=config.tasks,
        protocol=protocol,
        relationships=config.relationships,
        **{key: config[key] for key in keys},
    )
    if normalizer.uses_negcon and not config.crossfit:
        card.alarms += crossfit_alarm(card, table, config, protocol, normalizer)
    card.notes[:0] = notes
    return card, folds


def crossfit_alarm(
    card: ScoreCard, table: pd.DataFrame, config: DictConfig, protocol: Protocol, normalizer: profiling.Normalizer
) -> list[str]:
    """Score shuffled labels once more, cross-fitted, and compare."""
    honest, _ = normalized_folds(table, protocol, lambda part: profiling.crossfit(normalizer, part, seed=config.seed))
    other = score(
        honest, tasks=["replicate"], protocol=protocol, p_convention="copairs", null_size=100, seed=config.seed
    )
    plain, crossfitted = (
        c.metrics[c.metrics["metric"] == "shuffled_labels"].query("task == 'replicate'") for c in (card, other)
    )
    alarm = shuffled_labels(*(t[column].mean() for column in ("value", "chance") for t in (plain, crossfitted)))
    return [] if alarm is None else [alarm]


def chosen_normalizer(config: DictConfig, table: pd.DataFrame) -> profiling.Normalizer:
    if config.get("normalize") is not None:  # the key is absent where no preset was chosen
        return hydra.utils.instantiate(config.normalize)
    encoder_made = all(feature.startswith(EMBEDDING) for feature in schema.split_columns(table)[1])
    preset = configs_dir() / "normalize" / ("center.yaml" if encoder_made else "none.yaml")
    return hydra.utils.instantiate(OmegaConf.load(preset))


def provenance(config: DictConfig) -> dict[str, str]:
    inputs = [] if config.profiles is None else profile_paths(OmegaConf.to_object(config).get("profiles"))
    return {
        "command": " ".join(["evaluate.py", *(a.replace("encoder_folder=", "encoder=") for a in sys.argv[1:])]),
        **environment(),
        **file_hashes(inputs),
        "configuration": OmegaConf.to_yaml(config, resolve=True),
    }


def as_keys(arguments: Sequence[str]) -> list[str]:
    """`encoder=` as Hydra's `encoder_folder=`: `encoder` names a group of configs, of which train.py chooses one."""
    return [f"encoder_folder{a.removeprefix('encoder')}" if a.startswith("encoder=") else a for a in arguments]


if __name__ == "__main__":
    sys.argv[1:] = as_keys(sys.argv[1:])
    main()
