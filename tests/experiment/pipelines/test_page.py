"""The page of a sweep: every pipeline a dot, the front named and in the table, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from itertools import pairwise

from morphoclip.experiment.pipelines.axes import Axes
from morphoclip.experiment.pipelines.page import COLOURS, write_page
from morphoclip.experiment.pipelines.results import by_set, over_sets
from tests.experiment.pipelines.test_results import line


def page(tmp_path, lines: list[dict], *notes: str) -> str:
    table = over_sets(by_set(lines, Axes({}, {}, 1)))
    return write_page(tmp_path / "sweep.html", table, f"{len(table)} pipelines", notes).read_text()


def test_dots_names_and_numbers(tmp_path):
    lines = [
        line("x", ["l2"], 0.9, 0.5, encoder="a"),
        line("x", ["mad"], 0.6, 0.6, encoder="a"),
        line("x", ["l2", "mad"], 0.8, 0.3, encoder="b"),
        line("x", ["pca"], 0.8, 0.3, "too narrow", encoder="b"),
    ]
    text = page(tmp_path, lines, "1 orders, e.g. pca: refused: too <narrow>")
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)" (fill="#\w+"|fill="none" stroke="#\w+")', text)
    assert [(r, look[-8:-1]) for _, _, r, look in dots] == [("2.5", COLOURS[0]), ("5", COLOURS[0]), ("5", COLOURS[1])]
    assert re.findall(r'<text class="name"[^>]*>([^<]+)<', text) == ["a, wells: l2", "b, wells: l2 &gt; mad"]
    rows = re.findall(r"<tr><td>(.+?)</td>(.*?)</tr>", text)
    numbers = [[float(value) for value in re.findall(r'number">([-\d.]+)', cells)] for _, cells in rows]
    above = [[(value - 0.1) / 0.9 for value in row] for row in ((0.9, 0.45, 0.5, 0.25), (0.8, 0.4, 0.3, 0.15))]
    assert numbers == [[round(value, 3) for value in row] for row in above]
    assert "1 pipelines were refused" in text
    assert "too &lt;narrow&gt;" in text
    assert not re.search(r"https?://|<script|@import|url\(", text)


def test_positions_follow_the_other_half_and_names_do_not_overlap(tmp_path):
    front = [line("x", [f"s{i}"], 0.9 - 0.02 * i, 0.5 - 0.02 * i) for i in range(15)]
    text = page(tmp_path, front)
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5"', text)
    x, y = ([float(dot[i]) for dot in dots] for i in (0, 1))
    assert len(dots) == 15
    assert x == sorted(x, reverse=True)  # from most signal and batch effect to least
    assert y == sorted(y)
    heights = [float(at) for at in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', text)]
    assert all(b - a >= 16.9 for a, b in pairwise(heights))


def test_a_page_without_any_scored_pipeline_says_so(tmp_path):
    text = page(tmp_path, [line("x", ["l2"], 0, 0, "no wells"), line("x", ["mad"], 0, 0, "no wells")])
    assert "2 pipelines were refused" in text
    assert "<circle" not in text
