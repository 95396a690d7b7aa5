"""Sweep of normalisation pipelines: signal against batch effect for every order of steps (Sanchez et al. 2026)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.measures.batch_effects import plate_map
from morphoclip.evaluation.ranking.average_precision import average_precision
from morphoclip.evaluation.ranking.similarity import unit_rows
from morphoclip.files import write_atomically

Step = Mapping[str, object]
Apply = Callable[[pd.DataFrame, Step], pd.DataFrame]
_HELD_OUT = "negcon_held_out"


def sweep(
    tables: Mapping[str, pd.DataFrame],
    steps: Mapping[str, Step],
    apply: Apply,
    *,
    depth: int = 3,
    signal_wells: str = "poscon",
    fold: Callable[[pd.DataFrame], np.ndarray] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Score every order of up to `depth` distinct steps on every table; common first steps are computed once.

    Signal is the replicate mAP of positive controls (of all treated wells if there are none); batch effect is the plate
    mAP of treated wells. Both are computed on two halves of the perturbations: pipelines are chosen on the first, the
    Pareto front is reported on the second. Steps are never fitted on the negative controls that are scored against.

    Args:
        tables: aggregation -> wells of one set of plates, e.g. {'mean': …, 'median': …}.
        steps: name -> step. apply: (table, step) -> table, with the step fitted on that table.
        signal_wells: prefix of the control type of the wells that carry the signal.
        fold: table -> 0 | 1 for negative controls, -1 elsewhere: fold 0 fits, fold 1 is scored. Default: every other
            negative control of a plate, by position.
        progress: called with 1 after each pipeline.

    Returns:
        pipeline, aggregation, steps, and signal, batch_effect on each half (chosen_*, reported_*), chance, on_front.
    """
    rows = []
    for aggregation, table in tables.items():
        fold_of = (fold or _alternate)(table)
        marked = table.assign(**{schema.CONTROL_TYPE: table[schema.CONTROL_TYPE].mask(fold_of == 1, _HELD_OUT)})
        for names, profiles in _pipelines(marked, steps, apply, depth, ()):
            scored = profiles[fold_of != 0].assign(
                **{schema.CONTROL_TYPE: table.loc[fold_of != 0, schema.CONTROL_TYPE]}
            )
            label = " > ".join(names) or "none"
            row = {"pipeline": f"{aggregation}: {label}", "aggregation": aggregation, "steps": len(names)}
            rows.append(row | signal_and_batch(scored, signal_wells))
            progress(1)
    result = pd.DataFrame(rows)
    front = pareto_front(result["chosen_signal"].to_numpy(), result["chosen_batch_effect"].to_numpy())
    return result.assign(on_front=front).sort_values("chosen_signal", ascending=False, kind="stable", ignore_index=True)


def count_pipelines(n_steps: int, depth: int) -> int:
    """Number of orders of up to `depth` of `n_steps` distinct steps, including the empty one."""
    total, product = 1, 1
    for i in range(min(depth, n_steps)):
        product *= n_steps - i
        total += product
    return total


def signal_and_batch(table: pd.DataFrame, signal_wells: str) -> dict[str, float]:
    """Replicate mAP of the signal wells and plate mAP of treated wells, on each half of the perturbations."""
    metadata, features = schema.split_columns(table)
    control = table[schema.CONTROL_TYPE].fillna("").astype(str)
    negcon = (control == schema.NEGCON).to_numpy()
    treated = ~negcon & (control != schema.EMPTY).to_numpy()
    signal = control.str.startswith(signal_wells).to_numpy()
    signal = signal if signal.any() else treated
    half = _halves(table[schema.PERTURBATION].astype(str), signal)
    meta = table[metadata].assign(_negcon=negcon)
    x = table[features].to_numpy()
    finite = np.isfinite(x).all(axis=1) & (np.abs(x).max(axis=1, initial=0) > 0)
    nothing = float("nan")
    if not finite.all():
        return dict.fromkeys(_COLUMNS, nothing)
    scored = average_precision(meta, x, [schema.PERTURBATION], [], [schema.PLATE], ["_negcon"], queries=signal)
    ap = scored["average_precision"].where(scored["n_total_pairs"] > scored["n_pos_pairs"]).to_numpy()
    scores = {}
    for name, side in (("chosen", 0), ("reported", 1)):
        here = signal & (half == side) & np.isfinite(ap)
        scores[f"{name}_signal"] = float(
            pd.Series(ap[here]).groupby(table[schema.PERTURBATION].to_numpy()[here]).mean().mean()
        )
        wells = treated & (half == side)
        scores[f"{name}_batch_effect"] = plate_map(
            unit_rows(x[wells]), table.loc[wells, schema.PLATE].astype(str).to_numpy()
        )
    return scores


