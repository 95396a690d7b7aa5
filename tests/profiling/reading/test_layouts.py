"""Layouts of tables as programs write them: each is read as the same screen, with a note on what was decided."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphoclip.profiling import read_profiles
from tests.profiling.reading.plates import (
    FEATURES,
    canonical,
    gzipped,
    renamed,
    screen,
    text_of,
    with_value,
    written,
    zipped,
)

Write = Callable[[Path], Path]


def put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def german(folder: Path) -> Path:
    return written(screen().astype({"Dose": float}), folder / "t.csv", sep=";", decimal=",")


def parquet(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    change(screen()).to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def unknown_to_numpy(table: pd.DataFrame) -> pd.DataFrame:
    kinds = {"Plate": "category", "Compound": "string[pyarrow]", FEATURES[0]: "Float64", FEATURES[1]: "double[pyarrow]"}
    return table.astype({**kinds, "Well": "category"})


def decimals(table: pd.DataFrame) -> pd.DataFrame:
    from decimal import Decimal

    return table.assign(**{FEATURES[2]: [Decimal(str(v)) for v in table[FEATURES[2]]]})


def feather(folder: Path) -> Path:
    screen().to_feather(folder / "t.feather")
    return folder / "t.feather"


def anndata(folder: Path) -> Path:
    library = pytest.importorskip("anndata")
    table = screen().set_axis([f"w{i}" for i in range(24)])
    obs = table.drop(columns=FEATURES).assign(passage=3)
    library.AnnData(table[FEATURES].to_numpy(), obs=obs, var=pd.DataFrame(index=FEATURES)).write_h5ad(folder / "t.h5ad")
    return folder / "t.h5ad"


def excel(folder: Path) -> Path:
    pytest.importorskip("openpyxl")
    screen().to_excel(folder / "t.xlsx", index=False)
    return folder / "t.xlsx"


def two_row_header(folder: Path) -> Path:
    """CellProfiler's ExportToSpreadsheet of several objects in one file."""
    table = screen().rename(columns={c: f"Metadata_{c}" for c in ("Plate", "Well", "Compound", "Dose")})
    above = ",".join("Image" if c.startswith("Metadata_") else "Cells" for c in table)
    return put(
        folder, "t.csv", f"{above}\n{text_of(table.rename(columns=lambda c: c.removeprefix('Cells_')))}".encode()
    )


def row_names(folder: Path) -> Path:
    """R's write.csv keeps a header for row names, write.table does not."""
    header, *rows = text_of().splitlines()
    return put(folder, "t.csv", "\n".join([header, *(f"{i},{row}" for i, row in enumerate(rows, 1))]).encode())


def trailing_commas(folder: Path) -> Path:
    header, *rows = text_of().splitlines()
    return put(folder, "t.csv", "\n".join([header, *(f"{row}," for row in rows)]).encode())


def rows_and_columns(folder: Path, letters: bool) -> Path:
    table = screen()
    row = table["Well"].str[0] if letters else table["Well"].str[0].map({"A": 1, "B": 2})
    column = table["Well"].str[1:].astype(int)
    return written(table.drop(columns="Well").assign(Row=row, Column=column), folder / "t.csv")


def spelled(folder: Path, well: Callable[[str], str]) -> Path:
    return written(screen().assign(Well=screen()["Well"].map(well)), folder / "t.csv")


def twice_saved(folder: Path) -> Path:
    table = written(screen(), folder / "first.csv", index=True)
    return written(pd.read_csv(table, dtype={"Plate": str}), folder / "t.csv", index=True)


