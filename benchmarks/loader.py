"""How fast crops of CPJUMP1's images come from disk, side by side in one run.

`python -m benchmarks.loader [--images DIR] [--check] [--json]`. Crops are 5 x 224 x 224 uint16 of the images in
../shared/data/cpjump1, written to shards in every codec, and in the page cache as a read from disk leaves them there
(pages as small as a write leaves them are slower to read: the row `raw, just written`). On one core: reading, checking and
decoding into a buffer that is there; beside raw, `os.preadv` of the same bytes and nothing else; a plain `webdataset`
pipeline over the png16 shards; and reading a field's five LZW TIFFs and cropping. On two cores: whole batches, by our threads and by a DataLoader's processes. A rate is the best of
some short repeats; beside it stands the rate a second of processor time, which other work on the machine changes less:
bars of one core are held against that one, bars of two cores against the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import imagecodecs
import numpy as np
import torch
import webdataset

from benchmarks.demo import machine
from morphoclip import schema
from morphoclip.data import ShardDataset, ShardWriter
from morphoclip.data.loading.loader import Loader
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import EpochSampler, Uniform
from morphoclip.data.shards.codecs import CODECS
from morphoclip.data.shards.intensities import describe_field
from morphoclip.data.shards.writer import EncodedCrop, encode_crop
from morphoclip.preparation.fields import read_field
from morphoclip.preparation.sources import find_images, path_columns

SIZE = 224
BATCH = 64
PEER = "webdataset pipeline, png16"
PREADV, WRITTEN = "os.preadv of the raw crops", "raw, just written"
FIELDS = "five LZW TIFFs, one crop each"
THREADS, PROCESSES = "blosc batches, 2 threads", "blosc batches, 2 processes"
BARS = {"raw": 15_000.0, "blosc": 2_000.0, THREADS: 1_500.0}
RATIO_BAR = 8.0
CLOCK = {1: "crops_per_processor_s", 2: "crops_per_s"}


def write_shards(folder: Path, images: Path, crops: int) -> tuple[list[dict], list[dict]]:
    """One dataset a codec of the same `crops` crops; (a row a codec of sizes and encoding rates, the fields' files)."""
    sources = find_images(images)
    files = [
        dict(zip(schema.CHANNELS, row, strict=True))
        for row in sources[path_columns(schema.CHANNELS)].itertuples(index=False)
    ]
    cut = []
    for number, paths in enumerate(files):
        field = read_field(paths)
        row = sources.iloc[number][[schema.PLATE, schema.WELL, schema.SITE]].to_dict()
        row |= {schema.PERTURBATION: row[schema.PLATE]} | describe_field(field, schema.CHANNELS)
        for y in range(0, field.shape[1] - SIZE + 1, SIZE):
            for x in range(0, field.shape[2] - SIZE + 1, SIZE):
                cut.append((row, y, x, np.ascontiguousarray(field[:, y : y + SIZE, x : x + SIZE])))
    sizes = []
    for name, codec in CODECS.items():
        start = process_time()
        encoded = [codec.encode(image) for *_, image in cut]
        seconds = process_time() - start
        sums = encode_crop(cut[0][3], cut[0][0], schema.CHANNELS, "raw").sums
        with ShardWriter(folder / name, schema.CHANNELS, name, crop_size=SIZE, pixel_size_um=0.598) as writer:
            for turn in range(crops):
                row, y, x, _ = cut[turn % len(cut)]
                writer.append(EncodedCrop(encoded[turn % len(cut)], sums), writer.add_field(row), y, x, 1.0)
        pixels = sum(image.nbytes for *_, image in cut)
        size = sum(map(len, encoded)) / pixels
        sizes.append({"codec": name, "share_of_raw": size, "encoded_per_s": len(cut) / seconds})
    return sizes, files


def rate(run: Callable[[], int], repeats: int) -> dict[str, float]:
    """The best of `repeats` runs, each returning how many crops it made, by the clock and a second of processor time.

    Processor time is this process's and that of the children that ended; a run with workers waits for them.
    """
    best = {"crops_per_s": 0.0, "crops_per_processor_s": 0.0}
    run()
    for _ in range(repeats):
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall, cpu = perf_counter(), process_time()
        crops = run()
        wall, cpu = perf_counter() - wall, process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu += after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        best = {
            "crops_per_s": max(best["crops_per_s"], crops / wall),
            "crops_per_processor_s": max(best["crops_per_processor_s"], crops / cpu),
        }
    return best


def decode(dataset: ShardDataset, most: int) -> Callable[[], int]:
    out = np.ones(dataset.shape, np.uint16)
    rows = np.random.default_rng(0).permutation(len(dataset))[:most].tolist()

    def run() -> int:
        for row in rows:
            dataset.read_row(row, out)
        return len(rows)

    return run


def plain_preadv(dataset: ShardDataset, most: int) -> Callable[[], int]:
    """The least that reading a raw crop takes: its bytes into the same buffer, unchecked, places looked up before."""
    out = np.ones(dataset.shape, np.uint16)
    rows = np.random.default_rng(0).permutation(len(dataset))[:most]
    header = bytearray(int(dataset.index["nbytes"][0]) - out.nbytes)
    shards = [os.open(dataset.folder / "shards" / shard["name"], os.O_RDONLY) for shard in dataset.manifest["shards"]]
    places = [(shards[dataset.index["shard"][row]], int(dataset.index["offset"][row])) for row in rows]

    def run() -> int:
        for file, offset in places:
            os.preadv(file, [header, out], offset)
        return len(places)

    return run


def read_again(folder: Path) -> None:
    """Drop a folder's shards from the page cache and read them from disk."""
    for path in sorted((folder / "shards").glob("*.tar")):
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(2**22):
                pass


def plain_webdataset(folder: Path, most: int) -> Callable[[], int]:
    """What reads the same shards without us: webdataset and imagecodecs, a crop at a time, copied to a buffer."""
    shards = sorted(map(str, (folder / "shards").glob("*.tar")))
    out = np.ones((len(schema.CHANNELS), SIZE, SIZE), np.uint16)

    def run() -> int:
        pipeline = webdataset.WebDataset(shards, shardshuffle=False)
        pipeline = pipeline.decode(webdataset.handle_extension("png", imagecodecs.png_decode))
        count = 0
        for sample in pipeline:
            out[...] = sample["png"].reshape(sample["json"]["shape"])
            count += 1
            if count == most:
                break
        return count

    return run


def tiff_fields(files: list[dict]) -> Callable[[], int]:
    out = np.ones((len(schema.CHANNELS), SIZE, SIZE), np.uint16)

    def run() -> int:
        for paths in files:
            out[...] = read_field(paths)[:, 400 : 400 + SIZE, 400 : 400 + SIZE]
        return len(files)

    return run


def thread_batches(mixture: Mixture) -> Callable[[], int]:
    loader = Loader(mixture, EpochSampler(Uniform(mixture, BATCH, seed=0)), num_workers=2)
    return lambda: sum(len(batch) for batch in loader)


def process_batches(mixture: Mixture) -> Callable[[], int]:
    """The same batches by worker processes; starting them is not counted, as a run starts them once."""
    sampler = EpochSampler(Uniform(mixture, BATCH, seed=0))

    def run() -> int:
        count = 0
        for batch in torch.utils.data.DataLoader(mixture, batch_size=None, sampler=sampler, num_workers=2):
            count += len(batch)
        sampler.ready = len(sampler)
        return count

    return run


def measure(folder: Path, files: list[dict], repeats: int) -> list[dict]:
    cores = sorted(os.sched_getaffinity(0))
    rows = []
    os.sched_setaffinity(0, cores[:1])
    raw = ShardDataset(folder / "raw")
    rows.append({"row": WRITTEN, "cores": 1} | rate(decode(raw, 480), repeats))
    for name in CODECS:
        read_again(folder / name)
    rows.append({"row": PREADV, "cores": 1} | rate(plain_preadv(raw, 480), repeats))
    for name in CODECS:
        dataset = ShardDataset(folder / name)
        slow = name in ("png16", "tiff")
        rows.append({"row": name, "cores": 1} | rate(decode(dataset, 48 if slow else 480), 2 if slow else repeats))
    rows.append({"row": PEER, "cores": 1} | rate(plain_webdataset(folder / "png16", 48), 2))
    rows.append({"row": FIELDS, "cores": 1} | rate(tiff_fields(files), 2))
    os.sched_setaffinity(0, cores[:2])
    mixture = Mixture([ShardDataset(folder / "blosc")])
    rows.append({"row": THREADS, "cores": 2} | rate(thread_batches(mixture), repeats))
    rows.append({"row": PROCESSES, "cores": 2} | rate(process_batches(mixture), 3))
    os.sched_setaffinity(0, cores)
    for row in rows:
        row["bar"] = BARS.get(row["row"])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).parents[2] / "shared/data/cpjump1/images"
    parser.add_argument("--images", type=Path, default=shared, help="folder of PerkinElmer images")
    parser.add_argument(
        "--crops", type=int, default=480, help="crops a dataset (default 480: a quarter of a gigabyte raw)"
    )
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sizes, files = write_shards(Path(folder), given.images, given.crops)
        rows = measure(Path(folder), files, given.repeats)
    by_name = {row["row"]: row["crops_per_processor_s"] for row in rows}
    ratio = by_name["blosc"] / by_name[PEER]
    missed = [row["row"] for row in rows if row["bar"] and row[CLOCK[row["cores"]]] < row["bar"]]
    if ratio < RATIO_BAR:
        missed.append(f"blosc / {PEER}")
    if given.json:
        print(
            json.dumps({"machine": machine(), "codecs": sizes, "rows": rows, "blosc_to_peer": ratio, "missed": missed})
        )
    else:
        print(f"{machine()}; load {os.getloadavg()[0]:.1f}\n")
        print(f"{'codec':<8}{'share of raw':>14}{'encoded a processor s':>24}")
        for row in sizes:
            print(f"{row['codec']:<8}{row['share_of_raw']:>14.3f}{row['encoded_per_s']:>24.0f}")
        print(f"\n{'':<32}{'cores':>6}{'crops/s':>10}{'a processor s':>15}{'bar':>9}")
        for row in rows:
            bar = f"{row['bar']:.0f}" if row["bar"] else ""
            line = f"{row['row']:<32}{row['cores']:>6}{row['crops_per_s']:>10.0f}"
            print(f"{line}{row['crops_per_processor_s']:>15.0f}{bar:>9}")
        print(f"\nblosc / {PEER}: {ratio:.1f} (bar {RATIO_BAR:.0f})")
        print(f"raw / {PREADV}: {by_name['raw'] / by_name[PREADV]:.2f}")
    if given.check and missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return int(given.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
