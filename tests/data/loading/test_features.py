"""Features on disk, of crops and of imported tables: the same rows, samplers and splits as pixels; nothing half-written."""

import numpy as np
import pandas as pd
import pytest
import torch

from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.data.loading import datamodule, resumable
from morphoclip.data.loading.features import FeatureDataModule, FeatureDataset
from morphoclip.data.shards.assignments import write_splits
from morphoclip.models import create_encoder
from morphoclip.profiling.feature_embedding import embed_features
from morphoclip.profiling.feature_writer import FeatureWriter
from morphoclip.profiling.features import write_features
from morphoclip.profiling.import_table import write_table


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    rows = [
        {
            schema.PLATE: f"P{plate}",
            schema.WELL: f"A{well + 1:02d}",
            schema.PERTURBATION: ["DMSO", "a", "b", "c", "g1", "o1"][well % 6],
            schema.MODALITY: ["compound", "compound", "compound", "compound", "crispr", "orf"][well % 6],
            schema.CONTROL_TYPE: "negcon" if well % 6 == 0 else "",
        }
        for plate in range(2)
        for well in range(12)
    ]
    values = pd.DataFrame(rng.normal(size=(24, 4)), columns=list("wxyz"))
    return pd.concat([pd.DataFrame(rows), values], axis=1)


@pytest.fixture(scope="module")
def imported(table, tmp_path_factory):
    return write_table(table, tmp_path_factory.mktemp("imported") / "dataset", {})


def module_of(folder, batch_size, **options):
    return FeatureDataModule([{"root": str(folder)}], batch_size, "bags", **options)


def test_a_table_gives_bags_of_one_perturbation_across_plates(table, imported):
    module = module_of(imported, 4, sampler_options={"bag_size": 3})
    batch = next(iter(module.train_dataloader()))
    assert batch.features.shape == (4, 3, 1, 4)
    for bag, perturbation in enumerate(batch.perturbation):
        rows = batch.sample[bag]
        assert set(table[schema.PERTURBATION].iloc[rows]) == {sorted(set(table[schema.PERTURBATION]))[perturbation]}
        assert len(batch.plate[bag].unique()) == 2
        np.testing.assert_array_equal(batch.features[bag, :, 0], table[list("wxyz")].to_numpy(np.float32)[rows])


def test_batches_made_ahead_are_the_same_and_resume_where_they_were_handed_out(imported):
    def module(num_workers):
        return module_of(imported, 4, num_workers=num_workers, sampler_options={"bag_size": 2, "steps_per_epoch": 6})

    plain = [batch.sample for batch in module(0).train_dataloader()]
    ahead = module(1).train_dataloader()
    batches = iter(ahead)
    started = [next(batches).sample for _ in range(2)]
    state = ahead.state_dict()
    batches.close()
    resumed = module(1).train_dataloader()
    resumed.load_state_dict(state)
    assert torch.equal(torch.stack(started + [batch.sample for batch in resumed]), torch.stack(plain))


@pytest.fixture
def small_dataset(screen):
    return ShardDataset(screen)


@pytest.mark.parametrize(("modality", "held"), [("compound", "b"), ("crispr", "g1"), ("orf", "o1")])
def test_held_out_perturbations_never_leave_the_loader(table, imported, tmp_path, modality, held):
    """Walk three epochs of the loader; what is held out, of whatever modality, is in no batch."""
    np.save(tmp_path / "rows.npy", np.flatnonzero(table[schema.PERTURBATION] != held))
    module = module_of(imported, 3, split=str(tmp_path / "rows.npy"), sampler_options={"bag_size": 2})
    loader, seen = module.train_dataloader(), set()
    for _ in range(3):
        for batch in loader:
            seen |= set(module.mixture.fields[schema.PERTURBATION].iloc[batch.sample.flatten().numpy()])
    assert seen == set(table[schema.PERTURBATION]) - {held}
    assert held not in set(module.table.frame[schema.PERTURBATION])


def test_two_ranks_give_the_batches_of_one(imported, monkeypatch):
    def samples(rank, ranks):
        monkeypatch.setattr(datamodule, "rank", lambda: rank)
        for place in (datamodule, resumable):
            monkeypatch.setattr(place, "world_size", lambda: ranks)
        options = {"global_batch_size": 4, "sampler_options": {"bag_size": 2, "steps_per_epoch": 3}}
        return [batch.sample for batch in module_of(imported, None, **options).train_dataloader()]

    one, first, second = samples(0, 1), samples(0, 2), samples(1, 2)
    assert len(one) == len(first) == len(second) == 3
    for whole, *halves in zip(one, first, second, strict=True):
        assert sorted(map(tuple, whole.tolist())) == sorted(tuple(bag) for half in halves for bag in half.tolist())