# name -> (how it is written, options, what the notes say)
LAYOUTS: dict[str, tuple[Write, dict, list[str]]] = {
    "csv": (lambda f: written(screen(), f / "t.csv"), {}, [r"negative control if its perturbation is 'DMSO': 8 wells, 4 a plate"]),
    "tsv": (lambda f: written(screen(), f / "t.tsv", sep="\t"), {}, ["t.tsv is separated by tabs"]),
    "semicolons with decimal commas": (german, {}, ["separated by semicolons, with decimal commas"]),
    "decimal commas beside a text with a point": (
        lambda f: written(screen(), f / "t.csv", sep=";", decimal=","), {}, ["separated by semicolons, with decimal commas"],
    ),
    "bars": (lambda f: written(screen(), f / "t.txt", sep="|"), {}, ["separated by bars"]),
    "gzip named csv": (lambda f: gzipped(f / "t.csv"), {}, []),
    "plain text named csv.gz": (lambda f: put(f, "t.csv.gz", text_of().encode()), {}, []),
    "bzip2": (lambda f: put(f, "t.csv.bz2", bz2.compress(text_of().encode())), {}, []),
    "xz": (lambda f: put(f, "t.csv.xz", lzma.compress(text_of().encode())), {}, []),
    "zip of one table": (lambda f: zipped(f / "t.zip", "a/t.csv", "__MACOSX/a/._t.csv"), {}, []),
    "UTF-8 with byte order mark": (lambda f: put(f, "t.csv", text_of().encode("utf-8-sig")), {}, []),
    "UTF-16": (lambda f: put(f, "t.csv", text_of().encode("utf-16")), {}, []),
    "Latin-1": (
        lambda f: put(f, "t.csv", text_of().replace("Dose", "Dose [µM]").encode("latin-1")), {}, ["not UTF-8 and is read as Latin-1"],
    ),
    "separated by blanks, with row names, as R writes": (
        lambda f: put(f, "t.txt", "\n".join(
            " ".join(([f'"{i}"'] if i else []) + [f'"{c}"' for c in row.split(",")]) for i, row in enumerate(text_of().splitlines())
        ).encode()), {}, ["separated by blanks", r"\['Unnamed: 0'\] are bookkeeping"],
    ),
    "BBBC021's names": (
        lambda f: renamed(f, Plate="Image_Metadata_Plate_DAPI", Well="Image_Metadata_Well_DAPI",
                          Compound="Image_Metadata_Compound", Dose="Image_Metadata_Concentration"), {}, [],
    ),
    "a prefix in lower case": (
        lambda f: renamed(f, **{c: f"metadata_{c.lower()}" for c in ("Plate", "Well", "Compound", "Dose")}), {}, [],
    ),
    "a column without values": (
        lambda f: written(screen().assign(comment=np.nan), f / "t.csv"), {}, [r"\['comment'\] hold no value and are left out"],
    ),
    "rows without values at the end": (
        lambda f: put(f, "t.csv", (text_of() + ",,,,,,,\n" * 3).encode()), {}, ["3 rows without any value are left out"],
    ),
    "a dose without a unit": (lambda f: written(screen(), f / "t.csv"), {}, ["'Dose' is taken to be in µM, which its name does not say"]),
    "a time in seconds": (
        lambda f: written(screen().assign(**{"Time [s]": 5.5}), f / "t.csv"), {}, [r"\['Time \[s\]'\] are metadata, not features"],
    ),
    "true and false": (
        lambda f: parquet(f, lambda t: t.assign(passed=pd.array([True, None] * 12, dtype="boolean"))), {}, [],
    ),
    "names of compounds only": (
        lambda f: renamed(f, Compound="pert_iname"), {"control": "DMSO"}, ["no column holds perturbations, so Metadata_pert_iname does"],
    ),
    "lines of Windows": (lambda f: put(f, "t.csv", text_of().replace("\n", "\r\n").encode()), {}, []),
    "comments above": (lambda f: put(f, "t.csv", f"# lab\n# day 3\n{text_of()}".encode()), {}, ["2 lines above the table are left out"]),
    "Excel's sep=": (lambda f: put(f, "t.csv", f"sep=;\n{screen().to_csv(index=False, sep=';')}".encode()), {}, ["1 lines above"]),
    "row names of R": (row_names, {}, [r"\['Unnamed: 0'\] are bookkeeping"]),
    "commas at the ends of rows": (trailing_commas, {}, []),
    "two rows of header": (two_row_header, {}, []),
    "saved twice with its index": (twice_saved, {}, [r"\['Unnamed: 0', 'Unnamed: 0.1'\] are bookkeeping|are bookkeeping"]),
    "parquet with categories, nullable and arrow types": (lambda f: parquet(f, unknown_to_numpy), {}, []),
    "parquet with decimals": (lambda f: parquet(f, decimals), {}, []),
    "parquet with plate and well in the index": (
        lambda f: parquet(f, lambda t: t.set_index(["Plate", "Well"])), {}, [r"the index \['Plate', 'Well'\] is read as columns"],
    ),
    "parquet of filtered rows": (lambda f: parquet(f, lambda t: t.set_axis(np.arange(24) * 2)), {}, []),
    "feather": (feather, {}, []),
    "AnnData": (anndata, {}, []),
    "Excel": (excel, {}, []),
    "names with blanks": (lambda f: renamed(f, Plate="Plate ID", Well="well-name", Dose="Concentration (uM)"), {}, []),
    "CellProfiler's names": (
        lambda f: renamed(f, **{c: f"Image_Metadata_{c}" for c in ("Plate", "Well", "Compound", "Dose")}), {}, [],
    ),
    "names mapped": (
        lambda f: renamed(f, Plate="p", Well="w", Compound="Stoff", Dose="c"),
        {"columns": {"plate": "p", "well": "w", "perturbation": "Stoff", "dose": "c"}}, [],
    ),
    "a mapping wins over a known name": (
        lambda f: written(screen().rename(columns={"Compound": "id"}).assign(Treatment="x"), f / "t.csv"),
        {"columns": {"perturbation": "id"}}, [r"perturbation is 'id' by columns=, so \['Treatment'\]"],
    ),
    "doses in nM": (
        lambda f: written(screen().assign(Dose=screen()["Dose"].map({"0": 0, "2.5": 2500})).rename(columns={"Dose": "conc_nM"}), f / "t.csv"),
        {}, ["read as nM and divided by 1000 to give µM"],
    ),
    "wells a1": (lambda f: spelled(f, lambda w: f"{w[0].lower()}{int(w[1:])}"), {}, []),
    "wells A001": (lambda f: spelled(f, lambda w: f"{w[0]}{int(w[1:]):03d}"), {}, []),
    "wells A - 1": (lambda f: spelled(f, lambda w: f"{w[0]} - {int(w[1:])}"), {}, []),
    "wells r01c01": (lambda f: spelled(f, lambda w: f"r{'AB'.index(w[0]) + 1:02d}c{w[1:]}"), {}, []),
    "row and column numbers": (lambda f: rows_and_columns(f, False), {}, ["wells are made of row and column, e.g. row 1 column 1"]),
    "row letters and column numbers": (lambda f: rows_and_columns(f, True), {}, ["wells are made of row and column"]),
    "blanks after plates": (
        lambda f: written(screen().assign(Plate=screen()["Plate"] + " "), f / "t.csv"), {},
        [r"blanks around 24 values of Metadata_Plate are removed, e.g. '0117 '"],
    ),
    "control=DMSO in another case": (
        lambda f: written(screen(), f / "t.csv"), {"control": "dmso "},
        [r"8 wells spelled 'DMSO' in Metadata_perturbation count as controls too", "8 wells, 4 a plate"],
    ),
    "control={column: value}": (
        lambda f: written(screen(), f / "t.csv"), {"control": {"Dose": "0"}}, ["control=.*: 8 wells, 4 a plate"],
    ),
    "numbers as text": (lambda f: parquet(f, lambda t: t.astype({FEATURES[0]: str})), {}, []),
    "features chosen beside others": (
        lambda f: written(screen().assign(viability=0.5), f / "t.csv"), {"features": "Cells_*"}, ["4 of 5 numeric columns are features"],
    ),
    "a column that is there twice": (
        lambda f: put(f, "t.csv", "\n".join(f"{r},{r.split(',')[1]}" for r in text_of().splitlines()).encode()), {},
        ["column 'Well' is there twice with the same values"],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_as_the_screen_it_is(name, tmp_path):
    write, options, said = LAYOUTS[name]
    notes: list[str] = []
    read = read_profiles(write(tmp_path), notes=notes, **options)
    expected = canonical()
    common = [c for c in expected if c in read]
    assert common == list(expected)
    others = set(read) - set(expected)
    assert all(c.startswith("Metadata_") for c in others), others
    pd.testing.assert_frame_equal(read[common], expected, check_dtype=False, check_exact=False, rtol=0, atol=1e-12)
    for words in said:
        assert pd.Series(notes).str.contains(words, regex=True).any(), notes


def test_a_value_of_a_plate_that_looks_like_a_number_keeps_its_zero(tmp_path):
    table = with_value("Plate", "0117", 0)
    assert read_profiles(written(table, tmp_path / "t.csv"), notes=[])["Metadata_Plate"].unique().tolist() == [
        "0117",
        "0118",
    ]
    dates = screen().assign(Plate=pd.Timestamp("2026-11-28"), Well=[f"A{i:02d}" for i in range(1, 25)])
    dates.to_parquet(tmp_path / "d.parquet")
    assert read_profiles(tmp_path / "d.parquet", notes=[])["Metadata_Plate"].unique().tolist() == ["2026-11-28"]


def test_a_file_per_plate_names_its_plate(tmp_path):
    for plate, part in screen().groupby("Plate"):
        written(part.drop(columns="Plate"), tmp_path / f"{plate}.csv")
    notes: list[str] = []
    read = read_profiles(tmp_path / "*.csv", notes=notes)
    pd.testing.assert_frame_equal(read[list(canonical())], canonical())
    assert "no column is the plate, so the file's name is: 0117 (and so in 1 more files)" in " ".join(notes)


def test_harmonys_preamble_names_the_plate(tmp_path):
    one = screen().query("Plate == '0117'")
    lines = ["Database Name\tlab", "Plate Name\t0117", "", "[Data]"]
    text = "\n".join([*lines, one.drop(columns="Plate").to_csv(index=False, sep="\t")])
    notes: list[str] = []
    read = read_profiles(put(tmp_path, "PlateResults.txt", text.encode()), notes=notes)
    assert read["Metadata_Plate"].unique().tolist() == ["0117"]
    assert read[FEATURES].shape == (12, 4)
    assert any("plate 0117, as the lines above the table say" in note for note in notes)


def test_files_of_one_name_in_folders_of_plates(tmp_path):
    for plate, part in screen().groupby("Plate"):
        (tmp_path / str(plate)).mkdir()
        written(part.drop(columns="Plate"), tmp_path / str(plate) / "profiles.csv")
    read = read_profiles(tmp_path / "*" / "profiles.csv", notes=[])
    assert read["Metadata_Plate"].unique().tolist() == ["0117_profiles", "0118_profiles"]
