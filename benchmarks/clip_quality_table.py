"""The tables that `benchmarks.clip_quality` prints: scores of each recipe with intervals, and paired differences."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks import unseen_retrieval
from morphoclip import schema
from morphoclip.evaluation import compare
from morphoclip.evaluation.ranking.intervals import cluster_interval
from morphoclip.experiment.report import shown_row

TASKS = ("sister", "compound_gene")
KEYS = tuple(f"R@{k}" for k in unseen_retrieval.KS)


def pooled(runs: list[dict], name: str) -> pd.DataFrame:
    """Hits of each query, averaged over seeds."""
    return pd.concat([r["hits"][name] for r in runs]).groupby([schema.PERTURBATION, schema.GENE], as_index=False).mean()


def row(name: str, runs: list[dict]) -> dict:
    """A line of the table: means over seeds; intervals resample genes."""
    line = {"row": name, "seeds": len(runs)}
    for task in TASKS:
        line[task] = float(np.mean([shown_row(r["card"], task)["value"] for r in runs]))
    structure = pooled(runs, "nearest structure")
    line["structure R@10"] = structure["R@10"].mean()
    if "towers" in runs[0]["hits"]:
        towers, less, position = (pooled(runs, key) for key in ("towers", "less DMSO", "position"))
        line |= {key: towers[key].mean() for key in KEYS} | {"candidates": int(towers["candidates"].iloc[0])}
        line["ci_low"], line["ci_high"] = cluster_interval(towers["R@10"].to_numpy(), towers[schema.GENE])
        line |= {"less DMSO R@10": less["R@10"].mean(), "position R@10": position["R@10"].mean()}
        line |= {key: float(np.mean([r[key] for r in runs])) for key in ("parameters", "steps", "cpu_s")}
    return line


def rows(found: dict[str, list[dict]], reference: dict) -> list[dict]:
    some, gene = next(iter(found.values()))[0], reference["hits"]["gene"]
    chance = {key: some["hits"]["towers"][f"chance@{key[2:]}"].mean() for key in KEYS}
    tasks = {task: float(shown_row(some["card"], task)["chance"]) for task in TASKS}
    metrics = some["card"].metrics
    alone = metrics[(metrics["task"] == "sister") & (metrics["metric"] == "structure_alone")]["value"]
    table = [{"row": "chance", **chance, **tasks}]
    table += [{"row": "structure alone (Tanimoto)", "sister": float(alone.mean())}]
    table += [{"row": "genes known (ceiling)", **{key: gene[key].mean() for key in KEYS}}]
    table += [row("frozen features, no training", [reference])]
    return table + [row(name, runs) | paired(runs, reference) for name, runs in found.items()]


def paired(runs: list[dict], reference: dict) -> dict:
    """Differences on common rows with their intervals: R@10 to the nearest structure's, mAP to the frozen features'."""
    towers, structure = pooled(runs, "towers"), pooled(runs, "nearest structure")
    hits = (towers["R@10"] - structure["R@10"]).to_numpy()  # both sorted by compound
    gain = compare([r["card"] for r in runs], [reference["card"]], TASKS)
    return {
        "less structure": [hits.mean(), *cluster_interval(hits, towers[schema.GENE])],
        "less frozen": [gain.value, gain.ci_low, gain.ci_high],
    }


def show(table: list[dict]) -> str:
    columns = ["R@1", "R@5", "R@10", "less DMSO R@10", "structure R@10", "position R@10", *TASKS]
    head = ["R@1", "R@5", "R@10 [95 %]", "R@10 less DMSO", "R@10 nearest structure", "R@10 position", "sister"]
    lines = ["| row | " + " | ".join([*head, "compound–gene", "trained, thousands", "steps", "CPU-s", "seeds"]) + " |"]
    lines.append("|---" * 13 + "|")
    for r in table:
        cells = [f"{r[key]:.3f}" if key in r else "" for key in columns]
        if "ci_low" in r:
            cells[2] += f" [{r['ci_low']:.3f}, {r['ci_high']:.3f}]"
            if r["candidates"] < 100:
                cells[2] += f" of {r['candidates']}"
        cost = [f"{r[key]:.0f}" if key in r else "" for key in ("steps", "cpu_s")]
        size = f"{r['parameters'] / 1e3:,.0f}" if "parameters" in r else ""
        lines.append("| " + " | ".join([r["row"], *cells, size, *cost, str(r.get("seeds", ""))]) + " |")
    head = [
        "row",
        "R@10 less nearest structure's [95 %]",
        "mean of sister and compound–gene less frozen features' [95 %]",
    ]
    lines += ["", f"| {' | '.join(head)} |", "|---" * 3 + "|"]
    for r in table:
        if "less structure" in r:
            cells = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*r[key]) for key in ("less structure", "less frozen")]
            lines.append(f"| {' | '.join([r['row'], *cells])} |")
    return "\n".join(lines)
