"""Sets and pairs of sets that a protocol has and a table lacks."""

from __future__ import annotations

import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.tasks.protocol import EVERYTHING, PlateSet, Protocol, cross_pairs, selected


def absent_sets(annotations: pd.DataFrame, table: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Sets of the protocol that the table lacks wholly or in part: subset, plates expected, plates present, why."""
    wanted = annotations[selected(annotations, protocol)]
    present, set_by = set(table[schema.PLATE]), [c for c in protocol.set_by if c in annotations]
    rows = []
    for key, part in wanted.groupby(set_by, sort=True) if set_by else [((EVERYTHING,), wanted)]:
        plates = sorted(part[schema.PLATE].unique())
        missing = [plate for plate in plates if plate not in present]
        if missing:
            why = f"no profiles of {', '.join(missing)}"
            rows.append(("_".join(map(str, key)), len(plates), len(plates) - len(missing), why))
    table = pd.DataFrame(rows, columns=["subset", "plates_expected", "plates_present", "why"])
    return table.astype({"plates_expected": int, "plates_present": int})


def absent_pairs(annotations: pd.DataFrame, missing: pd.DataFrame, protocol: Protocol) -> list[str]:
    """A note for each compound x gene pair of sets that cannot be scored; `missing` is the result of `absent_sets`."""
    set_by = [c for c in protocol.set_by if c in annotations]
    keys = annotations.loc[selected(annotations, protocol), set_by].drop_duplicates()
    sets = [
        PlateSet("_".join(map(str, key)), dict(zip(set_by, map(str, key), strict=True)), pd.DataFrame(), [])
        for key in (keys.sort_values(set_by) if set_by else keys[:0]).itertuples(index=False, name=None)
    ]
    gone = set(missing.loc[missing["plates_present"] == 0, "subset"])
    notes = []
    for a, b in cross_pairs(sets, ("compound",), ("crispr", "orf")):
        lacking = [one.name for one in (a, b) if one.name in gone]
        if lacking:
            notes.append(f"pair {a.name}-{b.name}: not scored, {' and '.join(lacking)} absent")
    return notes
