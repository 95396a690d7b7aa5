"""Codecs: a crop to the bytes in a shard and back, chosen by the name in the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numcodecs import blosc

from morphoclip.data.shards import companding
from morphoclip.data.shards.prediction import distances, restore

# Blosc's own threads compete with the loader's and are unsafe after a fork.
blosc.use_threads = False


@dataclass(frozen=True)
class Codec:
    """One way to store a crop.

    Attributes:
        name: as written in the manifest.
        extension: of the tar member (KEY.<extension>).
        encode: C-contiguous (C, H, W) uint16 -> bytes.
        decode: (bytes, out) fills `out`, a C-contiguous array of the crop's shape and dtype; ValueError if the size of
            the bytes does not match.
        verbatim: the bytes end with the pixels as in memory, so that a file can be read directly into the array.
    """

    name: str
    extension: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, np.ndarray], None]
    verbatim: bool = False


def crc32(data: bytes | memoryview | np.ndarray, value: int = 0) -> int:
    """zlib's CRC-32 by vector instructions, over ten times faster; `value` is the checksum of the preceding bytes."""
    import imagecodecs

    return imagecodecs.deflate_crc32(data, value)  # type: ignore[arg-type]  # any buffer works; the stub lists three


def _encode_npy(image: np.ndarray) -> bytes:
    stream = BytesIO()
    np.lib.format.write_array(stream, image, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _decode_npy(data: bytes, out: np.ndarray) -> None:
    header = 10 + int.from_bytes(data[8:10], "little")
    if len(data) - header != out.nbytes:
        raise ValueError(f"npy payload of {len(data) - header} bytes where {out.shape} {out.dtype} needs {out.nbytes}")
    out.reshape(-1)[:] = np.frombuffer(data, out.dtype, offset=header)


def _encode_blosc(image: np.ndarray) -> bytes:
    return blosc.compress(image, b"zstd", 3, blosc.SHUFFLE)


def _chunk_bytes(chunk: bytes) -> int:
    """Size of the decompressed chunk, from Blosc-1's header."""
    return int.from_bytes(chunk[4:8], "little")


def _decode_blosc(data: bytes, out: np.ndarray) -> None:
    if _chunk_bytes(data) != out.nbytes:
        raise ValueError(f"Blosc chunk of {_chunk_bytes(data)} bytes where {out.shape} {out.dtype} needs {out.nbytes}")
    blosc.decompress(data, out)


def _encode_sqrt(image: np.ndarray) -> bytes:
    return blosc.compress(distances(companding.compand(image)), b"zstd", 1, blosc.SHUFFLE)


def _decode_sqrt(data: bytes, out: np.ndarray) -> None:
    _decode_blosc(data, out)
    companding.expand(restore(out), out)


def _encode_png(image: np.ndarray) -> bytes:
    """The channels stacked vertically in one greyscale image."""
    import imagecodecs

    return imagecodecs.png_encode(image.reshape(-1, image.shape[-1]))


def _decode_png(data: bytes, out: np.ndarray) -> None:
    import imagecodecs

    _fill(out, imagecodecs.png_decode(data), "PNG")


def _encode_tiff(image: np.ndarray) -> bytes:
    import tifffile

    stream = BytesIO()
    tifffile.imwrite(stream, image, compression="lzw", photometric="minisblack", metadata=None)
    return stream.getvalue()


def _decode_tiff(data: bytes, out: np.ndarray) -> None:
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as tiff:
        _fill(out, tiff.asarray(), "TIFF")


def _fill(out: np.ndarray, image: np.ndarray, kind: str) -> None:
    if image.size != out.size or image.dtype != out.dtype:
        raise ValueError(
            f"{kind} of {image.nbytes} bytes {image.dtype} where {out.shape} {out.dtype} needs {out.nbytes}"
        )
    out[...] = image.reshape(out.shape)


CODECS = {
    codec.name: codec
    for codec in (
        Codec("raw", "npy", _encode_npy, _decode_npy, verbatim=True),
        Codec("blosc", "blosc", _encode_blosc, _decode_blosc),
        Codec("sqrt", "sqrt", _encode_sqrt, _decode_sqrt),
        Codec("png16", "png", _encode_png, _decode_png),
        Codec("tiff", "tiff", _encode_tiff, _decode_tiff),
    )
}


def get_codec(name: str) -> Codec:
    """The codec of that name.

    Raises:
        ValueError: no codec has this name.
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}: this morphoclip knows {sorted(CODECS)}")
    return CODECS[name]
