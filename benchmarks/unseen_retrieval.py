"""Which prompt or structure belongs to the image of a compound nobody trained on: each query's hits, beside controls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.chemistry import fingerprint
from morphoclip.data import PerturbationTable
from morphoclip.evaluation.measures.retrieval import recall_at_k
from morphoclip.evaluation.ranking.similarity import unit_rows
from morphoclip.profiling import consensus

KS = (1, 5, 10)


def compounds_of(wells: pd.DataFrame) -> pd.DataFrame:
    """The wells that hold a compound and are no negative control."""
    return wells[(wells[schema.MODALITY] == "compound") & (wells[schema.CONTROL_TYPE] != schema.NEGCON)]


@torch.inference_mode()
def own_tower(method, templates: dict, unseen: pd.DataFrame, wells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Hits among the unseen compounds' own prompts by the trained towers.

    Args:
        method: a trained `CLIP` in evaluation mode.
        templates: prompts by modality.
        unseen, wells: profiles by the method's encoder of the unseen compounds' wells, and of all wells.

    Returns:
        'towers': images and prompts as they are; 'less DMSO': each image less the controls of its plate, each prompt less
        the prompt of DMSO; 'position': in the image's place that of the control well nearest to it on its plate.
    """
    asked, controls = consensus(unseen, how="mean"), controls_of(wells)
    dmso = controls[controls[schema.MODALITY] == "compound"]
    own, other = (PerturbationTable.from_frame(table).prompts(templates) for table in (asked, dmso.head(1)))
    prompts = sorted(set(own))
    right = [[prompts.index(prompt)] for prompt in own]
    embedded = unit_rows(method.conditions.embed_texts([*prompts, *other], "compound").double().numpy())
    said, origin = embedded[:-1], embedded[-1]
    beside = consensus(nearest_controls(unseen, controls), how="mean")
    return {
        "towers": hits(asked, profiles(asked), said, right),
        "less DMSO": hits(asked, profiles(consensus(centred(unseen, controls), how="mean")), said - origin, right),
        "position": hits(asked, profiles(beside), said, right),
    }


def nearest_structure(unseen: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    """Hits where each unseen structure looks like the training compound most like it (Tanimoto of Morgan fingerprints).

    `unseen` and `seen` are wells of one table of profiles, centred on their plates' controls.
    """
    asked, known = consensus(unseen, how="mean"), consensus(seen, how="mean")
    place = most_similar(asked[schema.SMILES], known[schema.SMILES])
    return hits(asked, profiles(asked), profiles(known)[place], [[i] for i in range(len(asked))])


def known_gene(unseen: pd.DataFrame, acts_on: dict[str, str]) -> pd.DataFrame:
    """Hits of a model that knows which gene the image shows and which gene each structure is annotated with, no more."""
    asked = consensus(unseen, how="mean")
    genes = sorted({*asked[schema.GENE], *acts_on.values()})
    annotated = pd.get_dummies(asked[schema.GENE]).reindex(columns=genes, fill_value=False).to_numpy(float)
    shown = np.stack([annotated_as == np.array(genes) for annotated_as in asked[schema.PERTURBATION].map(acts_on)])
    return hits(asked, shown.astype(float), annotated, [[i] for i in range(len(asked))])


def hits(asked: pd.DataFrame, queries: np.ndarray, candidates: np.ndarray, right: list[list[int]]) -> pd.DataFrame:
    """A row a query: its compound, gene, number of candidates, and R@k with chance."""
    rows = []
    for i, row in enumerate(asked.itertuples(index=False)):
        found = recall_at_k(queries[i : i + 1], candidates, [right[i]], KS)
        line = {schema.PERTURBATION: getattr(row, schema.PERTURBATION), schema.GENE: getattr(row, schema.GENE)}
        line["candidates"] = len(candidates)
        for k, recall, chance in zip(found["k"], found["recall"], found["chance"], strict=True):
            line |= {f"R@{k}": recall, f"chance@{k}": chance}
        rows.append(line)
    return pd.DataFrame(rows)


def profiles(table: pd.DataFrame) -> np.ndarray:
    return table[schema.split_columns(table)[1]].to_numpy(np.float64)


def controls_of(wells: pd.DataFrame) -> pd.DataFrame:
    return wells[schema.is_negcon(wells)]


def centred(wells: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Profiles less the mean of the negative controls of their plate."""
    features = schema.split_columns(wells)[1]
    means = controls.groupby(schema.PLATE)[features].mean().loc[wells[schema.PLATE]].to_numpy()
    return wells.assign(**dict(zip(features, (wells[features].to_numpy() - means).T, strict=True)))


def nearest_controls(wells: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """The same wells with the profile of the negative control nearest on the plate."""
    features = schema.split_columns(wells)[1]
    values = np.empty((len(wells), len(features)))
    for plate in wells[schema.PLATE].unique():
        own = (wells[schema.PLATE] == plate).to_numpy()
        there = controls[controls[schema.PLATE] == plate]
        here, beside = (np.array([schema.well_position(w) for w in t[schema.WELL]]) for t in (wells[own], there))
        nearest = np.square(here[:, None] - beside).sum(-1).argmin(1)
        values[own] = there[features].to_numpy()[nearest]
    return wells.assign(**dict(zip(features, values.T, strict=True)))


def most_similar(smiles: pd.Series, known: pd.Series) -> np.ndarray:
    """For each structure the row of `known` with the highest Tanimoto similarity."""
    a, b = (np.stack([fingerprint(text) for text in texts]).astype(float) for texts in (smiles, known))
    shared = a @ b.T
    return (shared / (a.sum(1)[:, None] + b.sum(1) - shared)).argmax(1)
