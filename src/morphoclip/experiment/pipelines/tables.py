"""The tables of a sweep: each encoder's wells, set by set, on the wells that all encoders have."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation import Protocol
from morphoclip.evaluation.tasks.protocol import PlateSet, plate_sets
from morphoclip.profiling import aggregate, negcon_folds
from morphoclip.profiling.cross_fitting import HELD_OUT

WELLS = "wells"  # aggregation of a table that has one row per well
SITES = ("mean", "median")
FIT, SCORED = 0, 1  # folds of negative controls
_KEPT = (*schema.WELL_KEY, schema.PERTURBATION, schema.CONTROL_TYPE)


@dataclass(frozen=True)
class WellSet:
    """Wells of one set of plates as one encoder sees them.

    Attributes:
        encoder, aggregation, subset: what they are profiles of: names of the table, of sites to wells, of the set.
        metadata: wells (N,), with the negative controls that are scored against marked as held out from fits.
        x: features (N, D). names: their names (D,).
        fold: FIT or SCORED for negative controls, -1 for others, (N,); without cross-fitting -1 for all.
        negcon: bool (N,). signal: bool (N,), wells whose replicates are scored.
        half: 0 (chosen on) or 1 (reported) for the perturbation of each treated well, (N,).
    """

    encoder: str
    aggregation: str
    subset: str
    metadata: pd.DataFrame
    x: np.ndarray
    names: list[str]
    fold: np.ndarray
    negcon: np.ndarray
    signal: np.ndarray
    half: np.ndarray

    @property
    def key(self) -> tuple[str, str, str]:
        return self.encoder, self.aggregation, self.subset

    def sha256(self) -> str:
        """Hash of everything that scores depend on."""
        digest = hashlib.sha256(self.metadata.to_csv(index=False).encode())
        digest.update("\n".join(self.names).encode())
        for array in (self.x, self.fold, self.signal, self.half):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def well_sets(
    tables: Mapping[str, pd.DataFrame],
    protocol: Protocol,
    *,
    seed: int = 0,
    crossfit: bool = True,
    signal_wells: str = "poscon",
) -> tuple[list[WellSet], list[str]]:
    """The sets of every encoder and aggregation, and notes on what was left out.

    Sites are aggregated to wells by mean and by median. Wells that an encoder lacks are left out for all, so that all
    pipelines are scored on the same wells.

    Args:
        tables: encoder -> annotated table, a row per well or site.
        seed: seed of the halves of the negative controls: steps are fitted on one, and the other is scored against.
        crossfit: False: steps are fitted on the controls that are scored against.
        signal_wells: prefix of the control type of the wells that carry signal; without any, all treated wells.

    Raises:
        ValueError: no set has two plates, encoders share no well, or as in `plate_sets` and `negcon_folds`.
    """
    wells = {(name, how): table for name, given in tables.items() for how, table in _by_well(given, protocol).items()}
    wells, notes = _on_common_wells(wells)
    found: dict[tuple[str, str], dict[str, PlateSet]] = {}
    for key, table in wells.items():
        of_table, left_out = plate_sets(table, protocol)
        found[key] = {plate_set.name: plate_set for plate_set in of_table}
        notes += [note if len(wells) == 1 else f"{' '.join(key)}: {note}" for note in left_out]
    first = next(iter(found.values()))
    names = [name for name in first if all(name in sets for sets in found.values())]
    if odd := sorted({name for sets in found.values() for name in sets} - set(names)):
        notes.append(f"sets {odd} are left out: not every encoder has them")
    single = [name for name in names if first[name].table[schema.PLATE].nunique() < 2]
    if single:
        notes.append(f"sets {single} have one plate, so no plate effect, and are left out")
    names = [name for name in names if name not in single]
    if not names:
        raise ValueError(
            "no set has two plates: a sweep weighs replicates against plate effects, so give at least two plates of a set"
        )
    halves = deal_halves([_carriers(first[name].table, signal_wells) for name in names])
    result = []
    for name in names:
        prefix, note = _signal_of(name, first[name].table, signal_wells, halves)
        notes += note
        for key, sets in found.items():
            _refuse_other_labels(name, key[0], first[name].table, sets[name].table)
            result.append(_well_set(key, sets[name], prefix, halves, seed, crossfit))
    order = list(found)
    result.sort(key=lambda one: order.index((one.encoder, one.aggregation)))  # stable: sets stay in their order
    return result, notes


def deal_halves(sets: Sequence[tuple[pd.Series, np.ndarray]]) -> dict[str, int]:
    """Perturbation -> half, the same in all sets; halves of a set have nearly equally many perturbations that carry signal.

    Perturbations are dealt in the order of their hashes, those that carry signal in most sets first, each to the half that
    has fewer in its sets, of those that carry signal and then of all.

    Args:
        sets: names of the perturbations of a set's wells, and bool (N,) which wells carry signal.
    """
    members = [set(names) for names, _ in sets]
    carrying = [set(names[signal]) for names, signal in sets]
    lean = np.zeros((2, len(sets)), np.int64)  # of carriers and of all: number in half 0 less that in half 1

    def turn(name: str) -> tuple[int, bytes]:
        return -sum(name in names for names in carrying), hashlib.sha256(name.encode()).digest()

    halves: dict[str, int] = {}
    for name in sorted(set().union(*members), key=turn):
        where = np.array([[name in names for names in groups] for groups in (carrying, members)])
        halves[name] = int(tuple((lean * where).sum(axis=1)) > (0, 0))
        lean += where * (1 - 2 * halves[name])
    return halves


def _by_well(table: pd.DataFrame, protocol: Protocol) -> dict[str, pd.DataFrame]:
    """Aggregation of sites -> a table with one row per well."""
    table = table.rename(columns=dict(protocol.columns))
    by = [column for column in schema.WELL_KEY if column in table]
    if not table.duplicated(by).any():
        return {WELLS: table}
    return {how: aggregate(table, by, how) for how in SITES}


def _on_common_wells(
    wells: Mapping[tuple[str, str], pd.DataFrame],
) -> tuple[dict[tuple[str, str], pd.DataFrame], list[str]]:
    """The rows of wells that all tables have, in the same order, and a note for each table that has others."""
    keys = {
        key: pd.MultiIndex.from_frame(table[[schema.PLATE, schema.WELL]].astype(str)) for key, table in wells.items()
    }
    common = next(iter(keys.values()))
    for index in keys.values():
        common = common[common.isin(index)]
    if common.empty:
        raise ValueError(
            f"the tables of {sorted({name for name, _ in wells})} share no plate and well: check their names"
        )
    kept, notes = {}, []
    for key, table in wells.items():
        here = keys[key].isin(common)
        if not here.all():
            plate, well = keys[key][~here][0]
            notes.append(
                f"{key[0]}: {int((~here).sum())} of {len(here)} wells are left out, since another encoder lacks them, "
                f"e.g. {plate} {well}"
            )
        ordered = table[here].assign(_key=keys[key][here]).sort_values("_key", kind="stable")
        kept[key] = ordered.drop(columns="_key").reset_index(drop=True) if len(wells) > 1 else table
    return kept, list(dict.fromkeys(notes))


def _carriers(table: pd.DataFrame, signal_wells: str) -> tuple[pd.Series, np.ndarray]:
    """Perturbation of each well, and bool (N,), whether its control type starts so and its perturbation has other wells."""
    control = table[schema.CONTROL_TYPE].fillna("").astype(str)
    perturbation = table[schema.PERTURBATION].astype(str)
    signal = control.str.startswith(signal_wells) & perturbation.duplicated(keep=False)
    return perturbation, signal.to_numpy(bool)


def _signal_of(name: str, table: pd.DataFrame, signal_wells: str, halves: Mapping[str, int]) -> tuple[str, list[str]]:
    """Prefix of the control type of a set's signal wells: `signal_wells` if both halves have some, or else '', with a note."""
    perturbation, signal = _carriers(table, signal_wells)
    half = perturbation.map(halves).to_numpy()
    if len(set(half[signal])) == 2:
        return signal_wells, []
    if len(set(half[_carriers(table, "")[1] & ~schema.is_negcon(table)])) < 2:
        raise ValueError(
            f"set {name}: a sweep chooses pipelines on half of the perturbations and reports the other half, so it needs "
            "two positive controls or, without any, two treatments, each in several wells"
        )
    number = perturbation[signal].nunique()
    return "", [f"{name}: the signal is that of all treated wells ({number} positive controls have replicates)"]


