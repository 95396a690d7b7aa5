"""The content of a file, unpacked, and what kind of table it is, by its first bytes and not by its name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path

UNPACK = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ\x00": ("xz", lzma.decompress),
}
ZIP, ZSTD = b"PK\x03\x04", b"\x28\xb5\x2f\xfd"
KINDS = {
    b"PAR1": "parquet",
    b"ARROW1": "feather",
    b"FEA1": "feather",
    b"\x89HDF\r\n\x1a\n": "h5ad",
    b"\xd0\xcf\x11\xe0": "excel",  # .xls
}
NAMES = ".parquet, .csv, .tsv, .txt (also .gz, .bz2, .xz, .zip), .feather, .xlsx, .h5ad"


def unpacked(path: Path) -> tuple[bytes, str]:
    """(content, kind) of a file; the kind is parquet, feather, h5ad, excel or text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, damaged, or an archive of several tables.
    """
    content = path.read_bytes()
    if not content:
        raise ValueError(f"{path} is empty (0 bytes): export it again; the name of a table must end in one of {NAMES}")
    while True:
        if content.startswith(ZSTD):
            raise ValueError(f"{path} is compressed by zstd: unpack it first (zstd -d), or use gzip")
        if content.startswith(ZIP):
            if b"xl/workbook.xml" in content:
                return content, "excel"
            content = _only_member(path, content)
            continue
        packed = next((method for magic, method in UNPACK.items() if content.startswith(magic)), None)
        if packed is None:
            break
        name, unpack = packed
        try:
            content = unpack(content)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise ValueError(
                f"{path} is compressed by {name} and cannot be unpacked ({error}): it is damaged or cut off, copy it again"
            ) from error
        if not content:
            raise ValueError(f"{path} is empty once unpacked: export it again")
    if content[257:262] == b"ustar":
        raise ValueError(f"{path} is a tar archive: unpack it first (tar xf) and give its tables")
    return content, next((kind for magic, kind in KINDS.items() if content.startswith(magic)), "text")


def _only_member(path: Path, content: bytes) -> bytes:
    """The one file of a zip archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [
                name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")
            ]
            if len(members) != 1:
                raise ValueError(
                    f"{path} is an archive of {len(members)} files, e.g. {members[:3]}: unpack it and give its tables"
                )
            return archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is a zip archive that cannot be unpacked ({error}): copy it again") from error
