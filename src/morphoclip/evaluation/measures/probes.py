"""Probes of frozen profiles by simple models: mechanism of action, and activity in assays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.similarity import checked_features

COUNT_BINS = (0, 50, 200, 1000, np.inf)


def mechanism_probe(
    features: np.ndarray, mechanisms: Sequence[str], groups: Sequence[str], folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Accuracy and macro F1 of a logistic regression on mechanisms, cross-validated over `groups` (compounds).

    A compound is never in training and test at once. Mechanisms with fewer than `folds` compounds are left out.

    Returns:
        accuracy, macro_f1, chance (share of the largest class), n_classes, n.

    Raises:
        ValueError: fewer than two mechanisms are left.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = pd.DataFrame({"mechanism": list(mechanisms), "group": list(groups)})
    sizes = table.drop_duplicates().groupby("mechanism")["group"].nunique()
    kept = (table["mechanism"].map(sizes) >= folds) & (table["mechanism"] != "")
    if table.loc[kept, "mechanism"].nunique() < 2:
        raise ValueError(f"fewer than two mechanisms have {folds} compounds: lower folds, or skip the task mechanism")
    x, y = checked_features(features)[kept.to_numpy()], table.loc[kept, "mechanism"].to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.1))
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    said = cross_val_predict(model, x, y, groups=table.loc[kept, "group"], cv=split)
    return {
        "accuracy": float(accuracy_score(y, said)),
        "macro_f1": float(f1_score(y, said, average="macro", zero_division=0)),
        "chance": float(pd.Series(y).value_counts(normalize=True).iloc[0]),
        "n_classes": float(len(set(y))),
        "n": float(len(y)),
    }


def bioactivity_probe(
    features: np.ndarray, assays: pd.DataFrame, fold: Sequence[int], *, hidden: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """AUROC and F1 per assay of a linear model (`hidden` None) or a three-layer network, over fixed splits.

    Args:
        features: (N, D), one profile per compound. assays: (N, A) of 1, 0, or NaN if not measured.
        fold: the test fold of each compound; the same for every method compared.
        hidden: width of the network's two hidden layers.

    Returns:
        assay, auroc, f1, n_labels, count_bin; assays without both classes in training and test are NaN.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, roc_auc_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, folds = checked_features(features), np.asarray(fold)
    rows = []
    for name in assays.columns:
        y = assays[name].to_numpy(float)
        known = np.isfinite(y)
        said = np.full(len(y), np.nan)
        for test in np.unique(folds):
            train, held = known & (folds != test), known & (folds == test)
            if held.any() and len(np.unique(y[train])) == 2:
                model = (
                    LogisticRegression(max_iter=2000, class_weight="balanced")
                    if hidden is None
                    else MLPClassifier((hidden, hidden), max_iter=300, random_state=seed)
                )
                said[held] = make_pipeline(StandardScaler(), model).fit(x[train], y[train]).predict_proba(x[held])[:, 1]
        scored = np.isfinite(said)
        both = len(np.unique(y[scored])) == 2
        auroc = float(roc_auc_score(y[scored], said[scored])) if both else np.nan
        f1 = float(f1_score(y[scored], said[scored] > 0.5, zero_division=0)) if both else np.nan
        rows.append((name, auroc, f1, int(known.sum())))
    table = pd.DataFrame(rows, columns=["assay", "auroc", "f1", "n_labels"])
    return table.assign(count_bin=pd.cut(table["n_labels"], COUNT_BINS).astype(str))
