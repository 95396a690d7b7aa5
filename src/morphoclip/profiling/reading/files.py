"""A table file of any format ▶ its columns as they are named, with types that numpy knows."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.profiling.reading.text import read_text
from morphoclip.profiling.reading.types import plain_frame
from morphoclip.profiling.reading.unpacking import unpacked

PLATE_IN_PREAMBLE = f"{schema.PREFIX}Plate"


def read_frame(path: Path, as_text: Callable[[str], bool], notes: list[str]) -> pd.DataFrame:
    """The columns of a table file: delimited text (compressed or not), Excel, Parquet, feather or AnnData.

    The format is taken from the content. Columns of AnnData's `obs` get the prefix `Metadata_`.

    Args:
        as_text: whether a column of this name holds text even where it looks like numbers.
        notes: gets a sentence on each decision that the user may want to check.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: a library for this format is not installed.
        ValueError: the file is empty or damaged, or has no rows, or two different columns share a name.
    """
    content, kind = unpacked(path)
    plate = None
    if kind == "text":
        frame, plate = read_text(content, path, as_text, notes)
    else:
        try:
            frame = READERS[kind](content, path, notes)
        except ImportError:
            raise
        except Exception as error:  # whatever a library raises for a damaged file, with the file's name
            raise ValueError(f"{path} looks like {kind} and cannot be read: {error}") from error
        frame = plain_frame(frame, path, notes)
    if frame.empty:
        raise ValueError(f"{path} has no rows" if not len(frame) else f"{path} has no columns")
    frame = _without_repeats(frame, path, notes)
    blank = frame.isna().all(axis=1)
    if blank.any():
        notes.append(f"{path.name}: {int(blank.sum())} rows without any value are left out")
        frame = frame[~blank].reset_index(drop=True)
    if plate is not None and not any(schema.plain_name(c) in schema.SPELLINGS[schema.PLATE] for c in frame):
        notes.append(f"{path.name}: plate {plate}, as the lines above the table say")
        frame.insert(0, PLATE_IN_PREAMBLE, plate)
    return frame


def _parquet(content: bytes, path: Path, notes: list[str]) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content))


def _feather(content: bytes, path: Path, notes: list[str]) -> pd.DataFrame:
    return pd.read_feather(io.BytesIO(content))


def _excel(content: bytes, path: Path, notes: list[str]) -> pd.DataFrame:
    try:
        sheets = pd.read_excel(io.BytesIO(content), sheet_name=None, dtype=object)
    except ImportError as error:
        raise ImportError(f"{path} is an Excel file: `pip install openpyxl`, or save it as csv ({error})") from error
    filled = {name: sheet for name, sheet in sheets.items() if not sheet.empty}
    if not filled:
        raise ValueError("no sheet has rows")
    first = next(iter(filled))
    if len(sheets) > 1:
        others = [name for name in sheets if name != first]
        notes.append(f"{path.name}: sheet {first!r} is read, others are not ({', '.join(others)})")
    return filled[first].dropna(axis=1, how="all").rename(columns=lambda name: str(name).strip()).infer_objects()


def _anndata(content: bytes, path: Path, notes: list[str]) -> pd.DataFrame:
    try:
        import anndata
    except ImportError as error:
        raise ImportError(f"{path} is an AnnData file: `pip install 'morphoclip[anndata]'`") from error
    data = anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_h5ad(io.BytesIO(content))
    obs = data.obs.rename(columns=lambda c: c if str(c).startswith(schema.PREFIX) else f"{schema.PREFIX}{c}")
    values = data.X
    names = list(data.var_names)
    if values is None or not names:
        shapes = {key: values.shape[1] for key, values in data.obsm.items() if len(values.shape) == 2}
        if len(shapes) != 1:
            raise ValueError(f"it has no X, and its obsm holds {shapes or 'nothing'}: write the features into X")
        key, size = next(iter(shapes.items()))
        notes.append(f"{path.name}: it has no X, so obsm[{key!r}] is read as {size} features")
        values, names = data.obsm[key], [f"{key}_{i:04d}" for i in range(size)]
    values = values if not hasattr(values, "toarray") else values.toarray()
    features = pd.DataFrame(values, columns=names).reset_index(drop=True)
    return pd.concat([obs.reset_index(drop=True), features], axis=1)


READERS = {"parquet": _parquet, "feather": _feather, "excel": _excel, "h5ad": _anndata}


def _without_repeats(frame: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    """The frame without second columns of a name that hold the same; nameless columns without values go too."""
    keep: list[int] = []
    first: dict[str, int] = {}
    for number, name in enumerate(frame.columns):
        column = frame.iloc[:, number]
        if name.startswith("Unnamed: ") and column.isna().all():
            continue
        if name in first:
            if not column.astype(object).equals(frame.iloc[:, first[name]].astype(object)):
                raise ValueError(f"{path} has two different columns named {name!r}: rename one of them")
            notes.append(f"{path.name}: column {name!r} is there twice with the same values and read once")
            continue
        first[name] = number
        keep.append(number)
    return frame.iloc[:, keep]
