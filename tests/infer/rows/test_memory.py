"""Rows in memory come in by the door that files come in by: same columns, same values, same errors."""

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, UsageError
from scgan_infer.rows.formats import open_writer, read_table

N = 3000


class Frame:
    """What any package calls a DataFrame: it gives names and columns."""

    def __init__(self, columns):
        self.columns = columns

    def items(self):
        return iter(self.columns.items())


def data():
    rng = np.random.default_rng(1)
    return {
        "x": rng.standard_normal(N).astype(np.float32),
        "side": rng.uniform(-4, 4, N).astype(np.float32),
        "count": rng.poisson(30, N).astype(np.float32),
        "price": (np.round(2 * rng.exponential(20, N)) / 2).astype(np.float32),
    }


def forms(tmp_path, columns):
    """Yield the same rows as files and in memory, and whether they have names."""
    stacked = np.column_stack(list(columns.values()))
    structured = np.empty(N, [(name, "f4") for name in columns])
    for name, values in columns.items():
        structured[name] = values
    np.save(tmp_path / "plain.npy", stacked)
    np.save(tmp_path / "structured.npy", structured)
    with open_writer(tmp_path / "rows.csv", [Column(name) for name in columns], N) as writer:
        writer.write(stacked)
    return {
        "npy": tmp_path / "plain.npy",
        "array": stacked,
        "fortran": np.asfortranarray(stacked),
        "float64": stacked.astype(np.float64),
        "lists": stacked.tolist(),
        "objects": stacked.astype(object),
        "structured.npy": tmp_path / "structured.npy",
        "structured": structured,
        "csv": str(tmp_path / "rows.csv"),
        "mapping": columns,
        "mapping of lists": {name: values.tolist() for name, values in columns.items()},
        "frame": Frame(columns),
        "text": {name: values.astype(str) for name, values in columns.items()},
    }


UNNAMED = ("npy", "array", "fortran", "float64", "lists", "objects")


def test_the_same_rows_are_the_same_table_by_whatever_way_they_come(tmp_path):
    tables = {way: read_table(rows) for way, rows in forms(tmp_path, data()).items()}
    first = tables["csv"]
    assert [column.kind for column in first.columns] == ["real", "bounded", "integer", "bounded"]
    for way, table in tables.items():
        assert np.array_equal(table.values, first.values), way
        for j, column in enumerate(table.columns):
            wanted = first.columns[j].to_dict() | ({"name": f"x{j}"} if way in UNNAMED else {})
            assert column.to_dict() == wanted, way


def test_at_most_so_many_rows_are_kept_and_the_same_ones(tmp_path):
    tables = [read_table(rows, max_rows=500) for rows in forms(tmp_path, data()).values()]
    assert {table.values.tobytes() for table in tables} == {tables[0].values.tobytes()}
    assert len(tables[0]) == 500


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"x": "missing"}, "column '{x}', row 7{line}: nan is missing"),
        ({"x": np.inf}, "column '{x}', row 7{line}: inf is infinite"),
    ],
)
def test_the_same_fault_is_the_same_error(tmp_path, spoil, words):
    columns = {name: values.astype(np.float64) for name, values in data().items()}
    for name, cell in spoil.items():
        columns[name][6] = np.nan if cell == "missing" else cell
    stacked = np.column_stack(list(columns.values()))
    np.save(tmp_path / "rows.npy", stacked)
    structured = np.rec.fromarrays(list(columns.values()), names=list(columns))
    np.save(tmp_path / "structured.npy", np.asarray(structured))
    (tmp_path / "rows.csv").write_text(
        ",".join(columns)
        + "\n"
        + "".join(",".join(map(repr, row)) + "\n" for row in stacked.tolist())
    )
    for rows in (
        tmp_path / "rows.npy",
        stacked,
        tmp_path / "structured.npy",
        structured,
        tmp_path / "rows.csv",
        columns,
        Frame(columns),
    ):
        with pytest.raises(DataError) as error:
            read_table(rows, missing="refuse")
        named = rows is not stacked and not str(rows).endswith("rows.npy")
        names = {name: name if named else f"x{j}" for j, name in enumerate(columns)}
        line = " (line 8)" if str(rows).endswith("csv") else ""
        assert words.format(**names, line=line) in str(error.value)
        assert str(error.value).startswith(("rows: ", str(tmp_path)))


