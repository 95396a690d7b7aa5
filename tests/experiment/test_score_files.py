"""A scoring replaces the files of the one before it, all or none."""

from __future__ import annotations

import pytest

from morphoclip.cli.hydra_app import main
from morphoclip.experiment.score_files import replacing_scores


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != "scores.json"}


def test_tables_that_are_no_longer_scored_are_removed(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    for files in ({"metrics.csv": "1", "sister.csv": "1"}, {"metrics.csv": "2", "replicate.csv": "2"}):
        with replacing_scores(tmp_path) as working:
            for name, text in files.items():
                (working / name).write_text(text)
    assert content(tmp_path) == {"mine.txt": "kept", "metrics.csv": "2", "replicate.csv": "2"}


def test_after_an_error_all_is_as_it_was(tmp_path):
    with replacing_scores(tmp_path) as working:
        (working / "metrics.csv").write_text("1")
    with pytest.raises(FileNotFoundError, match=r"no\.csv"), replacing_scores(tmp_path) as working:
        (working / "metrics.csv").write_text((tmp_path / "no.csv").read_text())
    assert content(tmp_path) == {"metrics.csv": "1"}


def test_evaluate_leaves_the_tables_of_its_own_tasks(tmp_path, make_screen, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make_screen(0).to_csv("screen.csv", index=False)
    common = ["profiles=screen.csv", "p_convention=copairs", "null_size=100", "umap=false", "output_dir=out"]
    main("evaluate", [*common, "tasks=[replicate,sister]"])
    assert (tmp_path / "out" / "sister_ungated.csv").is_file()
    main("evaluate", [*common, "tasks=[replicate]"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"metrics.csv", "arms.csv", "replicate.csv", "report.html", "scores.json"}
