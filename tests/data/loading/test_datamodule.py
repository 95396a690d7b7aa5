from __future__ import annotations

import contextlib
from itertools import chain, islice

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from morphoclip import schema
from morphoclip.batch import Batch
from morphoclip.data import CellDataModule, ShardDataset, holdout, write_splits
from morphoclip.data.loading.resumable import batches_of
from morphoclip.data.sampling.samplers import EpochSampler, Uniform

BAGS = {"sampler": "bags", "batch_size": 6, "sampler_options": {"bag_size": 4}}
UNIFORM = {"sampler": "uniform", "batch_size": 40}


def module(folder, **options) -> CellDataModule:
    return CellDataModule([{"root": folder}], **options)


def epoch(loader) -> list[list[int]]:
    return [batch.sample.flatten().tolist() for batch in loader]


def test_a_uniform_batch_carries_pixels_intensities_and_codes(screen):
    datamodule = module(screen, **UNIFORM)
    dataset = ShardDataset(screen)
    batch = next(iter(datamodule.train_dataloader()))
    assert isinstance(batch, Batch)
    assert batch.images.shape == (40, 5, 8, 8)
    assert batch.images.dtype == torch.uint16
    for place, row in enumerate(batch.sample.tolist()):
        sample = dataset[row]
        np.testing.assert_array_equal(batch.images[place].numpy(), sample.image)
        np.testing.assert_array_equal(batch.high[place].numpy(), sample.high)
        for name in ("plate", "well", "position", "perturbation", "condition", "is_control"):
            assert getattr(batch, name)[place] == getattr(sample, name)


def test_a_fresh_dataset_needs_no_split_and_workers_come_fourth(screen):
    datamodule = CellDataModule([{"root": screen}], 32, "uniform", 2)
    loader = datamodule.train_dataloader()
    assert loader.num_workers == 2
    assert sorted(chain(*epoch(loader))) == list(range(len(ShardDataset(screen))))


def test_a_batch_of_bags_has_one_condition_a_bag(screen):
    datamodule = module(screen, **BAGS)
    batch = next(iter(datamodule.train_dataloader()))
    assert batch.images.shape == (6, 4, 5, 8, 8)
    assert batch.low.shape == (6, 4, 5)
    assert batch.mask.all()
    assert batch.plate.shape == (6, 4)
    assert batch.condition.shape == batch.perturbation.shape == batch.is_control.shape == (6,)
    conditions = ShardDataset(screen).codes.condition
    field = ShardDataset(screen).index["field"][batch.sample.numpy()]
    assert (conditions[field] == batch.condition.numpy()[:, None]).all()


@pytest.mark.parametrize("options", [UNIFORM, BAGS], ids=["uniform", "bags"])
def test_workers_do_not_change_the_batches(screen, options):
    alone = module(screen, **options).train_dataloader()
    helped = module(screen, num_workers=2, **options).train_dataloader()
    for _ in range(2):
        assert epoch(alone) == epoch(helped)


def test_a_plain_loop_shows_another_order_each_epoch(screen):
    loader = module(screen, **UNIFORM).train_dataloader()
    first, second = epoch(loader), epoch(loader)
    assert first != second
    assert loader.state_dict() == {"epoch": 2, "batches_ready": 0}


