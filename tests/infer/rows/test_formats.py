"""What is written comes back, for every format and kind; rows are sampled and streamed."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suffixes import PACKAGES, SUFFIXES

from scgan_infer.columns import Column
from scgan_infer.kinds import KINDS
from scgan_infer.rows.codecs.text import csv_stream
from scgan_infer.rows.formats import iter_values, open_writer, read_table
from scgan_infer.rows.opening import FORMATS

COLUMNS = (
    Column("x"),
    Column("energy", "log", unit="GeV"),
    Column("phi", "periodic", period=360.0, low=-180.0),
    Column("u", "bounded", high=19.6),
    Column("n", "integer"),
    Column("kind", "category", categories=("Gentoo", "a, b", 'say "c"')),
    Column("year", "category", categories=("2007", "2008", "2010")),
    Column("julian", anchor=2459000.0),
    Column("pid", "id", low=1.0, pattern="P0000"),
    Column("day", "datetime", anchor=18_000.0, resolution="D", pattern="YYYY-MM-DD"),
)


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.standard_normal(n) * 10.0 ** rng.integers(-30, 30, n),
            np.exp(rng.normal(0, 10, n)),
            rng.uniform(-180, 180, n),
            19.6 - rng.exponential(1, n),
            rng.integers(-(2**24), 2**24, n),
            rng.integers(0, 3, n),
            rng.integers(0, 3, n),
            rng.integers(-(2**20), 2**20, n) / 2**10,
            np.zeros(n),
            rng.integers(-9000, 9000, n),
        ]
    ).astype(np.float32)


def write(path, columns, values, count=None, step=1000):
    with open_writer(path, columns, count) as writer:
        for first in range(0, len(values), step):
            writer.write(values[first : first + step])


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def test_the_columns_here_are_of_every_kind():
    assert {column.kind for column in COLUMNS} == set(KINDS)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("announced", [True, False])
def test_what_is_written_comes_back(tmp_path, suffix, announced):
    path, values = tmp_path / f"rows{suffix}", rows(2500)
    write(path, COLUMNS, values, len(values) if announced else None)
    back = read_table(path, columns=COLUMNS)
    assert back.columns == COLUMNS
    np.testing.assert_array_equal(bits(back.values), bits(values))
    pieces = list(iter_values(path, COLUMNS, chunk=700))
    assert max(map(len, pieces)) <= 700
    np.testing.assert_array_equal(bits(np.concatenate(pieces)), bits(values))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_and_category_names_survive_without_being_told(tmp_path, suffix):
    path, values = tmp_path / f"rows{suffix}", rows(2500)
    write(path, COLUMNS, values)
    table = read_table(path, overrides={})
    if suffix == ".npy":
        assert table.names == tuple(f"x{j}" for j in range(len(COLUMNS)))
        return
    assert table.names == tuple(column.name for column in COLUMNS)
    if suffix != ".npz":
        assert table.columns[5].categories == COLUMNS[5].categories
        np.testing.assert_array_equal(table.values[:, 5], values[:, 5])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_of_another_order_and_among_others_are_found_by_name(tmp_path, suffix):
    if suffix == ".npy":
        pytest.skip("has no names")
    path, values = tmp_path / f"rows{suffix}", rows(300)
    write(path, COLUMNS, values)
    wanted = [5, 0, 3]
    back = read_table(path, columns=[COLUMNS[j] for j in wanted])
    np.testing.assert_array_equal(bits(back.values), bits(values[:, wanted]))
    np.testing.assert_array_equal(read_table(path, names=["u", "x"]).values, values[:, [3, 0]])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_rows_can_be_written(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write(path, COLUMNS, rows(0), 0)
    assert path.is_file()


def test_a_csv_comes_back_with_the_header_it_had(tmp_path):
    path, again = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text('"pt, lead",eta,k\n1.5,-0.25,b\n2,1e-05,a\n3,7,b\n4,0.1,a\n')
    table = read_table(path)
    write(again, table.columns, table.values)
    assert again.read_text() == path.read_text()


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=200)
)
@settings(max_examples=200)
def test_csv_brings_back_every_float32(cells):
    values = np.array(cells, np.float32)[:, None]
    text = csv_stream([Column("x")]).encode(values, 0).decode()
    back = np.array([float(line) for line in text.splitlines()], np.float32)
    np.testing.assert_array_equal(bits(back), bits(values[:, 0]))


def test_csv_writes_no_digit_too_many():
    values = np.array([[0.1], [1 / 3], [16777216], [-0.0], [3.4028235e38], [100]], np.float32)
    text = csv_stream([Column("x")]).encode(values, 0).decode().split()
    assert text == ["0.1", "0.33333334", "16777216", "-0", "3.4028235e+38", "100"]


@pytest.mark.parametrize("save", ["C", "F", "structured", "big-endian", "one column"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_numpy_arrays_of_every_layout(tmp_path, save, suffix):
    values = rows(500)[:, [0, 3, 2]].astype(np.float64)
    array = {
        "C": values,
        "F": np.asfortranarray(values),
        "big-endian": values.astype(">f8"),
        "one column": values[:, 0],
        "structured": np.rec.fromarrays(list(values.T), names="a,b,c"),
    }[save]
    path = tmp_path / f"rows{suffix}"
    (np.save if suffix == ".npy" else partial(np.savez_compressed))(path, array)
    back = read_table(path)
    np.testing.assert_array_equal(back.values, values[:, : back.values.shape[1]].astype(np.float32))
    assert back.values.shape[1] == (1 if save == "one column" else 3)
    assert back.names[0] == {
        "structured": "a",
        "one column": "x0" if suffix == ".npy" else "arr_0",
    }.get(save, "x0")


def test_an_npz_of_one_array_for_each_column(tmp_path):
    values = rows(50)
    np.savez(tmp_path / "rows.npz", e=values[:, 1], u=values[:, 3], kind=np.array(["p", "q"] * 25))
    back = read_table(tmp_path / "rows.npz")
    assert back.names == ("e", "u", "kind")
    assert back.columns[2].categories == ("p", "q")
    np.testing.assert_array_equal(back.values[:, :2], values[:, [1, 3]])


def test_a_table_inside_a_file_is_chosen_after_a_colon(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez(path, first=np.zeros((3, 2)), second=np.ones((4, 2)))
    assert read_table(f"{path}:second").values.shape == (4, 2)


def test_parquet_types(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    table = pa.table(
        {
            "double": pa.array([0.5, 1.5, 2.5, 3.5]),
            "int": pa.array([1, 2, 3, 4], pa.int64()),
            "flag": pa.array([True, False, True, True]),
            "text": pa.array(["b", "a", "b", "a"], pa.large_string()),
            "dict": pa.array(["y", "y", "z", "z"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, path, row_group_size=3)
    back = read_table(path)
    assert back.values.T.tolist() == [
        [0.5, 1.5, 2.5, 3.5],
        [1, 2, 3, 4],
        [1, 0, 1, 1],
        [1, 0, 1, 0],
        [0, 0, 1, 1],
    ]


def test_hdf5_tables_groups_and_text(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        file["deep/table"] = np.arange(6.0).reshape(3, 2)
        file["columns/a"] = np.arange(4.0)
        file["columns/t"] = np.array(["p", "q", "p", "q"], h5py.string_dtype())
    assert read_table(f"{path}:deep").values.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert read_table(f"{path}:deep/table").names == ("x0", "x1")
    assert read_table(f"{path}:columns").values.tolist() == [[0, 0], [1, 1], [2, 0], [3, 1]]


def test_fits_scaling_unsigned_and_logical_columns(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    columns = [
        fits.Column("scaled", "I", array=np.array([1, 2, 5])),
        fits.Column("unsigned", "J", array=np.array([0, 5, 2**24], np.uint32), bzero=2**31),
        fits.Column("flag", "L", array=np.array([True, False, True])),
        fits.Column("skipped", "3E", array=np.zeros((3, 3))),
        fits.Column("last", "D", array=np.array([1.0, 2.0, 4.0])),
    ]
    path = tmp_path / "rows.fits"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="EVENTS")]
    ).writeto(path)
    fits.setval(path, "TSCAL1", value=0.5, ext=1)
    back = read_table(f"{path}:EVENTS", names=["scaled", "unsigned", "flag", "last"])
    assert back.values.T.tolist() == [[0.5, 1, 2.5], [0, 5, 2**24], [1, 0, 1], [1, 2, 4]]


def test_units_travel_where_the_format_has_a_place_for_them(tmp_path):
    for suffix in (".parquet", ".h5", ".fits"):
        pytest.importorskip(PACKAGES[FORMATS[suffix].extra])
        write(tmp_path / f"rows{suffix}", COLUMNS, rows(10))
        assert read_table(tmp_path / f"rows{suffix}", names=["energy"]).columns[0].unit == "GeV"


def test_a_sample_is_uniform_in_the_files_order_and_the_same_for_one_seed(tmp_path):
    path, n, most = tmp_path / "rows.npy", 400_000, 1000
    np.save(path, np.arange(n) / 2)
    drawn = [
        read_table(path, max_rows=most, generator=np.random.default_rng(seed)).values[:, 0]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    for sample in drawn[1:]:
        assert len(sample) == most
        assert (np.diff(sample) > 0).all()
        counts = np.histogram(sample, 20, (0, n / 2))[0]
        assert (
            (counts - 50) ** 2 / 50
        ).sum() < 50  # chi square, 19 degrees of freedom: 1 in 10,000
    assert len(read_table(path, max_rows=10**6)) == n


def test_reading_and_writing_import_nothing_that_is_not_needed():
    code = "import sys, scgan_infer.rows.formats; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    packages = {"pyarrow", "h5py", "uproot", "astropy", "onnxruntime", "torch", "scipy"}
    of_some_formats = {"gzip", "tempfile", "zipfile"}
    assert not (packages | of_some_formats) & set(loaded)


@pytest.mark.parametrize(
    "suffix",
    [one for one in SUFFIXES if one.values[0] not in (".tsv", ".csv.gz")]
    + [pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".tsv", ".csv.gz")],
)
def test_memory_does_not_grow_with_rows(tmp_path, suffix):
    pytest.importorskip("resource")
    warm = {
        ".csv": 8,
        ".tsv": 8,
        ".csv.gz": 4,
        ".root": 16,
        ".parquet": 60,
    }  # slow ones; and one whose allocator takes its time
    code = f"""
