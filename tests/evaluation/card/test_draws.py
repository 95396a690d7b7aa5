"""Numbers of draws of the nulls: what is refused, the defaults of each convention, and the alarm on too few."""

from __future__ import annotations

import numpy as np
import pytest

from morphoclip.evaluation import score
from tests.evaluation.card.test_scorecard import QUICK


@pytest.mark.parametrize("null_size", [0, -3, 2.5])
def test_a_null_without_draws_is_refused(make_screen, null_size):
    with pytest.raises(ValueError, match=f"null_size={null_size}: give an integer"):
        score(make_screen(6), null_size=null_size)
    with pytest.raises(ValueError, match="p_convention='fisher': choose among"):
        score(make_screen(6), p_convention="fisher")


def test_each_convention_draws_as_its_authors_do(make_screen, monkeypatch):
    """100,000 rankings are the paper's and copairs'; `exact` recomputes scores and makes do with 10,000."""
    from morphoclip.evaluation.ranking import exchange, significance

    asked = []
    monkeypatch.setattr(significance, "null_distribution", lambda k, n, size, seed: asked.append(size) or np.ones(1))
    nulls = exchange.exchange_nulls
    monkeypatch.setattr(
        exchange, "exchange_nulls", lambda *a, draws, **k: asked.append(draws) or nulls(*a, draws=5, **k)
    )
    for convention, draws in (("published", 100_000), ("copairs", 100_000), ("exact", 10_000)):
        asked.clear()
        score(make_screen(6), tasks=["replicate"], p_convention=convention, shuffles=0, bootstrap=20)
        assert set(asked) == {draws}


@pytest.mark.parametrize("convention", ["exact", "copairs", "published"])
def test_too_few_draws_for_so_many_tests_raise_the_alarm(make_screen, tmp_path, convention):
    """24 compounds, 16 guides and 8 ORFs: 1/(1 + draws) must not exceed .05/24 = 1/480."""
    table, quick = make_screen(6), {**QUICK, "tasks": ["replicate"], "p_convention": convention}
    enough = score(table, **{**quick, "null_size": 479})
    assert not enough.alarms
    assert f"p by convention {convention}: the smallest reachable is 0.0021" in enough.notes
    few = score(table, strict=True, **{**quick, "null_size": 478})
    assert len(few.alarms) == 1
    assert "compound_U2OS_24 is 0.0021, above 0.05/24" in few.alarms[0]
    assert "null_size to 480" in few.alarms[0]
