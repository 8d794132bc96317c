"""Dates and times, and numbers that float32 can't carry: what is read is written in the same form."""

import datetime

import numpy as np
import pytest
from suffixes import READY

from scgan_infer.errors import DataError
from scgan_infer.rows.copies import all_copied
from scgan_infer.rows.formats import iter_values, open_writer, read_table
from scgan_infer.rows.frames import frame

FORMS = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S.%f+02:00",
]
START = datetime.datetime(2021, 3, 1)
DAYS = ["2024-05-01", "2024-05-31"]


def spelt(form, n=300, minutes=7):
    return [
        (START + datetime.timedelta(minutes=minutes * k * k % 50_000)).strftime(form)
        for k in range(n)
    ]


@pytest.mark.parametrize("form", FORMS)
def test_text_comes_back_as_it_was(tmp_path, form):
    texts = spelt(form)
    (tmp_path / "in.csv").write_text("t,x\n" + "".join(f"{text},1\n" for text in texts))
    table = read_table(tmp_path / "in.csv")
    assert table.columns[0].kind == "datetime"
    with open_writer(tmp_path / "out.csv", table.columns) as writer:
        writer.write(table.values)
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "in.csv").read_text()
    [again] = iter_values(tmp_path / "out.csv", table.columns)
    assert np.array_equal(again, table.values)


def test_days_stay_days_and_are_counted_one_by_one():
    days = [(START + datetime.timedelta(days=k)).strftime("%Y-%m-%d") for k in range(100)]
    table = read_table({"t": np.array(days, object)})
    assert table.columns[0].resolution == "D"
    assert np.array_equal(np.diff(table.values[:, 0]), np.ones(99))
    assert set(table.columns[0].rules.cells(np.float32([-3, 0, 4]), table.columns[0])) <= set(days)


def test_types_for_dates_are_taken():
    pandas = pytest.importorskip("pandas")
    times = np.datetime64("2021-03-01T12:00:00") + np.arange(50).astype("timedelta64[m]")
    times[7] = np.datetime64("NaT")
    aware = pandas.Series(times).dt.tz_localize("UTC")
    frame = pandas.DataFrame({"t": times, "aware": aware, "day": times.astype("datetime64[D]")})
    frame["python"] = [START.date()] * 50
    table = read_table(frame)
    assert {column.kind for column in table.columns} == {"datetime"}
    assert [column.resolution for column in table.columns] == ["m", "m", "D", "D"]
    assert np.isnan(table.values[7, :3]).all()
    assert table.columns[1].pattern.endswith("+00:00")


@pytest.mark.parametrize("kind", ["date", "time", "aware"])
def test_parquet_keeps_its_types(tmp_path, kind):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    types = {
        "date": pa.date32(),
        "time": pa.timestamp("ms"),
        "aware": pa.timestamp("us", "UTC"),
    }
    times = [
        START + datetime.timedelta(days=k, seconds=2**17 * (kind != "date")) for k in range(40)
    ]
    cells = pa.array([None, *times[1:]], pa.timestamp("us")).cast(types[kind])
    parquet.write_table(pa.table({"t": cells}), tmp_path / "in.parquet")
    table = read_table(tmp_path / "in.parquet")
    assert table.columns[0].kind == "datetime"
    assert table.columns[0].missing
    with open_writer(tmp_path / "out.parquet", table.columns) as writer:
        writer.write(table.values)
    back = parquet.read_table(tmp_path / "out.parquet")
    assert back.schema.field("t").type == types[kind]
    assert back["t"].to_pylist() == cells.to_pylist()


def test_zones_that_differ_are_written_in_utc():
    cells = ["2021-03-01T12:00+01:00", "2021-07-01T12:00+02:00"]
    column = read_table({"t": np.array(cells * 20, object)}).columns[0]
    values = read_table({"t": np.array(cells, object)}, columns=(column,)).values[:, 0]
    assert column.rules.cells(values, column).tolist() == ["2021-03-01T11:00Z", "2021-07-01T10:00Z"]


@pytest.mark.parametrize(
    ("cell", "words"),
    [("2021-02-30", "is no date of the calendar"), ("soon", "is no date like 2024-05-31")],
)
def test_a_cell_that_is_no_date_is_named(tmp_path, cell, words):
    days = [f"2021-01-{1 + k % 28:02}" for k in range(70_000)]
    days[-1] = cell
    (tmp_path / "rows.csv").write_text("t\n" + "\n".join(days) + "\n")
    with pytest.raises(DataError, match=rf"column 't', row 70000 .*{cell}' {words}"):
        read_table(tmp_path / "rows.csv")


def test_julian_dates_keep_their_decimals(tmp_path):
    rng = np.random.default_rng(0)
    dates = np.round(2459000 + np.sort(30 * rng.random(1500)), 5)
    (tmp_path / "in.csv").write_text("jd\n" + "".join(f"{date:.5f}\n" for date in dates))
    table = read_table(tmp_path / "in.csv")
    assert table.columns[0].anchor is not None
    assert len(np.unique(table.values)) == len(np.unique(dates))
    for suffix in READY:
        name = f"out{suffix}"
        with open_writer(tmp_path / name, table.columns) as writer:
            writer.write(table.values)
        back = read_table(tmp_path / name)
        found = back.values[:, 0].astype(np.float64) + back.columns[0].anchor
        assert np.abs(found - dates).max() < 2e-6
    assert (tmp_path / "out.csv").read_text().split()[1:] == [*map(repr, dates.tolist())]