class Recorder(pl.LightningModule):
    """Trains one number and notes which crops it saw; stops itself at a step to play a killed run."""

    def __init__(self, stop_at: int | None = None, checkpoint: str = "") -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.stop_at, self.checkpoint = stop_at, checkpoint
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch.sample.flatten().tolist()))
        return self.weight**2

    def on_train_batch_end(self, *args) -> None:
        if self.global_step == self.stop_at:
            self.trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt

    def on_train_epoch_end(self) -> None:
        if self.stop_at == -1 - self.current_epoch:
            self.trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(recorder: Recorder, datamodule: CellDataModule, resume: str | None = None) -> list[tuple[int, list[int]]]:
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(recorder, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    return recorder.seen


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("stop_at", [1, 11, 16, -2], ids=["first batch", "mid epoch", "last batch", "epoch end"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_killed_run_continues_with_the_very_next_batch(screen, tmp_path, num_workers, stop_at):
    options = UNIFORM | {"num_workers": num_workers}
    whole = fit(Recorder(), module(screen, **options))
    steps = len(module(screen, **options).train_dataloader())
    assert len(whole) == 3 * steps == 24

    checkpoint = str(tmp_path / "killed.ckpt")
    before = fit(Recorder(stop_at, checkpoint), module(screen, **options))
    assert 0 < len(before) < len(whole)
    after = fit(Recorder(), module(screen, **options), resume=checkpoint)
    assert before + after == whole


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_two_resumed_ranks_see_what_one_straight_run_would(screen, monkeypatch, num_workers):
    whole = module(screen, **UNIFORM).train_dataloader()
    expected = [*epoch(whole), *epoch(whole)]
    monkeypatch.setattr("morphoclip.data.loading.datamodule.world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr("morphoclip.data.loading.datamodule.rank", lambda rank=rank: rank)
        options = UNIFORM | {"batch_size": 20, "num_workers": num_workers}
        first, second = module(screen, **options), module(screen, **options)
        loader = first.train_dataloader()
        seen = epoch(loader) + [batch.sample.tolist() for batch in islice(loader, 3)]
        second.load_state_dict(first.state_dict())
        parts.append(seen + epoch(second.train_dataloader()))
    assert len(parts[0]) == len(parts[1]) == len(expected)
    for one, two, both in zip(*parts, expected, strict=True):
        assert sorted(one + two) == sorted(both)


@pytest.mark.filterwarnings("error:.*not resumable")
def test_lightning_knows_the_loader_is_resumable(screen, tmp_path):
    checkpoint = str(tmp_path / "killed.ckpt")
    fit(Recorder(3, checkpoint), module(screen, **BAGS))
    assert fit(Recorder(), module(screen, **BAGS), resume=checkpoint)


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_a_shortened_epoch_is_followed_by_the_next(screen, num_workers):
    loader = module(screen, num_workers=num_workers, **UNIFORM).train_dataloader()
    full = epoch(module(screen, **UNIFORM).train_dataloader())
    taken = [batch.sample.tolist() for batch, _ in zip(loader, range(3), strict=False)]
    assert taken == full[:3]
    whole = module(screen, **UNIFORM).train_dataloader()
    assert [epoch(whole), epoch(whole)][1] == epoch(loader)
    assert loader.state_dict() == {"epoch": 2, "batches_ready": 0}


def test_nothing_held_out_reaches_training(make_screen):
    """Walk the loader and the table of prompts: no image, no id and no gene annotation of what was held out."""
    folder = make_screen()
    dataset = ShardDataset(folder)
    assignment = holdout(dataset.fields, batches=["b2"])
    write_splits(dataset, assignment)
    held = dataset.fields[(assignment == "heldout") & (dataset.fields[schema.BATCH] == "b1")]
    names = set(held[schema.PERTURBATION])
    assert len(names) == 8
    for options in (UNIFORM, BAGS):
        datamodule = module(folder, split="train", **options)
        loader = datamodule.train_dataloader()
        rows = np.unique(np.concatenate([row for _ in range(3) for row in epoch(loader)]))
        fields = dataset.fields.iloc[dataset.index["field"][rows]]
        assert not names & set(fields[schema.PERTURBATION])
        assert set(fields[schema.BATCH]) == {"b1"}
        assert not names & set(datamodule.table.frame[schema.PERTURBATION])
        text = " ".join(datamodule.table.prompts(dict.fromkeys(["compound", "crispr"], "{name} {gene}")))
        assert not any(name in text for name in names)
        assert len(datamodule.table) == len(set(fields[schema.PERTURBATION]) | {""})
    assert set(held[schema.GENE]) == {f"GENE{g}" for g in range(4)}


def test_validation_walks_its_split_in_order(make_screen):
    folder = make_screen()
    dataset = ShardDataset(folder)
    write_splits(dataset, holdout(dataset.fields, batches=["b2"]))
    datamodule = module(folder, split="train", val_split="heldout", **UNIFORM)
    rows = list(chain(*epoch(datamodule.val_dataloader())))
    assert rows == ShardDataset(folder, split="heldout").rows.tolist()
    assert module(folder, **UNIFORM).val_dataloader() == []


def test_a_mixture_shares_codes_and_must_match(make_screen, rows_of_screen):
    one = make_screen(rows_of_screen[:19], name="one")
    two = make_screen(rows_of_screen[19:38], name="two")
    datamodule = CellDataModule([{"root": one}, {"root": two, "weight": 2}], 30)
    names = datamodule.table.frame[schema.PERTURBATION]
    assert len(names) == 17
    sources = [ShardDataset(one), ShardDataset(two)]
    batch = next(iter(datamodule.train_dataloader()))
    assert set(batch.plate.tolist()) == {0, 1}
    for place in range(30):
        source = sources[int(batch.plate[place])]  # one plate each, and b1p1 sorts before b1p2
        row = int(batch.sample[place])
        np.testing.assert_array_equal(batch.images[place].numpy(), source[row].image)
        assert names[int(batch.condition[place])] == source.fields[schema.PERTURBATION][source.index["field"][row]]
    other = make_screen(name="other", size=10)
    with pytest.raises(ValueError, match=r"other has shape .* must match"):
        CellDataModule([{"root": one}, {"root": other}], 30).train_dataloader()


def test_mistaken_options_are_named(screen):
    with pytest.raises(ValueError, match="'pair': use one of"):
        module(screen, batch_size=4, sampler="pair")
    with pytest.raises(ValueError, match="not \\['wieght'\\]"):
        CellDataModule([{"root": screen, "wieght": 2}], 4)
    with pytest.raises(ValueError, match="datasets is empty"):
        CellDataModule([], 4)
    with pytest.raises(TypeError, match="bag_sise"):
        module(screen, batch_size=4, sampler="bags", sampler_options={"bag_sise": 3}).train_dataloader()


def test_a_global_batch_is_divided_into_equal_batches_within_the_limit():
    assert batches_of(1024, 1, 256) == 4
    assert batches_of(1024, 4, 256) == batches_of(1024, 4) == batches_of(24, 8) == 1
    assert batches_of(90, 3, 12) == 3  # batches of 10
    with pytest.raises(ValueError, match=r"128 cannot be divided among 3 ranks: start 2 or 4, .* to 126 or 129"):
        batches_of(128, 3)
    with pytest.raises(ValueError, match="max_batch_size=0 must be at least 1"):
        batches_of(128, 2, 0)
    with pytest.raises(ValueError, match="give either global_batch_size"):
        CellDataModule([{"root": "x"}])
    with pytest.raises(ValueError, match="give either global_batch_size"):
        CellDataModule([{"root": "x"}], 4, global_batch_size=8)


def test_ranks_and_accumulated_batches_divide_the_same_rows(screen):
    """The rows of a step are the same for 1 x 1, 1 x 4, 2 x 2 and 4 x 1 batches, in blocks."""
    plan = Uniform(CellDataModule([{"root": screen}], 8).mixture, 32, seed=0)
    for world, accumulate in ((1, 1), (1, 4), (2, 2), (4, 1)):
        ranks = [list(EpochSampler(plan, rank, world, accumulate)) for rank in range(world)]
        assert {len(batches) for batches in ranks} == {plan.steps * accumulate}
        for step in range(plan.steps):
            own = [np.concatenate(batches[step * accumulate : (step + 1) * accumulate]) for batches in ranks]
            np.testing.assert_array_equal(np.concatenate(own), plan.rows(0, step))
    half = EpochSampler(plan, 0, 1, 4)
    half.load_state_dict({"epoch": 0, "batches_ready": 6})
    np.testing.assert_array_equal(next(iter(half)), plan.rows(0, 1)[16:24])


def test_validation_by_the_training_sampler_shows_the_same_smaller_batches_each_time(make_screen):
    folder = make_screen(name="validated")
    write_splits(ShardDataset(folder), holdout(ShardDataset(folder).fields, batches=[]))
    datamodule = module(
        folder, batch_size=16, split="train", val_split="heldout", sampler="bags", val_sampler="training",
        sampler_options={"bag_size": 2, "steps_per_epoch": 1000},
    )  # fmt: skip
    loader = datamodule.val_dataloader()
    first, again = ([batch.sample for batch in loader] for _ in range(2))
    assert 1 < len(first) < 1000
    assert all(batch.shape[1] == 2 and len(batch) < 16 for batch in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(ValueError, match="use sequential or training"):
        module(folder, val_sampler="random", **UNIFORM)