def test_text_is_a_category_or_an_error():
    names = np.array(["red", "green", "red", "red", "blue", "green"])
    table = read_table({"colour": names, "x": np.arange(6.0)})
    assert table.columns[0] == Column("colour", "category", categories=("blue", "green", "red"))
    assert table.values[:, 0].tolist() == [2, 1, 2, 2, 0, 1]
    both = np.array([["a", "1.5"], ["b", "2.5"], ["a", "3.5"], ["b", "1"]])
    assert [column.kind for column in read_table(both).columns] == ["category", "real"]
    with pytest.raises(DataError, match=r"rows: column 'x1', row 3: 'oops' is text where a number"):
        read_table(np.array([["a", "1.5"], ["b", "2.5"], ["a", "oops"], ["b", "1"]]))
    with pytest.raises(DataError, match=r"rows: column 'k', row 2: an empty cell is missing"):
        read_table({"k": np.array(["a", None, "a", "a"], object)}, missing="refuse")


def test_masked_cells_are_missing():
    rows = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], [[False, False], [False, True]])
    with pytest.raises(DataError, match=r"rows: column 'x1', row 2: an empty cell is missing"):
        read_table(rows, missing="refuse")
    column = np.ma.masked_array([1, 2, 3], [False, True, False])
    with pytest.raises(DataError, match=r"rows: column 'n', row 2: an empty cell is missing"):
        read_table({"n": column}, missing="refuse")
    kept = read_table({"n": column})
    assert kept.columns[0].missing
    np.testing.assert_array_equal(kept.values[:, 0], np.float32([1, np.nan, 3]))
    assert read_table({"n": column}, missing="drop").values[:, 0].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.float32(3), r"rows have shape \(\)"),
        (np.zeros((2, 2, 2)), r"rows have shape \(2, 2, 2\)"),
        (np.zeros((0, 2)), "has no rows"),
        (np.zeros((3, 0)), "has no columns"),
        ({}, "rows: has no columns"),
        ({"a": [1, 2], "b": [1]}, "differ in length"),
        ({"a": [[1, 2], [3, 4]]}, "column 'a', row 1: holds"),
        ([[1, 2], [3]], "can't be read"),
        (np.zeros((3, 2), complex), "complex128 is neither number nor text"),
        ({"": [1, 2]}, "column 1 has no name"),
    ],
)
def test_what_is_no_table_of_rows_is_a_data_error(rows, words):
    with pytest.raises(DataError, match=words):
        read_table(rows)


def test_columns_are_chosen_and_described_as_in_a_file():
    rows = data()
    table = read_table(rows, names=["count", "x"], overrides={"x": {"kind": "real"}})
    assert table.names == ("count", "x")
    with pytest.raises(UsageError, match="rows: has no column 'y' to use; it has x, side"):
        read_table(rows, names=["y"])
    with pytest.raises(UsageError, match="no column 'countt' to use; did you mean 'count'"):
        read_table(rows, overrides={"countt": {"kind": "real"}})
    with pytest.raises(DataError, match=r"text where a number .* \(the column is set to real\)"):
        read_table({"k": ["a", "b", "a", "b"]}, overrides={"k": {"kind": "real"}})
    with pytest.raises(DataError, match=r"column 'x', row \d+: .* is outside its walls \[0.5, \]"):
        read_table(rows, overrides={"x": {"low": 0.5}})
    known = (Column("count", "integer"), Column("x"))
    assert read_table(rows, columns=known).columns == known


def test_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"x": [0.5, 1.5, 2.5, 0.25], "k": pandas.Categorical(["a", "b", "a", "a"])}
    )
    frame["n"] = pandas.array([1, 2, None, 4], dtype="Int64")
    table = read_table(frame, names=["x", "k"])
    assert table.columns[1].categories == ("a", "b")
    with pytest.raises(DataError, match="rows: column 'n', row 3: nan is missing"):
        read_table(frame, missing="refuse")
    assert np.isnan(read_table(frame).values[2, 2])


def test_the_labels_of_rows_are_no_column():
    labelled = {"Unnamed: 0": [4, 1, 2], "a": [1.5, 2.0, 3.0]}
    table = read_table(labelled)
    assert table.names == ("a",)
    assert "left out" in table.notes[0]
    assert read_table(labelled, columns=[Column("a")]).names == ("a",)
