"""Two ranks with a part of the weights each (FSDP2) train as one process does, in files that either can go on from."""

from __future__ import annotations

import pytest
import torch

from morphoclip.checkpoints import read_checkpoint
from morphoclip.export import export_encoder, load_encoder
from morphoclip.methods.base import Method
from tests.methods.resume import small_screen
from tests.methods.tiny import clip
from tests.reliability.commands import TINY, record, start
from tests.sharded_run import NAMES, run_rank, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of one process and of two sharded ranks, and `losses`."""
    made = tmp_path_factory.mktemp("sharded")
    small_screen(made / "screen")
    torch.save({name: train(name, made, 1) for name in NAMES}, made / "losses.pt")
    torch.multiprocessing.spawn(run_rank, args=(2, str(made)), nprocs=2)
    return made


def assert_equal(one, other) -> None:
    first, second = (read_checkpoint(path)["state_dict"] for path in (one, other))
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(second[key], value, rtol=1e-10, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", NAMES)
def test_ten_steps_of_two_sharded_ranks_equal_those_of_one_process(name, folder):
    assert_equal(folder / f"{name}-1-end.ckpt", folder / f"{name}-2-end.ckpt")
    expected = torch.load(folder / "losses.pt")[name]
    for rank in range(2):
        assert torch.load(folder / f"losses{rank}.pt")[name] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_one_process_goes_on_from_a_checkpoint_of_sharded_ranks_and_they_from_its(name, folder):
    train(name, folder, 1, folder / f"{name}-2-half.ckpt")
    assert_equal(folder / f"{name}-1-end.ckpt", folder / f"{name}-1-resumed-end.ckpt")
    assert_equal(folder / f"{name}-1-end.ckpt", folder / f"{name}-2-resumed-end.ckpt")


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_sharded_ranks_is_one_file_and_exports(name, folder, tmp_path):
    assert (folder / f"{name}-2-end.ckpt").is_file()
    export_encoder(folder / f"{name}-2-end.ckpt", tmp_path / "sharded")
    export_encoder(folder / f"{name}-1-end.ckpt", tmp_path / "one")
    image = torch.randn(2, 5, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        one, two = (load_encoder(tmp_path / kind).double()(image) for kind in ("one", "sharded"))
    torch.testing.assert_close(two, one, rtol=1e-6, atol=1e-6)  # weights are stored in float32


def test_a_run_from_the_command_line(tmp_path):
    screen = [option for option in TINY if option.startswith("data.screen.")]
    recipe = ["experiment=kim2025_dino_debug", f"output_dir={tmp_path}", "run_id=a", "score=none", *screen]
    start(*recipe, "trainer=fsdp", "trainer.max_steps=4", "callbacks.knn.crops=30", ranks=2)
    run = tmp_path / "kim2025_dino_debug/a"
    assert record(run)["state"] == "finished"
    assert load_encoder(run / "encoder").trained_on["method"] == "DINO"


def test_a_method_with_a_single_number_as_weight_is_refused(monkeypatch):
    method = clip()
    monkeypatch.setattr(Method, "is_sharded", True)
    monkeypatch.setattr(type(method), "device_mesh", {"data_parallel": None})
    monkeypatch.setattr("morphoclip.methods.base.check_precision", lambda *_: None)
    method._trainer = type("Trainer", (), {"precision": "32-true"})()
    with pytest.raises(ValueError, match=r"CLIP has logit_scale, a single number.*trainer=ddp"):
        method.configure_model()
