"""Small files that would eat the machine are refused in one line, within seconds and 2 GiB."""

import io
import json
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.codecs import budget
from scgan_infer.rows.codecs.budget import MOST_COLUMNS, Budget
from scgan_infer.rows.codecs.pages import decoded_sizes
from scgan_infer.rows.formats import iter_values, read_table

BUNDLE = Path(__file__).parents[3] / "exported" / "eight_gaussians"


def repeated_text(path):
    """One text of 3 MB, by dictionary, in 2,000 rows."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), ["a" * 3_000_000])
    parquet.write_table(pa.table({"x": text, "y": [0.0] * 2000}), path, compression="zstd")


def false_page(path):
    """A page that says in its own header alone that it holds 1 GiB."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"x": np.arange(100.0), "y": np.arange(100.0)})
    parquet.write_table(table, path, use_dictionary=False, compression="zstd")
    content = path.read_bytes()
    assert content[4:7] == b"\x15\x00\x15"  # a data page; its size follows, in two bytes
    assert content[7] >= 128 > content[8]
    path.write_bytes(content[:7] + b"\x80\x80\x80\x80\x08" + content[9:])


def many_fields(path):
    """A header of 999,999,999 columns."""
    pytest.importorskip("astropy")
    cards = {"XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 1}
    cards |= {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": 999_999_999, "TFORM1": "'D       '"}
    first = {"SIMPLE": "T", "BITPIX": 8, "NAXIS": 0, "EXTEND": "T"}
    blocks = (
        "".join(f"{key:8}= {value!s:>20}".ljust(80) for key, value in unit.items()) + "END"
        for unit in (first, cards)
    )
    path.write_bytes("".join(block.ljust(2880) for block in blocks).encode() + bytes(2880))


def many_members(path):
    """Forty arrays of zeros, each well under what one file may hold."""
    array = io.BytesIO()
    np.save(array, np.zeros(3_000_000))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("x", "y", *range(38)):
            archive.writestr(f"{name}.npy", array.getvalue())


def large_chunk(path):
    """Ten rows in a chunk of 2^28."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name in "xy":
            options = {"maxshape": (None,), "chunks": (1 << 28,), "compression": "gzip"}
            data = file.create_dataset(name, (10,), np.float64, **options)
            data.id.write_direct_chunk((0,), b"x\x9c")


def inflated_chunk(path):
    """A chunk of 1,000 rows whose stored bytes inflate to 1 GiB."""
    h5py = pytest.importorskip("h5py")
    packer = zlib.compressobj()
    stored = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
    with h5py.File(path, "w") as file:
        for name in "xy":
            options = {"chunks": (1000,), "compression": "gzip"}
            data = file.create_dataset(name, data=np.zeros(2000), **options)
            data.id.write_direct_chunk((1000,), stored)


def shared_text(path):
    """One text of 3 MB, which 2,000 rows refer to."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["y"] = np.zeros(2000)
        data = file.create_dataset("x", (2000,), h5py.string_dtype())
        data[0] = "a" * 3_000_000
        offset = data.id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset : offset + 16 * 2000] = content[offset : offset + 16] * 2000
    path.write_bytes(content)


def swollen_basket(path, packed=None):
    """A basket whose one block says that it holds 8,000 bytes; packed are 3 GiB, by zstd."""
    uproot = pytest.importorskip("uproot")
    if packed is None:
        zstd = pytest.importorskip("cramjam").zstd
        packed = b"ZS\1", 48 * bytes(zstd.compress(bytes(1 << 26)))
    algorithm, stored = packed
    columns = {name: np.zeros(len(stored) // 8 + 3) for name in "xy"}
    with uproot.recreate(path, compression=None) as file:
        file.mktree("events", {"x": "float64", "y": "float64"}).extend(columns)
    with uproot.open(path) as file:
        branch = file["events"]["x"]
        key, first = int(branch.member("fBasketSeek")[0]), branch.basket_key(0).data_cursor.index
    rest = 8 * len(columns["x"]) - 9
    block = algorithm + rest.to_bytes(3, "little") + (8000).to_bytes(3, "little") + stored
    content = bytearray(path.read_bytes())
    content[first : first + len(block)] = block
    content[key + 6 : key + 10] = (8000).to_bytes(4, "big")
    path.write_bytes(content)


ATTACKS = {
    "rows.parquet": (repeated_text, "compression bomb"),
    "page.parquet": (false_page, "a page of column 'x' must be decoded at once, 1073741824 bytes"),
    "rows.fits": (many_fields, "999999999 columns"),
    "rows.npz": (many_members, "compression bomb"),
    "rows.h5": (large_chunk, "compression bomb"),
    "chunks.h5": (inflated_chunk, "compression bomb"),
    "texts.h5": (shared_text, "compression bomb"),
    "rows.root": (swollen_basket, "compression bomb"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_small_files_that_hold_too_much(tmp_path, name):
    make, why = ATTACKS[name]
    make(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 6 << 20
    code = (
        "import json, resource, sys, time\nfrom scgan_train.app import main\nsys.argv[0] = 'scgan'\n"
        "try:\n    main()\nfinally:\n    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    print(json.dumps([most, time.process_time()]))"
    )
    command = ["encode", "-q", tmp_path / name, "--model", BUNDLE, "--out", tmp_path / "out.csv"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert why in done.stderr
    assert str(tmp_path / name) in done.stderr
    assert done.stderr.count("\n") == 1
    most, seconds = json.loads(done.stdout)
    assert seconds < 20
    assert most < 2 << 20  # KiB


@pytest.mark.parametrize("codec", ["zlib", "xz", "zstd"])
def test_blocks_of_root_files_hold_what_their_headers_say(tmp_path, codec):
    pytest.importorskip("uproot")
    header = {"zlib": b"ZL\x08", "xz": b"XZ\0", "zstd": b"ZS\1"}[codec]
    noise = np.random.default_rng(0).bytes(20_000)
    packed = getattr(pytest.importorskip("cramjam"), codec).compress(bytes(1 << 24) + noise)
    swollen_basket(tmp_path / "rows.root", (header, bytes(packed)))
    with pytest.raises(DataError, match="a compressed block is damaged, or a compression bomb"):
        read_table(tmp_path / "rows.root")


@pytest.mark.parametrize("kind", ["mktree", "mkrntuple"])
@pytest.mark.parametrize("codec", [None, "ZLIB", "LZMA", "LZ4", "ZSTD"])
def test_root_files_are_charged_for_what_they_hold(tmp_path, monkeypatch, kind, codec):
    uproot = pytest.importorskip("uproot")
    rng, path = np.random.default_rng(0), tmp_path / "rows.root"
    columns = {"x": rng.normal(size=5000), "k": [f"{i} " + "a" * 100 for i in range(5000)]}
    with uproot.recreate(path, compression=codec and getattr(uproot, codec)(1)) as file:
        getattr(file, kind)("events", {"x": "float64", "k": "string"}).extend(columns)
    assert read_table(path).values.shape == (5000, 2)
    monkeypatch.setattr(budget, "LARGE", 100_000)
    monkeypatch.setattr(budget, "DENSEST", 0)
    with pytest.raises(DataError, match=r"claims [5-9]\d{5} bytes"):
        read_table(path)


def wide(path, columns):
    lines = [",".join(f"c{j}" for j in range(columns))]
    lines += [",".join(f"{(7 * j + i) % 97 / 8}" for j in range(columns)) for i in range(10)]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_the_time_for_a_wide_table_grows_with_its_width_alone(tmp_path):
    seconds = []
    for columns in (1_000, 10_000):
        wide(tmp_path / "rows.csv", columns)
        begun = time.thread_time()
        assert len(read_table(tmp_path / "rows.csv").columns) == columns
        seconds.append(time.thread_time() - begun)
    assert seconds[1] < 30 * seconds[0]  # in proportion 10, quadratic 100


def test_more_columns_than_are_read(tmp_path):
    wide(tmp_path / "rows.csv", MOST_COLUMNS + 1)
    np.save(tmp_path / "rows.npy", np.ones((2, MOST_COLUMNS + 1)))
    for name in ("rows.csv", "rows.npy"):
        with pytest.raises(DataError, match=f"{MOST_COLUMNS + 1} columns"):
            read_table(tmp_path / name)


def test_computing_is_bounded_and_waiting_is_not():
    rows = Budget("rows", 0)
    rows.seconds = 19.9
    with rows.working():
        time.sleep(0.3)
    with pytest.raises(DataError, match="too long"), rows.working():
        sum(range(10_000_000))


def test_pieces_of_wide_tables_are_short(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((20_000, 1000), np.float32))
    columns = [Column(f"x{j}") for j in range(1000)]
    pieces = [len(values) for values in iter_values(tmp_path / "rows.npy", columns)]
    assert sum(pieces) == 20_000
    assert max(pieces) * 1000 * 16 <= 64 << 20


def test_text_that_no_file_can_hold(tmp_path):
    for number, cells in enumerate((b"\xff" * 32, b"\x00\xd8\0\0" * 8)):
        path = tmp_path / f"{number}.npy"
        np.save(path, np.frombuffer(cells, "<U4"))
        np.savez(tmp_path / f"{number}.npz", x=np.ones((3, 2)), names=np.frombuffer(cells, "<U4"))
        for file in (path, tmp_path / f"{number}.npz"):
            with pytest.raises(DataError, match=r"can't be read|not UTF-8") as caught:
                read_table(file)
            str(caught.value).encode()
    with pytest.raises(DataError, match="can't be read"):
        read_table({"k": ["a", "\ud800"] * 5})
    with pytest.raises(DataError, match="not UTF-8"):
        read_table({"k\ud800": [1.0, 2.0]})


def test_hdf5_values_of_variable_length(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "rows.h5"
    for dtype, cell in (
        (h5py.vlen_dtype(np.int32), [1, 2, 3]),
        (h5py.ref_dtype, None),
        (np.dtype([("a", "f8"), ("b", h5py.string_dtype())]), (1.0, "x")),
    ):
        with h5py.File(path, "w") as file:
            data = file.create_dataset("b", (4,), dtype)
            for row in range(4 if cell else 0):
                data[row] = cell
            if dtype.names is None:
                file["a"] = np.ones(4)
        with pytest.raises(DataError, match="column 'b' holds values of variable length"):
            read_table(path)
        assert read_table(path, names=["a"]).values.tolist() == [[1.0]] * 4


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"compression": "gzip", "shuffle": True, "fletcher32": True}, None),
        ({"compression": "lzf", "shuffle": True}, None),
        ({"scaleoffset": 3}, "another filter than gzip, lzf"),
        ({"compression": "szip"}, "another filter than gzip, lzf"),
    ],
)
def test_hdf5_filters_that_take_their_sizes_from_the_file_are_not_run(tmp_path, options, why):
    """With another number of elements than there are, scale-offset ends the process."""
    h5py = pytest.importorskip("h5py")
    if options.get("compression") == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        options = {"scaleoffset": 2}
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["y"] = np.arange(2000.0)
        file.create_dataset("x", data=np.arange(2000) % 77 / 8, chunks=(1000,), **options)
    if why is None:
        assert len(read_table(tmp_path / "rows.h5")) == 2000
        return
    with pytest.raises(DataError, match=f"dataset 'x' is stored by {why}.*h5repack"):
        read_table(tmp_path / "rows.h5")


def test_large_packed_chunks_of_lzf(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        noise = np.random.default_rng(0).normal(size=(20_000, 2))
        file.create_dataset("x", data=noise, chunks=noise.shape, compression="lzf")
    assert read_table(tmp_path / "rows.h5").values.shape == noise.shape
    monkeypatch.setattr("scgan_infer.rows.codecs.hdf5.HELD", 20 << 20)
    with pytest.raises(DataError, match="packed chunks of more than 238312 bytes"):
        read_table(tmp_path / "rows.h5")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_page_headers_agree_with_the_footer(tmp_path, version, compression):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, rng = tmp_path / "rows.parquet", np.random.default_rng(0)
    columns = {
        "x": rng.normal(size=50_000),
        "k": rng.choice(["a", "b" * 300], 50_000),
        "i": [None, 7] * 25_000,
    }
    options = {"compression": compression, "data_page_version": version, "row_group_size": 20_000}
    parquet.write_table(pa.table(columns), path, data_page_size=10_000, **options)
    about = parquet.read_metadata(path)
    with path.open("rb") as file:
        for group in range(about.num_row_groups):
            for column in map(about.row_group(group).column, range(3)):
                start = column.dictionary_page_offset or column.data_page_offset
                sizes = list(decoded_sizes(file, start, column.total_compressed_size))
                rest = column.total_uncompressed_size - sum(sizes)  # the headers
                assert 10 * len(sizes) < rest < 1000 * len(sizes)
                assert file.tell() <= start + column.total_compressed_size