def _halves(names: pd.Series, signal: np.ndarray) -> np.ndarray:
    """The half (0 or 1) of each row by its perturbation, alternating in the order of hashes; signal wells first.

    Raises:
        ValueError: fewer than two perturbations carry the signal.
    """
    carrying = set(names[signal])
    if len(carrying) < 2:
        raise ValueError(
            f"a sweep chooses pipelines on half of the perturbations and reports the other half, but only {len(carrying)} "
            "of them carry signal: it needs two positive controls or, without any, two treatments"
        )
    dealt = sorted(set(names), key=lambda name: (name not in carrying, hashlib.sha256(name.encode()).digest()))
    return names.map({name: turn % 2 for turn, name in enumerate(dealt)}).to_numpy()


_COLUMNS = ("chosen_signal", "chosen_batch_effect", "reported_signal", "reported_batch_effect")


def pareto_front(signal: np.ndarray, batch_effect: np.ndarray) -> np.ndarray:
    """bool (N,): no other point has at least as much signal and at most as much batch effect, one of them strictly."""
    front = np.zeros(len(signal), bool)
    lowest = np.inf
    for i in np.lexsort([batch_effect, -signal]):
        if np.isfinite(signal[i]) and batch_effect[i] < lowest:
            front[i], lowest = True, batch_effect[i]
    return front


def write_sweep_report(path: str | Path, table: pd.DataFrame, title: str) -> Path:
    """Write one offline page: signal against batch effect on the reported half, and the Pareto front as a table."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("morphoclip.evaluation.report", "."), autoescape=True, undefined=StrictUndefined
    )
    finite = table.dropna(subset=list(_COLUMNS))
    low, high = finite["reported_batch_effect"].min(), finite["reported_batch_effect"].max()
    span = max(high - low, 1e-9)
    points = [
        {
            "x": 60 + 820 * (r.reported_batch_effect - low) / span,
            "y": 380 - 350 * r.reported_signal,
            "front": r.on_front,
            "name": r.pipeline,
        }
        for r in finite.sort_values("on_front").itertuples()
    ]
    html = environment.get_template("sweep.html.j2").render(
        title=title,
        points=points,
        ticks=[{"x": 60 + 820 * i / 4, "text": f"{low + span * i / 4:.3f}"} for i in range(5)],
        front=finite[finite["on_front"]].to_dict("records"),
        count=len(table),
        failed=len(table) - len(finite),
    )
    with write_atomically(path) as partial:
        partial.write_text(html, encoding="utf-8")
    return Path(path)


def _pipelines(
    table: pd.DataFrame, steps: Mapping[str, Step], apply: Apply, depth: int, done: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Depth first, so that one table per level is held and common first steps are applied once."""
    yield done, table
    if len(done) < depth:
        for name in steps:
            if name not in done:
                yield from _pipelines(apply(table, steps[name]), steps, apply, depth, (*done, name))


def _alternate(table: pd.DataFrame) -> np.ndarray:
    negcon = schema.is_negcon(table)
    fold = np.full(len(table), -1)
    positions = sorted(set(table.loc[negcon, schema.WELL]))
    fold[negcon] = [positions.index(well) % 2 for well in table.loc[negcon, schema.WELL]]
    return fold
