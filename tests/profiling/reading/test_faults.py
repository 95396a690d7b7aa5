"""Faults of tables: each is refused in one sentence that names the file, column, plate or well, and the remedy."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphoclip.profiling import read_profiles
from tests.profiling.reading.plates import FEATURES, gzipped, renamed, screen, text_of, with_value, written, zipped

Write = Callable[[Path], Path]


def put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def lists(folder: Path) -> Path:
    table = screen().drop(columns=FEATURES)
    table["vector"] = [[0.1] * (4 if i else 3) for i in range(24)]
    table.to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


# name -> (how it is written, options, what the error says)
FAULTS: dict[str, tuple[Write, dict, str]] = {
    "an empty file": (lambda f: put(f, "t.csv.gz", b""), {}, r"t\.csv\.gz is empty \(0 bytes\): export it again"),
    "nothing once unpacked": (lambda f: put(f, "t.csv.gz", gzip.compress(b"")), {}, r"t\.csv\.gz is empty once unpacked"),
    "a gzip that is cut off": (lambda f: put(f, "t.csv.gz", gzipped(f / "x").read_bytes()[:200]), {}, r"t\.csv\.gz is compressed by gzip and cannot be unpacked .*copy it again"),
    "zstd": (lambda f: put(f, "t.csv.zst", b"\x28\xb5\x2f\xfd123"), {}, "compressed by zstd: unpack it first"),
    "an archive of two tables": (lambda f: zipped(f / "t.zip", "a.csv", "b.csv"), {}, r"archive of 2 files, e\.g\. \['a\.csv', 'b\.csv'\]"),
    "a picture": (lambda f: put(f, "t.csv", b"\x89PNG\r\n\x1a\n\0\0\0\0"), {}, r"t\.csv is neither text nor a table"),
    "a damaged parquet": (lambda f: put(f, "t.parquet", b"PAR1" + b"x" * 90), {}, r"t\.parquet looks like parquet and cannot be read"),
    "only a header": (lambda f: put(f, "t.csv", text_of().splitlines()[0].encode()), {}, r"t\.csv has no rows"),
    "a last row that is cut off": (lambda f: put(f, "t.csv", text_of()[:-50].encode()), {}, r"t\.csv is cut off: its last row has \d of 8 cells"),
    "a web page": (lambda f: put(f, "t.csv", b"<html><body>404\nnot, found</body></html>"), {}, r"t\.csv holds no table: its first line is '<html>"),
    "a pointer of Git LFS": (lambda f: put(f, "t.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n"), {}, r"t\.csv holds no table: its first line is 'version https://git-lfs"),
    "one column": (lambda f: put(f, "t.csv", b"a\n1\n2\n"), {}, r"t\.csv holds no table"),
    "a folder": (lambda f: f, {}, r"is a folder: give its tables"),
    "a row with too many cells": (lambda f: put(f, "t.csv", (text_of() + "0118,B07,x,1,1,2,3,4,5,6\n").encode()), {}, r"t\.csv cannot be read as a table separated by commas with 8 columns"),
    "two different columns of one name": (lambda f: renamed(f, Dose="Compound"), {}, "two different columns named 'Compound'"),
    "an unknown name of ours": (lambda f: renamed(f), {"columns": {"pertubation": "Compound"}}, r"columns\.pertubation: there is no column of ours .*nearest: perturbation"),
    "a column that the table lacks": (lambda f: renamed(f), {"columns": {"perturbation": "compound_name"}}, r"columns\.perturbation=compound_name: .*t\.csv has no column 'compound_name'; nearest: Compound"),
    "a plate column that the table lacks": (lambda f: renamed(f, Plate="Platte"), {"columns": {"plate": "Platt"}}, r"columns\.Plate=Platt: .*has no column 'Platt'; nearest: Platte"),
    "a well beyond AF48": (lambda f: written(with_value("Well", "AG02"), f / "t.csv"), {}, r"t\.csv: plate 0117, row 6 below the header: well 'AG02' does not exist"),
    "a well in column 0": (lambda f: written(with_value("Well", "A00"), f / "t.csv"), {}, r"plate 0117, row 6 below the header: well 'A00' does not exist"),
    "wells that are numbers": (lambda f: written(screen().assign(Well=range(24)), f / "t.csv"), {}, r"wells are numbers, e\.g\. 0.*columns\.row"),
    "row 0": (lambda f: written(screen().drop(columns="Well").assign(Row=0, Column=range(24)), f / "t.csv"), {}, "no row 0 of wells: rows are counted from 1"),
    "one well in two spellings": (lambda f: written(with_value("Well", "A5", 5), f / "t.csv"), {}, r"plate 0117 has well A05 under two spellings, 'A05' and 'A5'"),
    "no plate": (lambda f: written(screen().rename(columns={"Plate": "Run"}), f / "t.csv"), {}, r"no column is the plate, and well A01 is there 2 times: .*columns that could be it: Metadata_Run|no column is the plate"),
    "text among numbers": (lambda f: written(with_value(FEATURES[1], "1,5"), f / "t.csv"), {}, r"t\.csv: column 'Cells_Texture_1_DNA' holds numbers, but '1,5' at plate 0117, well A06 \(1 such cells\)"),
    "an error of Excel": (lambda f: written(with_value(FEATURES[1], "#DIV/0!", 20), f / "t.csv"), {}, r"'#DIV/0!' at plate 0118, well B03"),
    "a control that no well has": (lambda f: renamed(f), {"control": "Vehicle"}, r"control=Vehicle: no well has 'Vehicle' in Metadata_perturbation; it holds 'DMSO' \(8\), 'cpd-0' \(4\)"),
    "a column of controls that is not there": (lambda f: renamed(f), {"control": {"Compoun": "DMSO"}}, "the table has no metadata column 'Compoun'; nearest: "),
    "a value of controls that is not there": (lambda f: renamed(f), {"control": {"Dose": "7"}}, r"in Metadata_dose_um; it holds '2\.5' \(16\), '0' \(8\)"),
    "features beside other numbers": (lambda f: written(screen().assign(viability=0.5, AUC=2.5), f / "t.csv"), {}, r"4 features such as Cells_Texture_0_DNA and 2 other numeric columns: \['viability', 'AUC'\]. Say which .*features=\[Cells_\*\] leaves"),
    "an encoder beside other numbers": (
        lambda f: written(screen()[["Plate", "Well"]].join(pd.DataFrame(np.ones((24, 9)), columns=[f"emb_{i}" for i in range(9)])).assign(AUC=2.5), f / "t.csv"),
        {}, r"9 features such as emb_0 and 1 other .*features=\[emb_\*\]",
    ),
    "features that the table lacks": (lambda f: renamed(f), {"features": [*FEATURES, "Cells_Texture_4_DN", "Nuclei_x"]}, r"lacks 2 of the 6 names asked for, e\.g\. 'Cells_Texture_4_DN'; nearest: Cells_Texture_"),
    "a pattern without a match": (lambda f: renamed(f), {"features": "Nuclei_*"}, r"no numeric column of .*t\.csv matches 'Nuclei_\*'"),
    "no features": (lambda f: written(screen().drop(columns=FEATURES), f / "t.csv"), {}, r"t\.csv has no feature columns"),
    "lists of different lengths": (lists, {}, "column 'vector' holds lists of 3 to 4 numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_remedy(name, tmp_path):
    write, options, said = FAULTS[name]
    folder = tmp_path / "tables"
    folder.mkdir()
    with pytest.raises(ValueError, match=said):
        read_profiles(write(folder), notes=[], **options)


def test_nothing_at_a_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no profile table at .*none\*\.csv"):
        read_profiles(tmp_path / "none*.csv")


def test_excel_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ImportError("no openpyxl")

    monkeypatch.setattr(pd, "read_excel", refuse)
    put(tmp_path, "t.xlsx", b"PK\x03\x04 xl/workbook.xml")
    with pytest.raises(ImportError, match=r"t\.xlsx is an Excel file: `pip install openpyxl`, or save it as csv"):
        read_profiles(tmp_path / "t.xlsx")
