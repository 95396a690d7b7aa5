"""A lab's own package and config folder, outside our tree: its backbone, loss and method train, export and load."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from morphoclip import load_encoder
from morphoclip.cli.hydra_app import main
from tests.pipelines.test_train import TINY

LAB = Path(__file__).parents[1] / "lab"


@pytest.fixture
def lab(monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(LAB))
    yield LAB
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


def test_a_recipe_of_another_package_trains_exports_and_loads(lab, tmp_path):
    screen = [o for o in TINY if o.startswith(("data.screen", "data.loader", "trainer.", "~"))]
    main("train", ["--config-dir", str(lab / "configs"), "experiment=agree", *screen, f"output_dir={tmp_path}",
                   "trainer.max_steps=3", "run_id=1", "score.null_size=100", "score.tasks=[replicate]", "score.encoders=null"])  # fmt: skip
    made = tmp_path / "agree/1"
    assert (made / "report.html").is_file()
    with pytest.raises(ValueError, match=r"another package, mylab\.nets:TinyNet"):
        load_encoder(made / "encoder")
    encoder = load_encoder(made / "encoder", trust_remote_code=True)
    assert type(encoder.backbone).__name__ == "TinyNet"
    assert encoder.trained_on["method"] == "Agree"
    assert encoder(torch.zeros(2, 5, 64, 64)).shape == (2, 8)


def test_a_missing_package_is_named(tmp_path, capfd):
    with pytest.raises(SystemExit):
        main("train", ["encoder.name=nolab.nets:Net", f"output_dir={tmp_path}"])
    assert "put its package on PYTHONPATH" in capfd.readouterr().err
