"""How a crop becomes bytes in a shard and back, chosen by the name in the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numcodecs import blosc

# Blosc's own threads fight with the loader's workers and are unsafe after a fork.
blosc.use_threads = False


@dataclass(frozen=True)
class Codec:
    """One way to store a crop.

    Attributes:
        name: as written in the manifest.
        extension: of the tar member (KEY.<extension>).
        encode: C-contiguous array -> bytes.
        decode: (bytes, out) fills `out`, a C-contiguous array of the crop's shape and dtype; ValueError where the
            bytes hold another size.
    """

    name: str
    extension: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, np.ndarray], None]


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


def _decode_blosc(data: bytes, out: np.ndarray) -> None:
    nbytes = int.from_bytes(data[4:8], "little")  # of the decompressed chunk, in Blosc-1's header
    if nbytes != out.nbytes:
        raise ValueError(f"Blosc chunk of {nbytes} bytes where {out.shape} {out.dtype} needs {out.nbytes}")
    blosc.decompress(data, out)


CODECS = {
    codec.name: codec
    for codec in (
        Codec("raw", "npy", _encode_npy, _decode_npy),
        Codec("blosc", "blosc", _encode_blosc, _decode_blosc),
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
