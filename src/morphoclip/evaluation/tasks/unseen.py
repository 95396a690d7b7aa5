"""Unseen compounds on an unseen plate: who may train on what, and the score of what was left out (EVALUATION §3, Splits)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.ranking.average_precision import average_precision, expected_average_precision, ranked
from morphoclip.evaluation.ranking.intervals import LEVEL, cluster_interval

_TREATED, _HELD = "_treated", "_held"
SHUFFLED = ", shuffled labels"  # ends the name of such an arm
WELL = [schema.PLATE, schema.WELL]


@dataclass(frozen=True)
class Rotation:
    """One turn: a plate nobody trains on, and compounds nobody trains on.

    Attributes:
        plate: the plate left out.
        fold: which share of the compounds is left out.
        training: bool (N,), wells of other plates that hold other compounds; controls among them.
        queries: bool (N,), wells of the plate that hold left-out compounds.
    """

    plate: str
    fold: int
    training: np.ndarray
    queries: np.ndarray


def rotations(wells: pd.DataFrame, keys: pd.Series, folds: int, seed: int = 0) -> list[Rotation]:
    """Every plate with every share of its compounds; each treated well is a query exactly once.

    Which share a compound falls in follows from a hash of (seed, its split key), so forms of one structure stay together
    and neither the order of rows nor of plates matters.

    Args:
        wells: metadata, a row a well; wells that are not negative controls are treated, positive controls too.
        keys: what may not be on both sides, a string a row (`leaks.split_keys`, by structure).
        folds: shares of the compounds.

    Raises:
        ValueError: fewer than two plates or folds.
    """
    plates = sorted(wells[schema.PLATE].unique())
    if len(plates) < 2 or folds < 2:
        raise ValueError(
            f"{len(plates)} plates and {folds} folds: an unseen compound on an unseen plate needs 2 of each"
        )
    treated = is_treated(wells)
    share = keys.map({key: _share(seed, key, folds) for key in keys.unique()}).to_numpy()
    on_plate = {plate: (wells[schema.PLATE] == plate).to_numpy() for plate in plates}
    return [
        Rotation(
            plate, fold, ~on_plate[plate] & (~treated | (share != fold)), on_plate[plate] & treated & (share == fold)
        )
        for plate in plates
        for fold in range(folds)
    ]


def is_treated(wells: pd.DataFrame) -> np.ndarray:
    """bool (N,): wells that hold a perturbation and are no negative control."""
    control = wells[schema.CONTROL_TYPE].isin([schema.NEGCON, schema.EMPTY])
    return (~control & (wells[schema.PERTURBATION] != "")).to_numpy()


def _share(seed: int, key: str, folds: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{key}".encode()).digest()[:7], "big") % folds


def unseen_replicates(
    tables: Sequence[pd.DataFrame], wells: pd.DataFrame, rotation: Rotation, *, shuffle: int | None = None
) -> pd.DataFrame:
    """AP of each query: its compound's wells on other plates among the negative controls of its own plate.

    Args:
        tables: profiles of all wells by a model of this rotation, normalised; several where cross-fitting made several,
            each with its own half of the controls: their APs are averaged.
        wells: the metadata that `rotations` was given.
        shuffle: a seed permutes the compounds of each plate's treated wells first, a control: what then exceeds chance is
            how treated wells differ from controls, whatever they hold.

    Returns:
        A row a query: plate, well, perturbation, average_precision, chance.
    """
    asked = pd.MultiIndex.from_frame(wells.loc[rotation.queries, WELL])
    parts = []
    for table in tables:
        metadata, features = schema.split_columns(table)
        meta = table[metadata].reset_index(drop=True)
        meta[_TREATED] = is_treated(meta)
        meta[_HELD] = meta[schema.PERTURBATION]
        if shuffle is not None:
            meta[schema.PERTURBATION] = _shuffled(meta, shuffle)
        queries = pd.MultiIndex.from_frame(meta[WELL]).isin(asked)
        rules = [schema.PERTURBATION], [schema.PLATE], [schema.PLATE], [_TREATED]
        scored = average_precision(meta, table[features].to_numpy(np.float64), *rules, queries=queries)
        scored = ranked(scored[scored[_TREATED]])
        scored[schema.PERTURBATION] = scored[_HELD]
        scored["chance"] = expected_average_precision(scored["n_pos_pairs"], scored["n_total_pairs"])
        parts.append(scored[[*WELL, schema.PERTURBATION, "average_precision", "chance"]])
    return pd.concat(parts).groupby([*WELL, schema.PERTURBATION], as_index=False, sort=True).mean()


def _shuffled(meta: pd.DataFrame, seed: int) -> pd.Series:
    """Perturbations permuted among each plate's treated wells; the same wells get the same in any order of rows."""
    labels = meta[schema.PERTURBATION].copy()
    rng = np.random.default_rng(seed)
    for _, rows in meta[meta[_TREATED]].sort_values(WELL).groupby(schema.PLATE, sort=True):
        labels[rows.index] = rng.permutation(rows[schema.PERTURBATION].to_numpy())
    return labels


def unseen_table(arms: Mapping[str, Sequence[pd.DataFrame]], wells: pd.DataFrame, keys: pd.Series) -> pd.DataFrame:
    """Mean AP of each arm over compounds, with its interval and its paired difference from each other arm's.

    Args:
        arms: name -> for each seed the pooled rows of `unseen_replicates` over all rotations.
        wells, keys: as `rotations` was given; compounds that share a key are one cluster.

    Returns:
        Columns arm, mean_average_precision, ci_low, ci_high, chance, n_compounds, n_queries, n_seeds, and for each arm
        `minus <arm>`, `minus <arm> low` and `… high`: the mean paired difference over common compounds. Intervals are
        95 % by resampling clusters of compounds; a seed's scores are averaged first, `sd_seeds` is their spread. They are
        conditional on the plates.
    """
    cluster = dict(zip(wells[schema.PERTURBATION], keys, strict=True))

    def clusters(values: pd.Series) -> list[str]:
        return [cluster.get(name, name) for name in values.index]  # a control is a cluster by itself

    means = {
        arm: [rows.groupby(schema.PERTURBATION)["average_precision"].mean() for rows in seeds]
        for arm, seeds in arms.items()
    }
    scores = {arm: pd.concat(seeds, axis=1).mean(axis=1) for arm, seeds in means.items()}
    lines = []
    for arm, values in scores.items():
        low, high = cluster_interval(values.to_numpy(), clusters(values))
        line = {
            "arm": arm,
            "mean_average_precision": values.mean(),
            "ci_low": low,
            "ci_high": high,
            "chance": float(np.mean([rows["chance"].mean() for rows in arms[arm]])),
            "n_compounds": len(values),
            "n_queries": len(arms[arm][0]),
            "n_seeds": len(arms[arm]),
            "sd_seeds": float(np.std([m.mean() for m in means[arm]], ddof=1)) if len(means[arm]) > 1 else np.nan,
        }
        for other, theirs in scores.items():
            if other != arm:
                difference = (values - theirs).dropna()
                low, high = cluster_interval(difference.to_numpy(), clusters(difference))
                line |= {f"minus {other}": difference.mean(), f"minus {other} low": low, f"minus {other} high": high}
        lines.append(line)
    return pd.DataFrame(lines).assign(level=LEVEL)