def test_whole_numbers_near_each_other_are_exact():
    stamps = 1_600_000_000_000 + np.arange(0, 10_000_000, 5_001)
    table = read_table({"t": np.array(stamps)})
    column = table.columns[0]
    assert column.rules.cells(table.values[:, 0], column).tolist() == stamps.tolist()


def test_whole_numbers_that_float32_has_no_place_for():
    rng = np.random.default_rng(0)
    year = 1_700_000_000_000 + rng.integers(0, 31_536_000_000, 500)
    people = np.exp(rng.normal(12, 2.5, 500)).astype(np.int64)
    for cells in (year, people):
        table = read_table({"t": cells})
        column = table.columns[0]
        again = column.rules.cells(table.values[:, 0], column)
        assert again.dtype == np.int64
        assert np.abs(again - cells).max() <= 1e-7 * np.ptp(cells)
        assert "kept to 7 digits" in table.notes[0]
        known = read_table({"t": cells}, columns=table.columns)
        assert np.array_equal(known.values, table.values)
        advised = read_table({"t": cells}, overrides={"t": {"kind": "id"}}).columns[0]
        assert advised.is_id
    codes = rng.choice(rng.integers(10**9, 10**12, 20), 500)
    table = read_table({"t": codes})
    column = table.columns[0]
    assert column.kind == "category"
    assert [int(cell) for cell in column.rules.cells(table.values[:, 0], column)] == codes.tolist()
    assert np.array_equal(read_table({"t": codes}, columns=table.columns).values, table.values)
    lumps = np.concatenate([np.arange(300), 10**15 + np.arange(300)])
    with pytest.raises(DataError, match="is too large for float32"):
        read_table({"t": lumps})
    assert read_table({"t": lumps}, overrides={"t": {"kind": "id"}}).columns[0].is_id


def test_walls_are_values_and_not_offsets():
    jd = 2459000.5 + np.random.default_rng(1).random(3000)
    column = read_table({"t": jd}, overrides={"t": {"low": 2459000.5}}).columns[0]
    assert column.low == 2459000.5
    assert column.anchor is not None
    guessed = read_table({"t": jd}).columns[0]
    assert (guessed.low, guessed.high) == (2459000.5, 2459001.5)
    with pytest.raises(DataError, match="outside its walls"):
        read_table({"t": jd - 0.75}, columns=(guessed,))


def test_a_date_outside_its_walls_is_named_as_it_is_written():
    days = np.array([f"2024-05-{1 + k % 30:02}" for k in range(900)], object)
    column = read_table({"t": days}).columns[0]
    message = r"row 2: '2021-01-01' is outside its walls \[2024-05-01, 2024-05-30\]; remove"
    for late in (["2024-05-02", "2021-01-01"], np.array(["2024-05-02", "2021-01-01"], "M8[D]")):
        with pytest.raises(DataError, match=message):
            read_table({"t": np.array(late)}, columns=(column,))


def test_a_column_of_float32_has_no_anchor():
    values = (1000 + np.random.default_rng(0).random(5000)).astype(np.float32)
    assert read_table({"x": values}).columns[0].anchor is None
    assert read_table({"x": values.astype(np.float64).round(2)}).columns[0].anchor is None


@pytest.mark.parametrize(
    "cells", [DAYS, np.array(DAYS, "datetime64[ns]"), [datetime.date(2024, 5, 1)] * 2]
)
def test_copied_dates_are_dates_where_there_are_types(tmp_path, cells):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    raw = cells if isinstance(cells, np.ndarray) else np.array([*cells, None], object)[:-1]
    (column,) = read_table({"t": np.array([f"2024-05-{1 + k % 30:02}" for k in range(90)])}).columns
    rows = np.zeros((4, 1), np.float32)
    columns = all_copied((column,), {"t": raw}, 2, ".parquet")
    held = np.asarray(frame(rows, columns)["t"])
    assert held.dtype.kind == "M"
    np.testing.assert_array_equal(held, np.repeat(raw, 2).astype(held.dtype))
    with open_writer(tmp_path / "t.parquet", columns) as writer:
        writer.write(rows)
    back = parquet.read_table(tmp_path / "t.parquet")
    assert back.schema.field("t").type == pa.date32()
    assert back["t"].to_numpy().astype(held.dtype).tolist() == held.tolist()


@pytest.mark.parametrize("gone", ["", None, np.datetime64("NaT")])
def test_an_empty_cell_where_none_was_missing_is_named(tmp_path, gone):
    known = read_table({"t": np.array([f"2024-05-{1 + k % 30:02}" for k in range(90)])}).columns
    cells = np.array([np.datetime64("2024-05-01"), gone], None if gone else object)
    if gone == "":
        (tmp_path / "c.csv").write_text("t,u\n2024-05-01,1\n,1\n")
        cells = tmp_path / "c.csv"
    rows = cells if gone == "" else {"t": cells}
    where = "c.csv: column 't', row 2" if gone == "" else "rows: column 't', row 2"
    with pytest.raises(DataError, match=f"{where}.*is missing; fill it in"):
        read_table(rows, columns=known)