import resource, numpy as np
from scgan_infer.columns import Column
from scgan_infer.rows.formats import iter_values, open_writer
block = np.random.default_rng(0).normal(size=(32768, 4)).astype(np.float32)
columns = [Column(name) for name in "abcd"]
def peak(blocks):
    with open_writer({str(tmp_path / "rows")!r} + {suffix!r}, columns) as writer:
        for _ in range(blocks):
            writer.write(block)
    for values in iter_values({str(tmp_path / "rows")!r} + {suffix!r}, columns):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
blocks = {warm.get(suffix, 30)}
first = peak(blocks)
print((peak(3 * blocks) - first) / (2 * blocks * block.nbytes / 2**20))
"""
    grown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert float(grown) < 0.5  # of the bytes of the rows that were added


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_cells_are_written_as_the_format_does_and_come_back(tmp_path, suffix):
    columns = (
        Column("x", missing=True),
        Column("n", "integer", missing=True),
        Column("k", "category", categories=("a", "b,c"), missing=True),
        Column("y"),
    )
    gone = np.nan
    rows = np.float32([[1.5, gone, 0, 1], [gone, 3, 1, 2], [2.25, 4, gone, 3], [1, 5, 1, 4]])
    path = tmp_path / f"rows{suffix}"
    with open_writer(path, columns, 4) as writer:
        writer.write(rows)
    np.testing.assert_array_equal(read_table(path, columns=columns).values, rows)
    if suffix == ".csv":
        assert path.read_text().splitlines()[1:] == [
            "1.5,,a,1",
            ',3,"b,c",2',
            "2.25,4,,3",
            '1,5,"b,c",4',
        ]
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow.parquet")
        assert [column.null_count for column in pyarrow.read_table(path).columns] == [1, 1, 1, 0]


def test_dropped_rows_are_those_with_a_missing_cell(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n,3\n4,5\n")
    table = read_table(tmp_path / "rows.csv", missing="drop")
    assert table.values.tolist() == [[1, 2], [4, 5]]
    told = "1 of 3 rows are dropped for a missing cell, 1 of them for one of column a"
    assert table.notes == (f"{told}; columns.a.kind=drop leaves that out",)
    overrides = {"a": {"kind": "drop"}}
    assert not read_table(tmp_path / "rows.csv", missing="drop", overrides=overrides).notes
    assert not any(column.missing for column in table.columns)
    assert [column.missing for column in read_table(tmp_path / "rows.csv").columns] == [True, False]
