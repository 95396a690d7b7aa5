"""Whole sweeps: truth that was built in is found, processes do not matter, and a killed sweep goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from morphoclip import configs_dir, schema
from morphoclip.evaluation import Protocol
from morphoclip.experiment.evaluate import run
from morphoclip.experiment.pipelines import sweep as module
from morphoclip.experiment.pipelines.sweep import sweep
from morphoclip.experiment.pipelines.tables import deal_halves, well_sets
from tests.experiment.pipelines.screens import draw_screen

ROOT = Path(__file__).parents[3]
FILES = ["sweep.csv", "sweep.html", "sweep.jsonl", "sweep_by_set.csv"]


def evaluate(*arguments: str) -> Path:
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("evaluate", overrides=["+sweep=pipelines", *arguments])
    return run(config).parent


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_centring_is_on_the_front_where_plates_are_shifted(tmp_path, axes):
    """With a shift of each plate far larger than noise, centring plates is the only step that gives both ends."""
    sets = well_sets({"drawn": draw_screen(0, plate_effect=20)}, Protocol())[0]
    table = sweep(sets, axes(2, "center", "l2"), tmp_path, 1).set_index("order")
    front = table[table["on_front"]]
    assert (front.index.str.split(" > ").str[0] == "center").all()
    assert table.loc["none", "reported_batch_effect"] == 1
    assert table.loc["center", "reported_batch_effect"] < 0.5
    assert table.loc["center", "reported_signal"] > table.loc["none", "reported_signal"] + 0.2


def test_two_processes_give_the_same_files_as_one(tmp_path, axes):
    sets = well_sets({"drawn": draw_screen(0, times=("24", "48"))}, Protocol())[0]
    for processes in (1, 2):
        sweep(sets, axes(2, "center", "l2", "pca"), tmp_path / str(processes), processes)
    assert content(tmp_path / "1") == content(tmp_path / "2")
    assert list(content(tmp_path / "1")) == FILES
    by_set = pd.read_csv(tmp_path / "1/sweep_by_set.csv")
    assert set(by_set["subset"]) == {"compound_U2OS_24", "compound_U2OS_48"}
    means = by_set.groupby("order")["chosen_signal"].mean()
    table = pd.read_csv(tmp_path / "1/sweep.csv").set_index("order")
    np.testing.assert_allclose(table["chosen_signal"], means[table.index])
    assert (table["sets"] == 2).all()


def test_a_stopped_sweep_goes_on_where_it_was_and_another_is_refused(tmp_path, axes, monkeypatch, capsys):
    sets = well_sets({"drawn": draw_screen(0)}, Protocol())[0]
    three = axes(3, "center", "mad", "l2", "pca")
    sweep(sets, three, tmp_path / "straight", 1)
    stopped, given = tmp_path / "stopped", module.scored

    def until_stopped(*arguments):
        for number, lines in enumerate(given(*arguments)):
            if number == 1:
                raise KeyboardInterrupt
            yield lines

    monkeypatch.setattr(module, "scored", until_stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(sets, three, stopped, 1)
    assert [path.name for path in stopped.iterdir()] == ["sweep.jsonl"]
    done = len((stopped / "sweep.jsonl").read_text().splitlines()) - 1
    assert done == 5 + 24
    with (stopped / "sweep.jsonl").open("a") as file:
        file.write('{"set": ["dra')  # the line that was being written
    scored = []
    monkeypatch.setattr(module, "scored", lambda *a: (lines for lines in given(*a) if scored.extend(lines) is None))
    capsys.readouterr()
    sweep(sets, three, stopped, 1)
    assert f"goes on: {done} of 41 are in" in capsys.readouterr().out
    assert len(scored) == 41 - done
    assert content(stopped) == content(tmp_path / "straight")
    sweep(sets, three, stopped, 1)  # a finished one is only written again
    assert len(scored) == 41 - done
    assert content(stopped) == content(tmp_path / "straight")
    with pytest.raises(
        ValueError, match=r"is the record of another sweep \(other depth\): give another output_dir=, or sweep\.restart"
    ):
        sweep(sets, axes(2, "center", "mad", "l2", "pca"), stopped, 1)
    assert content(stopped) == content(tmp_path / "straight")
    other = well_sets({"drawn": draw_screen(1)}, Protocol())[0]
    with pytest.raises(ValueError, match=r"\(other profiles\)"):
        sweep(other, three, stopped, 1)
    assert len(sweep(other, axes(1, "l2"), stopped, 1, restart=True)) == 2


@pytest.mark.slow
def test_a_killed_sweep_of_two_processes_leaves_none_and_goes_on(tmp_path):
    draw_screen(0, features=60).to_parquet(tmp_path / "table.parquet")
    command = [sys.executable, str(ROOT / "evaluate.py"), "+sweep=pipelines", f"profiles={tmp_path / 'table.parquet'}"]
    command += ["sweep.depth=3", "sweep.processes=2", "output_dir="]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = subprocess.Popen(
        [*command[:-1], f"output_dir={tmp_path / 'out'}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    record = tmp_path / "out/sweep.jsonl"
    until = time.monotonic() + 120
    while not (record.is_file() and record.read_text().count("\n") > 8):
        assert time.monotonic() < until
        assert begun.poll() is None
        time.sleep(0.02)
    children = [int(pid) for pid in Path(f"/proc/{begun.pid}/task/{begun.pid}/children").read_text().split()]
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    done = record.read_text().count("\n") - 1
    assert done < 157
    until = time.monotonic() + 30
    while any(_runs(pid) for pid in children):
        assert time.monotonic() < until
        time.sleep(0.1)
    arguments = [f"profiles={tmp_path / 'table.parquet'}", "sweep.depth=3", "sweep.processes=1"]
    went_on = evaluate(*arguments, f"output_dir={tmp_path / 'out'}")
    assert content(went_on) == content(evaluate(*arguments, f"output_dir={tmp_path / 'straight'}"))


def _runs(pid: int) -> bool:
    try:
        return "evaluate.py" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_encoders_are_compared_on_the_wells_that_all_have(tmp_path, capsys):
    """The second encoder sees nothing: none of its pipelines is on the front, and its lost wells are lost for both."""
    good = draw_screen(0, plate_effect=0.5)
    noise = draw_screen(1, features=7)
    noise[[f"f{i}" for i in range(7)]] = np.random.default_rng(0).standard_normal((len(noise), 7))
    noise = noise.rename(columns={f"f{i}": f"g{i}" for i in range(7)}).iloc[::-1]
    good.to_parquet(tmp_path / "good.parquet")
    noise[noise[schema.WELL] != "A01"].to_csv(tmp_path / "noise.csv", index=False)
    given = f"sweep.profiles={{good: {tmp_path / 'good.parquet'}, noise: '{tmp_path / 'noise.csv'}'}}"
    folder = evaluate(given, "sweep.depth=1", f"output_dir={tmp_path / 'out'}")
    printed = capsys.readouterr().out
    assert "14 pipelines (7 orders of up to 1 of 6 steps; encoders: good, noise; replicates: well)" in printed
    assert "good: 3 of 90 wells are left out, since another encoder lacks them, e.g. 24h0 A01" in printed
    table = pd.read_csv(folder / "sweep.csv")
    best = table.groupby("encoder")["reported_signal"].max()
    assert best["good"] > best["noise"] + 0.3
    assert table.loc[table["chosen_signal"].idxmax(), "encoder"] == "good"
    assert "87 wells" in (folder / "sweep.html").read_text()
    with pytest.raises(ValueError, match=r"give profiles= or sweep\.profiles=, not both"):
        evaluate(given, f"profiles={tmp_path / 'good.parquet'}", f"output_dir={tmp_path / 'both'}")


def test_sites_are_aggregated_to_wells_by_mean_and_by_median(tmp_path):
    wells = draw_screen(0)
    sites = pd.concat([wells.assign(**{schema.SITE: str(site)}) for site in range(3)], ignore_index=True)
    features = [name for name in sites if name.startswith("f")]
    sites[features] += 0.3 * np.random.default_rng(0).standard_normal((len(sites), len(features)))
    sites.loc[sites[schema.SITE] == "0", features] *= 50  # a bad site spoils the mean, not the median
    sites.to_parquet(tmp_path / "sites.parquet")
    folder = evaluate(f"profiles={tmp_path / 'sites.parquet'}", "sweep.depth=0", f"output_dir={tmp_path / 'out'}")
    table = pd.read_csv(folder / "sweep.csv").set_index("pipeline")
    assert set(table.index) == {"mean: none", "median: none"}
    by_hand = sites.groupby([schema.PLATE, schema.WELL])[features].median().reset_index()
    alone = wells.drop(columns=features).merge(by_hand)
    alone.to_parquet(tmp_path / "median.parquet")
    other = evaluate(f"profiles={tmp_path / 'median.parquet'}", "sweep.depth=0", f"output_dir={tmp_path / 'other'}")
    want = pd.read_csv(other / "sweep.csv").set_index("pipeline").loc["wells: none", "chosen_signal"]
    assert table.loc["median: none", "chosen_signal"] == pytest.approx(want, abs=1e-6)


def test_a_table_that_every_pipeline_refuses_is_an_error_that_names_the_well(tmp_path, axes):
    table = draw_screen(0)
    table.loc[3, "f1"] = np.nan
    sets = well_sets({"drawn": table}, Protocol())[0]
    with pytest.raises(ValueError, match=r"no pipeline of at most one step gives profiles: .* 24h0 A04"):
        sweep(sets, axes(1), tmp_path, 1)
    assert not (tmp_path / "sweep.jsonl").exists()


def test_a_set_of_one_plate_has_no_plate_effect():
    table = draw_screen(0)
    one = table[table[schema.PLATE] == "24h0"]
    with pytest.raises(ValueError, match="no set has two plates"):
        well_sets({"drawn": one}, Protocol())
    more = pd.concat([table, one.assign(**{schema.PLATE: "48h0", schema.TIMEPOINT: "48"})])
    sets, notes = well_sets({"drawn": more}, Protocol())
    assert [one.subset for one in sets] == ["compound_U2OS_24"]
    assert notes == ["sets ['compound_U2OS_48'] have one plate, so no plate effect, and are left out"]


def test_without_positive_controls_the_signal_is_that_of_treated_wells():
    sets, notes = well_sets({"drawn": draw_screen(0, poscon="")}, Protocol())
    assert sets[0].signal.sum() == 60
    assert notes == ["compound_U2OS_24: the signal is that of all treated wells (0 positive controls have replicates)"]


def test_two_treatments_in_several_wells_are_needed():
    table = draw_screen(0, poscon="")
    few = table[table[schema.PERTURBATION].isin(["cpd1", "DMSO"])]
    with pytest.raises(ValueError, match=r"set compound_U2OS_24: .* two treatments, each in several wells"):
        well_sets({"drawn": few}, Protocol())


def test_a_perturbation_has_one_half_in_all_sets_and_halves_are_even():
    names = pd.Series([f"c{i}" for i in range(41)])
    first, second = (names, np.arange(41) < 9), (names[5:], np.arange(36) < 6)  # c5 to c8 carry signal in both
    halves = deal_halves([first, second])
    for part, carrying in (first, second):
        half = part.map(halves)
        assert abs((half[carrying] == 0).sum() - (half[carrying] == 1).sum()) <= 1
        assert abs((half == 0).sum() - (half == 1).sum()) <= 3
    assert deal_halves([(names.sample(frac=1, random_state=0), np.zeros(41, bool))]) == deal_halves(
        [(names, np.zeros(41, bool))]
    )
    assert json.loads(json.dumps(halves)) == halves
