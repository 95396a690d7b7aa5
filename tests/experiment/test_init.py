"""`init=` from the command line to the run: what is typed, what is printed and kept, and that a resumed run loads nothing."""

from __future__ import annotations

import json

import pytest
import torch

from morphoclip.cli.hydra_app import as_typed, main
from morphoclip.cli.hydra_app import configs_dir as configs
from tests.experiment.test_first_screen import TINY
from tests.methods.resume import small_screen


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("init=outputs/demo/RUN", "init.from='outputs/demo/RUN'"),
        ("init=a run/epoch=3.ckpt", "init.from='a run/epoch=3.ckpt'"),
        ("init=hf:facebook/dinov2-base", "init.from='hf:facebook/dinov2-base'"),
        ("init='quoted path'", "init.from='quoted path'"),
        ("init=none", "init=none"),
        ("init=null", "init=none"),
        ("init.parts=[pool]", "init.parts=[pool]"),
    ],
)
def test_what_is_typed_is_a_path_unless_it_is_a_file_of_the_group(typed, meant):
    assert as_typed("train", [typed], [configs()]) == [meant]


def test_a_grid_of_sources():
    assert as_typed("train", ["-m", "init=a,b"], [configs()]) == ["-m", "init.from='a','b'"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset, and a finished run on it."""
    made = tmp_path_factory.mktemp("init")
    small_screen(made / "screen")
    main("train", [*common(made), "run_id=first", "trainer.max_epochs=1"])
    return made


def common(folder):
    return [*TINY, f"data.root={folder}/screen", f"output_dir={folder}", "callbacks.knn=null"]


def weights(folder, run):
    return torch.load(folder / "tiny" / run / "checkpoints/last.ckpt", weights_only=True)


def test_a_run_starts_from_another_prints_it_keeps_it_and_goes_on_without_it(folder, capfd):
    source = folder / "tiny/first"
    main("train", [*common(folder), f"init={source}", "run_id=second", "trainer.max_epochs=1", "optimizer.lr=0"])
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("init ")]
    assert len(lines) == 3
    assert f"from {source}/checkpoints/last.ckpt (SimCLR, step" in lines[0]
    before, after = weights(folder, "first")["state_dict"], weights(folder, "second")["state_dict"]
    encoder = [
        name for name in before if name.startswith("encoder.") and "running" not in name and "tracked" not in name
    ]
    assert encoder
    assert all(torch.equal(before[name], after[name]) for name in encoder)  # of a rate of 0
    recorded = json.loads((folder / "tiny/second/encoder/config.json").read_text())["trained_on"]["init"]
    assert recorded["log"] == lines
    assert recorded["from"] == str(source)
    capfd.readouterr()
    resumed = [*common(folder), f"init={folder}/gone", "resume=second", "trainer.max_epochs=2", "optimizer.lr=0"]
    main("train", resumed)  # the source may be gone
    said = capfd.readouterr().out
    assert not [line for line in said.splitlines() if line.startswith("init ")]
    assert json.loads((folder / "tiny/second/encoder/config.json").read_text())["trained_on"]["init"]["log"] == lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["init={folder}/nowhere"], "no encoder folder, checkpoint or run folder at {folder}/nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments, said, folder, capfd):
    given = [argument.format(folder=folder) for argument in arguments]
    with pytest.raises(SystemExit) as exit:
        main("train", [*common(folder), *given, "trainer.max_epochs=1", "--dry-run"])
    assert exit.value.code == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert said.format(folder=folder) in errors[0]
