"""Speed is counted per batch of samples; waiting for the loader is measured apart from all else, on every rank."""

from __future__ import annotations

import os
import resource
import time

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pytorch_lightning.profilers import SimpleProfiler

from morphoclip.training.callbacks import Speed
from morphoclip.training.curves import CSVCurves, read_rows
from morphoclip.training.measurement import Measurement
from tests.methods.tiny import bags, loader, simclr, trainer


class SlowBatches(list):
    """A data source that lets training wait."""

    seconds = 0.05

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return super().__getitem__(index)


def slow_loader(batches: int, seconds: float = 0.05):
    plain = loader(*[bags()] * batches)
    source = SlowBatches(plain.dataset)
    source.seconds = seconds
    return type(plain)(source, batch_size=None)


def test_speed_and_the_share_of_waiting_are_logged():
    run = trainer(4, callbacks=[Speed(every_n_steps=4)])
    start = time.perf_counter()
    run.fit(simclr(), slow_loader(4))
    elapsed = time.perf_counter() - start
    logged = run.callback_metrics
    # Four batches of six bags in less than the whole fit took, of which at least .2 s was waiting.
    assert logged["speed/samples_per_s"] > 24 / elapsed
    assert 0.2 / elapsed < logged["speed/data_wait"] < 1
    assert {"speed/samples_per_s", "speed/data_wait"} <= set(run.progress_bar_metrics)


class SlowMoves(pl.Callback):
    """Lets moving a batch, the step and a callback take a while."""

    def setup(self, trainer, pl_module, stage):
        move = pl_module.transfer_batch_to_device

        def slowly(*args):
            time.sleep(0.13)
            return move(*args)

        pl_module.transfer_batch_to_device = slowly

    def on_before_backward(self, *_):
        time.sleep(0.06)

    def on_train_batch_start(self, *_):
        time.sleep(0.04)


def test_the_time_of_a_step_is_divided_into_its_parts():
    run = trainer(4, callbacks=[SlowMoves(), Speed(every_n_steps=2)])
    run.fit(simclr(), slow_loader(4, seconds=0.02))
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    # What is slept is in its own part, and only there: moving a batch is not waiting for data.
    slept = {"data": 20, "copy": 130, "step": 60, "callbacks": 40}
    assert {name: logged[f"speed/{name}_ms"] >= least for name, least in slept.items()} == dict.fromkeys(slept, True)
    assert logged["speed/data_ms"] < 100
    parts = sum(logged[f"speed/{name}_ms"] for name in ("data", "copy", "step", "callbacks"))
    assert parts == pytest.approx(1000 * len(bags()) / logged["speed/samples_per_s"], rel=1e-4)
    assert logged["speed/data_wait"] == pytest.approx(logged["speed/data_ms"] / parts, rel=1e-4)


class Slow(Measurement):
    """Measures slowly."""

    def scores(self, trainer, pl_module):
        time.sleep(0.3)
        return {}


def test_measurements_are_not_counted():
    run = trainer(4, callbacks=[Slow(every_n_steps=1), Speed(every_n_steps=4)])
    start = time.perf_counter()
    run.fit(simclr(), loader(*[bags()] * 4))
    assert time.perf_counter() - start > 1.2
    assert run.callback_metrics["speed/callbacks_ms"] < 100


def test_another_profiler_still_sees_every_action():
    profiler = SimpleProfiler()
    run = trainer(2, callbacks=[Speed(every_n_steps=1)], profiler=profiler)
    run.fit(simclr(), slow_loader(2))
    assert len(profiler.recorded_durations["run_training_batch"]) == 2
    assert sum(profiler.recorded_durations["[_TrainingEpochLoop].train_dataloader_next"]) >= 0.1


def test_peak_memory_of_a_cpu_is_that_of_the_process():
    run = trainer(1, callbacks=[Speed(every_n_steps=1)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    run.fit(simclr(), loader(bags()))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert before * 0.999 <= run.callback_metrics["speed/peak_memory_gib"] <= after * 1.001


def test_nothing_is_logged_before_a_full_window():
    run = trainer(2, callbacks=[Speed(every_n_steps=3)])
    run.fit(simclr(), loader(bags()))
    with pytest.raises(KeyError):
        run.callback_metrics["speed/data_wait"]


def test_every_row_of_the_curves_has_a_speed(tmp_path):
    run = trainer(6, callbacks=[Speed()], logger=CSVCurves(tmp_path), log_every_n_steps=2)
    run.fit(simclr(), loader(*[bags()] * 6))
    rows = read_rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert all(float(row["speed/step_ms"]) > 0 for row in rows)


def train_rank(rank: int, folder: str) -> None:
    """One of two ranks; the second waits longer for its data."""
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    collectives = []
    gather = dist.all_gather_into_tensor

    def counted(out, mine, *args, **options):
        if mine.shape == (1, 7):
            collectives.append(mine)
        return gather(out, mine, *args, **options)

    dist.all_gather_into_tensor = counted
    run = trainer(4, callbacks=[Speed(every_n_steps=2)], devices=2, strategy="ddp")
    run.fit(simclr(), slow_loader(4, seconds=0.02 + 0.1 * rank))
    found = {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("speed/")}
    torch.save({"found": found, "own": [row[0].tolist() for row in collectives]}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_ranks_report_the_slowest_and_the_mean_at_logging_steps_only(tmp_path):
    mp.spawn(train_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert len(first["own"]) == 2  # four steps, two windows
    assert first["found"] == pytest.approx(second["found"])
    rates, waits, memory = zip(first["own"][-1][:3], second["own"][-1][:3], strict=True)
    found = first["found"]
    assert found["speed/samples_per_s"] == pytest.approx(sum(rates))
    assert found["speed/samples_per_s_rank_min"] == pytest.approx(min(rates))
    assert found["speed/samples_per_s_rank_mean"] == pytest.approx(sum(rates) / 2)
    assert found["speed/data_wait"] == pytest.approx(sum(waits) / 2)
    assert found["speed/data_wait_min"] == pytest.approx(waits[0])
    assert found["speed/data_wait_max"] == pytest.approx(waits[1])
    assert waits[1] > 2 * waits[0]
    assert found["speed/peak_memory_gib"] == pytest.approx(max(memory))


class Skipping(pl.LightningDataModule):
    """A data module that had to skip two damaged samples."""

    skipped = 2

    def train_dataloader(self):
        return loader(bags())


def test_skipped_samples_are_logged_where_there_are_any():
    run = trainer(1, callbacks=[Speed(every_n_steps=1)])
    run.fit(simclr(), datamodule=Skipping())
    assert run.callback_metrics["data/skipped"] == 2
    assert run.progress_bar_metrics["data/skipped"] == 2
