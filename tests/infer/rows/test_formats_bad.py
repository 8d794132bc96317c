"""Bad input is refused in one line that names the file, the column and the first row at fault."""

import gzip
import json
import os
import re
import subprocess
import sys
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from suffixes import PACKAGES, READY, SUFFIXES

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, UsageError
from scgan_infer.rows.formats import iter_values, open_writer, read_table
from scgan_infer.rows.opening import FORMATS

REAL = (Column("a"), Column("b"))


def refused(path, *words, error=DataError, **options):
    """Check that reading fails with these words in one line; and so does reading in pieces, with columns given."""
    for read in (
        lambda: read_table(path, missing="refuse", **options),
        lambda: list(iter_values(path, options["columns"])),
    ):
        with pytest.raises(error) as caught:
            read()
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 500
        for word in (str(path), *words):
            assert word in message
        if "columns" not in options:
            return


CSV = {
    "missing": ("a,b\n1,2\n3,\n", "column 'b', row 2 (line 3): '' is missing"),
    "NA": ("a,b\n1,2\nNA,3\n", "column 'a', row 2 (line 3): 'NA' is missing"),
    "nan": ("a,b\n1,nan\n", "column 'b', row 1 (line 2): nan is missing"),
    "infinite": ("a,b\n1,2\n3,-inf\n", "column 'b', row 2 (line 3): -inf is infinite"),
    "text": (
        "a,b\n1,2\n3,4\nx,5\n",
        "column 'a', row 3 (line 4): 'x' is text where a number belongs",
    ),
    "text first": (
        "a,b\nx,2\n3,4\n2,5\n",
        "column 'a', row 1 (line 2): 'x' is text where a number belongs",
    ),
    "number in text": (
        "a,k\n1,x\n3,y\n2,7\n",
        "text with 3 different values in 3 rows is no category; choose columns.k.kind=drop or",
    ),
    "first row": ("a,b\n1,2\n3,\n,\n", "column 'b', row 2"),
    "first column": ("a,b\n1,2\n,\n", "column 'a', row 2"),
    "huge": ("a,b\n1,2\n3,-1e39\n", "column 'b', row 2 (line 3): -1e+39 is beyond float32"),
    "unique text": (
        "a,k\n1,x\n2,y\n3,z\n",
        "column 'k', row 1 (line 2): text with 3 different values in 3 rows",
    ),
    "short row": ("a,b\n1,2\n3\n4,x\n", "row 2 (line 3) has 1 cells, but the header names 2"),
    "long row": ("a,b\n1,2\n3,4,5\n", "row 2 (line 3) has 3 cells"),
    "bad cell above a short row": ("a,b\n1,\n3\n", "'b', row 1"),
    "empty line": ("a,b\n1,2\n\n3,4\n", "row 2 (line 3) is empty"),
    "after a cell of two lines": ('k,b\n"x\ny",2\n"x\ny",\n', "column 'b', row 2: '' is missing"),
    "header alone": ("a,b\n", "has no rows"),
    "nothing": ("", "has no line of column names"),
    "no header": ("1,2\n3,4\n", "first line is numbers"),
    "same names": ("a,b,a\n1,2,3\n", "two columns called 'a'"),
    "same names but for a space": ("a,b,a \n1,2,3\n", "spaces around a name don't count"),
    "no name": (
        "a,,b\n1,2,3\n",
        "column 2 has no name; name it, or choose the others: a, b",
    ),
    "open quote": ('a,b\n1,2\n"3,4\n', 'row 2 (line 3): a quotation mark (") is never closed'),
    "latin-1": (b"a,b\n1,2\n1,\xe9\n", "line 3 is not UTF-8: byte e9, in latin-1 'é'"),
    "latin-1 names": (b"a,\xe9\n1,2\n", "line 1 is not UTF-8"),
    "thousands": (
        'a,b\n1,2\n1,"1,234.5"\n"1,000",3\n',
        "column 'b', row 2 (line 3): '1,234.5' separates thousands",
    ),
    "thousands first": ("a;b\n1 234;2\n", "column 'a', row 1 (line 2): '1 234' separates"),
    "thousands beside decimal commas": (
        "a;b\n1,5;2\n1.234;7\n",
        "column 'a', row 2 (line 3): '1.234' separates",
    ),
    "digit groups": ("a,b\n1,2\n1_000,3\n", "column 'a', row 2 (line 3): '1_000' is text"),
}


@pytest.mark.parametrize("case", CSV)
def test_bad_csv(tmp_path, case):
    content, message = CSV[case]
    path = tmp_path / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(path, message)


