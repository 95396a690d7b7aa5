"""Bioactivity: can the outcomes of assays be predicted from profiles of compounds?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import chemistry, schema
from morphoclip.evaluation.measures import assay_network, logistic
from morphoclip.evaluation.measures.assays import Assays, match, read_assays
from morphoclip.evaluation.measures.mean_profiles import mean_profiles, perturbs_genes
from morphoclip.evaluation.measures.row import NOTHING, Detail, Note, Row
from morphoclip.evaluation.ranking.intervals import cluster_interval
from morphoclip.evaluation.ranking.similarity import checked_features
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol
from morphoclip.progress import progress_bar

LABEL_BINS = (0, 50, 100, 500, 1000, 3000, np.inf)
BIN_NAMES = ("below_50", "50_to_100", "100_to_500", "500_to_1000", "1000_to_3000", "from_3000")
ABOVE = (0.9, 0.8, 0.7)
MODELS = ("linear", "network")
_MOLECULE = "Metadata__molecule"

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def bioactivity(
    sets: Sequence[PlateSet],
    protocol: Protocol,
    *,
    seed: int = 0,
    assays: str | Path | None = None,
    model: str = "linear",
    splits: int = 3,
    hidden: int = 512,
    epochs: int = 60,
    **_: object,
) -> Iterator[Row | Detail | Note]:
    """Outcomes of assays predicted from profiles of compounds: AUROC and F1 per assay as means of splits, the number of
    assays above .9, .8 and .7, and means by number of labels; beside them structure alone and cell count alone.

    A molecule (`chemistry.molecules`) has one profile, the mean over its wells of all ids and doses, and is never in
    training and test at once; the splits depend on the molecules and the seed only. An assay is scored in the splits that
    have both classes in training and test. The bins are those of Kim et al. 2025. Structure alone: logistic regression on
    Morgan fingerprints (radius 2, 2048 bits). Cell count alone: on the logarithm of the count. Many assays measure
    toxicity, which counting cells predicts (Seal et al. 2026): compare with it, not with .5.

    Args:
        assays: folder or table (`assays.read_assays`). model: linear (logistic regression) | network (three hidden layers
            of `hidden` units, `epochs` epochs, all assays at once).
        splits: parts of the molecules, each the test set once; 3 as in Hofmarcher et al. 2019.
    """
    if assays is None:
        raise ValueError(
            "task bioactivity needs assays=<folder or table of outcomes>: docs/evaluation.md has the layouts"
        )
    if model not in MODELS:
        raise ValueError(f"bioactivity model={model!r}: choose among {list(MODELS)}")
    predict: Predict = logistic.predict_assays
    if model == "network":
        predict = partial(assay_network.predict_assays, hidden=hidden, epochs=epochs, seed=seed)
    measured, matched = read_assays(assays), 0
    compounds = [plate_set for plate_set in sets if not perturbs_genes(plate_set)]
    for plate_set in compounds:
        outcomes, molecule = match(measured, plate_set.table)
        profiled = replace(plate_set, table=plate_set.table.assign(**{_MOLECULE: molecule}))
        profiles = mean_profiles(profiled, _MOLECULE)
        own = set(outcomes["molecule"])
        yield Note(
            f"bioactivity, {plate_set.name}: {len(own)} of {len(profiles.table)} molecules have outcomes, in "
            f"{outcomes['assay'].nunique()} of {len(measured.names)} assays"
        )
        table = profiles.table[profiles.table[_MOLECULE].isin(own)].reset_index(drop=True)
        if len(table) < 2 * splits:
            continue
        matched += 1
        labels = outcomes.pivot(index="molecule", columns="assay", values="active").reindex(table[_MOLECULE])
        fold = np.random.default_rng([seed, len(table)]).permutation(len(table)) % splits
        arms, notes = _arms(profiles, table, measured, molecule, predict)
        yield from (Note(f"bioactivity, {plate_set.name}: {note}") for note in notes)
        yield from _scored(plate_set.name, arms, labels, fold, measured.names)
    if not matched:
        example = measured.compounds.iloc[0].to_dict()
        raise ValueError(
            f"task bioactivity: too few compounds of the profiles are in assays={assays}, which knows e.g. {example}; "
            f"compounds are matched by {[schema.PERTURBATION, *chemistry.IDENTITY]}: annotate the table with metadata="
            if compounds
            else "task bioactivity: there is no set of compound plates"
        )


def probe(
    x: np.ndarray, outcomes: np.ndarray, fold: np.ndarray, predict: Predict = logistic.predict_assays
) -> pd.DataFrame:
    """AUROC and F1 of each assay, averaged over the splits that can be scored.

    Args:
        x: (N, D), a row per molecule. outcomes: (N, A), 1, 0 or NaN. fold: (N,), the split whose test set a row is in.

    Returns:
        auroc, f1 (at probability .5), n_splits; A rows.
    """
    from sklearn.metrics import f1_score, roc_auc_score

    scores = np.full((2, len(np.unique(fold)), outcomes.shape[1]), np.nan)
    for i, test in enumerate(np.unique(fold)):
        held = fold == test
        said = predict(x[~held], outcomes[~held], x[held])
        for assay in range(outcomes.shape[1]):
            y = outcomes[held, assay]
            known = np.isfinite(y)
            train = outcomes[~held, assay]
            if len(np.unique(y[known])) == 2 and len(np.unique(train[np.isfinite(train)])) == 2:
                p = said[known, assay]
                scores[:, i, assay] = roc_auc_score(y[known], p), f1_score(y[known], p > 0.5, zero_division=0)
    counted = np.isfinite(scores[0]).sum(axis=0)
    means = np.divide(np.nansum(scores, axis=1), counted, out=np.full(scores[:, 0].shape, np.nan), where=counted > 0)
    return pd.DataFrame({"auroc": means[0], "f1": means[1], "n_splits": counted})


def standardized(predict: Predict) -> Predict:
    """`predict` on features with the mean and standard deviation of the training rows removed."""

    def run(train: np.ndarray, outcomes: np.ndarray, test: np.ndarray) -> np.ndarray:
        mean, std = train.mean(axis=0), train.std(axis=0)
        std = np.where(std > 0, std, 1.0)
        return predict((train - mean) / std, outcomes, (test - mean) / std)

    return run


def _arms(
    profiles: PlateSet, table: pd.DataFrame, assays: Assays, molecule: np.ndarray, predict: Predict
) -> tuple[dict[str, tuple[np.ndarray, Predict]], list[str]]:
    """(prefix of metrics -> features and how they predict; notes on what is not available)."""
    x = checked_features(table[profiles.features].to_numpy()).astype(np.float64)
    arms, notes = {"": (x, standardized(predict))}, []
    smiles = table[schema.SMILES].fillna("") if schema.SMILES in table else pd.Series("", index=table.index)
    bits = [chemistry.fingerprint(str(text), radius=2) for text in smiles]
    lacking = sum(b is None for b in bits)
    if lacking < len(bits):
        known = np.stack([np.zeros(2048) if b is None else b.astype(float) for b in bits])
        arms["structure_alone_"] = (known, logistic.predict_assays)
    if lacking:
        what = (
            "is not available: the table has no SMILES"
            if lacking == len(bits)
            else f"has no SMILES of {lacking} molecules"
        )
        notes.append(f"structure alone {what}")
    counts = pd.to_numeric(table[schema.CELL_COUNT], errors="coerce") if schema.CELL_COUNT in table else None
    if counts is not None and counts.notna().all() and (counts >= 0).all():
        arms["cell_count_alone_"] = (np.log1p(counts.to_numpy(float))[:, None], standardized(logistic.predict_assays))
    else:
        notes.append(f"cell count alone is not available: the table has no complete {schema.CELL_COUNT}")
    return arms, notes


def _scored(
    subset: str, arms: dict[str, tuple[np.ndarray, Predict]], labels: pd.DataFrame, fold: np.ndarray, names: list[str]
) -> Iterator[Row | Detail | Note]:
    outcomes = labels.to_numpy(float)
    counts = np.isfinite(outcomes).sum(axis=0)
    bins = pd.cut(counts, LABEL_BINS, right=False, labels=BIN_NAMES).astype(str)
    table = pd.DataFrame({"subset": subset, "assay": [names[i] for i in labels.columns], "n_labels": counts})
    table = table.assign(n_active=np.nansum(outcomes, axis=0).astype(int), labels_bin=bins)
    with progress_bar(total=len(arms), unit="arm", desc=f"bioactivity, {subset}") as bar:
        for prefix, (x, predict) in arms.items():
            found = probe(x, outcomes, fold, predict)
            table[[f"{prefix}auroc", f"{prefix}f1"]] = found[["auroc", "f1"]]
            table["n_splits"] = found["n_splits"]
            bar.update()
    scored = table[table["n_splits"] > 0]
    if len(scored) < len(table):
        example = table.loc[table["n_splits"] == 0, "assay"].iloc[0]
        yield Note(
            f"bioactivity, {subset}: {len(table) - len(scored)} of {len(table)} assays, e.g. {example}, have no split with "
            "both classes in training and test and are not scored"
        )
    if not scored.empty:
        for prefix in arms:
            yield from _summary(subset, prefix, scored)
    yield Detail(table)


def _summary(subset: str, prefix: str, scored: pd.DataFrame) -> Iterator[Row]:
    auroc, n = scored[f"{prefix}auroc"].to_numpy(), len(scored)
    low, high = cluster_interval(auroc, scored["assay"])
    yield Row(subset, f"{prefix}auroc", float(auroc.mean()), n, 0.5, low, high)
    yield Row(subset, f"{prefix}f1", float(scored[f"{prefix}f1"].mean()), n, NOTHING)
    for bar in ABOVE:
        yield Row(subset, f"{prefix}assays_with_auroc_above_{bar}", float((auroc > bar).sum()), n, NOTHING)
    for name in BIN_NAMES:
        part = scored[scored["labels_bin"] == name]
        if len(part):
            yield Row(subset, f"{prefix}auroc_labels_{name}", float(part[f"{prefix}auroc"].mean()), len(part), 0.5)
