"""Linear probe of the mechanism of action."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.similarity import checked_features


def mechanism_probe(
    features: np.ndarray, mechanisms: Sequence[str], groups: Sequence[str], folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Accuracy and macro F1 of a logistic regression on mechanisms, cross-validated over `groups` (molecules).

    A molecule is never in training and test at once, whatever its doses. Mechanisms with fewer than `folds` molecules are
    left out.

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
        raise ValueError(f"fewer than two mechanisms have {folds} molecules: lower folds, or skip the task mechanism")
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
