"""Text as people have it: any usual separator, decimal commas, comments, an index, no header, gzip, a pipe."""

import gzip
import subprocess
import sys

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.errors import DataError
from scgan_infer.rows.formats import iter_values, read_table

REAL = (Column("a"), Column("b"))
ROWS = [[1.5, 2.0], [-3.0, 4.25], [5.0, 6.5]]

WRITTEN = {
    "commas": "a,b\n1.5,2\n-3,4.25\n5,6.5\n",
    "semicolons": "a;b\n1.5;2\n-3;4.25\n5;6.5\n",
    "tabs": "a\tb\n1.5\t2\n-3\t4.25\n5\t6.5\n",
    "bars": "a|b\n1.5|2\n-3|4.25\n5|6.5\n",
    "decimal commas": "a;b\n1,5;2\n-3;4,25\n5;6,5\n",
    "decimal commas between tabs": "a\tb\n1,5\t2\n-3\t4,25\n5\t6,5\n",
    "quoted": '"a";"b"\r\n"1,5";"2"\r\n"-3";"4,25"\r\n"5";"6,5"\r\n',
    "comments": "# made by hand\n# in 2020, twice\na,b\n1.5,2\n# half, way, through\n-3,4.25\n5,6.5\n#\n",
    "names in a comment": "# a,b\n1.5,2\n-3,4.25\n5,6.5\n",
    "an index": ",a,b\n0,1.5,2\n1,-3,4.25\n2,5,6.5\n",
    "an index from 1": '"";"a";"b"\n1;1,5;2\n2;-3;4,25\n3;5;6,5\n',
    "an index that was read and written": "Unnamed: 0,a,b\n0,1.5,2\n1,-3,4.25\n2,5,6.5\n",
    "an index of chosen rows": ",a,b\n7,1.5,2\n1,-3,4.25\n12,5,6.5\n",
    "row names": '"","a","b"\n"Mazda",1.5,2\n"Fiat",-3,4.25\n"Opel",5,6.5\n',
}


@pytest.mark.parametrize("case", WRITTEN)
def test_the_same_rows_however_they_are_written(tmp_path, case):
    path = tmp_path / "rows.csv"
    path.write_bytes(WRITTEN[case].encode())
    table = read_table(path)
    assert table.names == ("a", "b")
    assert table.values.tolist() == ROWS
    assert np.concatenate(list(iter_values(path, REAL, chunk=2))).tolist() == ROWS


def test_what_was_taken_for_granted_is_said(tmp_path):
    path = tmp_path / "rows.csv"
    notes = {}
    for case, text in WRITTEN.items():
        path.write_text(text)
        notes[case] = " ".join(read_table(path).notes)
    assert {case for case in notes if "decimal commas" in notes[case]} == {
        *("decimal commas", "decimal commas between tabs", "quoted", "an index from 1")
    }
    indices = {case for case in WRITTEN if "index" in case or case == "row names"}
    assert {case for case in notes if "left out" in notes[case]} == indices


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ("k;v\n1,5 l;2\n1,5 l;3,5\n", ("k", "v"), [0.0, 2.0]),
        ("#,v\n1,2\n2,4\n3,6\n", ("#", "v"), [1.0, 2.0]),
        ("colour,v\n#ff0000,1\n#ff0000,2\n#00ff00,4\n#00ff00,4\n", ("colour", "v"), [1.0, 1.0]),
        ("a,k\n1,x|y\n2,x|y\n3,x|y|z\n3,x|y|z\n", ("a", "k"), [1.0, 0.0]),
        ("v\n1.5\n# no row\n2.5\n", ("v",), [1.5]),
        ('k|v\n"a|b"|1\n"a|b"|2\n', ("k", "v"), [0.0, 1.0]),
        ('k,v\n"x\n# y",1\n"x\n# y",2\n', ("k", "v"), [0.0, 1.0]),
    ],
)
def test_text_that_only_looks_like_something_else(tmp_path, text, names, first):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    table = read_table(path)
    assert (table.names, table.values[0].tolist()) == (names, first)


def test_none_is_a_name_and_none_of_pythons_own_is_missing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("stage,size\n" + "I,1.5\nnone,2.25\nNone,NA\nII,3.5\n" * 20)
    table = read_table(path)
    assert table.columns[0].categories == ("I", "II", "none")
    assert np.isnan(table.values[2::4]).all()
    assert not np.isnan(np.delete(table.values, np.s_[2::4], axis=0)).any()


