"""What names rows is numbered anew after the last, codes stay text, and text among numbers gets advice."""

import numpy as np
import pytest
from suffixes import READY

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.formats import open_writer, read_table
from scgan_infer.rows.shards import ShardWriter

N = 60
RNG = np.random.default_rng(0)
IDS = {
    "from 1": (np.arange(1, N + 1), [61, 62, 63]),
    "shuffled": (RNG.permutation(N), [60, 61, 62]),
    "far": (np.arange(5000) + 123_456_789, [123_461_789, 123_461_790, 123_461_791]),
    "text": (
        np.array([f"PID-{k:04}" for k in range(7, 7 + N)], object),
        ["PID-0067", "PID-0068", "PID-0069"],
    ),
    "names": (
        np.array([f"{c}{d}" for c in "abcdefgh" for d in "xyzuvwst"], object),
        ["1", "2", "3"],
    ),
    "codes": (np.array([f"{k:05}" for k in range(N)], object), ["00060", "00061", "00062"]),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_are_recognised_and_numbered_anew(name, tmp_path):
    cells, first = IDS[name]
    table = read_table({"id": cells, "x": RNG.normal(size=len(cells))})
    assert table.columns[0].kind == "id"
    assert not table.values[:, 0].any()
    with open_writer(tmp_path / "rows.csv", table.columns) as writer:
        writer.write(table.values[:2])
        writer.write(table.values[2:3])
    lines = (tmp_path / "rows.csv").read_text().splitlines()[1:]
    assert [line.partition(",")[0] for line in lines] == [str(cell) for cell in first]
    again = read_table(tmp_path / "rows.csv", columns=table.columns)
    assert not again.values[:, 0].any()


@pytest.mark.parametrize("suffix", READY)
def test_numbers_go_on_in_every_format(suffix, tmp_path):
    column = read_table({"id": np.arange(1, N + 1), "x": RNG.normal(size=N)}).columns[0]
    path = tmp_path / f"rows{suffix}"
    with open_writer(path, (column,), 100_000, start=20_000_000) as writer:
        for _ in range(4):
            writer.write(np.zeros((25_000, 1), np.float32))
    back = read_table(path, overrides={"x0" if suffix == ".npy" else "id": {"kind": "id"}})
    assert back.columns[0].low == 20_000_000 + N + 1 + 100_000


@pytest.mark.parametrize("form", ["{}", "P{:06}"])
def test_no_number_of_many_shuffled_rows_comes_again(form, tmp_path):
    numbers = np.random.default_rng(0).permutation(90_000)
    lines = "".join(f"{form.format(k)},{k % 7}.5\n" for k in numbers)
    (tmp_path / "rows.csv").write_text(f"id,x\n{lines}")
    column = read_table(tmp_path / "rows.csv", overrides={"id": {"kind": "id"}}).columns[0]
    assert 90_000 <= column.low < 90_010


@pytest.mark.parametrize("suffix", READY)
def test_an_id_need_not_be_there(suffix, tmp_path):
    rows = {"id": np.arange(1, N + 1), "x": RNG.normal(size=N), "y": RNG.normal(size=N)}
    columns = read_table(rows).columns
    path = tmp_path / f"rows{suffix}"
    if suffix == ".npy":
        np.save(path, np.rec.fromarrays([rows["x"], rows["y"]], names="x,y"))
    else:
        with open_writer(path, columns[1:]) as writer:
            writer.write(np.column_stack([rows["x"], rows["y"]]).astype(np.float32))
    table = read_table(path, columns=columns)
    assert table.columns == columns
    assert not table.values[:, 0].any()
    np.testing.assert_allclose(table.values[:, 1:], np.column_stack([rows["x"], rows["y"]]), 1e-6)
    with pytest.raises(DataError, match="has no column 'z', which the model needs"):
        read_table(path, columns=(*columns, Column("z")))
    with pytest.raises(DataError, match="has no column 'id', which the model needs"):
        read_table({"z": rows["x"]}, columns=columns[:1])


def test_shards_have_numbers_of_their_own(tmp_path):
    column = read_table({"id": np.arange(1, N + 1), "x": RNG.normal(size=N)}).columns[0]
    with ShardWriter(tmp_path / "all", (column,), 10, 4, suffix=".csv", start=100) as writer:
        writer.write(np.zeros((10, 1), np.float32))
    texts = [file.read_text().split()[1:] for file in sorted((tmp_path / "all").glob("*.csv"))]
    assert [cell for part in texts for cell in part] == [str(k) for k in range(101 + N, 111 + N)]


HUGE = 4 * 10**18 + 7919 * RNG.permutation(N)


@pytest.mark.parametrize("settings", [{}, {"kind": "id"}])
@pytest.mark.parametrize("cells", [HUGE, HUGE.astype(str), np.char.add("G", HUGE.astype(str))])
def test_ids_of_more_digits_than_numbers_hold_are_numbered_from_1(cells, settings, tmp_path):
    lines = "".join(f"{cell},{k}.5\n" for k, cell in enumerate(cells))
    (tmp_path / "rows.csv").write_text(f"id,x\n{lines}")
    for rows in ({"id": cells, "x": RNG.normal(size=N)}, tmp_path / "rows.csv"):
        column = read_table(rows, overrides={"id": settings}).columns[0]
        assert (column.kind, column.low) == ("id", 1.0)


@pytest.mark.parametrize(
    "cells", [np.append(HUGE, HUGE[0]), 1e17 * np.arange(1, N), HUGE + 1e22, np.append(HUGE, 5)]
)
def test_large_numbers_that_repeat_or_measure_are_no_ids(cells):
    with pytest.raises(DataError, match=r"too large for float32.*columns.id.kind=id if it names"):
        read_table({"id": cells, "x": RNG.normal(size=len(cells))})


def test_what_is_no_id():
    assert read_table({"x": np.arange(1871, 1971)}).columns[0].kind == "integer"
    assert read_table({"x": np.arange(1, 9)}).columns[0].kind == "real"
    assert read_table(np.arange(500)).columns[0].kind == "integer"
    repeated = np.append(np.arange(1, N), 1)
    assert read_table({"x": repeated}).columns[0].kind == "real"


def test_a_column_can_be_left_out():
    rows = {"id": np.arange(N), "x": RNG.normal(size=N)}
    assert read_table(rows, overrides={"id": {"kind": "drop"}}).names == ("x",)


def test_leading_zeros_make_codes(tmp_path):
    codes = RNG.choice(["1002", "02139", "90210", "0044"], 400)
    (tmp_path / "rows.csv").write_text("zip,x\n" + "".join(f"{code},1.5\n" for code in codes))
    column = read_table(tmp_path / "rows.csv").columns[0]
    assert (column.kind, set(column.categories)) == ("category", set(codes))
    assert read_table({"zip": codes.astype(object)}).columns[0] == column
    overrides = {"zip": {"kind": "integer"}}
    assert read_table(tmp_path / "rows.csv", overrides=overrides).values[:, 0].max() == 90210


def test_a_code_that_comes_late_is_named(tmp_path):
    (tmp_path / "rows.csv").write_text("zip,x\n" + "12345,1\n" * 200_000 + "01234,1\n")
    with pytest.raises(
        DataError, match=r"row 200001 .*'01234' is a code among numbers; choose columns.zip.kind"
    ):
        read_table(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1", "45.1%"], "is a percentage where a number belongs; write it without the sign"),
        (["1", "1,234"], "separates thousands; write all numbers without"),
        (["1", "12 mg"], "'12 mg' has a sign or a unit beside the number; write all numbers alone"),
        (["1", "$1,200.50"], "has a sign or a unit beside the number; write all numbers alone"),
        (["1", "<0.5"], "is a bound where a number belongs; write a number, empty the cell"),
        (["1", "1,5"], "is text where a number belongs"),
        (["1", "3.4.5"], "is text where a number belongs"),
        (["1", "n.d."], "empty the cell if it stands for a missing one"),
        ([f"{k}.5 mg" for k in range(N)], "is text; write the numbers without signs or units"),
        ([f"{k}.5%" for k in range(N)], "is text; write the numbers without signs"),
        ([f"{1 + k % 28}.03.20{10 + k // 28}" for k in range(N)], "write dates as YYYY-MM-DD"),
        (
            [f"name {k % 50}" for k in range(N)],
            "choose columns.x.kind=drop or columns.x.kind=id or",
        ),
    ],
)
def test_text_among_numbers_gets_advice(cells, words):
    with pytest.raises(DataError, match=words):
        read_table({"x": np.array(cells, object)})


