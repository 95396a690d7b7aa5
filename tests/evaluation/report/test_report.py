"""The report in a real browser: no network, no console error, plots drawn, tables that sort."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import Protocol, score, write_report
from morphoclip.evaluation.report.heat_maps import consensus_heat_maps
from morphoclip.evaluation.report.nearest import Gallery
from morphoclip.evaluation.report.plate_maps import plate_maps
from morphoclip.evaluation.report.umap import umap_coordinates

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# Runs after the page's own script: sorts the score table, looks at every canvas, and writes what it saw into the title.
PROBE = """
<script>
const table = document.querySelector(".scores"), head = table.querySelectorAll("th")[1];
const read = () => [...table.tBodies[0].rows].map(row => +row.cells[1].dataset.value);
head.click(); const down = read(); head.click(); const up = read();
const blank = [...document.querySelectorAll("canvas")].filter(canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return !pixels.some(value => value !== 0);
}).length;
document.querySelector("#filter").value = "GENE3"; document.querySelector("#filter").dispatchEvent(new Event("input"));
const shown = [...document.querySelectorAll("[data-panel] tbody tr")].filter(row => !row.hidden);
document.title = JSON.stringify({down, up, blank, canvases: document.querySelectorAll("canvas").length,
  errors: window.failures, filtered: shown.every(row => row.textContent.includes("GENE3")), shown: shown.length,
  requests: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:"))});
</script></body>"""
CATCH = "<head><script>window.failures = []; addEventListener('error', e => failures.push(e.message));</script>"


@pytest.fixture(scope="module")
def report(make_screen, tmp_path_factory) -> Path:
    quick = {"null_size": 100, "shuffles": 2, "bootstrap": 100}
    cards = {
        "untrained": score(make_screen(0, signal=0.5), **quick),
        "trained": score(make_screen(0, signal=3), **quick),
    }
    cards["trained"].alarms.append("leak: <script>alert(1)</script> & more")
    table = make_screen(0)
    points = table[[schema.PLATE, schema.WELL, schema.PERTURBATION, schema.CONTROL_TYPE]].assign(
        x=np.arange(len(table)) % 17, y=np.arange(len(table)) % 13
    )
    pictures = [("compound0 A01", np.full((8, 8), 99, np.uint8)), ("A02", np.full((8, 8, 3), 9, np.uint8))]
    return write_report(
        tmp_path_factory.mktemp("report") / "report.html",
        cards,
        title="A screen",
        umap=points,
        contact_sheet=pictures,
        galleries=[Gallery("Row <b>", [("P1 A01", "query", np.full((6, 9, 3), 80, np.uint8))])],
        heat_maps=consensus_heat_maps(table, Protocol()),
        batch_steps=pd.DataFrame({"step": ["none", "center"], "plate_map": [0.8, 0.4]}),
        provenance={"command": "evaluate.py"},
        extra=[("Batch effects", "Higher is worse.", pd.DataFrame({"metric": ["silhouette"], "value": [0.25]}))],
    )


def test_the_page_needs_nothing_from_elsewhere_and_escapes_what_it_is_given(report):
    text = report.read_text()
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", text)
    assert not re.findall(r"(?:https?:)?//\w+\.\w+", re.sub(r"base64,[^\"]*", "", text))
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not report.with_name("report.html.partial").exists()
    assert "Row &lt;b&gt;" in text
    assert "Batch effects step by step" in text
    assert text.count("data:image/jpeg;base64,/9j/") == 1


def test_scores_on_the_page_are_the_scores(report, make_screen):
    row = next(line for line in report.read_text().split("<tr") if ">trained<" in line)
    value = float(re.search(r'data-value="([\d.]+)"', row).group(1))
    card = score(make_screen(0, signal=3), null_size=100, shuffles=2, bootstrap=100)
    assert value == pytest.approx(card.value("replicate"))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to look at the report with")
def test_a_browser_draws_and_sorts_it(report, tmp_path):
    page = tmp_path / "probe.html"
    page.write_text(report.read_text().replace("<head>", CATCH, 1).replace("</body>", PROBE, 1))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,2000", "--virtual-time-budget=4000",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    import html
    import json

    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom, re.S).group(1)))
    assert seen["errors"] == []
    assert seen["requests"] == []
    assert seen["canvases"] == 8  # two scatters and three heat maps among them
    assert seen["blank"] == 0
    assert seen["down"] == sorted(seen["down"], reverse=True)
    assert seen["up"] == sorted(seen["up"])
    assert seen["filtered"]
    assert seen["shown"] > 0


def test_plate_maps_put_wells_where_they_are():
    queries = pd.DataFrame(
        {schema.PLATE: ["p", "p", "q"], schema.WELL: ["A01", "C05", "B02"], "average_precision": [0.0, 1.0, 0.5]}
    )
    first, second = plate_maps(queries)
    assert (first["plate"], first["rows"], first["columns"]) == ("p", 3, 5)
    assert [(c["row"], c["column"]) for c in first["cells"]] == [(0, 0), (2, 4)]
    assert [c["colour"] for c in first["cells"]] == ["#eef3f4", "#094f57"]
    assert second["cells"][0]["title"] == "B02 0.50"


def test_bad_pictures_and_no_cards_are_refused(tmp_path, make_screen):
    with pytest.raises(ValueError, match="at least one score card"):
        write_report(tmp_path / "r.html", {}, title="x")
    card = score(make_screen(0), tasks=["replicate"], null_size=50, shuffles=0, bootstrap=50)
    with pytest.raises(ValueError, match="uint8"):
        write_report(tmp_path / "r.html", {"a": card}, title="x", contact_sheet=[("x", np.zeros((4, 4)))])
    assert not (tmp_path / "r.html").exists()


def two_sets(make_screen, common: int) -> pd.DataFrame:
    """Compounds with 24 features above guides that have the first `common` of them: NaN where a set lacks one."""
    table = make_screen(0)
    compounds, guides = (table[table[schema.MODALITY] == modality] for modality in ("compound", "crispr"))
    return pd.concat([compounds, guides.drop(columns=[f"f{i}" for i in range(common, 24)])], ignore_index=True)


class FirstTwo:
    """In place of UMAP, whose compiling alone takes a minute: the first two of the dimensions it is given."""

    def __init__(self, **settings) -> None:
        pass

    def fit_transform(self, x: np.ndarray) -> np.ndarray:
        assert np.isfinite(x).all()
        return x[:, :2]


def test_the_map_rests_on_the_features_all_sets_have(make_screen, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstTwo))
    table = two_sets(make_screen, common=4)
    common = table.drop(columns=[f"f{i}" for i in range(4, 24)])
    found = umap_coordinates(table)
    assert found[[schema.PLATE, schema.WELL]].equals(table[[schema.PLATE, schema.WELL]])
    pd.testing.assert_frame_equal(found, umap_coordinates(common))


def test_sets_without_common_features_get_no_map_and_a_note(make_screen, tmp_path):
    assert umap_coordinates(two_sets(make_screen, common=0)) is None
    card = score(make_screen(0), tasks=["replicate"], null_size=50, shuffles=0, bootstrap=50)
    text = write_report(tmp_path / "r.html", {"a": card}, title="x", umap=None).read_text()
    assert 'id="umap"' not in text
    assert "no map of the wells" in text
    assert not any("no map" in note for note in card.notes)