def _refuse_other_labels(subset: str, encoder: str, first: pd.DataFrame, table: pd.DataFrame) -> None:
    columns = [schema.PLATE, schema.WELL, schema.PERTURBATION, schema.CONTROL_TYPE]
    a, b = (part[columns].astype(str).reset_index(drop=True) for part in (first, table))
    if not a.equals(b):
        raise ValueError(
            f"set {subset}: the table of {encoder} has other perturbations or controls in its wells than the first encoder's: "
            "annotate both alike, e.g. with metadata="
        )


def _well_set(
    key: tuple[str, str], plate_set: PlateSet, signal_wells: str, halves: Mapping[str, int], seed: int, crossfit: bool
) -> WellSet:
    table = plate_set.table.reset_index(drop=True)
    negcon = schema.is_negcon(table)
    fold = negcon_folds(table, seed) if crossfit else np.full(len(table), -1)
    control = table[schema.CONTROL_TYPE].astype(object).mask(fold == SCORED, HELD_OUT)
    metadata = table[[c for c in _KEPT if c in table]].assign(**{schema.CONTROL_TYPE: control})
    perturbation, signal = _carriers(table, signal_wells)
    half = perturbation.map(halves).to_numpy(np.int64)
    x = np.ascontiguousarray(plate_set.values())
    x = x if x.dtype == np.float32 else x.astype(np.float64)
    return WellSet(*key, plate_set.name, metadata, x, list(plate_set.features), fold, negcon, signal & ~negcon, half)


def described(sets: Sequence[WellSet]) -> str:
    """Names and sizes of the sets of each encoder, a line each."""
    return "\n".join(
        f"  {one.encoder} {one.aggregation}, {one.subset}: {len(one.x):,} wells on "
        f"{one.metadata[schema.PLATE].nunique()} plates × {len(one.names):,} features"
        for one in sets
    )