@pytest.mark.parametrize("cells", [["1.0", "Smith, J.", "1e5"], ["5", "<1", "lt5"]])
def test_names_that_look_like_numbers_may_be_categories(cells):
    advice = "choose columns.x.kind=category if these are names, remove the row, or leave"
    with pytest.raises(DataError, match=advice):
        read_table({"x": np.array(cells * 20, object)})
    named = read_table(
        {"x": np.array(cells * 20, object)}, overrides={"x": {"kind": "category"}}
    ).columns
    assert set(named[0].categories) == set(cells)
    numbers = read_table({"x": np.arange(60) / 8}).columns
    with pytest.raises(DataError, match=r"'1.5 m' has .* alone, or remove the row$"):
        read_table({"x": np.array(["1.5 m"], object)}, columns=numbers)
    with pytest.raises(DataError, match=r"is missing; fill it in, or remove the row$"):
        read_table({"x": np.array([""], object)}, columns=numbers)


@pytest.mark.parametrize("form", ["{:02}.03.2020", "03/{:02}/2020"])
def test_dates_that_repeat_and_are_not_read_as_dates_are_noted(form):
    cells = np.array([form.format(1 + k % 28) for k in range(N)], object)
    table = read_table({"x": cells})
    assert table.columns[0].kind == "category"
    assert "write dates as YYYY-MM-DD, or choose columns.x.kind=category" in table.notes[0]
    assert not read_table({"x": cells}, overrides={"x": {"kind": "category"}}).notes


def test_text_with_a_few_numbers_is_text():
    cells = np.array(["ABC", "00M", "0E0", "ABD", "7"] * 40, object)
    assert read_table({"iata": cells}).columns[0].kind == "category"


def test_all_columns_at_fault_are_named_at_once():
    cells = np.array([f"name {k % 50}" for k in range(N)], object)
    with pytest.raises(DataError, match=r"column 'a', row 1: .* as they are: 'c'$"):
        read_table({"a": cells, "b": np.arange(N), "c": cells})


@pytest.mark.parametrize(
    ("cells", "settings", "pattern", "low"),
    [
        ([f"PID-{k:05}" for k in range(1, N + 1)], {"kind": "id"}, "PID-00000", N + 1),
        (
            [f"PID-{k:05}" for k in range(1, N + 1)],
            {"kind": "id", "low": 1.0, "pattern": "PID-00000"},
            "PID-00000",
            1,
        ),
        ([f"name {k % 50}" for k in range(N)], {"kind": "id"}, "0", 1),
        ([f"{k:05}" for k in range(1, N + 1)], {"kind": "id"}, "00000", N + 1),
    ],
)
def test_text_may_be_set_to_be_an_id(cells, settings, pattern, low):
    table = read_table({"x": np.array(cells, object)}, overrides={"x": settings})
    (column,) = table.columns
    assert (column.kind, column.pattern, column.low) == ("id", pattern, low)
    assert not table.values.any()
