"""The eight lines before the first step, on one rank and on two, the last line, and the dry run that leaves nothing."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from morphoclip.cli.hydra_app import main
from morphoclip.experiment.dry_run import data_folder
from morphoclip.experiment.first_screen import device_line, in_bytes, in_time, last_line, peak_step
from morphoclip.training.optimizers import AdamW
from morphoclip.training.schedules import constant, one_cycle, warmup_cosine
from tests.methods.resume import small_screen
from tests.reliability.commands import start

# SimCLR on 72 crops of 16 pixels, in two epochs of three steps.
TINY = [
    "experiment=kim2025_simclr",
    "encoder=vit_demo",
    "encoder.image_size=16",
    "encoder.embed_dim=16",
    "encoder.depth=1",
    "encoder.heads=2",
    "+encoder.stem_widths=[4]",
    "data.loader.global_batch_size=24",
    "data.loader.max_batch_size=6",
    "data.loader.num_workers=0",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "callbacks.pictures=null",
    "name=tiny",
]
NAMES = ["device", "batch", "data", "length", "rate", "checkpoint", "loggers", "run"]
TEXT = {
    "device": r"1 x CPU \(\d+ threads? a rank\), 32-true",
    "batch": r"1 rank x 6 crops x 4 accumulated = 24 a step",
    "data": r"72 crops, \d+ perturbations, 2 plates: all data",
    "length": r"6 steps = 2 epochs of 3 steps",
    "rate": r"at most 0\.0009991, after 1 warm-up step",
    "checkpoint": r"\d+ kB, every 15 min, at each epoch's end, at the end; kept: the last two, the best by val/knn, every 20 epochs'",
    "loggers": r"logs/metrics\.csv; a row every 1 step",
    "run": r"new, from step 0",
}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    screen = small_screen(tmp_path_factory.mktemp("screen"))
    return [*TINY, f"data.root={screen}"]


@pytest.fixture(autouse=True)
def outside_of_a_cluster(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def screen_of(output: str) -> dict[str, str]:
    """The lines of the screen in a command's output, by their name; each is there once and in order."""
    lines = [
        line.split(maxsplit=1) for line in output.splitlines() if line.split(" ")[0] in NAMES and line[11:12] == " "
    ]
    assert [name for name, _ in lines] == NAMES
    return dict(lines)


def assert_screen(found: dict[str, str], **changed: str) -> None:
    for name, pattern in {**TEXT, **changed}.items():
        assert re.fullmatch(pattern, found[name]), f"{name}: {found[name]}"


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_one_rank_prints_the_screen_and_the_last_line(arguments, tmp_path, capfd):
    main("train", [*arguments, f"output_dir={tmp_path}", "run_id=one"])
    output = capfd.readouterr().out
    found = screen_of(output)
    assert_screen(found)
    last = output.splitlines()[-1]
    expected = (
        r"done +loss [\d.]+, val/knn 0\.\d{3} \(chance 0\.\d{3}\),.* \d+\.\d s; curves in .*/tiny/one/logs/metrics\.csv"
    )
    assert re.fullmatch(expected, last), last
    size = (tmp_path / "tiny/one/checkpoints/last.ckpt").stat().st_size
    estimated = 1000 * float(found["checkpoint"].split(" ")[0])
    assert estimated == pytest.approx(size, abs=40_000)  # names, hyperparameters and zip entries besides
    main("train", ["resume=one", f"output_dir={tmp_path}", "trainer.max_epochs=3", "logger=null"])
    output = capfd.readouterr().out
    assert_screen(
        screen_of(output),
        length=r"9 steps = 3 epochs of 3 steps",
        loggers="none",
        rate=r"at most 0\.00\d+, after \d warm-up steps?",
        run="goes on from step 6",
    )


def test_two_ranks_print_one_screen(arguments, tmp_path):
    output = start(*arguments, f"output_dir={tmp_path}", "run_id=two", "trainer.max_epochs=1", ranks=2)
    assert_screen(
        screen_of(output),
        device=r"2 x CPU \(\d+ threads? a rank\), 32-true",
        batch="2 ranks x 6 crops x 2 accumulated = 24 a step",
        length="3 steps = 1 epoch of 3 steps",
        rate=r"at most .*, after \d warm-up steps?",
    )
    assert sum(line.startswith("done ") for line in output.splitlines()) == 1


def test_a_dry_run_times_steps_and_leaves_nothing(arguments, tmp_path, capfd):
    data = Path(arguments[-1].removeprefix("data.root="))
    before = files(data)
    outputs = tmp_path / "not/yet"
    main(
        "train", [*arguments, f"output_dir={outputs}", "trainer.max_epochs=2000", "--dry-run"]
    )  # status 0: no SystemExit
    output = capfd.readouterr().out
    assert_screen(
        screen_of(output), length=r"6,000 steps = 2,000 epochs of 3 steps", rate="at most 0.001, after 900 .*"
    )
    *_, hours, disk = output.splitlines()
    timed = re.fullmatch(
        r"time +([\d.e-]+) h \(.*\): 6,000 steps of ([\d.e-]+) s by (\d+) timed steps; validation, .*", hours
    )
    assert timed, hours
    total, step, count = (float(value) for value in timed.groups())
    assert 3 <= count <= 30
    assert total == pytest.approx(6000 * step / 3600, rel=0.06)
    assert re.fullmatch(r"disk +\d+ MB needed \(104 checkpoints and logs\), .* free", disk), disk
    assert list(tmp_path.iterdir()) == []
    assert files(data) == before


