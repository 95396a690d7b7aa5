"""The features of another table in the order of an encoder's training features: matched by name, counted, said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from morphoclip.data.loading.features import different_names
from morphoclip.export.provenance import facts_of_training
from morphoclip.models import FeatureEncoder

MISSING = 0.1  # largest share of features (and of values) that the training mean may stand in for
FAR = 10.0  # training standard deviations, where the encoder does not clip
FEW, SPREAD = 0.05, 4.0  # a larger share of far values, or a larger ratio of spreads, is another scale


class Alignment:
    """Brings rows of given features into the encoder's order; call it with rows, then read `notes`.

    A feature that is missing, a value that is not finite, and a feature that was constant in training are the training
    mean, which the encoder standardises to zero. Features that it was not trained on are left out.

    Args:
        encoder: an encoder that records the names of its training features.
        given: names of the features of the rows.

    Raises:
        ValueError: more than a tenth of the encoder's features are missing.
    """

    def __init__(self, encoder: FeatureEncoder, given: Sequence[str]) -> None:
        names = feature_names(encoder)
        assert names is not None  # callers ask first
        place = {name: column for column, name in enumerate(given)}
        self.columns = np.array([place.get(name, -1) for name in names])
        self.missing = [name for name in names if name not in place]
        self.surplus = sorted(place.keys() - set(names))
        if len(self.missing) > MISSING * len(names):
            raise ValueError(
                f"{len(self.missing)} of the {len(names)} features that the encoder was trained on are not in the table "
                f"({different_names(names, given)}); at most {MISSING:.0%} may be missing: give a table of the same features, "
                "or train on the features that both tables have (morphoclip data import --features FILE)"
            )
        self.mean, self.deviation = encoder.mean[0].cpu().numpy(), encoder.std[0].cpu().numpy()
        self.constant = self.deviation < 1e-6
        self.clip = encoder.clip or FAR
        self.total = len(names)
        self.rows = self.filled = self.far = 0
        self._sums = np.zeros((2, self.total))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Rows (n, 1, D) float32 for the encoder, of given rows (n, number of given features)."""
        aligned = np.where(self.columns >= 0, values[:, self.columns], np.nan).astype(np.float32)
        unknown = ~np.isfinite(aligned)
        self.rows += len(aligned)
        self.filled += int(unknown[:, self.columns >= 0].sum())
        aligned = np.where(unknown | self.constant, self.mean, aligned)
        standard = (aligned - self.mean) / np.where(self.constant, 1, self.deviation)
        self.far += int((np.abs(standard) > self.clip).sum())
        self._sums += standard.sum(0, dtype=np.float64), np.square(standard, dtype=np.float64).sum(0)
        return aligned[:, None]

    @property
    def notes(self) -> list[str]:
        """What was matched, filled and left out, and whether the rows are on the scale of the training table.

        Raises:
            ValueError: more than a tenth of the values are not finite.
        """
        said = [f"{self.total - len(self.missing)} of the encoder's {self.total} features found by name"]
        if self.missing:
            said.append(f"{len(self.missing)} missing, the training mean stands for them: {_some(self.missing)}")
        if self.surplus:
            said.append(f"{len(self.surplus)} surplus, left out: {_some(self.surplus)}")
        if self.constant.any():
            said.append(f"{int(self.constant.sum())} features were constant in training and have no effect")
        size = max(1, self.rows * self.total)
        if self.filled > MISSING * size:
            raise ValueError(
                f"{self.filled} of {size} values of the table are not finite; at most {MISSING:.0%} may be: impute them or "
                "leave out the wells or features that lack them"
            )
        if self.filled:
            said.append(f"{self.filled} values are not finite, the training mean stands for them")
        return [*said, *self._scale(size)]

    def _scale(self, size: int) -> list[str]:
        known = (self.columns >= 0) & ~self.constant
        mean, square = self._sums[:, known] / max(1, self.rows)
        ratio = float(np.median(np.sqrt(np.maximum(square - mean**2, 0)))) if known.any() else 1.0
        share = self.far / size
        text = f"spread of a feature: {ratio:.2g} of that in training (median); {share:.1%} of values beyond {self.clip:g} deviations"
        if self.rows > 1 and (share > FEW or not 1 / SPREAD < ratio < SPREAD):
            text = f"ALARM {text}: the table is on another scale; normalise it as the training table was"
        return [text]


def feature_names(encoder: FeatureEncoder) -> list[str] | None:
    """Names of the features that an encoder of profile tables was trained on; None if it was trained on others."""
    return (facts_of_training(encoder).get("features") or {}).get("names")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