def test_one_column_of_decimal_commas_may_be_two_of_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a\n1,5\n2,5\n")
    with pytest.raises(DataError, match="names one column, 'a', above cells like '1,5'"):
        read_table(path)


@pytest.mark.parametrize("rows", ["5,1\n5,2\n", "0.5,1\n0.7,2\n", "x,1\nx,2\n"])
def test_an_unnamed_column_that_labels_no_rows_is_refused(tmp_path, rows):
    path = tmp_path / "rows.csv"
    path.write_text(f",a\n{rows}")
    with pytest.raises(DataError, match="column 1 has no name"):
        read_table(path)


def test_no_header(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("1.5,x\n-3,y\n2,x\n4,y\n")
    table = read_table(path, header=False)
    assert table.names == ("x0", "x1")
    assert len(table) == 4
    again = read_table(path, columns=table.columns)
    assert again.values.tolist() == table.values.tolist()
    path.write_text("x1,other,x0\nx,1,1.5\ny,1,-3\n")
    assert read_table(path, columns=table.columns).values.tolist() == table.values[:2].tolist()
    path.write_text("1,5;2,5\n0,5;3,5\n")
    assert read_table(path, header=False).values.tolist() == [[1.5, 2.5], [0.5, 3.5]]
    path.write_text("1.5,2\n")
    with pytest.raises(DataError, match="header=false"):
        read_table(path)
    path.write_text("1.5,x,3\n-3,y,3\n")
    with pytest.raises(DataError, match="3 columns without names where 2"):
        read_table(path, columns=table.columns)


@pytest.mark.slow
def test_gzip_bombs(tmp_path):
    for text in (
        b"a,b\n" + (b"1,2." + b"0" * 1000 + b"\n") * 80_000,
        b"a,b\n1," + b"2" * (1 << 24),
    ):
        (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text))
        with pytest.raises(DataError, match=r"compression bomb|is longer than"):
            list(iter_values(tmp_path / "rows.csv.gz", REAL))


def test_standard_input():
    code = "from scgan_infer.rows.formats import *; print(read_table('-').values.tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=WRITTEN["tabs"], capture_output=True, text=True
    )
    assert done.stdout == f"{ROWS}\n", done.stderr
    closed = ["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, code]
    done = subprocess.run(closed, capture_output=True, text=True, timeout=60)
    assert "standard input: is closed" in done.stderr


def test_spreadsheets_are_answered_with_what_to_do(tmp_path):
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="save the sheet as CSV"):
        read_table(tmp_path / "rows.xlsx")


def test_utf_16_is_refused_by_its_first_line(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n", "utf-16")
    with pytest.raises(DataError, match=r"line 1 is not UTF-8.*iconv -f utf-16 -t utf-8"):
        read_table(tmp_path / "rows.csv")


def test_spaces_between_cells_are_answered_with_a_command_that_mends_it(tmp_path):
    path = tmp_path / "my rows.csv"
    path.write_text("a b\n1.5 2\n-3 4.25\n5 6.5\n")
    with pytest.raises(DataError, match="spaces separate its cells") as refused:
        read_table(path)
    command = str(refused.value).partition("commas: ")[2]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    (new,) = tmp_path.glob("*-commas.csv")
    assert read_table(new).values.tolist() == ROWS


def test_a_header_of_other_length_than_all_rows_is_what_is_wrong(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("569,2\n" + "1.5,2,3\n" * 4)
    with pytest.raises(DataError, match="header=false"):
        read_table(path)
    path.write_text("569,2,a,b\n" + "1.5,2,3\n" * 4)
    with pytest.raises(
        DataError, match="has 3 cells, but the header names 4 columns; write 3 names"
    ):
        read_table(path)


def test_files_of_other_programs_are_answered_with_what_to_do(tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(DataError, match="to_csv"):
        read_table(tmp_path / "rows.json")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("2012-01-01,a,b\n2012-01-02,x,y\n", "2012-01-01"),
        ("name,0.5\nx,1.5\n", "0.5"),
        ("name;0,5\nx;1,5\n", "0,5"),
        ("name,1999,2000\nx,1,2\n", None),
        ("name,x.1\nx,1\n", None),
    ],
)
def test_names_that_look_like_cells_are_doubted(tmp_path, text, cell):
    path = tmp_path / "rows.csv"
    first, rest = text.split("\n", 1)
    path.write_text(f"{first}\n{rest * 40}")
    notes = [note for note in read_table(path).notes if "header=false" in note]
    assert len(notes) == (cell is not None)
    assert not cell or repr(cell) in notes[0]
