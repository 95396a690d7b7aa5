"""The command `morphoclip data prepare`: five-channel TIFF fields to a dataset for training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from morphoclip.data.shards.codecs import CODECS
from morphoclip.preparation.crops import MODES
from morphoclip.preparation.prepare import prepare_dataset
from morphoclip.preparation.sources import JUMP_CHANNELS, find_images, read_load_data

EPILOG = """examples:
  PerkinElmer images, one folder per plate:
    %(prog)s --images plates/ --out datasets/mine
  CellProfiler's load_data.csv (JUMP, the Cell Painting Gallery) with plate maps, directly from the bucket:
    FSSPEC_S3_ANON=true %(prog)s \\
      --load-data 's3://cellpainting-gallery/cpg0000-jump-pilot/source_4/workspace/load_data_csv/*/*/load_data.csv' \\
      --metadata metadata/ --out datasets/jump --crop-size 224 --mode random
The last lines print the numbers of fields and crops written, and of fields in quarantine (reasons are in
quarantine.csv of the dataset).
"""


def main(arguments: Sequence[str] | None = None, prog: str = "morphoclip data prepare") -> int:
    """Run the command; returns 0 if any field could be used, 2 on bad input."""
    given = _parser(prog).parse_args(arguments)
    try:
        if given.images:
            sources = find_images(given.images, _channel_map(given.channel_map))
        else:
            sources = read_load_data(
                given.load_data, root=given.root, replace=given.replace, duplicates=given.duplicates
            )
        prepare_dataset(
            sources,
            given.out,
            metadata=given.metadata,
            crop_size=given.crop_size,
            mode=given.mode,
            crops_per_field=given.crops_per_field,
            bin=given.bin,
            pixel_size_um=given.pixel_size,
            otsu_factor=given.otsu_factor,
            codec=given.codec,
            shard_bytes=given.shard_mb * 2**20,
            seed=given.seed,
            workers=given.workers,
        )
    except ImportError as error:  # fsspec imports the package for a URL on first use
        print(f"error: {error}; for s3:// paths: pip install s3fs", file=sys.stderr)
        return 2
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _channel_map(text: str) -> dict[int, str]:
    try:
        return {int(number): name for number, name in (pair.split("=") for pair in text.split(","))}
    except ValueError as error:
        raise ValueError(f"--channel-map {text!r}: give it as 1=Mito,2=AGP,3=RNA,4=ER,5=DNA") from error


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Turn five-channel TIFF fields into a dataset for training.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--images",
        type=Path,
        help="folder of PerkinElmer images (r01c02f03p01-ch1sk1fk1fl1.tiff), one folder per plate",
    )
    source.add_argument(
        "--load-data", nargs="+", metavar="GLOB", help="load_data.csv files (csv, csv.gz, parquet), quoted glob or URL"
    )
    parser.add_argument("--out", type=Path, required=True, help="dataset folder to make; it is never overwritten")
    parser.add_argument(
        "--metadata", type=Path, help="folder with plate maps (barcode_platemap.csv) and annotation tables"
    )
    default = ",".join(f"{number}={name}" for number, name in JUMP_CHANNELS.items())
    parser.add_argument(
        "--channel-map", default=default, help=f"with --images: stain of each channel number (default {default})"
    )
    parser.add_argument(
        "--root", help="with --load-data: folder of relative PathNames (default: the folder of each csv)"
    )
    parser.add_argument(
        "--replace",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="with --load-data: replace the beginning of absolute PathNames",
    )
    parser.add_argument(
        "--duplicates",
        choices=("error", "drop"),
        default="error",
        help="for rows that repeat a field with the same files (default error)",
    )
    parser.add_argument("--crop-size", type=int, default=64, help="pixels, after binning (default 64)")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="nuclei",
        help="one crop per nucleus, crops side by side, or at random (default nuclei)",
    )
    parser.add_argument(
        "--crops-per-field", type=int, help="number per field for random (default 16), maximum for other modes"
    )
    parser.add_argument("--bin", type=int, default=1, help="average N x N pixels into one (default 1)")
    parser.add_argument(
        "--pixel-size",
        type=float,
        default=0.598,
        help="µm per pixel of the TIFFs, before binning (default .598: 20x, camera binning 2)",
    )
    parser.add_argument(
        "--otsu-factor", type=float, default=1.0, help="foreground is DNA above this × Otsu's threshold (default 1)"
    )
    parser.add_argument(
        "--codec",
        choices=sorted(CODECS),
        default="blosc",
        help="blosc: lossless; raw: none; sqrt: smaller, within a fifth of the camera's noise (default blosc)",
    )
    parser.add_argument("--shard-mb", type=int, default=256, help="size of a shard in MiB (default 256)")
    parser.add_argument("--seed", type=int, default=0, help="seed of random crops (default 0)")
    parser.add_argument("--workers", type=int, help="processes (default: all cores); the result does not depend on it")
    return parser