def test_a_dry_run_of_a_run_that_exists_says_where_it_would_go_on(arguments, tmp_path, capfd):
    main("train", [*arguments, f"output_dir={tmp_path}", "run_id=mine", "trainer.max_epochs=1", "callbacks.knn=null"])
    capfd.readouterr()
    before = files(tmp_path)
    main("train", ["resume=mine", f"output_dir={tmp_path}", "trainer.max_epochs=2", "--dry-run"])
    output = capfd.readouterr().out
    assert screen_of(output)["run"] == "goes on from step 3"
    assert "3 steps of" in output.splitlines()[-2]
    assert files(tmp_path) == before
    with pytest.raises(SystemExit):
        main("train", ["resume=mine", f"output_dir={tmp_path}", "encoder.depth=2", "--dry-run"])
    assert "a run cannot go on with another method, encoder" in capfd.readouterr().err
    assert files(tmp_path) == before


def test_data_that_a_dry_run_would_have_to_make_lie_in_its_folder(tmp_path, capsys):
    class Data(SimpleNamespace):
        def __contains__(self, name: str) -> bool:
            return hasattr(self, name)

    (tmp_path / "made").mkdir()
    there = Data(folder=str(tmp_path), root=str(tmp_path / "made"))
    assert data_folder(there, tmp_path / "dry") == str(tmp_path)
    absent = Data(folder=str(tmp_path), root=str(tmp_path / "made"), table=Data(folder=str(tmp_path / "profiles")))
    assert data_folder(absent, tmp_path / "dry") == str(tmp_path / "dry/data")
    assert "for this dry run only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("there", "ranks", "said"),
    [
        (8, 1, "1 x H100 (80 GiB), bf16-mixed; 1 of 8 GPUs is used; start with torchrun --nproc-per-node 8 train.py trainer=ddp …"),
        (8, 2, "2 x H100 (80 GiB), bf16-mixed; 2 of 8 GPUs are used; start with torchrun --nproc-per-node 8 train.py trainer=ddp …"),
        (8, 8, "8 x H100 (80 GiB), bf16-mixed"),
        (1, 1, "1 x H100 (80 GiB), bf16-mixed"),
    ],
)  # fmt: skip
def test_a_card_that_idles_is_named(there, ranks, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    card = SimpleNamespace(name="H100", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.setenv(name, str(ranks))
    monkeypatch.setenv("RANK", "0")
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)), precision="bf16-mixed")
    assert device_line(trainer) == said


def test_a_card_beside_a_training_on_the_cpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), precision="32-true")
    assert device_line(trainer).endswith("; 0 of 1 GPUs are used; start with trainer=gpu")


@pytest.mark.parametrize("schedule", [constant, one_cycle, warmup_cosine])
@pytest.mark.parametrize("total", [1, 7, 100, 12_345])
def test_the_peak_is_found_between_the_points_of_the_grid(schedule, total):
    recipe = AdamW(lr=0.5, lr_schedule=schedule)
    rates = [recipe.rate(step, total) for step in range(total)]
    assert peak_step(recipe, total, grid=50) == rates.index(max(rates))


def test_the_last_line_names_scores_with_chance_and_no_others(tmp_path):
    assert last_line(tmp_path, 4.2).startswith("done        4.2 s; results in ")
    (tmp_path / "logs").mkdir()
    rows = [
        "step,train/loss,val/knn,val/knn_chance,val/loss,val/other",
        "1,3.0,0.1,0.05,,",
        "2,2.0,0.25,0.05,1.5,7",
        "3,1.25,,,,",
    ]
    (tmp_path / "logs/metrics.csv").write_text("\n".join(rows) + "\n")
    line = last_line(tmp_path, 7503)
    assert line.startswith("done        loss 1.25, val/knn 0.250 (chance 0.050), val/loss 1.5, 2 h 5 min; curves in ")
    assert line.endswith("logs/metrics.csv")


def test_sizes_and_times_read_as_people_write_them():
    assert [in_bytes(size) for size in (12, 3200, 99_600, 64_000_000, 1.5e9, 2.5e14)] == [
        "12 B",
        "3.2 kB",
        "100 kB",
        "64 MB",
        "1.5 GB",
        "250.0 TB",
    ]
    assert [in_time(seconds) for seconds in (4.25, 59.96, 723, 11_100)] == [
        "4.2 s",
        "60.0 s",
        "12 min 3 s",
        "3 h 5 min",
    ]


def test_the_last_line_has_the_widest_recall_beside_its_chance(tmp_path):
    (tmp_path / "logs").mkdir()
    names = [f"val/recall_at_{k}_image_to_text{end}" for k in (1, 10) for end in ("", "_chance")]
    (tmp_path / "logs" / "metrics.csv").write_text(
        f"step,train/loss,val/loss,{','.join(names)}\n0,,3.5,.01,.02,.1,.2\n10,2.25,3.25,.03,.02,.3,.2\n"
    )
    line = last_line(tmp_path, 61)
    assert "loss 2.25, val/loss 3.25, val/recall_at_10_image_to_text 0.300 (chance 0.200), 1 min 1 s; curves in" in line
