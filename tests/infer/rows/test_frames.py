"""Rows by column: a DataFrame where pandas is installed, else a dict of arrays with the same values."""

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.rows import frames
from scgan_infer.rows.formats import read_table

COLUMNS = (
    Column("x", decimals=1),
    Column("count", "integer", missing=True),
    Column("many", "integer"),
    Column("name", "category", categories=("a", "b"), missing=True),
)
VALUES = np.array([[0.1, 1, 7, 0], [0.2, np.nan, 2**24, np.nan], [-3, 4, -7, 1]], np.float32)


def test_without_pandas_rows_are_a_dict_of_arrays(monkeypatch):
    monkeypatch.setattr(frames, "find_spec", lambda name: None)
    table = frames.frame(VALUES, COLUMNS)
    assert table["x"].tolist() == [0.1, 0.2, -3.0]
    assert table["many"].dtype == np.int64
    assert table["name"].tolist() == ["a", None, "b"]
    again = read_table(table, columns=COLUMNS)
    assert np.array_equal(again.values, VALUES, equal_nan=True)


def test_with_pandas_rows_are_a_data_frame():
    pd = pytest.importorskip("pandas")
    table = frames.frame(VALUES, COLUMNS)
    assert table["x"].tolist() == [0.1, 0.2, -3.0]
    assert str(table["count"].dtype) == "Int64"
    assert table["count"].tolist()[::2] == [1, 4]
    assert table["name"].isna().tolist() == [False, True, False]
    again = read_table(table, columns=COLUMNS)
    assert np.array_equal(again.values, VALUES, equal_nan=True)
    assert isinstance(table, pd.DataFrame)


def test_a_declared_category_is_one_however_its_names_look():
    pd = pytest.importorskip("pandas")
    codes = pd.Categorical([10, 20] * 50)
    table = read_table(pd.DataFrame({"code": codes, "x": np.arange(100) / 7}))
    assert table.columns[0].categories == ("10", "20")
    other = read_table(
        pd.DataFrame({"code": codes, "x": np.arange(100) / 7}),
        overrides={"code": {"kind": "integer"}},
    )
    assert other.columns[0].kind == "integer"


def test_numbers_are_the_float64_nearest_to_their_decimals(monkeypatch):
    monkeypatch.setattr(frames, "find_spec", lambda name: None)
    exact = [105.37, 0.1, np.nan, -12.5, 1.1e-7]
    columns = (Column("plain", missing=True), Column("digits", digits=5, missing=True))
    values = np.array([exact, exact], np.float32).T
    for numbers in frames.frame(values, columns).values():
        assert np.array_equal(numbers, exact, equal_nan=True)