def test_folders_of_the_same_features_mix_and_others_are_refused(table, imported, tmp_path):
    again = write_table(table.assign(**{schema.PLATE: "Q"})[:12], tmp_path / "again", {})
    mixed = FeatureDataModule(
        [{"root": str(imported)}, {"root": str(again)}], 6, "bags", sampler_options={"bag_size": 4}
    )
    assert len(mixed.mixture) == 36
    assert {int(plate) for batch in mixed.train_dataloader() for plate in batch.plate.flatten()} == {0, 1, 2}
    other = write_table(table.rename(columns={"z": "zz"}), tmp_path / "other", {})
    two = FeatureDataModule([{"root": str(imported)}, {"root": str(other)}], 4)
    with pytest.raises(ValueError, match=r"other features .*1 missing \(e.g. z\), 1 surplus \(e.g. zz\).*--features"):
        two.setup()
    turned = write_table(table[[*table.columns[:-2], "z", "y"]], tmp_path / "turned", {})
    with pytest.raises(ValueError, match="the same in another order"):
        FeatureDataModule([{"root": str(imported)}, {"root": str(turned)}], 4).setup()


def test_well_and_perturbation_profiles_pool_bags(table, imported):
    encoder = create_encoder("profile_mlp", channels=["profile"], feature_dim=4, embed_dim=3, width=8, blocks=1).eval()
    dataset = FeatureDataset(imported)
    wells = embed_features(encoder, dataset, batch_size=5)
    assert len(wells) == 24
    row = wells[(wells[schema.PLATE] == "P1") & (wells[schema.WELL] == "A03")].iloc[0]
    x = torch.tensor(table[list("wxyz")].to_numpy(np.float32))
    alone = encoder(encoder.preprocess(x[14][None, None]))[0]
    np.testing.assert_allclose(
        row[[c for c in wells if c.startswith("embedding")]].astype(float), alone.detach(), rtol=1e-4, atol=1e-6
    )
    pooled = embed_features(encoder, dataset, "perturbation")
    assert sorted(pooled[schema.PERTURBATION]) == ["DMSO", "a", "b", "c", "g1", "o1"]
    own = np.flatnonzero(table[schema.PERTURBATION] == "b")
    bag = encoder(encoder.preprocess(x[own][None, :, None]))[0].detach()
    got = pooled[pooled[schema.PERTURBATION] == "b"].iloc[0]
    np.testing.assert_allclose(
        got[[c for c in pooled if c.startswith("embedding")]].astype(float), bag, rtol=1e-4, atol=1e-6
    )


def test_features_keep_the_index_of_their_pixels(small_dataset, tmp_path):
    encoder = create_encoder("intensity_statistics")
    folder = write_features(
        encoder, small_dataset, tmp_path / "features", dtype="float32", progress=False, batch_size=7
    )
    whole = FeatureDataset(folder)
    rows = np.arange(len(small_dataset))
    pixels, (low, high) = small_dataset.read(rows), small_dataset.intensities(rows)
    expected = encoder(encoder.preprocess(*map(torch.from_numpy, (pixels, low, high))))
    np.testing.assert_allclose(whole.read(rows)[:, 0], expected, rtol=1e-5, atol=1e-6)
    plates = small_dataset.fields[schema.PLATE]
    write_splits(whole, pd.Series(np.where(plates == plates.iloc[0], "train", "heldout"), index=plates.index))
    module = FeatureDataModule([{"root": str(folder)}], 2, split="train")
    for batch in module.train_dataloader():
        assert set(whole.fields[schema.PLATE].iloc[whole.fields_of(batch.sample.flatten().numpy())]) == {plates.iloc[0]}
    mean, std = FeatureDataset(folder, "train").channel_statistics()
    assert mean.shape == std.shape == whole.shape
    with pytest.raises(FileExistsError):
        write_features(encoder, small_dataset, folder, progress=False)


def test_an_unfinished_folder_never_bears_its_name(small_dataset, tmp_path):
    with (
        pytest.raises(ValueError, match="got no features"),
        FeatureWriter(tmp_path / "f", small_dataset, (1, 2), {}) as writer,
    ):
        writer.write(np.array([0]), np.zeros((1, 1, 2)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"no features\.npy"):
        FeatureDataset(small_dataset.folder)
