from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from morphoclip.data import ShardDataset, StreamDataModule
from morphoclip.data.loading.streaming import Stream
from morphoclip.data.shards.dataset import SampleError
from morphoclip.data.shards.remote import Store, StoreError
from morphoclip.data.shards.split_files import write_split
from tests.data.loading.test_datamodule import Recorder, fit
from tests.data.shards.test_faults import damage
from tests.data.shards.test_remote import quick


def rows_of(stream: Stream, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [[sample.row for sample in batch] for batch in stream.batches(epoch, start)]


def stream_of(folder, *rank: int, **options) -> Stream:
    return Stream(ShardDataset(folder), 16, *rank, buffer=options.pop("buffer", 50), **options)


def test_an_exact_epoch_gives_every_crop_once_as_it_is_on_disk(screen):
    module = StreamDataModule(str(screen), 44, num_workers=2, shuffle_buffer=60)
    dataset = ShardDataset(screen)
    seen = []
    for batch in module.train_dataloader():
        assert batch.images.shape == (44, 5, 8, 8)
        seen += batch.sample.tolist()
        for place, row in enumerate(batch.sample.tolist()):
            sample = dataset[row]
            np.testing.assert_array_equal(batch.images[place].numpy(), sample.image)
            np.testing.assert_array_equal(batch.high[place].numpy(), sample.high)
            assert batch.condition[place] == sample.condition
    assert sorted(seen) == list(range(352))
    assert len(module.train_dataloader()) == 8


def test_the_order_is_shuffled_across_shards_and_new_each_epoch(screen):
    stream = stream_of(screen)
    first, second = rows_of(stream), rows_of(stream, epoch=1)
    assert first == rows_of(stream_of(screen))
    assert first != second
    assert first != rows_of(stream_of(screen, seed=1))
    shards = ShardDataset(screen).index["shard"]
    assert np.mean([len(set(shards[batch])) for batch in first]) > 2


@pytest.mark.parametrize(("world_size", "fields"), [(2, 85), (3, 85), (7, 21)])
def test_ranks_have_equal_steps_and_share_nothing_whatever_the_shards(make_screen, rows_of_screen, world_size, fields):
    folder = make_screen(rows_of_screen[:fields])
    shards = ShardDataset(folder).manifest["shards"]
    assert (len(shards) < world_size) == (world_size == 7)
    assert len({shard["samples"] for shard in shards}) > 1  # uneven
    ranks = [Stream(ShardDataset(folder), 4, rank, world_size, buffer=20) for rank in range(world_size)]
    seen = [[row for batch in rows_of(rank) for row in batch] for rank in ranks]
    assert len({rank.steps for rank in ranks}) == 1
    assert {len(rows) for rows in seen} == {4 * ranks[0].steps}
    together = [row for rows in seen for row in rows]
    assert len(together) == len(set(together))
    assert len(together) > 0.9 * 4 * fields


@pytest.mark.parametrize(("world_size", "fields"), [(2, 85), (7, 21), (10, 5)])
def test_validation_gives_all_ranks_equal_batches_whatever_the_shards(
    make_screen, rows_of_screen, monkeypatch, world_size, fields
):
    folder = make_screen(rows_of_screen[:fields])
    write_split(folder, "val", np.arange(4 * fields))
    monkeypatch.setattr("morphoclip.data.loading.stream_datamodule.world_size", lambda: world_size)
    lengths, rows = [], []
    for rank in range(world_size):
        monkeypatch.setattr("morphoclip.data.loading.stream_datamodule.rank", lambda rank=rank: rank)
        loader = StreamDataModule(str(folder), 48, val_split="val").val_dataloader()
        batches = [batch.sample.tolist() for batch in loader]
        assert len(batches) == len(loader)
        lengths.append([len(batch) for batch in batches])
        rows += [row for batch in batches for row in batch]
    assert all(one == lengths[0] for one in lengths)
    assert len(rows) == len(set(rows))
    assert len(rows) > 0.9 * 4 * fields


def test_a_rank_without_a_batch_is_an_error_before_any_rank_waits(screen):
    with pytest.raises(ValueError, match=r"a rank of 50 has 7 crops.*lower global_batch_size"):
        stream_of(screen, 0, 50)


def test_resampled_epochs_have_the_steps_asked_for(screen):
    streams = [stream_of(screen, rank, 2, steps=60) for rank in range(2)]
    seen = [rows_of(stream) for stream in streams]
    assert [len(batches) for batches in seen] == [60, 60]  # more than an epoch
    assert seen[0] != seen[1]
    counts = np.bincount(np.concatenate([*seen[0], *seen[1]]), minlength=352)
    assert counts.min() == 0 or counts.max() > 2  # with replacement
    shown = np.bincount(ShardDataset(screen).index["shard"], weights=counts)
    held = np.bincount(ShardDataset(screen).index["shard"])
    assert shown[-1] / held[-1] < 4 * shown.sum() / held.sum()  # a small shard does not come as often as a large one


def test_only_the_split_is_streamed_and_statistics_are_its_own(make_screen):
    folder = make_screen()
    kept = np.arange(0, 200, 3)
    write_split(folder, "train", kept)
    write_split(folder, "val", np.arange(1, 200, 3))
    module = StreamDataModule(str(folder), 8, split="train", val_split="val", num_workers=1)
    rows = [row for batch in module.train_dataloader() for row in batch.sample.tolist()]
    assert set(rows) <= set(kept.tolist())
    assert len(rows) == len(set(rows)) == 64
    validation = [batch.sample.tolist() for batch in module.val_dataloader()]
    assert [row for batch in validation for row in batch] == list(range(1, 200, 3))  # in order, the last batch short


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("steps", [None, 9])
def test_a_resumed_stream_goes_on_with_the_very_next_batch(screen, workers, steps):
    def module() -> StreamDataModule:
        return StreamDataModule(str(screen), 40, steps, workers, shuffle_buffer=30)

    straight = module().train_dataloader()
    whole = [[batch.sample.tolist() for batch in straight] for _ in range(2)]
    first = module()
    loader = first.train_dataloader()
    before = [batch.sample.tolist() for batch in loader]
    before += [batch.sample.tolist() for batch in islice(loader, 3)]
    second = module()
    second.load_state_dict(first.state_dict())
    after = [batch.sample.tolist() for batch in second.train_dataloader()]
    assert before + after == whole[0] + whole[1]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("steps", "fields", "world_size"),
    [(None, 88, 2), (9, 88, 2), (None, 21, 7)],
    ids=["exact", "resampled", "fewer shards than ranks"],
)
def test_two_resumed_ranks_go_on_with_their_very_next_batches(
    make_screen, rows_of_screen, monkeypatch, workers, steps, fields, world_size
):
    folder = make_screen(rows_of_screen[:fields])
    assert (len(ShardDataset(folder).manifest["shards"]) < world_size) == (world_size == 7)
    monkeypatch.setattr("morphoclip.data.loading.stream_datamodule.world_size", lambda: world_size)
    first_epochs = []
    for rank in range(2):
        monkeypatch.setattr("morphoclip.data.loading.stream_datamodule.rank", lambda rank=rank: rank)

        def loader(state: dict | None = None):
            module = StreamDataModule(str(folder), 4, steps, workers, shuffle_buffer=30)
            module.load_state_dict(state or {"epoch": 0, "batches_ready": 0})
            return module.train_dataloader()

        def samples(batches) -> list[list[int]]:
            return [batch.sample.tolist() for batch in batches]

        straight, killed = loader(), loader()
        whole = samples(straight) + samples(straight)
        before = samples(killed) + samples(islice(killed, 2))
        assert killed.state_dict() == {"epoch": 1, "batches_ready": 2}
        assert before + samples(loader(killed.state_dict())) == whole
        first_epochs.append({row for batch in whole[: len(whole) // 2] for row in batch})
    assert steps or not first_epochs[0] & first_epochs[1]


@pytest.mark.parametrize(("num_workers", "stop_at"), [(0, 11), (1, 11), (1, -2)], ids=["alone", "helped", "epoch end"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_killed_run_that_streams_continues_with_the_very_next_batch(screen, tmp_path, num_workers, stop_at):
    def module() -> StreamDataModule:
        return StreamDataModule(str(screen), 44, num_workers=num_workers, shuffle_buffer=60)

    whole = fit(Recorder(), module())
    assert len(whole) == 24
    checkpoint = str(tmp_path / "killed.ckpt")
    before = fit(Recorder(stop_at, checkpoint), module())
    assert before + fit(Recorder(), module(), resume=checkpoint) == whole


def test_a_command_that_prints_files_is_a_store(screen, tmp_path, monkeypatch):
    monkeypatch.setenv("MORPHOCLIP_CACHE", str(tmp_path))
    root = f"pipe:cat {screen}/{{}}"
    module = StreamDataModule(root, 44, shuffle_buffer=0)
    rows = [row for batch in module.train_dataloader() for row in batch.sample.tolist()]
    assert sorted(rows) == list(range(352))
    with pytest.raises(ValueError, match="can be streamed but not read at an offset"):
        ShardDataset(root).read([0])


def test_a_shard_cut_short_is_an_error_or_is_skipped_and_counted(make_screen, monkeypatch):
    monkeypatch.setattr(Store, "pause", quick(Store.pause))
    folder = make_screen()
    shards = ShardDataset(folder).manifest["shards"]
    path = folder / "shards" / shards[1]["name"]
    path.write_bytes(path.read_bytes()[: shards[1]["nbytes"] // 2])
    (folder / "shards" / shards[2]["name"]).unlink()
    with pytest.raises((StoreError, FileNotFoundError)):
        list(StreamDataModule(str(folder), 44, retries=1).train_dataloader())
    module = StreamDataModule(str(folder), 44, retries=1, on_bad_sample="skip", num_workers=2)
    batches = list(module.train_dataloader())
    assert len(batches) == 8
    lost = module.skipped
    assert shards[2]["samples"] < lost < shards[1]["samples"] + shards[2]["samples"]
    assert len({row for batch in batches for row in batch.sample.tolist()}) == 352 - lost


def test_a_flipped_byte_is_found_in_a_stream(make_screen):
    folder = make_screen()
    damage(folder, 7)
    with pytest.raises(SampleError, match="sample 000000007 fails its checksum"):
        list(StreamDataModule(str(folder), 44).train_dataloader())
    module = StreamDataModule(str(folder), 44, on_bad_sample="skip")
    assert 7 not in {row for batch in module.train_dataloader() for row in batch.sample.tolist()}
    assert module.skipped == 1
