"""The page of a sweep: what its charts hold, its links, and that it loads nothing from elsewhere."""

from __future__ import annotations

import json
import math
import re

from morphoclip.experiment.sweeps.page import axis, history, parallel_coordinates, write_page
from morphoclip.experiment.sweeps.table import Row, SweepTable, write_table


def sweep(folder) -> SweepTable:
    def row(n, state, lr, text, *value, reason=""):
        return Row(
            str(n), state, {"lr": lr, "text": text}, dict(zip(["loss"], value, strict=False)), folder / str(n), reason
        )

    rows = [
        row(0, "finished", 0.1, "bert", 3.0),
        row(1, "failed", 0.01, "lora", reason="loss <not finite>"),
        row(2, "finished", 0.001, "lora", 1.0),
        row(3, "pruned", 0.1, "lora"),
        row(4, "finished", 0.001, "bert", 2.0),
    ]
    return SweepTable("Sweep mine", rows, {"loss": False})


def test_charts_hold_the_finished_runs_with_the_best_drawn_last(tmp_path):
    lr, text, loss = parallel_coordinates(sweep(tmp_path))["data"][0]["dimensions"]
    assert [round(value, 9) for value in lr["values"]] == [-1, -3, -3]
    assert lr["ticktext"] == ["0.001", "0.01", "0.1"]
    assert [text["ticktext"][place] for place in text["values"]] == ["bert", "bert", "lora"]
    assert loss["values"] == [3.0, 2.0, 1.0]
    best, dots = history(sweep(tmp_path))["data"]
    assert (dots["x"], dots["y"], best["y"]) == ([0, 2, 4], [3.0, 1.0, 2.0], [3.0, 1.0, 1.0])


def test_numbers_as_text_are_numbers_and_near_ones_are_not_drawn_by_their_logarithm():
    assert axis("x", ["1e-2", "2e-2"])["values"] == [0.01, 0.02]
    assert axis("x", [1, 100])["values"] == [0.0, 2.0]
    assert axis("x", [True, False])["ticktext"] == ["false", "true"]


def test_main_effects_are_means_over_finished_runs(tmp_path):
    assert sweep(tmp_path).main_effects() == [
        ("lr", 0.1, 1, 3.0),
        ("lr", 0.001, 2, 1.5),
        ("text", "bert", 2, 2.5),
        ("text", "lora", 1, 1.0),
    ]


def test_the_page_links_to_reports_and_needs_no_network(tmp_path):
    (tmp_path / "2").mkdir()
    (tmp_path / "2/report.html").touch()
    page = write_page(tmp_path / "sweep.html", sweep(tmp_path)).read_text()
    assert page.count('href="2/report.html"') == 2
    assert 'href="0' not in page  # a folder that is not there
    assert "loss &lt;not finite&gt;" in page
    assert "5 runs: 3 finished, 1 failed, 1 pruned. Best by loss (smaller is better): 2, 1." in page
    without_library = re.sub(r"<script>(?!\s*for).*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=[\"']https?:|<link[^>]*https?:|@import", without_library)
    figures = json.loads(re.search(r"Object.entries\((.*)\)\) \{", without_library).group(1))
    assert set(figures) == {"parallel", "history"}
    assert len(page) < 6e6


def test_a_sweep_without_finished_runs_has_a_page_without_charts(tmp_path):
    table = SweepTable("Sweep mine", [Row("0", "running", {"lr": 1}, {}, tmp_path / "0")], {"loss": False})
    page = write_page(tmp_path / "sweep.html", table).read_text()
    assert "1 runs: 1 running." in page
    assert len(page) < 2e4
    assert "plotly" not in page.lower()


def test_the_table_has_a_row_a_run(tmp_path):
    write_table(tmp_path / "sweep.csv", sweep(tmp_path))
    lines = (tmp_path / "sweep.csv").read_text().splitlines()
    assert lines[0] == "run,state,lr,text,loss,step,seconds,reason,folder"
    assert lines[2].startswith("1,failed,0.01,lora,,,,loss <not finite>,")
    assert len(lines) == 6
    assert math.isclose(float(lines[3].split(",")[4]), 1.0)