@pytest.mark.parametrize("chunks", [1, 3])
def test_the_first_row_at_fault_is_named_however_far_down(tmp_path, chunks):
    path, n = tmp_path / "rows.csv", 50_000 * chunks
    lines = [f"{i}.5,{i}.25\n" for i in range(n)]
    lines[n - 5], lines[n - 2] = "1.5,oops\n", "oops,1.5\n"
    path.write_text("a,b\n" + "".join(lines) + "\n\n")
    refused(path, f"column 'b', row {n - 4} (line {n - 3}): 'oops'", columns=REAL)


def test_lines_of_any_ending_quotes_and_blanks_at_the_end_are_fine(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbf"a", b\r\n"1", 2\r\n3,4e0\r\n\r\n')
    table = read_table(path)
    assert table.names == ("a", "b")
    assert table.values.tolist() == [[1, 2], [3, 4]]


def cells(path, values, names=("a", "b")):
    """Write raw columns as other programs do, so that bad cells get in."""
    columns = dict(zip(names, np.asarray(values, np.float64).T, strict=True))
    match path.suffix:
        case ".npy":
            np.save(path, np.rec.fromarrays(list(columns.values()), names=list(columns)))
        case ".npz":
            np.savez_compressed(path, **columns)
        case ".csv" | ".tsv" | ".gz":
            np.savetxt(
                path,
                np.column_stack(list(columns.values())),
                delimiter="\t" if path.suffix == ".tsv" else ",",
                header=("\t" if path.suffix == ".tsv" else ",").join(names),
                comments="",
            )
        case ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.table(columns), path)
        case ".h5":
            import h5py

            with h5py.File(path, "w") as file:
                for name, column in columns.items():
                    file[name] = column
        case ".root":
            import uproot

            with uproot.recreate(path) as file:
                file.mktree("t", {name: np.float64 for name in names}).extend(columns)
        case ".fits":
            from astropy.io import fits

            made = [fits.Column(name, "D", array=column) for name, column in columns.items()]
            fits.BinTableHDU.from_columns(made).writeto(path)


def test_every_format_is_tried_here():
    text = {".csv", ".tsv", ".csv.gz"}
    assert set(FORMATS) == {".npy", ".npz", *text, ".parquet", ".h5", ".root", ".fits"}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (np.nan, "is missing"),
        (np.inf, "is infinite"),
        (1e300, "is beyond float32"),
        (2.0**24 + 1, "is too large for float32"),
    ],
)
def test_bad_cells_in_every_format(tmp_path, suffix, cell, why):
    path, values = tmp_path / f"rows{suffix}", np.ones((40, 2))
    values[30, 1] = cell
    values[35, 0] = np.nan if np.isnan(cell) else 3
    cells(path, values)
    refused(path, "column 'b', row 31", why, columns=REAL)


