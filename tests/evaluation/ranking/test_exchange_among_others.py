"""The exchange test against all controls of a set and against other wells: noise is found no more often than promised."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip.evaluation import average_precision, exchange_test
from morphoclip.evaluation.ranking.pseudo_groups import Everyone
from morphoclip.evaluation.ranking.similarity import similarity


def noise(
    rng: np.random.Generator, groups: int = 20, plates: int = 3, controls: int = 6
) -> tuple[pd.DataFrame, np.ndarray]:
    """A well of each group and some controls on each plate; plates are shifted, wells hold nothing else."""
    rows = [(f"p{p}", f"w{w}", f"g{w}" if w < groups else "", w >= groups) for p in range(plates) for w in range(groups + controls)]  # fmt: skip
    meta = pd.DataFrame(rows, columns=["plate", "well", "group", "control"])
    shift = rng.standard_normal((plates, 8))[pd.factorize(meta["plate"])[0]]
    return meta, shift + rng.standard_normal((len(meta), 8))


RULES = {
    "set": (([], ["control"]), "negatives"),
    "others": (([], ["group"]), "others"),
    "others of another plate": (([], ["group", "plate"]), "others"),
}


@pytest.mark.parametrize("negatives", RULES)
def test_noise_on_shifted_plates_is_found_no_more_often_than_promised(negatives):
    (sameby, diffby), how = RULES[negatives]
    apart = [c for c in diffby if c == "plate"]
    found, screens = [], 60
    for seed in range(screens):
        meta, x = noise(np.random.default_rng(seed))
        if how == "others":
            meta, x = meta[~meta["control"]].reset_index(drop=True), x[~meta["control"]]
        table = exchange_test(
            meta, x, ["group"], apart, sameby, diffby, ["group"], exchange_with=how, exchange_within=["plate"],
            draws=199, queries=~meta["control"].to_numpy(), seed=seed,
        )  # fmt: skip
        table = table[table["group"] != ""]
        assert len(table) == 20
        found.append((table["p_value"] < 0.05).mean())
    assert np.mean(found) <= 0.05 + 2 * np.std(found) / np.sqrt(screens)
    assert np.mean(found) > 0.01  # and it is not blind


def test_signal_is_found_among_others():
    meta, x = noise(np.random.default_rng(0))
    meta, x = meta[~meta["control"]].reset_index(drop=True), x[~meta["control"]]
    x[meta["group"] == "g3"] += 4 * np.eye(8)[0]
    table = exchange_test(
        meta, x, ["group"], [], [], ["group"], ["group"], exchange_with="others", exchange_within=["plate"], draws=500
    )
    p = table.set_index("group")["p_value"]
    assert p["g3"] < 0.01
    assert (p.drop("g3") < 0.05).mean() < 0.2


@pytest.mark.parametrize("apart", [[], ["plate"]])
def test_a_pseudo_group_that_is_the_group_has_its_score(apart):
    """The ranks counted once for all groups give each group's own mean AP."""
    meta, x = noise(np.random.default_rng(1))
    meta, x = meta[~meta["control"]].reset_index(drop=True), x[~meta["control"]]
    ap = average_precision(meta, x, ["group"], apart, [], ["group", *apart])
    want = ap.groupby("group")["average_precision"].mean()
    measure = similarity("cosine")
    plate = pd.factorize(meta["plate"])[0]
    everyone = Everyone(measure.prepare(x), measure, plate, [plate] if apart else [], 0)
    order = np.argsort((measure.prepare(x) @ measure.prepare(x).T).sum(axis=1), kind="stable")
    row_of = {row: place for place, row in enumerate(order)}
    for name, members in meta.groupby("group").indices.items():
        group = everyone.composed(plate[members], np.ones(len(members), bool))
        rows = np.array([[row_of[m] for m in members]])
        assert group.scores(rows)[0] == pytest.approx(want[name], abs=1e-6)


def test_few_rows_stand_for_many(monkeypatch):
    """Of many wells a sample is drawn from: the null keeps its mean."""
    from morphoclip.evaluation.ranking import pseudo_groups

    meta, x = noise(np.random.default_rng(2), groups=120)
    meta, x = meta[~meta["control"]].reset_index(drop=True), x[~meta["control"]]
    rules = (meta, x, ["group"], [], [], ["group"], ["group"])
    options = {"exchange_with": "others", "exchange_within": ["plate"], "draws": 2000}
    whole = exchange_test(*rules, **options)
    monkeypatch.setattr(pseudo_groups, "MOST", 90)
    monkeypatch.setattr(pseudo_groups, "LEAST", 20)
    sampled = exchange_test(*rules, **options)
    assert sampled["null_mean"].iloc[0] == pytest.approx(whole["null_mean"].iloc[0], rel=0.2)
    assert sampled["p_value"].corr(whole["p_value"]) > 0.97