DOMAINS = {
    "log": ({"kind": "log"}, 0.0, "0 is not positive"),
    "integer": ({"kind": "integer"}, 2.5, "2.5 is not a whole number"),
    "bounded": ({"low": 0.5, "high": 3.0}, 3.25, "3.25 is outside its walls [0.5, 3.0]"),
    "one wall": ({"low": 0.5}, 0.25, "0.25 is outside its walls [0.5, ]"),
    "category": ({"kind": "category", "categories": ("1", "2")}, 3.0, "none of its"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("case", DOMAINS)
def test_cells_outside_a_columns_domain(tmp_path, suffix, case):
    fields, cell, why = DOMAINS[case]
    path, values = tmp_path / f"rows{suffix}", np.ones((40, 2))
    values[30, 1] = cell
    if suffix in (".csv", ".tsv", ".csv.gz") and case == "category":
        content = ("a,b\n" + "1,1\n" * 30 + "1,3\n").encode()
        path.write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    else:
        cells(path, values)
    refused(path, "column 'b', row 31", why, overrides={"b": fields})
    column = Column.from_dict({"kind": "bounded", **fields, "name": "b"})
    refused(path, "column 'b', row 31", why, columns=[Column("a"), column])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_that_are_not_there(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    cells(path, np.ones((3, 2)))
    refused(path, "no column 'z'", "it has a, b", columns=[Column("a"), Column("z")])
    refused(path, "no column 'z'", names=["z"], error=UsageError)
    refused(path, "no column 'z'", overrides={"z": {"kind": "log"}}, error=UsageError)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_cut_or_are_something_else(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    rng = np.random.default_rng(0)
    cells(path, rng.normal(size=(3000, 2)))
    whole = path.read_bytes()
    for size in (0, 1, 10, 200, len(whole) // 2, len(whole) - 4000):
        path.write_bytes(whole[:size])
        if suffix in (".csv", ".tsv") and size >= 200:
            continue  # a prefix of a CSV is a CSV
        refused(path)
    path.write_bytes(rng.bytes(5000))
    refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_give_rows_or_one_line(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    rng = np.random.default_rng(7)
    cells(path, rng.normal(size=(50, 2)))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = whole.copy()
        first = int(rng.integers(len(whole)))
        damaged[first : first + rng.integers(1, 20)] ^= rng.integers(1, 256, dtype=np.uint8)
        path.write_bytes(damaged.tobytes())
        with suppress(DataError):
            assert np.isfinite(read_table(path).values).all()


def test_a_header_that_claims_more_rows_than_the_file_holds(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.ones((4, 2)))
    for claim in (b"(9, 2), }", b"(99999999999999999, 2), }"):
        np.save(path, np.ones((4, 2)))
        path.write_bytes(path.read_bytes().replace(b"(4, 2), }".ljust(len(claim)), claim))
        refused(path, "claims", "it holds 4", columns=REAL)


def test_a_fits_header_that_lies(tmp_path):
    pytest.importorskip("astropy")
    path = tmp_path / "rows.fits"
    cells(path, np.ones((300, 2)))
    path.write_bytes(path.read_bytes().replace(b"                 300", b"        900000000000"))
    refused(path, "claims 900000000000 rows")


def test_compression_bombs(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez_compressed(path, np.zeros((12_000_000, 1)))
    refused(path, "compression bomb")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset("a", (10**12,), np.float64, chunks=True)
    refused(tmp_path / "rows.h5", "compression bomb")


def test_a_zip_that_understates_what_it_holds(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez_compressed(path, x=np.ones((1000, 2)))
    info = zipfile.ZipFile(path).infolist()[0]
    content = path.read_bytes().replace(
        info.file_size.to_bytes(4, "little"), (500).to_bytes(4, "little")
    )
    path.write_bytes(content)
    refused(path)


def test_nothing_pickled_is_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "gone off"),))

    objects = np.array([[Bomb()], [1]], dtype=object)
    np.save(tmp_path / "rows.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "rows.npz", objects)
    np.save(
        tmp_path / "fields.npy",
        np.array([(1.0, Bomb())], [("a", "f8"), ("b", "O")]),
        allow_pickle=True,
    )
    for name in ("rows.npy", "rows.npz", "fields.npy"):
        refused(tmp_path / name, "pickled objects, which are refused")
    assert not (tmp_path / "gone off").exists()


@pytest.mark.parametrize(
    "array", [np.ones(()), np.ones((2, 2, 2)), np.ones((3, 0)), np.array([1j, 2])]
)
def test_arrays_that_are_no_table(tmp_path, array):
    np.save(tmp_path / "rows.npy", array)
    refused(tmp_path / "rows.npy")


def test_text_that_is_not_utf_8(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([b"ok", b"\xff\xfe"]))
    refused(tmp_path / "rows.npy", "utf-8")


def test_no_rows(tmp_path):
    for suffix in READY:
        with open_writer(tmp_path / f"rows{suffix}", REAL, 0):
            pass
        refused(tmp_path / f"rows{suffix}", "has no rows", columns=REAL)


def test_hdf5_links_out_of_the_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    path, secret = tmp_path / "rows.h5", tmp_path / "secret.bin"
    secret.write_bytes(np.arange(10.0).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.arange(10.0)
    for make in (
        lambda file: file.create_dataset("a", (10,), np.float64, external=[(str(secret), 0, 80)]),
        lambda file: file.__setitem__("a", h5py.ExternalLink("other.h5", "/a")),
        lambda file: file.__setitem__("a", h5py.SoftLink("/b")),
    ):
        with h5py.File(path, "w") as file:
            make(file)
        refused(path)


def test_types_that_are_neither_number_nor_text(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(
        pa.table({"a": [1.0], "t": pa.array([0], pa.duration("s")), "l": [[1.0]]}), path
    )
    refused(path, "column 't' holds duration")
    refused(path, "column 'l' holds list", names=["a", "l"])
    assert read_table(path, names=["a"]).values.tolist() == [[1]]


def test_nulls_in_parquet(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    for cells_ in ([1, None, 3], [1.5, None], ["x", None, "x"], [True, None]):
        parquet.write_table(pa.table({"a": pa.array(cells_)}), path)
        refused(path, "column 'a', row 2", "missing")


def test_int64_beyond_float(tmp_path):
    for value in (2**24 + 1, 2**53 + 1, -(2**63), 2**63 - 1):
        np.save(tmp_path / "rows.npy", np.array([1, value]))
        if value == -(2**63):
            assert read_table(tmp_path / "rows.npy").values[1, 0] == -(2.0**63)
        else:
            refused(
                tmp_path / "rows.npy",
                f"column 'x0', row 2: {value} is too large",
                columns=[Column("x0")],
            )


def test_large_numbers_among_fractions_are_rounded_like_all_others(tmp_path):
    (tmp_path / "rows.csv").write_text("e\n0.5\n16777217\n")
    assert read_table(tmp_path / "rows.csv").values[1, 0] == 16777216


def test_paths_that_are_no_file_of_rows(tmp_path):
    refused(tmp_path / "none.csv", "no such file; check its name and folder")
    refused(tmp_path, "folder")
    (tmp_path / "rows.txt").write_text("a\n1\n")
    refused(tmp_path / "rows.txt", "'.txt'", ", ".join(FORMATS))
    os.mkfifo(tmp_path / "pipe.csv")
    refused(tmp_path / "pipe.csv", "not a file")
    (tmp_path / "rows.csv").write_text("a\n1\n")
    refused(f"{tmp_path / 'rows.csv'}:tree", "one table")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a\n1\n")
    path.chmod(0)
    refused(path, "Permission denied")


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.ones((10_000, 2)))
    pieces = iter_values(path, REAL, chunk=100)
    next(pieces)
    os.truncate(path, 20_000)
    with pytest.raises(DataError, match="changed while it was read"):
        list(pieces)


@pytest.mark.parametrize("change", ["written again", "grown", "replaced"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_changes_while_it_is_read(tmp_path, suffix, change):
    path, other = tmp_path / f"rows{suffix}", tmp_path / f"other{suffix}"
    for file in (path, other):
        cells(file, np.arange(400.0).reshape(-1, 2))
    pieces = iter_values(path, REAL, chunk=50)
    next(pieces)
    if change == "replaced":
        other.rename(path)
    else:
        with path.open("ab" if change == "grown" else "r+b") as file:
            file.write(b"7,7\n" if change == "grown" else path.read_bytes()[:4])
    with pytest.raises(DataError, match="changed while it was read"):
        list(pieces)


@pytest.mark.parametrize("suffix", [suffix for suffix, form in FORMATS.items() if form.extra])
def test_a_missing_package_is_named_with_its_install_command(tmp_path, suffix, monkeypatch):
    package = PACKAGES[FORMATS[suffix].extra]
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b"anything")
    command = rf"pip install .*\[{FORMATS[suffix].extra}\]"
    for use in (lambda: read_table(path), lambda: open_writer(tmp_path / f"new{suffix}", REAL)):
        with pytest.raises(DataError) as caught:
            use()
        assert re.search(command, str(caught.value))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_empty_column_is_refused_with_the_setting_that_leaves_it_out(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,\n3,\n")
    with pytest.raises(DataError, match=r"missing in every row; .*: choose columns.b.kind=drop"):
        read_table(path)
    assert read_table(path, overrides={"b": {"kind": "drop"}}).names == ("a",)


def test_settings_that_make_no_column(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    for fields, words in (
        ({"kind": "periodic"}, "needs its period, e.g. a=360"),
        ({"kind": "loud"}, "unknown kind 'loud'; .*, id, and drop leaves a column out"),
        ({"colour": "red"}, "no setting 'colour'"),
        ({"low": 5, "high": 2}, "low 5 is not below high 2"),
    ):
        with pytest.raises(UsageError, match=words):
            read_table(path, overrides={"a": fields})


def test_no_traceback_of_a_truncated_file_reaches_stderr(tmp_path):
    """Some packages warn on stderr about what they read."""
    path = tmp_path / "rows.fits"
    pytest.importorskip("astropy")
    cells(path, np.ones((3000, 2)))
    os.truncate(path, path.stat().st_size - 20_000)
    code = f"""
import json
from scgan_infer.errors import DataError
from scgan_infer.rows.formats import read_table
try:
    read_table({str(path)!r})
except DataError as error:
    print(json.dumps(str(error)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "claims 3000 rows" in json.loads(done.stdout)
    assert done.stderr == ""
